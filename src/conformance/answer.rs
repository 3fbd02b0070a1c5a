//! Answers, read afresh: nothing of [`crate::wire`] judges them.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ALLOW, CONTENT_TYPE};
use serde_json::{Map, Value};

use super::Expect;
use crate::client::RawAnswer;

/// The errors of the protocol (P-70): name and status.
pub(super) const ERRORS: [(&str, u16); 12] = [
    ("ValidationException", 400),
    ("InvalidStateException", 400),
    ("InvalidCiphertextException", 400),
    ("InvalidKeyUsageException", 400),
    ("AuthenticationFailedException", 401),
    ("AccessDeniedException", 403),
    ("KeyNotFoundException", 404),
    ("InvalidUriPathException", 404),
    ("ThrottlingException", 429),
    ("UnsupportedOperationException", 501),
    ("DependencyTimeoutException", 503),
    ("InternalException", 500),
];

/// Longest piece of an answer that is shown, in characters.
const SHOWN: usize = 60;

/// What an answer is, in few words and without any of its content but for an error's name (P-45).
pub(super) fn described(answer: &RawAnswer) -> String {
    let status = answer.status.as_u16();
    match error_name(answer) {
        Some(name) if status != 200 => format!("{status} {}", shown(&name)),
        _ => format!("{status}"),
    }
}

/// A text of the proxy's, fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_default).collect()
}

/// The JSON object of an answer.
pub(super) fn object(answer: &RawAnswer) -> Option<Map<String, Value>> {
    serde_json::from_slice(&answer.body).ok()
}

/// `errorName`, where there is one.
pub(super) fn error_name(answer: &RawAnswer) -> Option<String> {
    object(answer)?.get("errorName")?.as_str().map(str::to_owned)
}

/// Whether the proxy, or its HSM, has no time: any request may be answered so (P-70).
pub(super) fn is_busy(answer: &RawAnswer) -> bool {
    let name = error_name(answer).unwrap_or_default();
    let busy = [(429, "ThrottlingException"), (503, "DependencyTimeoutException")];
    busy.contains(&(answer.status.as_u16(), name.as_str()))
}

/// Whether an answer is what was expected; if not, what it is.
pub(super) fn judge(answer: &RawAnswer, expect: &Expect) -> Result<(), String> {
    let status = answer.status.as_u16();
    let got = || described(answer);
    match expect {
        Expect::Served if status == 200 && object(answer).is_some() => Ok(()),
        Expect::Served if status == 200 => Err("200 without a JSON object".to_owned()),
        Expect::Status(wanted) if status == *wanted => Ok(()),
        Expect::Refused(wanted) => {
            let name = error_name(answer).unwrap_or_default();
            let is_it = wanted.contains(&(status, name.as_str()));
            if is_it { Ok(()) } else { Err(got()) }
        }
        Expect::NotAllowed => {
            let allow = answer.headers.get(ALLOW).and_then(|value| value.to_str().ok());
            let named = error_name(answer).as_deref() == Some("UnsupportedOperationException");
            match (status, allow, named) {
                (405, Some("POST"), true) => Ok(()),
                (405, Some("POST"), false) => Err(format!("{} in the body", got())),
                (405, allow, _) => Err(format!("405 with Allow: {}", shown(allow.unwrap_or("")))),
                _ => Err(got()),
            }
        }
        Expect::Served | Expect::Status(_) => Err(got()),
    }
}

/// P-1: the media type, whatever its parameters.
pub(super) fn is_json_by_type(answer: &RawAnswer) -> Result<(), String> {
    let value = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.map(|value| value.split(';').next().unwrap_or_default().trim());
    match kind {
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        Some(kind) => Err(format!("Content-Type: {}", shown(kind))),
        None => Err("no Content-Type".to_owned()),
    }
}

/// P-70: an error is a JSON object with one of the twelve names.
pub(super) fn is_an_error(answer: &RawAnswer) -> Result<(), String> {
    let status = answer.status.as_u16();
    match error_name(answer) {
        Some(name) if ERRORS.iter().any(|(known, _)| *known == name) => Ok(()),
        Some(name) => Err(format!("{status} with errorName {}", shown(&name))),
        None => Err(format!("{status} without an errorName")),
    }
}

/// P-70: the status is that of the name.
pub(super) fn has_its_status(answer: &RawAnswer) -> Result<(), String> {
    let status = answer.status.as_u16();
    let Some(name) = error_name(answer) else { return Ok(()) };
    match ERRORS.iter().find(|(known, _)| *known == name) {
        Some((_, wanted)) if *wanted != status => {
            Err(format!("{name} with {status} instead of {wanted}"))
        }
        _ => Ok(()),
    }
}

/// P-70: the message is printable ASCII of less than 512 characters, if there is one.
pub(super) fn has_a_sound_message(answer: &RawAnswer) -> Result<(), String> {
    match object(answer).and_then(|mut members| members.remove("errorMessage")) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if text.chars().count() >= 512 => {
            Err(format!("an errorMessage of {} characters", text.chars().count()))
        }
        Some(Value::String(text)) if !text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) => {
            Err("an errorMessage that is not printable ASCII".to_owned())
        }
        Some(Value::String(_)) => Ok(()),
        Some(_) => Err("an errorMessage that is no string".to_owned()),
    }
}

/// D: no member that the specification does not name.
pub(super) fn has_no_other_members(answer: &RawAnswer) -> Result<(), String> {
    const KNOWN: [&str; 16] = [
        "errorName",
        "errorMessage",
        "keySpec",
        "keyUsage",
        "keyStatus",
        "ciphertext",
        "initializationVector",
        "authenticationTag",
        "ciphertextMetadata",
        "ciphertextDataIntegrityValue",
        "plaintext",
        "xksProxyFleetSize",
        "xksProxyVendor",
        "xksProxyModel",
        "ekmVendor",
        "ekmFleetDetails",
    ];
    let members = object(answer).unwrap_or_default();
    match members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        Some(name) => Err(format!("a member {}", shown(name))),
        None => Ok(()),
    }
}

/// An answer of Encrypt, its parts decoded.
#[derive(Clone, Default)]
pub(super) struct Sealed {
    pub(super) ciphertext: Vec<u8>,
    pub(super) iv: Vec<u8>,
    pub(super) tag: Vec<u8>,
    pub(super) metadata: Option<Vec<u8>>,
    pub(super) cdiv: Option<Vec<u8>>,
}

impl Sealed {
    /// Reads it and checks the lengths of P-41.
    pub(super) fn read(members: &Map<String, Value>, plaintext: usize) -> Result<Self, String> {
        let sealed = Self {
            ciphertext: bytes(members, "ciphertext")?,
            iv: bytes(members, "initializationVector")?,
            tag: bytes(members, "authenticationTag")?,
            metadata: optional(members, "ciphertextMetadata")?,
            cdiv: optional(members, "ciphertextDataIntegrityValue")?,
        };
        let Self { ciphertext, iv, tag, metadata, .. } = &sealed;
        if ciphertext.len() != plaintext {
            return Err(format!("{} bytes of ciphertext for {plaintext}", ciphertext.len()));
        }
        if !matches!(iv.len(), 12 | 16) {
            return Err(format!("an initializationVector of {} bytes", iv.len()));
        }
        if tag.len() != 16 {
            return Err(format!("an authenticationTag of {} bytes", tag.len()));
        }
        if metadata.as_ref().is_some_and(|bytes| bytes.len() > 20) {
            return Err("a ciphertextMetadata of more than 20 bytes".to_owned());
        }
        Ok(sealed)
    }

    /// P-43: SHA-256 over AAD, metadata, IV, ciphertext and tag, absent ones empty.
    pub(super) fn expected_cdiv(&self, aad: &[u8]) -> Vec<u8> {
        let metadata = self.metadata.as_deref().unwrap_or_default();
        let parts = [aad, metadata, &self.iv, &self.ciphertext, &self.tag].concat();
        digest::digest(&digest::SHA256, &parts).as_ref().to_vec()
    }
}

/// The bytes of a member in Base64.
pub(super) fn bytes(members: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    optional(members, name)?.ok_or_else(|| format!("no {name}"))
}

fn optional(members: &Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let bytes = STANDARD.decode(text);
            bytes.map(Some).map_err(|_| format!("a {name} that is not standard Base64"))
        }
        Some(_) => Err(format!("a {name} that is no string")),
    }
}

/// Standard Base64.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::super::request::hex;
    use super::*;

    fn raw(status: u16, body: &str) -> RawAnswer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let status = StatusCode::from_u16(status).unwrap();
        RawAnswer { status, headers, body: body.to_owned().into() }
    }

    /// P-44
    #[test]
    fn the_worked_example_of_the_specification_is_computed_p_44() {
        let sealed = Sealed {
            ciphertext: STANDARD.decode("ghxkK1txeDNn3q8Y").unwrap(),
            iv: STANDARD.decode("HMrlRw85cAJUd5Ax").unwrap(),
            tag: STANDARD.decode("vBxN2ncH1oEkR8WVXpmyYQ==").unwrap(),
            metadata: Some(b"key_version=1".to_vec()),
            cdiv: None,
        };
        let cdiv = hex(&sealed.expected_cdiv(b"project=nile,department=marketing"));
        assert_eq!(cdiv, "a8703f2260bd8791ec2d15ea0b23e65a0631eedcf2a13a65cc82db3f47cf5ec7");
    }

    /// P-70
    #[test]
    fn errors_are_held_to_the_table_p_70() {
        let good = raw(404, r#"{"errorName":"KeyNotFoundException","errorMessage":"no"}"#);
        for check in [is_an_error, has_its_status, has_a_sound_message, has_no_other_members] {
            assert_eq!(check(&good), Ok(()));
        }
        assert!(is_an_error(&raw(404, "<html>")).is_err());
        assert!(is_an_error(&raw(404, r#"{"errorName":"NoSuchKey"}"#)).is_err());
        assert!(has_its_status(&raw(400, r#"{"errorName":"KeyNotFoundException"}"#)).is_err());
        let message = |text: &str| raw(400, &format!(r#"{{"errorMessage":"{text}"}}"#));
        assert!(has_a_sound_message(&message(&"m".repeat(511))).is_ok());
        assert!(has_a_sound_message(&message(&"m".repeat(512))).is_err());
        assert!(has_a_sound_message(&message("na\u{ef}ve")).is_err());
        assert!(has_no_other_members(&raw(400, r#"{"stack":"at main"}"#)).is_err());
    }

    #[test]
    fn to_be_busy_is_told_by_status_and_name() {
        let named = |name: &str| format!(r#"{{"errorName":"{name}"}}"#);
        assert!(is_busy(&raw(503, &named("DependencyTimeoutException"))));
        assert!(is_busy(&raw(429, &named("ThrottlingException"))));
        assert!(!is_busy(&raw(500, &named("ThrottlingException"))));
        assert!(!is_busy(&raw(503, "<html>")));
    }

    #[test]
    fn an_answer_is_told_without_its_content_p_45() {
        let answer = raw(200, r#"{"plaintext":"aHVudGVyMg==","errorName":"hunter2"}"#);
        assert_eq!(described(&answer), "200");
        let refused = Expect::Refused(&[(401, "AuthenticationFailedException")]);
        assert_eq!(judge(&answer, &refused), Err("200".to_owned()));
        assert_eq!(judge(&answer, &Expect::Served), Ok(()));
        assert!(judge(&raw(200, "[]"), &Expect::Served).is_err());
    }

    /// P-41
    #[test]
    fn lengths_are_held_p_41() {
        let body = |iv: &[u8], tag: &[u8], metadata: &[u8]| {
            let body = serde_json::json!({
                "ciphertext": base64(b"abc"), "initializationVector": base64(iv),
                "authenticationTag": base64(tag), "ciphertextMetadata": base64(metadata),
            });
            Sealed::read(body.as_object().unwrap(), 3).map(drop)
        };
        assert_eq!(body(&[0; 12], &[0; 16], &[0; 20]), Ok(()));
        assert_eq!(body(&[0; 16], &[0; 16], &[]), Ok(()));
        assert!(body(&[0; 13], &[0; 16], &[]).is_err());
        assert!(body(&[0; 12], &[0; 12], &[]).is_err());
        assert!(body(&[0; 12], &[0; 16], &[0; 21]).is_err());
    }
}
