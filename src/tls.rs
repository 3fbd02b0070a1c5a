//! TLS of the XKS listener: versions, suites, key exchange, and who may connect.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_cert::der::Decode;
use x509_cert::name::Name;

/// What TLS needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Certificate chain in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub private_key: PathBuf,
    /// Whether clients must show a certificate (P-16).
    pub client_auth: ClientAuth,
}

/// Whether clients must show a certificate (P-16).
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// They need not.
    Off,
    /// Theirs must chain to this CA and bear this subject; both, or the handshake ends.
    Required {
        /// CA certificates in PEM.
        ca: PathBuf,
        /// The whole subject.
        subject: Subject,
    },
}

/// A certificate's subject as RFC 4514 writes it: `CN=cks.kms.us-east-1.amazonaws.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(String);

/// A text that is no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a distinguished name as RFC 4514 writes it; KMS presents CN=cks.kms.<Region>.amazonaws.com"
)]
pub struct SubjectError;

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let name: Name = text.parse().map_err(|_| SubjectError)?;
        // Through the same writer as the certificate's, so that spelling can't make a difference.
        if name.is_empty() { Err(SubjectError) } else { Ok(Self(name.to_string())) }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or is no PEM of the expected kind.
    #[error("cannot read {what} `{}`: {cause}", path.display())]
    Pem {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: rustls::pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("`{}` holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate that can't be understood.
    #[error("`{}` holds a malformed certificate: {cause}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: x509_cert::der::Error,
    },
    /// The private key does not fit the certificate, or is of a kind that TLS does not know.
    #[error("certificate and private key do not fit: {0}")]
    Key(rustls::Error),
    /// The client CA can't be used.
    #[error("the client CA cannot be used: {0}")]
    ClientCa(rustls::server::VerifierBuilderError),
    /// A CA certificate that can't be a trust anchor.
    #[error("`{}` holds a certificate that cannot be a trust anchor: {cause}", path.display())]
    Anchor {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: rustls::Error,
    },
    /// The provider lacks what was asked of it.
    #[error("TLS versions and suites do not fit: {0}")]
    Versions(rustls::Error),
}

/// TLS that is ready to serve.
#[derive(Debug, Clone)]
pub struct Tls {
    /// For each handshake.
    pub config: Arc<ServerConfig>,
    /// Who is let in; `None`: everybody.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When the server's certificate expires.
    pub not_after: SystemTime,
}

impl Tls {
    /// Whether a client that has shown these certificates, its own first, would be let in now.
    pub fn admits(&self, shown: &[CertificateDer<'_>]) -> bool {
        let Some(clients) = &self.clients else { return true };
        shown.split_first().is_some_and(|(own, others)| {
            clients.verify_client_cert(own, others, UnixTime::now()).is_ok()
        })
    }
}

/// Builds the configuration of all handshakes.
///
/// Sessions are resumed by what was built together with them, and by nothing else: who was let in
/// by another configuration has to show again who it is.
///
/// # Errors
/// [`TlsError`], naming the file that is at fault.
pub fn load(settings: &Settings) -> Result<Tls, TlsError> {
    let chain = certificates(&settings.certificate, "the certificate chain")?;
    let not_after = not_after(&chain[0], &settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.private_key).map_err(|cause| {
        let path = settings.private_key.clone();
        TlsError::Pem { what: "the private key", path, cause }
    })?;
    let provider = Arc::new(provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Versions)?;
    let clients = match &settings.client_auth {
        ClientAuth::Off => None,
        ClientAuth::Required { ca, subject } => {
            Some(client_verifier(ca, subject.clone(), provider)?)
        }
    };
    let builder = match &clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets let KMS's hosts come back without a full handshake, and need no memory here.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Key)?;
    Ok(Tls { config: Arc::new(config), clients, not_after })
}

/// P-2: the four suites that the protocol names and no other; hybrid post-quantum key exchange
/// first, then the classic ones.
fn provider() -> CryptoProvider {
    use aws_lc_rs::{cipher_suite as suite, kx_group};
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// All certificates of a PEM file; at least one.
pub fn certificates(
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |cause| TlsError::Pem { what, path: path.to_owned(), cause };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(chain)
}

/// When a certificate expires.
fn not_after(certificate: &CertificateDer<'_>, path: &Path) -> Result<SystemTime, TlsError> {
    let parsed = x509_cert::Certificate::from_der(certificate)
        .map_err(|cause| TlsError::Certificate { path: path.to_owned(), cause })?;
    Ok(parsed.tbs_certificate.validity.not_after.to_system_time())
}

fn client_verifier(
    ca: &Path,
    subject: Subject,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "the client CA")? {
        roots.add(certificate).map_err(|cause| TlsError::Anchor { path: ca.to_owned(), cause })?;
    }
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(TlsError::ClientCa)?;
    Ok(Arc::new(SubjectVerifier { chain, subject }))
}

/// The subject of the certificate that a client showed, as RFC 4514 writes it; `None` if it was not
/// asked for one.
pub fn client_subject(session: &rustls::ServerConnection) -> Option<String> {
    subject(session.peer_certificates()?.first()?)
}

fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.subject.to_string())
}

/// Accepts a client whose chain is good and whose subject is the configured one (P-16).
///
/// The subject is compared as a whole, not the DNS names: KMS is known by its subject.
#[derive(Debug)]
struct SubjectVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    subject: Subject,
}

impl ClientCertVerifier for SubjectVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)
            .inspect_err(|error| tracing::warn!(%error, "client certificate refused"))?;
        let presented = subject(end_entity).ok_or(rustls::CertificateError::BadEncoding)?;
        if presented == self.subject.0 {
            return Ok(verified);
        }
        let wanted = self.subject.to_string();
        tracing::warn!(%wanted, ?presented, "client certificate has another subject");
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_compared_in_one_spelling() {
        let subject: Subject = "CN=cks.kms.us-east-1.amazonaws.com".parse().unwrap();
        assert_eq!(subject.to_string(), "CN=cks.kms.us-east-1.amazonaws.com");
        assert_eq!("".parse::<Subject>(), Err(SubjectError));
        assert_eq!("cks.kms.us-east-1.amazonaws.com".parse::<Subject>(), Err(SubjectError));
    }

    #[test]
    fn the_suites_are_those_of_p_2_and_no_other() {
        use rustls::CipherSuite::*;
        let suites: Vec<_> = provider().cipher_suites.iter().map(|s| s.suite()).collect();
        assert_eq!(
            suites,
            [
                TLS13_AES_256_GCM_SHA384,
                TLS13_CHACHA20_POLY1305_SHA256,
                TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            ]
        );
    }
}
