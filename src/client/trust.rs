//! Whom the client believes, and what it shows of itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ClientConfig, ProtocolVersion, RootCertStore};

use super::witness::{Onlooker, Witness};

/// Certificate authorities of the system, as Debian, Ubuntu, Alpine and most others bundle them.
pub const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The certificate authorities that a server's certificate may chain to.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    /// The only suite that is offered; `None`: all that rustls has.
    suite: Option<CipherSuite>,
    /// Who sees the certificates instead of their being judged.
    witness: Option<Arc<Witness>>,
}

/// A certificate with its key, for proxies that ask for one (P-16).
#[derive(Debug)]
pub struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why there is nobody to believe, or nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file can't be read, or is no PEM of the expected kind.
    #[error("cannot read {what} `{}`: {cause}", path.display())]
    Pem {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: pem::Error,
    },
    /// No certificate in the file, or none that can be a trust anchor.
    #[error("`{}` holds no certificate that could be trusted", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// rustls can't work with these.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// The certificate authorities of a PEM file; [`SYSTEM_BUNDLE`] for the public ones.
    ///
    /// # Errors
    /// [`TrustError`], naming the file. Single certificates that can't be trust anchors are left
    /// out: bundles of systems have such.
    pub fn from_pem_file(path: &Path) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(read_chain(path, "the CA certificates")?);
        if roots.is_empty() {
            return Err(TrustError::Empty { path: path.to_owned() });
        }
        Ok(Self { roots: Arc::new(roots), suite: None, witness: None })
    }

    /// Whoever it is: the witness sees the certificates, and the caller is to judge them. That the
    /// server has the key of its own is checked all the same.
    pub fn whoever(witness: Arc<Witness>) -> Self {
        let roots = Arc::new(RootCertStore::empty());
        Self { roots, suite: None, witness: Some(witness) }
    }

    /// The same authorities, and this cipher suite offered to servers and no other: to see whether
    /// they accept it (P-2).
    #[must_use]
    pub fn only(self, suite: CipherSuite) -> Self {
        Self { suite: Some(suite), ..self }
    }

    /// TLS 1.2 and 1.3 with these authorities, offering one application protocol.
    pub(super) fn config(
        &self,
        identity: Option<&ClientIdentity>,
        alpn: &[u8],
    ) -> Result<ClientConfig, TrustError> {
        let mut provider = aws_lc_rs::default_provider();
        let mut versions = vec![&rustls::version::TLS13, &rustls::version::TLS12];
        if let Some(only) = self.suite {
            provider.cipher_suites.retain(|suite| suite.suite() == only);
            let has = |version: ProtocolVersion| {
                provider.cipher_suites.iter().any(|suite| suite.version().version == version)
            };
            versions.retain(|version| has(version.version));
        }
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?;
        let builder = match &self.witness {
            None => builder.with_root_certificates(self.roots.clone()),
            Some(witness) => {
                let onlooker = Arc::new(Onlooker::new(witness.clone(), provider));
                builder.dangerous().with_custom_certificate_verifier(onlooker)
            }
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(ClientIdentity { chain, key }) => {
                builder.with_client_auth_cert(chain.clone(), key.clone_key())?
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

impl ClientIdentity {
    /// Reads chain and private key from PEM files.
    ///
    /// # Errors
    /// [`TrustError`], naming the file.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, TrustError> {
        let chain = read_chain(certificate, "the client certificate")?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| TrustError::Pem {
            what: "the client's private key",
            path: key.to_owned(),
            cause,
        })?;
        Ok(Self { chain, key })
    }
}

fn read_chain(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = |cause| TrustError::Pem { what, path: path.to_owned(), cause };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)?;
    if chain.is_empty() { Err(TrustError::Empty { path: path.to_owned() }) } else { Ok(chain) }
}
