//! Who is examined, and what with.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::base64;
use super::request::{Ask, Credential};
use crate::client::{ClientIdentity, Connector, Endpoint, Trust};
use crate::names::ExternalKeyId;

/// A proxy, and what its operator gave for the examination.
pub struct Subject {
    /// The way to it.
    pub connector: Connector,
    /// Whom to believe; `None` without TLS.
    pub trust: Option<Trust>,
    /// The client's certificate, where the proxy asks for one.
    pub identity: Option<ClientIdentity>,
    /// Whose signature.
    pub credential: Arc<Credential>,
    /// Another credential of the same key store.
    pub second_credential: Option<Arc<Credential>>,
    /// The Region that requests are signed for.
    pub region: String,
    /// A key that may encrypt and decrypt.
    pub key: ExternalKeyId,
    /// Keys of other kinds.
    pub keys: Keys,
    /// Another key store of the same proxy.
    pub neighbour: Option<Neighbour>,
    /// Where load balancers ask.
    pub balancer: Option<Endpoint>,
}

/// Keys that not everybody has.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// May encrypt only.
    pub encrypt_only: Option<ExternalKeyId>,
    /// May decrypt only.
    pub decrypt_only: Option<ExternalKeyId>,
    /// May do neither.
    pub no_use: Option<ExternalKeyId>,
    /// Is disabled.
    pub disabled: Option<ExternalKeyId>,
    /// May encrypt and decrypt, and is another one.
    pub second: Option<ExternalKeyId>,
    /// Is no AES key of 256 bits.
    pub other_kind: Option<ExternalKeyId>,
}

/// Another key store of the proxy (P-4).
#[derive(Debug)]
pub struct Neighbour {
    /// Its path, on the same host.
    pub endpoint: Endpoint,
    /// Its credential.
    pub credential: Arc<Credential>,
    /// A key that only it may use.
    pub key: ExternalKeyId,
}

/// Something that a case can't do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A key that may encrypt only.
    EncryptOnlyKey,
    /// A key that may decrypt only.
    DecryptOnlyKey,
    /// A key that may do neither.
    NoUseKey,
    /// A disabled key.
    DisabledKey,
    /// A second key.
    SecondKey,
    /// A key of another kind than AES-256.
    OtherKindKey,
    /// A second credential of the key store.
    SecondCredential,
    /// A second key store.
    Neighbour,
    /// A certificate to show.
    ClientCertificate,
    /// An `https` URL.
    Tls,
    /// HTTP/2.
    Http2,
    /// The address for load balancers.
    Balancer,
}

impl Need {
    /// The option that provides it.
    pub const fn option(self) -> &'static str {
        match self {
            Self::EncryptOnlyKey => "--encrypt-only-key",
            Self::DecryptOnlyKey => "--decrypt-only-key",
            Self::NoUseKey => "--no-use-key",
            Self::DisabledKey => "--disabled-key",
            Self::SecondKey => "--second-key",
            Self::OtherKindKey => "--other-kind-key",
            Self::SecondCredential => "--second-access-key-id and --second-secret-file",
            Self::Neighbour => {
                "--other-url, --other-access-key-id, --other-secret-file and --other-key"
            }
            Self::ClientCertificate => "--client-cert and --client-key",
            Self::Tls => "an https URL",
            Self::Http2 => "--http2",
            Self::Balancer => "--balancer-url",
        }
    }
}

impl Subject {
    /// Whether it was given.
    pub(super) fn has(&self, need: Need) -> bool {
        let Self { keys, .. } = self;
        match need {
            Need::EncryptOnlyKey => keys.encrypt_only.is_some(),
            Need::DecryptOnlyKey => keys.decrypt_only.is_some(),
            Need::NoUseKey => keys.no_use.is_some(),
            Need::DisabledKey => keys.disabled.is_some(),
            Need::SecondKey => keys.second.is_some(),
            Need::OtherKindKey => keys.other_kind.is_some(),
            Need::SecondCredential => self.second_credential.is_some(),
            Need::Neighbour => self.neighbour.is_some(),
            Need::ClientCertificate => self.identity.is_some(),
            Need::Tls => self.trust.is_some(),
            Need::Http2 => self.connector.http() == crate::client::HttpVersion::Http2,
            Need::Balancer => self.balancer.is_some(),
        }
    }
}

/// AAD of the good bodies.
pub(super) const AAD: &[u8] = b"project=nile,department=marketing";

/// Plaintext of the good bodies.
pub(super) const TEXT: &[u8] = b"plaintext of good bodies";

/// What good requests are made of.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) subject: Arc<Subject>,
    /// A good body of Encrypt.
    pub(super) encrypt: Value,
    /// A good body of Decrypt; of the right form only until something was encrypted.
    pub(super) decrypt: Value,
}

impl Facts {
    pub(super) fn new(subject: Subject) -> Self {
        let mut decrypt = with_aad(bare("Decrypt"), AAD);
        decrypt["encryptionAlgorithm"] = "AES_GCM".into();
        // The longest metadata that there can be: as many requests as can become necessary.
        for (member, length) in [
            ("ciphertext", TEXT.len()),
            ("initializationVector", 12),
            ("authenticationTag", 16),
            ("ciphertextMetadata", 20),
        ] {
            decrypt[member] = base64(&vec![0; length]).into();
        }
        let encrypt = with_aad(encryption(TEXT), AAD);
        Self { subject: Arc::new(subject), encrypt, decrypt }
    }

    /// The path of `health`, `keys/KEY/encrypt` and the like.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.endpoint().prefix().uri_path())
    }

    /// `keys/KEY/OPERATION` for the key that may do everything.
    pub(super) fn rest(&self, operation: &str) -> String {
        format!("keys/{}/{operation}", self.subject.key)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        self.subject.connector.endpoint()
    }

    /// A good request.
    pub(super) fn request(&self, rest: &str, body: &Value) -> Ask {
        let Subject { credential, region, .. } = &*self.subject;
        Ask::post(self.endpoint(), (credential, region), self.path(rest), body)
    }

    /// The good request of GetHealthStatus, the cheapest there is.
    pub(super) fn health(&self) -> Ask {
        self.request("health", &bare_health("KmsHealthCheck"))
    }

    /// The good request of Encrypt.
    pub(super) fn encryption(&self) -> Ask {
        self.request(&self.rest("encrypt"), &self.encrypt)
    }
}

/// `requestMetadata` of an operation on a key, and nothing else (P-20).
pub(super) fn bare(kms_operation: &str) -> Value {
    json!({"requestMetadata": {
        "awsPrincipalArn": "arn:aws:iam::123456789012:user/xksd-conformance",
        "kmsKeyArn":
            "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
        "kmsOperation": kms_operation,
        "kmsRequestId": "00000000-c0f0-4000-8000-000000000000",
        "kmsViaService": "ebs",
    }})
}

/// `requestMetadata` of GetHealthStatus.
pub(super) fn bare_health(kms_operation: &str) -> Value {
    json!({"requestMetadata": {
        "kmsOperation": kms_operation,
        "kmsRequestId": "00000000-c0f0-4000-8000-000000000000",
    }})
}

/// A body of Encrypt without AAD.
pub(super) fn encryption(plaintext: &[u8]) -> Value {
    let mut body = bare("Encrypt");
    body["plaintext"] = base64(plaintext).into();
    body["encryptionAlgorithm"] = "AES_GCM".into();
    body
}

/// The same with an AAD.
pub(super) fn with_aad(mut body: Value, aad: &[u8]) -> Value {
    body["additionalAuthenticatedData"] = base64(aad).into();
    body
}

/// The same asking for a CDIV.
pub(super) fn with_cdiv(mut body: Value) -> Value {
    body["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
    body
}

/// A body of Decrypt, without AAD, for what Encrypt answered.
pub(super) fn decryption(sealed: &Value) -> Value {
    let mut body = bare("Decrypt");
    body["encryptionAlgorithm"] = "AES_GCM".into();
    for member in ["ciphertext", "initializationVector", "authenticationTag", "ciphertextMetadata"]
    {
        if let Some(value) = sealed.get(member) {
            body[member] = value.clone();
        }
    }
    body
}

/// The body with another value for one member.
pub(super) fn with(body: &Value, member: &str, value: impl Into<Value>) -> Value {
    let mut body = body.clone();
    body[member] = value.into();
    body
}

/// The body without one member.
pub(super) fn without(body: &Value, member: &str) -> Value {
    let mut body = body.clone();
    if let Some(members) = body.as_object_mut() {
        members.remove(member);
    }
    body
}
