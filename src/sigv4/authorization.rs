//! The `Authorization` header (P-10):
//! `AWS4-HMAC-SHA256 Credential=<id>/<yyyymmdd>/<region>/<service>/aws4_request,
//! SignedHeaders=<name;name>, Signature=<64 hex>`.
//!
//! The parser is strict: three components, each once, in any order, separated by a comma with or
//! without one space after it. It borrows from the header and allocates nothing.

/// The algorithm that every header starts with, and the first line of the string to sign.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Longest header that is read at all. KMS sends about 230 bytes; the rest is for signed headers.
pub const MAX_LENGTH: usize = 2048;

/// The last part of a credential scope.
pub(super) const TERMINATOR: &str = "aws4_request";

/// Hex digits of an HMAC-SHA256.
const SIGNATURE_LENGTH: usize = 64;

/// A header that has the right form. Nothing in it has been believed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// What stands where the access key id belongs; not always of an id's form.
    pub access_key_id: &'a str,
    /// The credential scope.
    pub scope: Scope<'a>,
    /// The names of the signed headers.
    pub signed_headers: SignedHeaders<'a>,
    /// 64 lower-case hex digits.
    pub signature: &'a str,
}

/// What a signing key is good for: one day, one Region, one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The day in UTC, `yyyymmdd` where the signer keeps to the rules.
    pub date: &'a str,
    /// The Region of the KMS that calls.
    pub region: &'a str,
    /// The service; `kms-xks-proxy` for every request that is meant for us.
    pub service: &'a str,
}

/// The list of signed header names: not empty, lower case, strictly ascending (so each once).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedHeaders<'a>(&'a str);

impl<'a> SignedHeaders<'a> {
    /// The list as it stands in the header and in the canonical request.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The names in their order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        self.0.split(';')
    }

    /// Whether this header is signed; `name` in lower case.
    pub fn contains(self, name: &str) -> bool {
        self.iter().any(|signed| signed == name)
    }
}

/// Why a header is not of the form of P-10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Longer than [`MAX_LENGTH`].
    #[error("it is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Bytes that are not visible ASCII or space.
    #[error("it contains bytes other than printable ASCII")]
    NotAscii,
    /// Another scheme, or another signature algorithm of AWS.
    #[error("it does not start with `{ALGORITHM} `")]
    Algorithm,
    /// A component that is none of the three, or no `name=value` at all.
    #[error("it has a component other than Credential, SignedHeaders and Signature")]
    UnknownComponent,
    /// A component that is there twice.
    #[error("its component {0} is there twice")]
    RepeatedComponent(&'static str),
    /// A component that is not there.
    #[error("its component {0} is missing")]
    MissingComponent(&'static str),
    /// Not five non-empty parts between slashes, or the last is not `aws4_request`.
    #[error("its Credential is not of the form id/yyyymmdd/region/service/aws4_request")]
    Credential,
    /// Empty, not lower case, not sorted, or a name twice.
    #[error("its SignedHeaders are not lower-case header names in ascending order, each once")]
    SignedHeaders,
    /// Not 64 lower-case hex digits.
    #[error("its Signature is not {SIGNATURE_LENGTH} lower-case hex digits")]
    Signature,
}

/// Reads the value of an `Authorization` header.
///
/// # Errors
/// [`SyntaxError`] for whatever is not exactly of the form at the top of this module.
pub fn parse(value: &str) -> Result<Authorization<'_>, SyntaxError> {
    if value.len() > MAX_LENGTH {
        return Err(SyntaxError::TooLong);
    }
    if !value.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Err(SyntaxError::NotAscii);
    }
    let components = value
        .strip_prefix(ALGORITHM)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or(SyntaxError::Algorithm)?;

    let mut credential = None;
    let mut signed_headers = None;
    let mut signature = None;
    for (position, component) in components.split(',').enumerate() {
        let component = match position {
            0 => component,
            _ => component.strip_prefix(' ').unwrap_or(component),
        };
        let (slot, name, text) = match component.split_once('=') {
            Some(("Credential", text)) => (&mut credential, "Credential", text),
            Some(("SignedHeaders", text)) => (&mut signed_headers, "SignedHeaders", text),
            Some(("Signature", text)) => (&mut signature, "Signature", text),
            _ => return Err(SyntaxError::UnknownComponent),
        };
        if slot.replace(text).is_some() {
            return Err(SyntaxError::RepeatedComponent(name));
        }
    }

    let credential = credential.ok_or(SyntaxError::MissingComponent("Credential"))?;
    let signed_headers = signed_headers.ok_or(SyntaxError::MissingComponent("SignedHeaders"))?;
    let signature = signature.ok_or(SyntaxError::MissingComponent("Signature"))?;
    let (access_key_id, scope) = parse_credential(credential)?;
    Ok(Authorization {
        access_key_id,
        scope,
        signed_headers: parse_signed_headers(signed_headers)?,
        signature: parse_signature(signature)?,
    })
}

fn parse_credential(text: &str) -> Result<(&str, Scope<'_>), SyntaxError> {
    let mut parts = text.split('/');
    let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(SyntaxError::Credential);
    let access_key_id = part()?;
    let scope = Scope { date: part()?, region: part()?, service: part()? };
    if part()? != TERMINATOR || parts.next().is_some() {
        return Err(SyntaxError::Credential);
    }
    Ok((access_key_id, scope))
}

fn parse_signed_headers(text: &str) -> Result<SignedHeaders<'_>, SyntaxError> {
    let mut previous = "";
    for name in text.split(';') {
        // The empty name is caught here too: it is not above its predecessor.
        if name <= previous || !name.bytes().all(is_lower_case_token) {
            return Err(SyntaxError::SignedHeaders);
        }
        previous = name;
    }
    Ok(SignedHeaders(text))
}

/// The characters of a header name (RFC 9110, section 5.6.2), capitals left out.
fn is_lower_case_token(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn parse_signature(text: &str) -> Result<&str, SyntaxError> {
    let is_hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
    if text.len() == SIGNATURE_LENGTH && text.bytes().all(is_hex) {
        Ok(text)
    } else {
        Err(SyntaxError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CREDENTIAL: &str =
        "Credential=ABCDEFGHIJKLMNOPQRST/20261121/us-east-1/kms-xks-proxy/aws4_request";
    const HEADERS: &str = "SignedHeaders=content-type;host;x-amz-date";
    const SIGNATURE: &str =
        "Signature=2df02058716fa5d0ddb78fb8bd1a732c7465f94a2d8eb8a3526378825775c46e";

    fn header(components: &[&str], separator: &str) -> String {
        format!("{ALGORITHM} {}", components.join(separator))
    }

    #[test]
    fn the_form_of_p_10_parses() {
        // P-10
        let text = header(&[CREDENTIAL, HEADERS, SIGNATURE], ", ");
        let parsed = parse(&text).unwrap();
        assert_eq!(parsed.access_key_id, "ABCDEFGHIJKLMNOPQRST");
        let (date, region, service) = ("20261121", "us-east-1", "kms-xks-proxy");
        assert_eq!(parsed.scope, Scope { date, region, service });
        assert_eq!(parsed.signed_headers.as_str(), "content-type;host;x-amz-date");
        assert!(parsed.signed_headers.contains("host"));
        assert!(!parsed.signed_headers.contains("hos"));
        assert_eq!(format!("Signature={}", parsed.signature), SIGNATURE);
    }

    #[test]
    fn separators_and_order_may_vary() {
        let usual = header(&[CREDENTIAL, HEADERS, SIGNATURE], ", ");
        for other in [
            header(&[CREDENTIAL, HEADERS, SIGNATURE], ","),
            header(&[SIGNATURE, HEADERS, CREDENTIAL], ", "),
        ] {
            assert_eq!(parse(&other), parse(&usual), "{other}");
        }
    }

    #[test]
    fn an_id_of_another_form_is_not_a_syntax_error() {
        // P-15: it must be answered like an unknown id, so it gets past the parser.
        let credential = CREDENTIAL.replace("=ABC", "=InvalidABC");
        let text = header(&[&credential, HEADERS, SIGNATURE], ", ");
        assert_eq!(parse(&text).unwrap().access_key_id, "InvalidABCDEFGHIJKLMNOPQRST");
    }

    #[test]
    fn other_forms_are_refused() {
        use SyntaxError as E;
        // P-15: each of these is 401, never 400.
        let all = header(&[CREDENTIAL, HEADERS, SIGNATURE], ", ");
        let with = |from: &str, to: &str| all.replacen(from, to, 1);
        let missing = |name| E::MissingComponent(name);
        let cases = [
            (String::new(), E::Algorithm),
            ("Basic dXNlcjpwYXNz".into(), E::Algorithm),
            (ALGORITHM.into(), E::Algorithm),
            (format!("{ALGORITHM} "), E::UnknownComponent),
            (with("SHA256 ", "SHA256"), E::Algorithm),
            (with("SHA256 ", "SHA256\t"), E::NotAscii),
            (with("SHA256 ", "SHA256  "), E::UnknownComponent),
            (with("AWS4-HMAC-SHA256", "aws4-hmac-sha256"), E::Algorithm),
            (with("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), E::Algorithm),
            (with("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256-PAYLOAD"), E::Algorithm),
            (header(&[HEADERS, SIGNATURE], ", "), missing("Credential")),
            (header(&[CREDENTIAL, SIGNATURE], ", "), missing("SignedHeaders")),
            (header(&[CREDENTIAL, HEADERS], ", "), missing("Signature")),
            (format!("{all}, {CREDENTIAL}"), E::RepeatedComponent("Credential")),
            (format!("{all}, {HEADERS}"), E::RepeatedComponent("SignedHeaders")),
            (format!("{all}, {SIGNATURE}"), E::RepeatedComponent("Signature")),
            (format!("{all}, Token=x"), E::UnknownComponent),
            (format!("{all},"), E::UnknownComponent),
            (header(&[CREDENTIAL, HEADERS, SIGNATURE], ",  "), E::UnknownComponent),
            (header(&[CREDENTIAL, HEADERS, SIGNATURE], " "), missing("SignedHeaders")),
            (with("Credential=", "credential="), E::UnknownComponent),
            (with("/aws4_request", ""), E::Credential),
            (with("/aws4_request", "/aws4"), E::Credential),
            (with("/aws4_request", "/aws4_request/"), E::Credential),
            (with("/aws4_request", "/aws4_request/x"), E::Credential),
            (with("ABCDEFGHIJKLMNOPQRST", ""), E::Credential),
            (with("us-east-1", ""), E::Credential),
            (with("20261121/", ""), E::Credential),
            (with("content-type;host;x-amz-date", ""), E::SignedHeaders),
            (with("content-type;host", "host;content-type"), E::SignedHeaders),
            (with("host", "host;host"), E::SignedHeaders),
            (with("host", "Host"), E::SignedHeaders),
            (with("host", ""), E::SignedHeaders),
            (with("host", "ho st"), E::SignedHeaders),
            (with("host;x-amz-date", "host;x-amz-date;"), E::SignedHeaders),
            (with("2df0", "2DF0"), E::Signature),
            (with("2df0", "2dg0"), E::Signature),
            (with("2df0", "2df"), E::Signature),
            (with("2df0", "2df00"), E::Signature),
            (with("us-east-1", "us-\u{e9}ast-1"), E::NotAscii),
            (with("us-east-1", "us\u{0}east-1"), E::NotAscii),
            (with("us-east-1", &"u".repeat(MAX_LENGTH)), E::TooLong),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(&text), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_longest_header_parses_and_one_more_byte_does_not() {
        let text = |length: usize| {
            let fixed = header(&[CREDENTIAL, HEADERS, SIGNATURE], ", ").len() + 1;
            let filler = format!("{HEADERS};{}", "z".repeat(length - fixed));
            header(&[CREDENTIAL, &filler, SIGNATURE], ", ")
        };
        assert_eq!(text(MAX_LENGTH).len(), MAX_LENGTH);
        assert!(parse(&text(MAX_LENGTH)).is_ok());
        assert_eq!(parse(&text(MAX_LENGTH + 1)), Err(SyntaxError::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_change_of_a_good_header_makes_it_panic(at in 0usize..260, new in any::<char>()) {
            let text = header(&[CREDENTIAL, HEADERS, SIGNATURE], ", ");
            let changed: String =
                text.chars().enumerate().map(|(i, c)| if i == at { new } else { c }).collect();
            let _ = parse(&changed);
        }
    }
}
