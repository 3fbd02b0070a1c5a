//! Requests as KMS sends them, of which every aspect can be spoiled before or after signing.
//!
//! SigV4 is written here once more, from its description, so that ours is not checked by itself.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use xksd::sigv4::date::AmzDate;

use crate::site::{Credential, REGION};

/// A request before it is signed.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target of the request line.
    pub target: String,
    /// The version of the request line.
    pub version: &'static str,
    /// Headers in their order; `Host` is the first of them.
    pub headers: Vec<(String, String)>,
    /// The body, before it is framed.
    pub body: Vec<u8>,
    /// How the body is framed.
    pub framing: Framing,
    /// What is signed, and with what.
    pub signing: Signing,
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By `Content-Length`.
    Length,
    /// By chunks of so many bytes.
    Chunks(usize),
    /// Not at all: the headers are as they are.
    None,
}

/// How a request is signed. What is `None` here is taken from the request.
#[derive(Debug, Clone)]
pub struct Signing {
    /// With whose secret; `None` leaves the request without `Authorization`.
    pub credential: Option<Credential>,
    /// The time in `X-Amz-Date`.
    pub time: SystemTime,
    /// The date in the scope.
    pub scope_date: Option<String>,
    /// The Region in the scope.
    pub region: String,
    /// The service in the scope.
    pub service: String,
    /// The end of the scope.
    pub terminator: String,
    /// Names of the signed headers.
    pub signed_headers: String,
    /// The path of the canonical request.
    pub path: Option<String>,
    /// The query string of the canonical request.
    pub query: String,
    /// What stands for the hash of the body.
    pub body_hash: Option<String>,
}

impl Request {
    /// A signed POST to a path, with a JSON body.
    pub fn post(path: &str, body: &Value, credential: &Credential) -> Self {
        let signing = Signing {
            credential: Some(credential.clone()),
            time: SystemTime::now(),
            scope_date: None,
            region: REGION.to_owned(),
            service: "kms-xks-proxy".to_owned(),
            terminator: "aws4_request".to_owned(),
            signed_headers: "content-type;host;x-amz-date".to_owned(),
            path: None,
            query: String::new(),
            body_hash: None,
        };
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            method: "POST".to_owned(),
            target: path.to_owned(),
            version: "HTTP/1.1",
            headers: vec![header("Host", "localhost"), header("Content-Type", "application/json")],
            body: body.to_string().into_bytes(),
            framing: Framing::Length,
            signing,
        }
    }

    /// All headers, the signature among them, but for those of the framing.
    ///
    /// # Panics
    /// Where the time has no form in SigV4.
    pub fn signed_headers(&self) -> Vec<(String, String)> {
        let signing = &self.signing;
        let date = AmzDate::at(signing.time).expect("a time of our days").text();
        let mut headers = self.headers.clone();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-amz-date")) {
            headers.push(("X-Amz-Date".to_owned(), date.clone()));
        }
        let Some(Credential { id, secret }) = &signing.credential else { return headers };
        let day = signing.scope_date.clone().unwrap_or_else(|| date[..8].to_owned());
        let path = self.target.split('?').next().unwrap_or_default();
        let path = signing.path.as_deref().unwrap_or(path);
        let body_hash = signing.body_hash.clone().unwrap_or_else(|| sha256_hex(&self.body));
        let mut canonical = format!("{}\n{path}\n{}\n", self.method, signing.query);
        for name in signing.signed_headers.split(';') {
            let values: Vec<&str> = headers
                .iter()
                .filter(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
                .collect();
            canonical.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        canonical.push_str(&format!("\n{}\n{body_hash}", signing.signed_headers));
        let Signing { region, service, terminator, signed_headers, .. } = signing;
        let scope = format!("{day}/{region}/{service}/{terminator}");
        let text =
            format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
        let key = [&*day, region, service, terminator]
            .iter()
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed_headers}, \
             Signature={signature}"
        );
        headers.push(("Authorization".to_owned(), authorization));
        headers
    }

    /// The request as it goes over HTTP/1.1, signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.with_headers(&self.signed_headers())
    }

    /// The request as it goes over HTTP/1.1, with these headers and those of the framing.
    pub fn with_headers(&self, headers: &[(String, String)]) -> Vec<u8> {
        let mut text = format!("{} {} {}\r\n", self.method, self.target, self.version);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes = text.into_bytes();
        match self.framing {
            Framing::Length => {
                let length = format!("Content-Length: {}\r\n\r\n", self.body.len());
                bytes.extend_from_slice(length.as_bytes());
                bytes.extend_from_slice(&self.body);
            }
            Framing::Chunks(size) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in self.body.chunks(size) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            Framing::None => {
                bytes.extend_from_slice(b"\r\n");
                bytes.extend_from_slice(&self.body);
            }
        }
        bytes
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of lower-case hex.
///
/// # Panics
/// Where the text is no hex.
pub fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| text.get(at..at + 2).and_then(|d| u8::from_str_radix(d, 16).ok());
    (0..text.len()).step_by(2).map(|at| digits(at).expect("hex digits")).collect()
}

/// Standard Base64.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of a JSON string of standard Base64.
///
/// # Panics
/// Where the value is something else.
pub fn unbase64(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_else(|| panic!("not a string: {value}"));
    STANDARD.decode(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `requestMetadata` as KMS sends it with this operation.
pub fn request_metadata(kms_operation: &str) -> Value {
    json!({
        "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
        "kmsKeyArn": "arn:aws:kms:us-east-2:123456789012:/key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "kmsOperation": kms_operation,
        "kmsRequestId": "4112f4d6-db54-4af4-ae30-c55a22a8dfae",
        "kmsViaService": "ebs"
    })
}

/// A body with metadata and nothing else.
pub fn bare_body(kms_operation: &str) -> Value {
    json!({ "requestMetadata": request_metadata(kms_operation) })
}

/// The body of Encrypt.
pub fn encrypt_body(plaintext: &[u8], aad: Option<&[u8]>) -> Value {
    let mut body = bare_body("Encrypt");
    body["plaintext"] = base64(plaintext).into();
    body["encryptionAlgorithm"] = "AES_GCM".into();
    if let Some(aad) = aad {
        body["additionalAuthenticatedData"] = base64(aad).into();
    }
    body
}

/// The body of Decrypt for an answer of Encrypt.
///
/// # Panics
/// Where the answer is not Encrypt's.
pub fn decrypt_body(sealed: &Value, aad: Option<&[u8]>) -> Value {
    let mut body = bare_body("Decrypt");
    body["encryptionAlgorithm"] = "AES_GCM".into();
    let members = ["ciphertext", "initializationVector", "authenticationTag"];
    let sealed: &Map<_, _> = sealed.as_object().expect("Encrypt answers with an object");
    if let Some(metadata) = sealed.get("ciphertextMetadata") {
        body["ciphertextMetadata"] = metadata.clone();
    }
    for member in members {
        body[member] = sealed.get(member).unwrap_or_else(|| panic!("no {member}")).clone();
    }
    if let Some(aad) = aad {
        body["additionalAuthenticatedData"] = base64(aad).into();
    }
    body
}
