//! The server's certificate, as KMS will judge it, and the client CA.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::authorities::{Authorities, Verdict};
use super::{Check, Finding, Findings, Status};
use crate::tls::{self, ClientAuth, Settings};

/// From when on an expiry is warned of.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Certificates, the server's own first.
pub(super) struct Chain {
    pub(super) ders: Vec<CertificateDer<'static>>,
    pub(super) certificates: Vec<Certificate>,
}

impl Chain {
    pub(super) fn new(ders: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let certificates = ders.iter().map(parsed).collect::<Result<_, _>>()?;
        Ok(Self { ders, certificates })
    }

    /// The server's own.
    pub(super) fn own(&self) -> Option<&CertificateDer<'static>> {
        self.ders.first()
    }
}

pub(super) fn parsed(der: &CertificateDer<'_>) -> Result<Certificate, String> {
    Certificate::from_der(der).map_err(|error| error.to_string())
}

/// Looks at the files; gives the server's chain. KMS may be shown another one, by a load balancer, so
/// that what it would refuse is only warned of.
pub(super) fn examine(
    settings: &Settings,
    host: Option<&str>,
    authorities: &Authorities,
    report: &mut dyn FnMut(Finding),
) -> Option<Chain> {
    let subject = "server.tls.certificate".to_owned();
    let mut findings = Findings { subject, report };
    // A chain and key that TLS can't use are faults of the configuration already.
    findings.ok(Check::CertificateLoads, "certificate and private key load and fit each other");
    let chain = read(&settings.certificate, &mut findings);
    if let Some(chain) = &chain {
        judge(chain, host, authorities, Status::Warn, &mut findings);
    }
    if let ClientAuth::Required { ca, .. } = &settings.client_auth {
        findings.subject = "server.tls.client_ca".to_owned();
        if let Some(anchors) = read(ca, &mut findings) {
            validity(&anchors.certificates, SystemTime::now(), &mut findings);
        }
    }
    chain
}

/// Everything that KMS asks of a chain. `foreign` is how bad a host name or CA is that it would refuse.
pub(super) fn judge(
    chain: &Chain,
    host: Option<&str>,
    authorities: &Authorities,
    foreign: Status,
    findings: &mut Findings<'_>,
) {
    validity(&chain.certificates, SystemTime::now(), findings);
    if let (Some(own), Some(der)) = (chain.certificates.first(), chain.own()) {
        if names(own, findings)
            && let Some(host) = host
        {
            fits(der, host, foreign, findings);
        }
        order(&chain.certificates, findings);
        authority(chain, authorities, foreign, findings);
    }
}

fn read(path: &Path, findings: &mut Findings<'_>) -> Option<Chain> {
    let chain = tls::certificates(path, "the certificates").map_err(|error| error.to_string());
    match chain.and_then(Chain::new) {
        Ok(chain) => Some(chain),
        Err(error) => {
            let advice = "it must hold certificates in PEM";
            findings.fail(Check::CertificateLoads, error, advice);
            None
        }
    }
}

/// Each certificate's time, by the clock of this machine.
fn validity(chain: &[Certificate], now: SystemTime, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::CertificateExpiry;
    const RENEW: &str = "renew it, put it in place, and `xksd reload` or restart; a certificate of a \
        load balancer is renewed there";
    let mut good = true;
    for certificate in chain {
        let tbs = &certificate.tbs_certificate;
        let (name, validity) = (tbs.subject.to_string(), tbs.validity);
        let end = validity.not_after.to_system_time();
        if validity.not_before.to_system_time() > now {
            let start = day(validity.not_before.to_system_time());
            let advice = "look at the clock of this machine; else wait, or use the one before";
            findings.fail(CHECK, format!("`{name}` is not valid before {start}"), advice);
            good = false;
        } else if end <= now {
            findings.fail(CHECK, format!("`{name}` expired on {}", day(end)), RENEW);
            good = false;
        } else if end <= now + SOON {
            let left = end.duration_since(now).unwrap_or_default().as_secs() / (24 * 3600);
            let message = format!("`{name}` expires on {}, in {left} days", day(end));
            findings.warn(CHECK, message, RENEW);
            good = false;
        }
    }
    let ends = chain.iter().map(|c| c.tbs_certificate.validity.not_after.to_system_time());
    if let (true, Some(first)) = (good, ends.min()) {
        findings.ok(CHECK, format!("valid until {}", day(first)));
    }
}

/// P-7: a client matches the host against these names, and never against the subject.
fn names(server: &Certificate, findings: &mut Findings<'_>) -> bool {
    const CHECK: Check = Check::CertificateNames;
    let names = match server.tbs_certificate.get::<SubjectAltName>() {
        Ok(names) => names.map(|(_critical, names)| names.0).unwrap_or_default(),
        Err(error) => {
            let advice = "have it issued anew";
            findings.fail(CHECK, format!("its alternative names are malformed: {error}"), advice);
            return false;
        }
    };
    let names: Vec<String> = names.iter().filter_map(name).collect();
    if names.is_empty() {
        let advice = "have it issued with the proxy's host name as a DNS name; clients do not \
            look at the subject's CN";
        findings.fail(CHECK, "it has no subject alternative name", advice);
        return false;
    }
    findings.ok(CHECK, format!("it is for {}", names.join(", ")));
    true
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes() {
            &[a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            bytes => {
                let bytes: [u8; 16] = bytes.try_into().ok()?;
                Some(std::net::Ipv6Addr::from(bytes).to_string())
            }
        },
        _ => None,
    }
}

/// P-7: whether it is for the host of the endpoint.
fn fits(own: &CertificateDer<'_>, host: &str, foreign: Status, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::CertificateHost;
    let name = ServerName::try_from(host);
    let is_for = match (ParsedCertificate::try_from(own), &name) {
        (Ok(own), Ok(name)) => verify_server_name(&own, name).is_ok(),
        _ => false,
    };
    if is_for {
        return findings.ok(CHECK, format!("it is for `{host}`, the host of the endpoint"));
    }
    let advice = "KMS compares the host of XksProxyUriEndpoint with these names: have it issued for \
        that host, or correct fleet.endpoint";
    findings.add(CHECK, foreign, format!("it is not for `{host}`"), Some(advice.into()));
}

/// Each certificate must be followed by its issuer's; the last one's issuer KMS must know.
fn order(chain: &[Certificate], findings: &mut Findings<'_>) {
    const CHECK: Check = Check::CertificateChain;
    for (below, above) in chain.iter().zip(chain.iter().skip(1)) {
        let (below, above) = (&below.tbs_certificate, &above.tbs_certificate);
        if below.issuer != above.subject {
            let message = format!(
                "`{}` was issued by `{}`, and what follows it is `{}`",
                below.subject, below.issuer, above.subject
            );
            let advice = "put the server's certificate first, then that of its issuer, and so on";
            findings.fail(CHECK, message, advice);
            return;
        }
    }
    let [only] = chain else {
        return findings.ok(CHECK, format!("{} certificates, each after its own", chain.len()));
    };
    let only = &only.tbs_certificate;
    if only.issuer == only.subject {
        let advice = "KMS accepts only certificates of CAs that it knows; for trials by yourself \
            it is good enough";
        findings.warn(CHECK, "the certificate is self-signed", advice);
    } else {
        let message = format!("there is no certificate of the issuer, `{}`", only.issuer);
        let advice = "public CAs issue through intermediates, whose certificates must follow the \
            server's in the file; a private CA's root need not";
        findings.warn(CHECK, message, advice);
    }
}

/// P-7: whether a CA stands behind it that KMS accepts.
fn authority(
    chain: &Chain,
    authorities: &Authorities,
    foreign: Status,
    findings: &mut Findings<'_>,
) {
    const CHECK: Check = Check::CertificateAuthority;
    const ADVICE: &str = "KMS refuses the certificates of all other CAs, a company's own as well: have \
        it issued by one that is on the list, for instance by ACM, Let's Encrypt or DigiCert. The list \
        changes: --trusted-cas takes a newer one, TrustedCertificateAuthorities of \
        github.com/aws/aws-kms-xksproxy-api-spec";
    let Some(last) = chain.certificates.last() else { return };
    let issuer = &last.tbs_certificate.issuer;
    let message = match authorities.judge(chain) {
        Verdict::Listed => {
            return findings.ok(CHECK, format!("a CA on {authorities} stands behind it"));
        }
        Verdict::Named => {
            let message = format!(
                "it names `{issuer}`, which is on {authorities}; {} lacks that CA's certificate, so \
                 that its signature was not verified",
                crate::client::trust::SYSTEM_BUNDLE
            );
            return findings.ok(CHECK, message);
        }
        Verdict::Impostor => format!(
            "it names `{issuer}`, and the CA of that name on {authorities} has not signed it"
        ),
        Verdict::Unlisted => format!("`{issuer}` is not on {authorities}"),
    };
    findings.add(CHECK, foreign, message, Some(ADVICE.into()));
}

fn day(time: SystemTime) -> String {
    OffsetDateTime::from(time).date().to_string()
}
