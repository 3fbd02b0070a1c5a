//! What can be wrong with a proxy, and the case of `xksd conformance` that finds it.

use serde_json::{Value, json};
use support::request::base64;
use xksd::sigv4::date::AmzDate;

use crate::message::{Message, Reply, bytes, integrity_value};
use crate::proxy::Proxy;

/// One fault.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// The case that has to find it.
    pub(crate) found_by: &'static str,
    /// What is done to a request; an answer, if the proxy proper is not asked.
    pub(crate) before: fn(&mut Message) -> Option<Reply>,
    /// What is done to an answer.
    pub(crate) after: fn(&Proxy, &Message, &mut Reply),
}

impl Fault {
    /// None at all.
    pub(crate) const NONE: Self =
        Self { name: "none", found_by: "", before: |_| None, after: |_, _, _| {} };

    const fn before(
        name: &'static str,
        found_by: &'static str,
        before: fn(&mut Message) -> Option<Reply>,
    ) -> Self {
        Self { name, found_by, before, ..Self::NONE }
    }

    const fn after(
        name: &'static str,
        found_by: &'static str,
        after: fn(&Proxy, &Message, &mut Reply),
    ) -> Self {
        Self { name, found_by, after, ..Self::NONE }
    }
}

/// Takes the request for well signed if this holds.
fn trust_if(message: &mut Message, holds: bool) -> Option<Reply> {
    if holds {
        message.trust();
    }
    None
}

pub(crate) const FAULTS: [Fault; 36] = [
    Fault::before("does not check signatures", "signature-bits", |m| trust_if(m, true)),
    Fault::before("takes requests that are not signed", "unsigned", |m| {
        trust_if(m, m.header("authorization").is_empty())
    }),
    Fault::before("takes old signatures", "old-signatures", |m| {
        let date = AmzDate::parse(m.header("x-amz-date").as_bytes());
        let now = std::time::SystemTime::now();
        trust_if(m, date.is_some_and(|date| date.seconds_ahead_of(now) < -300))
    }),
    Fault::before("takes signatures of the future", "old-signatures", |m| {
        let date = AmzDate::parse(m.header("x-amz-date").as_bytes());
        let now = std::time::SystemTime::now();
        trust_if(m, date.is_some_and(|date| date.seconds_ahead_of(now) > 300))
    }),
    Fault::before("takes any Region", "other-regions", |m| {
        let region = m.scope(2).to_owned();
        trust_if(m, !region.is_empty() && region != support::site::REGION)
    }),
    Fault::before("takes any service", "other-services", |m| {
        let service = m.scope(3).to_owned();
        trust_if(m, !service.is_empty() && service != "kms-xks-proxy")
    }),
    Fault::before("takes unsigned payloads", "unsigned-payloads", |m| {
        trust_if(m, m.header("x-amz-content-sha256") == "UNSIGNED-PAYLOAD")
    }),
    Fault::before("takes query strings", "query-strings", |m| {
        let had_one = m.query.take().is_some();
        trust_if(m, had_one)
    }),
    Fault::before("takes the first of two Authorization headers", "duplicate-headers", |m| {
        trust_if(m, m.headers.get_all("authorization").iter().count() == 2)
    }),
    Fault::before("looks at keys before signatures", "signature-before-key", |m| {
        let unknown = m.key().is_some_and(|key| key.starts_with("xksd-conformance"));
        unknown.then(|| Reply::refusal(404, "KeyNotFoundException"))
    }),
    Fault::before("folds the case of key ids", "key-ids-are-exact", |m| {
        let is_it = m.key().is_some_and(|key| key == "KEY");
        m.path = m.path.replace("/keys/KEY/", "/keys/key/");
        trust_if(m, is_it)
    }),
    Fault::before("folds paths", "paths-byte-for-byte", |m| {
        let folded = m.path.replace("//", "/").replace("/./", "/");
        let changed = folded != m.path;
        m.path = folded;
        trust_if(m, changed)
    }),
    Fault::after("answers GET with 404", "get", |_, m, reply| {
        if m.method == "GET" {
            *reply = Reply::refusal(404, "InvalidUriPathException");
        }
    }),
    Fault::after("answers as text", "content-type", |_, _, reply| {
        reply.content_type = "text/plain";
    }),
    Fault::after("answers errors with 200", "unknown-keys", |_, _, reply| reply.status = 200),
    Fault::after("has another status for an error", "error-status", |_, _, reply| {
        if reply.is("KeyNotFoundException") {
            reply.status = 400;
        }
    }),
    Fault::after("has an error of its own", "error-form", |_, _, reply| {
        if reply.is("KeyNotFoundException") {
            reply.body["errorName"] = "NoSuchKeyException".into();
        }
    }),
    Fault::after("forgets the error's name", "error-form", |_, _, reply| {
        if reply.status == 401 {
            reply.body = json!({"message": "Forbidden"});
        }
    }),
    Fault::after("tells too much", "error-message", |_, _, reply| {
        if reply.status == 401 {
            reply.body["errorMessage"] = "m".repeat(512).into();
        }
    }),
    Fault::after("writes messages in French", "error-message", |_, _, reply| {
        if reply.status == 404 {
            reply.body["errorMessage"] = "clé inconnue".into();
        }
    }),
    Fault::after("adds a stack trace", "no-other-members", |_, _, reply| {
        if reply.status != 200 {
            reply.body["trace"] = "at main".into();
        }
    }),
    Fault::after(
        "confuses what is invalid and what does not fit",
        "altered-ciphertexts",
        |_, _, reply| {
            if reply.is("InvalidCiphertextException") {
                reply.body["errorName"] = "ValidationException".into();
            }
        },
    ),
    Fault::after("computes the CDIV without the metadata", "cdiv", |_, m, reply| {
        if reply.body["ciphertextDataIntegrityValue"].is_string() {
            let mut parts = vec![bytes(&m.json(), "additionalAuthenticatedData")];
            for member in ["initializationVector", "ciphertext", "authenticationTag"] {
                parts.push(bytes(&reply.body, member));
            }
            integrity_value(reply, &parts);
        }
    }),
    Fault::after("forgets the CDIV", "cdiv", |_, _, reply| {
        if let Some(members) = reply.body.as_object_mut() {
            members.remove("ciphertextDataIntegrityValue");
        }
    }),
    Fault::after("gives a CDIV to everybody", "cdiv-only-where-asked", |_, m, reply| {
        if reply.status == 200 && m.operation() == "encrypt" {
            add_integrity_value(m, reply);
        }
    }),
    Fault {
        name: "gives a CDIV for keys that can't decrypt",
        found_by: "cdiv-promises-decryption",
        before: |m| {
            let mut body = m.json();
            if m.key() == Some("encrypt-only") && asks_for_integrity(&body) {
                body["ciphertextDataIntegrityValueAlgorithm"] = Value::Null;
                m.rewrite(&body);
            }
            None
        },
        after: |_, m, reply| {
            if reply.status == 200 && asks_for_integrity(&m.json()) {
                add_integrity_value(m, reply);
            }
        },
    },
    Fault {
        name: "ignores the AAD",
        found_by: "other-aads",
        before: |m| {
            let mut body = m.json();
            if body["additionalAuthenticatedData"].is_string() {
                body["additionalAuthenticatedData"] = Value::Null;
                m.rewrite(&body);
            }
            None
        },
        after: |_, m, reply| {
            if reply.status == 200 && asks_for_integrity(&m.json()) {
                add_integrity_value(m, reply);
            }
        },
    },
    Fault::before("takes ciphertexts without their metadata", "other-metadata", |m| {
        // All ciphertexts of its keys have the same: version 0 of a key that somebody else made.
        let mut body = m.json();
        if m.operation() == "decrypt" && body.is_object() {
            body["ciphertextMetadata"] = base64(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).into();
            m.rewrite(&body);
        }
        None
    }),
    Fault::after("uses its initialization vectors twice", "fresh-ivs", |proxy, m, reply| {
        if reply.status == 200 && m.operation() == "encrypt" {
            let asked = String::from_utf8_lossy(&m.sent).into_owned();
            let mut memory = proxy.memory.lock().expect("nothing panics while holding it");
            reply.body = memory.entry(asked).or_insert(reply.body.take()).clone();
        }
    }),
    Fault::after("forgets a key's status", "key-metadata", |_, _, reply| {
        if let Some(members) = reply.body.as_object_mut() {
            members.remove("keyStatus");
        }
    }),
    Fault::after("calls HSMs well that it has not got", "health", |_, _, reply| {
        if reply.body["ekmFleetDetails"].is_array() {
            reply.body["ekmFleetDetails"] = json!([]);
        }
    }),
    Fault::before("refuses members that it does not know", "unknown-members", |m| {
        let is_known = m.json()["tags"].is_null();
        (!is_known).then(|| Reply::refusal(400, "ValidationException"))
    }),
    Fault::before("answers health to known operations only", "health-operations", |m| {
        let operation = m.json()["requestMetadata"]["kmsOperation"].take();
        let is_known = operation == "KmsHealthCheck" || m.operation() != "health";
        (!is_known).then(|| Reply::refusal(400, "ValidationException"))
    }),
    Fault::before("takes Base64 of another alphabet", "strict-base64", |m| {
        let mut body = m.json();
        if let Some(text) = body["plaintext"].as_str().filter(|text| text.contains('-')) {
            let text = text.replace('-', "+").replace('_', "/");
            body["plaintext"] = text.into();
            m.rewrite(&body);
        }
        None
    }),
    Fault::before("takes the last of two members", "duplicate-members", |m| {
        let body = m.json();
        if body.is_object() && m.operation() == "encrypt" && m.key() == Some("key") {
            m.rewrite(&body);
        }
        None
    }),
    Fault::before("refuses plaintexts over 4,096 bytes", "required-sizes", |m| {
        let is_long = bytes_len(&m.json()["plaintext"]) > 4096;
        is_long.then(|| Reply::refusal(501, "UnsupportedOperationException"))
    }),
];

fn bytes_len(base64: &Value) -> usize {
    base64.as_str().map_or(0, |text| text.len() / 4 * 3)
}

fn asks_for_integrity(body: &Value) -> bool {
    body["ciphertextDataIntegrityValueAlgorithm"] == "SHA_256"
}

/// A right one, over the request as it came.
fn add_integrity_value(message: &Message, reply: &mut Reply) {
    let mut parts = vec![bytes(&message.json(), "additionalAuthenticatedData")];
    for member in ["ciphertextMetadata", "initializationVector", "ciphertext", "authenticationTag"]
    {
        parts.push(bytes(&reply.body, member));
    }
    integrity_value(reply, &parts);
}
