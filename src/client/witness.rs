//! Sees what a server shows of itself, where that is to be judged afterwards.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// The certificates of the last handshake.
#[derive(Debug, Default)]
pub struct Witness(Mutex<Vec<CertificateDer<'static>>>);

impl Witness {
    /// What the server of the last handshake has shown, its own first; empty where none came so far.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        // It is one assignment that the lock is held for.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) {
        let all = std::iter::once(own).chain(others);
        let all = all.map(|certificate| certificate.clone().into_owned()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

/// Accepts every chain, and tells the witness. The signature of the handshake is verified, so that the
/// certificate is of the server that is spoken to.
#[derive(Debug)]
pub(super) struct Onlooker {
    witness: Arc<Witness>,
    provider: Arc<CryptoProvider>,
}

impl Onlooker {
    pub(super) fn new(witness: Arc<Witness>, provider: Arc<CryptoProvider>) -> Self {
        Self { witness, provider }
    }
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.witness.note(end_entity, intermediates);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
