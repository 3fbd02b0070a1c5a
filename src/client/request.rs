//! Operations as a client sends them: a path, a JSON body, a signature.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request, Version};
use http_body_util::Full;
use serde::{Serialize, Serializer};

use super::answer::EncryptAnswer;
use super::endpoint::Endpoint;
use crate::clock::Clock;
use crate::names::{AccessKeyId, ExternalKeyId, Region};
use crate::sigv4::{Outgoing, SecretAccessKey, SignError, sign};
use crate::wire::route::KeyOperation;

/// What `requestMetadata` says of the AWS side (P-20); everything in it is text that the proxy
/// logs and may judge by, but can't check.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `awsPrincipalArn`
    pub aws_principal_arn: String,
    /// `kmsKeyArn`
    pub kms_key_arn: String,
    /// `kmsRequestId`
    pub kms_request_id: String,
}

impl Caller {
    /// A made-up caller: account 123456789012, a key of all zeros, this request id.
    pub fn made_up(region: &Region, kms_request_id: &str) -> Self {
        Self {
            aws_principal_arn: "arn:aws:iam::123456789012:user/xksd".to_owned(),
            kms_key_arn: format!(
                "arn:aws:kms:{region}:123456789012:key/00000000-0000-0000-0000-000000000000"
            ),
            kms_request_id: kms_request_id.to_owned(),
        }
    }

    fn metadata<'a>(&'a self, kms_operation: &'a str) -> Metadata<'a> {
        Metadata {
            aws_principal_arn: Some(&self.aws_principal_arn),
            kms_key_arn: Some(&self.kms_key_arn),
            kms_operation,
            kms_request_id: &self.kms_request_id,
        }
    }
}

/// Whether an encryption asks for a ciphertext data integrity value (P-43).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrityValue {
    /// It does not.
    Off,
    /// `SHA_256`
    Sha256,
}

/// What Encrypt takes (P-40).
#[derive(Debug, Clone, Copy)]
pub struct Encrypt<'a> {
    /// What to encrypt.
    pub plaintext: &'a [u8],
    /// `additionalAuthenticatedData`; left out where empty.
    pub aad: &'a [u8],
    /// Whether to ask for a CDIV.
    pub integrity_value: IntegrityValue,
}

/// An operation that is ready to be signed, as often as one likes.
#[derive(Clone)]
pub struct Prepared {
    /// The path to POST to.
    pub path: String,
    /// The JSON; it may hold a plaintext.
    pub body: Bytes,
}

impl Prepared {
    /// GetHealthStatus (P-60).
    pub fn health(endpoint: &Endpoint, caller: &Caller) -> Self {
        let metadata = Metadata {
            aws_principal_arn: None,
            kms_key_arn: None,
            ..caller.metadata("KmsHealthCheck")
        };
        Self::new(endpoint.health_path(), &Body { request_metadata: metadata, rest: Nothing {} })
    }

    /// GetKeyMetadata (P-30).
    pub fn metadata(endpoint: &Endpoint, key: &ExternalKeyId, caller: &Caller) -> Self {
        // As CreateKey asks: there is no KMS key yet.
        let metadata = Metadata { kms_key_arn: None, ..caller.metadata("CreateKey") };
        let path = endpoint.key_path(key, KeyOperation::Metadata);
        Self::new(path, &Body { request_metadata: metadata, rest: Nothing {} })
    }

    /// Encrypt (P-40).
    pub fn encrypt(
        endpoint: &Endpoint,
        key: &ExternalKeyId,
        caller: &Caller,
        input: &Encrypt<'_>,
    ) -> Self {
        let rest = EncryptBody {
            plaintext: Base64(input.plaintext),
            encryption_algorithm: "AES_GCM",
            additional_authenticated_data: present(input.aad),
            ciphertext_data_integrity_value_algorithm: match input.integrity_value {
                IntegrityValue::Off => None,
                IntegrityValue::Sha256 => Some("SHA_256"),
            },
        };
        let path = endpoint.key_path(key, KeyOperation::Encrypt);
        Self::new(path, &Body { request_metadata: caller.metadata("Encrypt"), rest })
    }

    /// Decrypt of what an encryption with this AAD answered (P-50).
    pub fn decrypt(
        endpoint: &Endpoint,
        key: &ExternalKeyId,
        caller: &Caller,
        sealed: &EncryptAnswer,
        aad: &[u8],
    ) -> Self {
        let rest = DecryptBody {
            ciphertext: Base64(&sealed.ciphertext),
            encryption_algorithm: "AES_GCM",
            initialization_vector: Base64(sealed.iv.as_bytes()),
            authentication_tag: Base64(sealed.tag.as_bytes()),
            additional_authenticated_data: present(aad),
            ciphertext_metadata: present(&sealed.ciphertext_metadata),
        };
        let path = endpoint.key_path(key, KeyOperation::Decrypt);
        Self::new(path, &Body { request_metadata: caller.metadata("Decrypt"), rest })
    }

    fn new(path: String, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("strings and structs always have a JSON form");
        Self { path, body: body.into() }
    }
}

/// Shows no body: there may be a plaintext in it (P-45).
impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "POST {} <{} bytes redacted>", self.path, self.body.len())
    }
}

/// Signs requests to one endpoint with one credential (P-10, P-11).
#[derive(Debug)]
pub struct Signer {
    endpoint: Endpoint,
    access_key_id: AccessKeyId,
    secret: SecretAccessKey,
    region: Region,
    clock: Clock,
}

impl Signer {
    /// Will sign by the system's clock.
    pub fn new(
        endpoint: Endpoint,
        (access_key_id, secret): (AccessKeyId, SecretAccessKey),
        region: Region,
    ) -> Self {
        Self { endpoint, access_key_id, secret, region, clock: Clock::System }
    }

    /// Will sign by another clock: a test of what a proxy thinks of old signatures.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Where the requests go.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The Region that the requests claim to come from.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The request, signed now, for this version of HTTP.
    ///
    /// # Errors
    /// [`SignError`] for a clock that has no form in SigV4.
    pub fn sign(
        &self,
        operation: &Prepared,
        version: Version,
    ) -> Result<Request<Full<Bytes>>, SignError> {
        let host = self.endpoint.authority();
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let outgoing = Outgoing {
            method: "POST",
            path: &operation.path,
            host,
            headers: &headers,
            body: &operation.body,
        };
        let time: SystemTime = self.clock.now();
        let signature = sign(outgoing, (&self.access_key_id, &self.secret), &self.region, time)?;
        signature.insert_into(&mut headers);
        // HTTP/2 carries the host in the URI (`:authority`), HTTP/1.1 in a header.
        let uri = if version == Version::HTTP_2 {
            format!("{}://{host}{}", self.endpoint.scheme().as_str(), operation.path)
        } else {
            headers.insert(HOST, HeaderValue::from_str(host)?);
            operation.path.clone()
        };
        let mut request = Request::new(Full::new(operation.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = version;
        *request.uri_mut() = uri.parse().expect("made of an endpoint and a path of ours");
        *request.headers_mut() = headers;
        Ok(request)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a, T> {
    request_metadata: Metadata<'a>,
    #[serde(flatten)]
    rest: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_principal_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_key_arn: Option<&'a str>,
    kms_operation: &'a str,
    kms_request_id: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EncryptBody<'a> {
    plaintext: Base64<'a>,
    encryption_algorithm: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_authenticated_data: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_data_integrity_value_algorithm: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DecryptBody<'a> {
    ciphertext: Base64<'a>,
    encryption_algorithm: &'static str,
    initialization_vector: Base64<'a>,
    authentication_tag: Base64<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    additional_authenticated_data: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext_metadata: Option<Base64<'a>>,
}

/// Bytes that are written in Base64 with padding (P-40).
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

/// An absent member where there are no bytes.
fn present(bytes: &[u8]) -> Option<Base64<'_>> {
    (!bytes.is_empty()).then_some(Base64(bytes))
}
