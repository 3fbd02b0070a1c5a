//! The canonical request and the string to sign (P-11), over the bytes as they arrived.

use aws_lc_rs::digest;
use http::HeaderMap;

use super::authorization::{ALGORITHM, Scope, TERMINATOR};
use super::header;

/// What a signature covers.
pub(super) struct CanonicalRequest<'a> {
    pub(super) method: &'a str,
    /// As sent: nothing decoded, no segment folded (P-5).
    pub(super) path: &'a str,
    /// Stands for the `host` header where it is given: HTTP/2's `:authority` (P-11).
    pub(super) host: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
    /// Names in lower case between semicolons.
    pub(super) signed_headers: &'a str,
    /// SHA-256 of the body in lower-case hex.
    pub(super) body_hash: &'a str,
}

impl CanonicalRequest<'_> {
    /// The canonical request. It is not always UTF-8, since header values need not be.
    ///
    /// The query string is empty: what has one was refused before (P-15). A header that is named
    /// and not there counts as empty; `verify` refuses that before.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(512);
        text.extend_from_slice(self.method.as_bytes());
        text.push(b'\n');
        push_path(&mut text, self.path);
        text.extend_from_slice(b"\n\n");
        for name in self.signed_headers.split(';') {
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            self.push_values(&mut text, name);
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(self.signed_headers.as_bytes());
        text.push(b'\n');
        text.extend_from_slice(self.body_hash.as_bytes());
        text
    }

    /// All values of a header in their order, with commas between.
    fn push_values(&self, text: &mut Vec<u8>, name: &str) {
        if let (header::HOST, Some(host)) = (name, self.host) {
            return push_value(text, host.as_bytes());
        }
        for (position, value) in self.headers.get_all(name).iter().enumerate() {
            if position > 0 {
                text.push(b',');
            }
            push_value(text, value.as_bytes());
        }
    }
}

/// A path as SigV4 writes it for every service but S3: each byte other than an unreserved
/// character or a slash becomes `%XX`, and so a `%` that was sent is encoded again.
///
/// The paths of XKS consist of unreserved characters and slashes alone; others are answered 404
/// before any signature is looked at, and nothing here changes a byte of those that are not.
fn push_path(text: &mut Vec<u8>, path: &str) {
    if path.is_empty() {
        text.push(b'/');
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            text.push(byte);
        } else {
            let hex = |nibble| hex_digit(nibble).to_ascii_uppercase();
            text.extend([b'%', hex(byte >> 4), hex(byte & 0xf)]);
        }
    }
}

/// A header value without blanks at its ends and with runs of spaces made one.
fn push_value(text: &mut Vec<u8>, value: &[u8]) {
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !is_blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !is_blank(b)).map_or(start, |last| last + 1);
    let mut previous = None;
    for &byte in value.get(start..end).unwrap_or_default() {
        if (byte, previous) != (b' ', Some(b' ')) {
            text.push(byte);
        }
        previous = Some(byte);
    }
}

/// The text that the HMAC is computed over.
pub(super) fn string_to_sign(amz_date: &str, scope: Scope<'_>, canonical_request: &[u8]) -> String {
    let Scope { date, region, service } = scope;
    let hash = sha256_hex(canonical_request);
    format!("{ALGORITHM}\n{amz_date}\n{date}/{region}/{service}/{TERMINATOR}\n{hash}")
}

/// SHA-256 in lower-case hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    let mut hex = String::with_capacity(2 * hash.as_ref().len());
    for byte in hash.as_ref() {
        hex.push(char::from(hex_digit(byte >> 4)));
        hex.push(char::from(hex_digit(byte & 0xf)));
    }
    hex
}

/// The lower-case digit of a number under 16.
fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + (nibble & 0xf) - 10,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn value(bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        push_value(&mut text, bytes);
        text
    }

    fn path(path: &str) -> String {
        let mut text = Vec::new();
        push_path(&mut text, path);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn values_are_trimmed_and_runs_of_spaces_collapse() {
        for (given, canonical) in [
            ("", ""),
            (" ", ""),
            (" \t ", ""),
            ("a", "a"),
            ("  a  b \t", "a b"),
            ("a\tb", "a\tb"),
            ("\"a   b\"", "\"a b\""),
        ] {
            assert_eq!(value(given.as_bytes()), canonical.as_bytes(), "{given:?}");
        }
        assert_eq!(value(b" \xff\xfe "), b"\xff\xfe");
    }

    #[test]
    fn paths_of_the_protocol_stay_as_they_were_sent() {
        for sent in ["/kms/xks/v1/health", "/a/B-_~/kms/xks/v1/keys/k.e-y_1/encrypt", "//", "/./.."]
        {
            assert_eq!(path(sent), sent);
        }
        assert_eq!(path(""), "/");
        assert_eq!(path("/a%2fb c\u{e9}"), "/a%252fb%20c%C3%A9");
    }

    #[test]
    fn authority_takes_the_place_of_host() {
        // P-11
        let mut headers = HeaderMap::new();
        headers.append("x-two", HeaderValue::from_static("2"));
        headers.append("x-two", HeaderValue::from_static(" 1 "));
        let body_hash = sha256_hex(b"");
        let mut request = CanonicalRequest {
            method: "POST",
            path: "/p",
            host: Some("one.example"),
            headers: &headers,
            signed_headers: "host;x-two",
            body_hash: &body_hash,
        };
        let expected = |host: &str| {
            format!("POST\n/p\n\nhost:{host}\nx-two:2,1\n\nhost;x-two\n{body_hash}").into_bytes()
        };
        assert_eq!(request.text(), expected("one.example"));
        request.host = None;
        assert_eq!(request.text(), expected(""));
    }

    #[test]
    fn sha256_of_nothing() {
        let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_hex(b""), hash);
    }
}
