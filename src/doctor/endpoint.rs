//! What KMS is told of the proxy: an endpoint that it takes, with a name that leads somewhere.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{Check, Findings};
use crate::client::Endpoint;
use crate::keystore::{self, KeyRule};
use crate::names::ExternalKeyId;
use crate::wire::route::KeyOperation;

/// The port that KMS connects to (P-7).
const PORT: u16 = 443;

/// Longest XksProxyUriEndpoint, in characters.
const LONGEST: usize = 128;

/// Longest URI of a request (P-4), in characters.
const LONGEST_URI: usize = 256;

/// How long the name's resolution may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How KMS will write it: scheme and host.
fn written(endpoint: &Endpoint) -> String {
    format!("https://{}", endpoint.host())
}

/// Whether KMS takes it as an XksProxyUriEndpoint.
pub(super) fn form(endpoint: &Endpoint, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::EndpointForm;
    let host = endpoint.host();
    let is_name = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    let length = written(endpoint).len();
    let (message, advice) = if endpoint.port() != PORT {
        let message =
            format!("KMS connects to port {PORT} only, and it has port {}", endpoint.port());
        (message, "listen on port 443, or have a load balancer pass 443 on to the port of xksd")
    } else if host.parse::<IpAddr>().is_ok() || !is_name || !host.contains('.') {
        let message = format!("`{host}` is no fully qualified name");
        (message, "give it a DNS name with a domain, as the certificate has it: KMS takes no other")
    } else if length > LONGEST {
        let message = format!("it has {length} characters, and KMS takes {LONGEST}");
        (message, "use a shorter host name")
    } else {
        let written = written(endpoint);
        return findings.ok(CHECK, format!("XksProxyUriEndpoint is {written}"));
    };
    findings.fail(CHECK, message, advice);
}

/// The paths and URIs of a key store (P-4). Prefixes and key ids by themselves are judged where the
/// configuration is read.
pub(super) fn uris(
    endpoint: &Endpoint,
    keystore: &keystore::Settings,
    findings: &mut Findings<'_>,
) {
    const CHECK: Check = Check::EndpointUri;
    let path = keystore.prefix.uri_path();
    let at_key = |id: &ExternalKeyId| {
        let operation = KeyOperation::Metadata.segment();
        format!("{}{path}/keys/{id}/{operation}", written(endpoint)).len()
    };
    let exact = keystore.keys.iter().filter_map(|rule| match rule {
        KeyRule::Exact(id) => Some((at_key(id), id)),
        KeyRule::Prefix(_) => None,
    });
    match exact.max() {
        Some((length, id)) if length > LONGEST_URI => {
            let message = format!(
                "requests for key `{id}` have a URI of {length} characters, and KMS takes {LONGEST_URI}"
            );
            let advice = "use a shorter host name, prefix or external key id";
            findings.fail(CHECK, message, advice);
        }
        _ => findings.ok(CHECK, format!("XksProxyUriPath is {path}")),
    }
}

/// What the name resolves to, as far as that can be connected to.
pub(super) fn addresses(endpoint: &Endpoint, findings: &mut Findings<'_>) -> Vec<SocketAddr> {
    const CHECK: Check = Check::EndpointDns;
    let host = endpoint.host();
    let found = match resolved(host, endpoint.port()) {
        Ok(found) => found,
        Err(error) => {
            let advice = "KMS resolves it in the public DNS, or for a VPC endpoint service by the \
                private DNS name that was verified for it: look at the zone, and at the resolver here";
            let message = format!("`{host}` does not resolve: {error}");
            findings.fail(CHECK, message, advice);
            return Vec::new();
        }
    };
    let kinds: Vec<Kind> = found.iter().map(|address| Kind::of(address.ip())).collect();
    let list: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
    let list = list.join(", ");
    if kinds.contains(&Kind::Local) {
        let message = format!("`{host}` is an address of this machine alone: {list}");
        let advice = "look at /etc/hosts: KMS will be told something else, if anything, and what is \
            found below is not what KMS finds; --connect ADDRESS:PORT says where to look instead";
        findings.fail(CHECK, message, advice);
    } else if kinds.contains(&Kind::Public) && kinds.contains(&Kind::Private) {
        let message = format!("`{host}` has both public and private addresses: {list}");
        let advice = "KMS takes any of them: a public endpoint has public ones only";
        findings.warn(CHECK, message, advice);
    } else if kinds.contains(&Kind::Private) {
        let message = format!(
            "`{host}` is {list}: private, which KMS reaches through a VPC endpoint service only, \
             XksProxyConnectivity VPC_ENDPOINT_SERVICE"
        );
        findings.ok(CHECK, message);
    } else {
        findings.ok(CHECK, format!("`{host}` is {list}: public, PUBLIC_ENDPOINT"));
    }
    found
}

/// On a thread of its own: a resolver that does not answer is a finding too.
fn resolved(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let (sender, answer) = mpsc::channel();
    let wanted = (host.to_owned(), port);
    thread::spawn(move || {
        let (host, port) = &wanted;
        let found = (host.as_str(), *port).to_socket_addrs().map(Vec::from_iter);
        // Nobody waits any more if it took too long.
        let _ = sender.send(found.map_err(|error| error.to_string()));
    });
    let late = |_| format!("no answer within {PATIENCE:?}");
    let mut found = answer.recv_timeout(PATIENCE).map_err(late)??;
    found.dedup();
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

/// From where an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// From this machine, or this link, alone.
    Local,
    /// Within a private network.
    Private,
    /// From anywhere.
    Public,
}

impl Kind {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) if v4.is_loopback() || v4.is_unspecified() || v4.is_link_local() => {
                Self::Local
            }
            // 100.64.0.0/10 is shared address space (RFC 6598), used inside networks of providers.
            IpAddr::V4(v4)
                if v4.is_private() || v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 =>
            {
                Self::Private
            }
            IpAddr::V4(_) => Self::Public,
            IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => Self::Local,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Self::Local,
            IpAddr::V6(v6) if v6.is_unique_local() => Self::Private,
            IpAddr::V6(_) => Self::Public,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Status};
    use super::*;

    fn found(of: impl FnOnce(&mut Findings<'_>)) -> Vec<(Status, String)> {
        let mut all = Vec::new();
        let mut report = |finding: Finding| all.push((finding.status, finding.message));
        of(&mut Findings { subject: String::new(), report: &mut report });
        all
    }

    #[test]
    fn kms_takes_names_with_a_domain_at_port_443_p_7() {
        let long = format!("https://{}.example.com", ["a"; 60].join("."));
        for (text, status, words) in [
            ("https://xks.example.com", Status::Ok, "https://xks.example.com"),
            ("https://xks.example.com:443", Status::Ok, "https://xks.example.com"),
            ("https://xks.example.com:8443", Status::Fail, "port 8443"),
            ("https://xks", Status::Fail, "no fully qualified name"),
            ("https://192.0.2.1", Status::Fail, "no fully qualified name"),
            ("https://[2001:db8::1]", Status::Fail, "no fully qualified name"),
            ("https://xks_1.example.com", Status::Fail, "no fully qualified name"),
            (&long, Status::Fail, "139 characters"),
        ] {
            let found = found(|findings| form(&text.parse().unwrap(), findings));
            assert!(
                matches!(&found[..], [(is, message)] if *is == status && message.contains(words)),
                "{found:?}"
            );
        }
    }

    #[test]
    fn addresses_are_public_private_or_local() {
        for (address, kind) in [
            ("127.0.0.1", Kind::Local),
            ("169.254.1.1", Kind::Local),
            ("::1", Kind::Local),
            ("fe80::1", Kind::Local),
            ("::ffff:127.0.0.1", Kind::Local),
            ("10.0.0.1", Kind::Private),
            ("172.31.255.255", Kind::Private),
            ("100.64.0.1", Kind::Private),
            ("fd00::1", Kind::Private),
            ("100.128.0.1", Kind::Public),
            ("192.0.2.1", Kind::Public),
            ("2001:db8::1", Kind::Public),
        ] {
            assert_eq!(Kind::of(address.parse().unwrap()), kind, "{address}");
        }
    }
}
