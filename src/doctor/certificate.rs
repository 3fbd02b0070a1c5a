//! The server's certificate, as KMS will judge it, and the client CA.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::{Finding, Findings};
use crate::tls::{self, ClientAuth, Settings};

/// From when on an expiry is warned of.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) fn examine(settings: &Settings, report: &mut dyn FnMut(Finding)) {
    let subject = "server.tls.certificate".to_owned();
    let mut findings = Findings { subject, report };
    // A chain and key that TLS can't use are faults of the configuration already.
    findings.ok("certificate.loads", "certificate and private key load and fit each other");
    let now = SystemTime::now();
    let chain = read(&settings.certificate, &mut findings);
    validity(&chain, now, &mut findings);
    if let Some(server) = chain.first() {
        names(server, &mut findings);
        order(&chain, &mut findings);
    }
    if let ClientAuth::Required { ca, .. } = &settings.client_auth {
        findings.subject = "server.tls.client_ca".to_owned();
        let anchors = read(ca, &mut findings);
        validity(&anchors, now, &mut findings);
    }
}

fn read(path: &Path, findings: &mut Findings<'_>) -> Vec<Certificate> {
    let parse = |der: &CertificateDer<'_>| Certificate::from_der(der).map_err(|e| e.to_string());
    let chain = tls::certificates(path, "the certificates").map_err(|error| error.to_string());
    let chain = chain.and_then(|chain| chain.iter().map(parse).collect::<Result<Vec<_>, _>>());
    chain.unwrap_or_else(|error| {
        findings.fail("certificate.loads", error, "it must hold certificates in PEM");
        Vec::new()
    })
}

/// Each certificate's time, by the clock of this machine.
fn validity(chain: &[Certificate], now: SystemTime, findings: &mut Findings<'_>) {
    const CHECK: &str = "certificate.expiry";
    const RENEW: &str = "renew it, put it in place and restart xksd";
    let before = findings.subject.clone();
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
    findings.subject = before;
}

/// P-7: a client matches the host against these names, and never against the subject.
fn names(server: &Certificate, findings: &mut Findings<'_>) {
    const CHECK: &str = "certificate.names";
    let names = match server.tbs_certificate.get::<SubjectAltName>() {
        Ok(names) => names.map(|(_critical, names)| names.0).unwrap_or_default(),
        Err(error) => {
            let advice = "have it issued anew";
            findings.fail(CHECK, format!("its alternative names are malformed: {error}"), advice);
            return;
        }
    };
    let names: Vec<String> = names.iter().filter_map(name).collect();
    if names.is_empty() {
        let advice = "have it issued with the proxy's host name as a DNS name; clients do not \
            look at the subject's CN";
        findings.fail(CHECK, "it has no subject alternative name", advice);
    } else {
        findings.ok(CHECK, format!("it is for {}", names.join(", ")));
    }
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

/// Each certificate must be followed by its issuer's; the last one's issuer KMS must know.
fn order(chain: &[Certificate], findings: &mut Findings<'_>) {
    const CHECK: &str = "certificate.chain";
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
        let message = format!("the file holds no certificate of the issuer, `{}`", only.issuer);
        let advice = "public CAs issue through intermediates, whose certificates must follow the \
            server's in the file; a private CA's root need not";
        findings.warn(CHECK, message, advice);
    }
}

fn day(time: SystemTime) -> String {
    OffsetDateTime::from(time).date().to_string()
}
