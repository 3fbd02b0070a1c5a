//! The certificate authorities that KMS accepts of an XKS proxy (P-7), by AWS's published list.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use x509_cert::Certificate;

use super::certificate::Chain;
use crate::client::trust::SYSTEM_BUNDLE;
use crate::tls;

/// What is shipped: subjects and fingerprints, and when they were taken.
const SHIPPED: &str = include_str!("authorities.txt");

/// A list of certificate authorities.
#[derive(Debug)]
pub struct Authorities {
    /// Where it is from.
    source: String,
    fingerprints: BTreeSet<Fingerprint>,
    subjects: BTreeSet<Folded>,
    /// Certificates of this machine that are on it.
    anchors: Vec<CertificateDer<'static>>,
}

/// SHA-256 of a certificate.
type Fingerprint = [u8; 32];

/// The parts of a name, however it is written: tools differ in order, quotes and escapes.
type Folded = Vec<String>;

/// What the list says of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An authority on the list has signed it.
    Listed,
    /// It names one that is on the list, whose certificate is not at hand: its signature is not verified.
    Named,
    /// It bears the name of one that is on the list, which has not signed it.
    Impostor,
    /// Nobody on the list.
    Unlisted,
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    /// It has no fingerprint.
    #[error("it has no line `SHA256: ...`, as AWS's list has")]
    Empty,
}

impl Authorities {
    /// AWS's list as it is shipped.
    pub fn shipped() -> Self {
        let taken = SHIPPED.lines().find_map(|line| line.strip_prefix("# Taken: "));
        let taken = taken.expect("it says when it was taken");
        Self::parse(format!("AWS's list, as of {taken}"), SHIPPED)
    }

    /// A list in the form in which AWS publishes it.
    ///
    /// # Errors
    /// [`ListError`]
    pub fn from_file(path: &Path) -> Result<Self, ListError> {
        let list =
            Self::parse(format!("the list `{}`", path.display()), &fs::read_to_string(path)?);
        if list.fingerprints.is_empty() { Err(ListError::Empty) } else { Ok(list) }
    }

    fn parse(source: String, text: &str) -> Self {
        let lines = || text.lines().map(str::trim);
        let fingerprints = lines().filter_map(|line| fingerprint(line.strip_prefix("SHA256:")?));
        let fingerprints: BTreeSet<_> = fingerprints.collect();
        let subjects = lines().filter_map(|line| Some(folded(line.strip_prefix("Owner:")?)));
        let bundle = tls::certificates(Path::new(SYSTEM_BUNDLE), "the CA certificates");
        let mut anchors = bundle.unwrap_or_default();
        anchors.retain(|certificate| fingerprints.contains(&of(certificate)));
        Self { source, fingerprints, subjects: subjects.collect(), anchors }
    }

    /// What the list says of a chain, whatever the time is.
    pub(super) fn judge(&self, chain: &Chain) -> Verdict {
        let Some((own, others)) = chain.ders.split_first() else { return Verdict::Unlisted };
        let mut roots = RootCertStore::empty();
        let listed =
            |certificate: &&CertificateDer<'_>| self.fingerprints.contains(&of(certificate));
        let shown = others.iter().filter(listed).cloned();
        roots.add_parsable_certificates(self.anchors.iter().cloned().chain(shown));
        let algorithms = default_provider().signature_verification_algorithms.all;
        let is_signed = ParsedCertificate::try_from(own).is_ok_and(|own| {
            let now = within(&chain.certificates);
            verify_server_cert_signed_by_trust_anchor(&own, &roots, others, now, algorithms).is_ok()
        });
        if is_signed {
            return Verdict::Listed;
        }
        let Some(last) = chain.certificates.last() else { return Verdict::Unlisted };
        let issuer = folded(&last.tbs_certificate.issuer.to_string());
        if !self.subjects.contains(&issuer) {
            return Verdict::Unlisted;
        }
        let is_issuer = |der: &CertificateDer<'_>| {
            super::certificate::parsed(der)
                .is_ok_and(|c| folded(&c.tbs_certificate.subject.to_string()) == issuer)
        };
        let is_self_signed = last.tbs_certificate.issuer == last.tbs_certificate.subject;
        match is_self_signed || self.anchors.iter().any(is_issuer) {
            true => Verdict::Impostor,
            false => Verdict::Named,
        }
    }
}

impl fmt::Display for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} authorities)", self.source, self.fingerprints.len())
    }
}

/// A moment at which all of these are valid, if there is one: what has expired is told elsewhere.
fn within(chain: &[Certificate]) -> UnixTime {
    let validity = || chain.iter().map(|c| c.tbs_certificate.validity);
    let end = validity().map(|v| v.not_after.to_system_time()).min();
    let start = validity().map(|v| v.not_before.to_system_time()).max();
    let now = SystemTime::now();
    let last = end.and_then(|end| end.checked_sub(Duration::from_secs(1)));
    let moment = now.min(last.unwrap_or(now)).max(start.unwrap_or(UNIX_EPOCH));
    UnixTime::since_unix_epoch(moment.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    fingerprint
}

/// `9A:6E:...`, perhaps with something behind it.
fn fingerprint(text: &str) -> Option<Fingerprint> {
    let mut fingerprint = [0; 32];
    let mut pairs = text.split_whitespace().next()?.split(':');
    for byte in &mut fingerprint {
        *byte = u8::from_str_radix(pairs.next()?, 16).ok()?;
    }
    Some(fingerprint)
}

fn folded(name: &str) -> Folded {
    /// The attributes that every tool calls alike; others are left out.
    const KNOWN: [&str; 6] = ["c", "cn", "l", "o", "ou", "st"];
    let plain = name.replace(['"', '\\'], "").to_lowercase();
    let is_known = |part: &&str| match part.split_once('=') {
        Some((attribute, _)) => KNOWN.contains(&attribute),
        // What follows a comma within a value.
        None => true,
    };
    let parts = plain.split([',', '+']).map(str::trim).filter(is_known);
    let mut parts: Vec<_> = parts.map(str::to_owned).collect();
    parts.sort();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every entry that is shipped is whole, and no subject is without its fingerprint.
    #[test]
    fn the_list_that_is_shipped_is_whole() {
        let owners = SHIPPED.lines().filter(|line| line.starts_with("Owner: ")).count();
        let lines = SHIPPED.lines().filter(|line| line.starts_with("SHA256: ")).count();
        let list = Authorities::shipped();
        assert_eq!((owners, list.fingerprints.len()), (lines, lines));
        assert!(lines > 100, "{lines}");
        assert!(list.to_string().starts_with("AWS's list, as of 20"), "{list}");
    }

    /// Where this machine has a certificate of the list, its subject is on the list as well: names can
    /// be looked for.
    #[test]
    fn names_are_written_as_certificates_bear_them() {
        let list = Authorities::shipped();
        let subject = |anchor| {
            super::super::certificate::parsed(anchor).unwrap().tbs_certificate.subject.to_string()
        };
        let subjects: Vec<String> = list.anchors.iter().map(subject).collect();
        let missing: Vec<_> =
            subjects.iter().filter(|name| !list.subjects.contains(&folded(name))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn names_are_compared_however_they_are_written() {
        let java = "CN=DigiCert TLS RSA4096 Root G5, O=\"DigiCert, Inc.\", C=US";
        let rfc = "CN=DigiCert TLS RSA4096 Root G5,O=DigiCert\\, Inc.,C=US";
        assert_eq!(folded(java), folded(rfc));
        assert_ne!(folded(java), folded("CN=DigiCert TLS RSA4096 Root G6,O=DigiCert\\, Inc.,C=US"));
    }

    /// AWS's own file has texts around the lines that count, and blanks before them.
    #[test]
    fn the_form_of_aws_is_read() {
        let pairs = ["9A"; 32].join(":");
        let text = format!(
            "Alias name: a\nOwner: C=ES, CN=A\nIssuer: C=ES, CN=B\n\t SHA1: 93:05\n\t SHA256: {pairs}   .7\n****\n"
        );
        let list = Authorities::parse("it".to_owned(), &text);
        assert_eq!(list.fingerprints, BTreeSet::from([[0x9a; 32]]));
        assert_eq!(list.subjects, BTreeSet::from([folded("CN=A,C=ES")]));
        assert_eq!(fingerprint("9A:9A"), None);
    }
}
