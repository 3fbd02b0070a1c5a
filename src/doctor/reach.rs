//! The proxy as KMS meets it: from the endpoint, through whatever stands before it, and for comparison
//! straight to where the daemon listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use rustls::CipherSuite;

use super::certificate::{self, Chain};
use super::way::{self, Outcome, Seen, Transport};
use super::{Check, Finding, Findings, Options, Status, clock, endpoint, verdict};
use crate::client::{Endpoint, Signer, Trust, Witness};
use crate::config::{self, Config};
use crate::keystore;
use crate::secret::Secret;
use crate::sigv4::SecretAccessKey;
use crate::tls::ClientAuth;

/// The suites of which KMS wants one at least (P-2).
const SUITES: [CipherSuite; 4] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

/// What is looked at, and from where.
pub(super) struct Journey<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    /// The configured chain.
    pub(super) own: Option<&'a Chain>,
    pub(super) is_running: bool,
}

impl Journey<'_> {
    pub(super) fn examine(&self, report: &mut dyn FnMut(Finding)) {
        let mut findings = Findings { subject: "fleet.endpoint".to_owned(), report };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime without threads can always be made");
        let endpoint = self.options.endpoint.as_ref().or(self.config.endpoint.as_ref());
        let direct = runtime.block_on(self.directly(endpoint, &mut findings));
        findings.subject = "fleet.endpoint".to_owned();
        let Some(endpoint) = endpoint else {
            let message = "no endpoint is configured: what KMS meets was not looked at";
            return match self.config.server.transport {
                config::Transport::PlainOnLoopback => findings.ok(Check::EndpointForm, message),
                config::Transport::Tls(_) => {
                    let advice = "fleet.endpoint, or --endpoint https://HOST, is what KMS is given as \
                        XksProxyUriEndpoint";
                    findings.warn(Check::EndpointForm, message, advice);
                }
            };
        };
        endpoint::form(endpoint, &mut findings);
        for keystore in &self.config.keystores {
            findings.subject = format!("keystores.{}", keystore.name);
            endpoint::uris(endpoint, keystore, &mut findings);
        }
        findings.subject = "fleet.endpoint".to_owned();
        let addresses = match self.options.connect {
            None => endpoint::addresses(endpoint, &mut findings),
            Some(address) => {
                let message = format!("not resolved: {address} is connected to, as --connect says");
                findings.ok(Check::EndpointDns, message);
                vec![address]
            }
        };
        let mut before = None;
        for address in addresses {
            let through = self.through(endpoint, address, before.as_ref(), &direct, &mut findings);
            before = Some(runtime.block_on(through));
        }
    }

    fn client_auth(&self) -> &ClientAuth {
        match &self.config.server.transport {
            config::Transport::Tls(settings) => &settings.client_auth,
            config::Transport::PlainOnLoopback => &ClientAuth::Off,
        }
    }

    /// Where the daemon of this machine can be asked for comparison: one that asks for KMS's certificate,
    /// or for the PROXY protocol, can't.
    fn own_address(&self) -> Option<(SocketAddr, Transport)> {
        let server = &self.config.server;
        let is_open = self.is_running
            && server.limits.proxy_protocol_from.is_empty()
            && matches!(self.client_auth(), ClientAuth::Off);
        let mut address = *server.listen.iter().find(|address| is_open && address.port() != 0)?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            });
        }
        let transport = match server.transport {
            config::Transport::Tls(_) => Transport::Tls,
            config::Transport::PlainOnLoopback => Transport::Plain,
        };
        Some((address, transport))
    }

    /// Asks the daemon of this machine, with the host of the endpoint; by key store, what came of it.
    async fn directly(
        &self,
        endpoint: Option<&Endpoint>,
        findings: &mut Findings<'_>,
    ) -> Vec<Option<Seen>> {
        let Some((address, transport)) = self.own_address() else { return Vec::new() };
        let scheme = if transport == Transport::Tls { "https" } else { "http" };
        let own: Endpoint = match format!("{scheme}://{address}").parse() {
            Ok(own) => own,
            // Plain HTTP is for loopback alone.
            Err(_) => return Vec::new(),
        };
        let endpoint = endpoint.unwrap_or(&own);
        let mut all = Vec::new();
        for keystore in &self.config.keystores {
            let seen = match keystore.enabled {
                true => Some(way::go(&signer(endpoint, keystore), address, transport).await),
                false => None,
            };
            if let Some(seen) = &seen {
                if all.iter().all(Option::is_none) {
                    findings.subject = "server.tls.certificate".to_owned();
                    self.served(seen, findings);
                }
                findings.subject = format!("keystores.{}", keystore.name);
                verdict::of_daemon(seen, findings);
            }
            all.push(seen);
        }
        all
    }

    /// Whether the daemon shows the certificate that the configuration names.
    fn served(&self, seen: &Seen, findings: &mut Findings<'_>) {
        let (Some(own), Some(shown)) = (self.own.and_then(Chain::own), seen.chain.first()) else {
            return;
        };
        if own == shown {
            return findings.ok(Check::DaemonCertificate, "the running daemon shows this one");
        }
        let message = "the running daemon shows another certificate than the configured one";
        let advice = "it has not read it yet: `xksd reload`, SIGHUP or a restart; reload.on_change has \
            it looked for";
        findings.warn(Check::DaemonCertificate, message, advice);
    }

    /// Asks from the endpoint, at one of its addresses; gives the chain that it showed.
    async fn through(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
        before: Option<&Option<Chain>>,
        direct: &[Option<Seen>],
        findings: &mut Findings<'_>,
    ) -> Option<Chain> {
        let mut chain = None;
        let mut is_first = true;
        for (index, keystore) in self.config.keystores.iter().enumerate() {
            if !keystore.enabled {
                continue;
            }
            let seen = way::go(&signer(endpoint, keystore), address, Transport::Tls).await;
            if is_first {
                findings.subject = "fleet.endpoint".to_owned();
                if !self.reached(address, &seen, findings) {
                    return None;
                }
                chain = Chain::new(seen.chain.clone()).ok();
                if let Some(chain) = &chain {
                    self.shown(endpoint, chain, before, findings);
                }
                if before.is_none() {
                    self.suites(endpoint, address, findings).await;
                    if let Some(headers) = headers(&seen) {
                        clock::compare(headers, SystemTime::now(), findings);
                    }
                    verdict::of_time(&seen, findings);
                }
            }
            is_first = false;
            if let ClientAuth::Required { .. } = self.client_auth() {
                verdict::of_clients(&seen, self.is_own(chain.as_ref()), findings);
                break;
            }
            findings.subject = format!("keystores.{}", keystore.name);
            let direct = direct.get(index).and_then(Option::as_ref);
            verdict::of_endpoint(address, &seen, direct, findings);
        }
        chain
    }

    /// Whether there is anything to speak to.
    fn reached(&self, address: SocketAddr, seen: &Seen, findings: &mut Findings<'_>) -> bool {
        let Outcome::Unconnected(error) = &seen.outcome else {
            findings.ok(Check::EndpointReach, format!("{address} can be connected to"));
            return true;
        };
        if !seen.chain.is_empty() {
            // It got as far as a certificate; that there is no connection is said with what comes of it.
            return true;
        }
        verdict::of_connection(address, error, self.is_running, findings);
        false
    }

    fn is_own(&self, chain: Option<&Chain>) -> bool {
        chain.and_then(Chain::own) == self.own.and_then(Chain::own)
    }

    /// The certificate that KMS sees, unless another address has shown it before.
    fn shown(
        &self,
        endpoint: &Endpoint,
        chain: &Chain,
        before: Option<&Option<Chain>>,
        findings: &mut Findings<'_>,
    ) {
        let earlier = before.and_then(Option::as_ref).and_then(Chain::own);
        if chain.own().is_none() || earlier == chain.own() {
            return;
        }
        if self.is_own(Some(chain)) {
            findings
                .ok(Check::EndpointCertificate, "the endpoint shows the configured certificate");
        } else {
            let message = "the endpoint shows another certificate than the configured one: TLS ends \
                before xksd, at a load balancer";
            let advice = "if that is meant, the configured one matters between the two only, and KMS's \
                client certificate cannot be asked for; else have the load balancer pass TCP through. \
                Where xksd itself should be there, another host answers";
            findings.warn(Check::EndpointCertificate, message, advice);
        }
        let host = Some(endpoint.host());
        certificate::judge(chain, host, &self.options.authorities, Status::Fail, findings);
    }

    /// Offers each suite alone.
    async fn suites(&self, endpoint: &Endpoint, at: SocketAddr, findings: &mut Findings<'_>) {
        const CHECK: Check = Check::EndpointSuites;
        let mut accepted = Vec::new();
        for suite in SUITES {
            let trust = Trust::whoever(Arc::<Witness>::default()).only(suite);
            if let Ok(connector) = way::connector(endpoint, at, Transport::Tls, trust)
                && connector.connect().await.is_ok()
            {
                accepted.push(suite.as_str().unwrap_or_default());
            }
        }
        match accepted[..] {
            [] => {
                let names = SUITES.map(|suite| suite.as_str().unwrap_or_default()).join(", ");
                let message = "it accepts none of the suites that KMS offers";
                let advice = format!("allow one of them where TLS ends: {names}");
                findings.fail(CHECK, message, advice);
            }
            _ => findings.ok(CHECK, format!("of KMS's suites it accepts {}", accepted.join(", "))),
        }
    }
}

fn headers(seen: &Seen) -> Option<&HeaderMap> {
    match &seen.outcome {
        Outcome::Unconnected(_) => None,
        Outcome::Refused(_, headers) | Outcome::Answered(_, _, headers) => Some(headers),
    }
}

/// Signs for a key store as KMS would with its first credential.
fn signer(endpoint: &Endpoint, keystore: &keystore::Settings) -> Signer {
    let base = endpoint.base();
    let url = format!("{base}{}", keystore.prefix.uri_path());
    let url = url.parse().expect("made of an endpoint without a path, and of a prefix");
    let credentials = &keystore.credentials;
    let id = credentials.access_key_ids().next().expect("there is a credential at least").clone();
    let secret = credentials.secret(&id).expect("it is one of them").expose().to_owned();
    let secret = SecretAccessKey::new(Secret::new(secret)).expect("it was sound before");
    Signer::new(url, (id, secret), keystore.regions[0].clone())
}
