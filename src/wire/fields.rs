//! Reads one member of a request into its type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::object::Object;
use super::request_error::RequestError;

/// A member as a string; `None` if it is absent.
pub(super) fn text<const N: usize>(
    object: &Object<'_, N>,
    member: &'static str,
) -> Result<Option<String>, RequestError> {
    let Some(value) = object.member(member) else { return Ok(None) };
    quoted(member, value)?;
    // Strings that are no plaintext: serde_json may copy them while it resolves escapes.
    let text = serde_json::from_str(value.get());
    text.map(Some).map_err(|_| RequestError::MalformedMember { member })
}

/// The Base64 of a member, decoded; `None` if it is absent, while an empty string gives no bytes.
pub(super) fn bytes<const N: usize>(
    object: &Object<'_, N>,
    member: &'static str,
) -> Result<Option<Zeroizing<Vec<u8>>>, RequestError> {
    let Some(value) = object.member(member) else { return Ok(None) };
    let base64 = unescape(quoted(member, value)?);
    let base64 = base64.ok_or(RequestError::NotBase64 { member })?;
    decode(base64.as_bytes()).map(Some).ok_or(RequestError::NotBase64 { member })
}

/// As [`bytes`], for a member that must be there and not empty.
pub(super) fn required_bytes<const N: usize>(
    object: &Object<'_, N>,
    member: &'static str,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let bytes = bytes(object, member)?.ok_or(RequestError::Missing { member })?;
    if bytes.is_empty() { Err(RequestError::Empty { member }) } else { Ok(bytes) }
}

/// The JSON text between the quotation marks of a string, escapes unresolved.
fn quoted<'a>(member: &'static str, value: &'a RawValue) -> Result<&'a str, RequestError> {
    let inner = value.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.ok_or(RequestError::WrongType { member, expected: "a JSON string" })
}

/// Base64 in the request, or with its escapes resolved in a buffer of its own.
enum Base64<'a> {
    InPlace(&'a [u8]),
    Unescaped(Zeroizing<Vec<u8>>),
}

impl Base64<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Unescaped(bytes) => bytes,
        }
    }
}

/// Resolves the escapes of a string that should hold Base64; `None` if it cannot hold any.
///
/// Some JSON writers send every `/` as `\/`. serde_json would resolve that in a buffer which nobody
/// zeroizes, and there may be a plaintext in it (P-45). Only what can stand for a character of
/// Base64 needs to be understood: `\/` and `\u00xx`.
fn unescape(text: &str) -> Option<Base64<'_>> {
    if !text.contains('\\') {
        return Some(Base64::InPlace(text.as_bytes()));
    }
    // The result is shorter than the text, so this buffer never moves.
    let mut resolved = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        resolved.extend_from_slice(plain.as_bytes());
        let byte;
        (byte, rest) = match escape.strip_prefix('/') {
            Some(rest) => (b'/', rest),
            None => {
                let (digits, rest) = escape.strip_prefix("u00")?.split_at_checked(2)?;
                (u8::from_str_radix(digits, 16).ok()?, rest)
            }
        };
        resolved.push(byte);
    }
    resolved.extend_from_slice(rest.as_bytes());
    Some(Base64::Unescaped(resolved))
}

/// Decodes standard Base64, padded and canonical (P-40), into a buffer that is never moved.
fn decode(base64: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let room = base64.len().div_ceil(4).checked_mul(3)?;
    let mut bytes = Zeroizing::new(vec![0; room]);
    let len = STANDARD.decode_slice(base64, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json_string: &str) -> Result<Option<Vec<u8>>, RequestError> {
        let json = format!("{{\"m\": {json_string}}}");
        let (object, result) = Object::read(json.as_bytes(), ["m"]);
        assert_eq!(result, Ok(()), "{json}");
        bytes(&object, "m").map(|bytes| bytes.map(|bytes| bytes.to_vec()))
    }

    #[test]
    fn base64_is_strict_p_40() {
        assert_eq!(read(r#""+/8=""#), Ok(Some(vec![0xfb, 0xff])));
        assert_eq!(read(r#""""#), Ok(Some(Vec::new())));
        assert_eq!(read("null"), Ok(None));
        for bad in [
            r#""-_8=""#,     // URL-safe alphabet
            r#""+/8""#,      // no padding
            r#""+/8==""#,    // too much of it
            r#""+/9=""#,     // bits that belong to no byte
            r#""+/8=+/8=""#, // padding inside
            r#""+/8= ""#,
            r#"" +/8=""#,
            r#""+/ 8=""#,
            r#""+/8=\n""#,
            r#""=""#,
            r#""====""#,
            r#""A""#,
            r#""QUFB\u0000""#,
            r#""QUF\u00c1""#,
            r#""QUFé""#,
            r#""QUF\u0141""#,
            r#""QUF\"""#,
            r#""QUF\\""#,
            r#""QU\ud83d\ude00""#,
        ] {
            assert_eq!(read(bad), Err(RequestError::NotBase64 { member: "m" }), "{bad}");
        }
        for other in ["1", "true", "[]", "{}", r#"["QUFB"]"#] {
            let expected = "a JSON string";
            let error = RequestError::WrongType { member: "m", expected };
            assert_eq!(read(other), Err(error), "{other}");
        }
    }

    #[test]
    fn escaped_base64_is_the_same_base64() {
        assert_eq!(read(r#""+\/8=""#), Ok(Some(vec![0xfb, 0xff])));
        assert_eq!(read(r#""\u002b\u002F8\u003d""#), Ok(Some(vec![0xfb, 0xff])));
        assert_eq!(read(r#""\/\/\/\/""#), Ok(Some(vec![0xff; 3])));
    }

    proptest! {
        #[test]
        fn bytes_are_read_back(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), escaped: bool
        ) {
            let mut base64 = STANDARD.encode(&bytes);
            if escaped {
                base64 = base64.replace('/', "\\/").replace('A', "\\u0041");
            }
            prop_assert_eq!(read(&format!("\"{base64}\"")), Ok(Some(bytes)));
        }

        #[test]
        fn a_string_is_read_as_serde_json_would(text in any::<String>()) {
            // Whatever the escapes, the outcome is that of resolving them first.
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(read(&json).ok().flatten(), STANDARD.decode(&text).ok());
        }
    }
}
