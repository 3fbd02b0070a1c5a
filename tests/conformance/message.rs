//! A request on its way through the broken proxy, and the answer on its way back.

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use support::request::base64;
use xksd::sigv4::sign::{Outgoing, sign};

use crate::proxy::{HOST, Proxy};

/// A request.
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The body as it came.
    pub(crate) sent: Vec<u8>,
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn refusal(status: u16, name: &str) -> Self {
        let body = json!({"errorName": name, "errorMessage": "no"});
        Self { status, content_type: "application/json", body }
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.body["errorName"] == name
    }
}

impl Message {
    /// What the path asks for: `encrypt`, `health` and so on.
    pub(crate) fn operation(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The key in the path.
    pub(crate) fn key(&self) -> Option<&str> {
        self.path.split_once("/keys/")?.1.split('/').next()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A part of the scope: 1 is the date, 2 the Region, 3 the service.
    pub(crate) fn scope(&self, part: usize) -> &str {
        let credential = self.header("authorization").split("Credential=").nth(1);
        let credential = credential.and_then(|rest| rest.split(',').next()).unwrap_or_default();
        credential.split('/').nth(part).unwrap_or_default()
    }

    /// The body as it came; null where it is no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.sent).unwrap_or_default()
    }

    /// Changes the body, and signs it as if it had come like this.
    pub(crate) fn rewrite(&mut self, body: &Value) {
        self.body = body.to_string().into_bytes();
        self.trust();
    }

    /// Makes the signature a good one, whatever it was.
    pub(crate) fn trust(&mut self) {
        self.headers.clear();
        self.headers.insert(http::header::HOST, HeaderValue::from_static(HOST));
        let outgoing = Outgoing {
            method: "POST",
            path: &self.path,
            host: HOST,
            headers: &HeaderMap::new(),
            body: &self.body,
        };
        let (id, secret, region) = Proxy::credential();
        let signature = sign(outgoing, (&id, &secret), &region, std::time::SystemTime::now());
        signature.expect("the time can be written").insert_into(&mut self.headers);
    }
}

/// A member in Base64 as bytes, nothing where there is none.
pub(crate) fn bytes(body: &Value, member: &str) -> Vec<u8> {
    if body[member].is_string() { support::request::unbase64(&body[member]) } else { Vec::new() }
}

/// Puts a data integrity value into an answer of Encrypt, made of these parts in this order.
pub(crate) fn integrity_value(reply: &mut Reply, parts: &[Vec<u8>]) {
    let digest = support::request::unhex(&support::request::sha256_hex(&parts.concat()));
    reply.body["ciphertextDataIntegrityValue"] = base64(&digest).into();
}
