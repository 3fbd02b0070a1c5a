//! Canonical JSON: one object in one line, its members in the order in which they are written, no
//! white space, whole numbers only, strings of printable ASCII.
//!
//! So the same facts always make the same bytes, and hashes and signatures are over what stands in the
//! file: nobody has to write anything anew to verify it.

use std::fmt::{self, Write};
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

use crate::wire::log_text::{LogText, MAX_LOG_TEXT_LEN};

/// Times are UTC, to the microsecond.
const TIME: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A time as it stands in a record: `2026-11-22T05:17:51.123456Z`.
pub fn time_text(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&TIME)
        .unwrap_or_else(|_| "0000-01-01T00:00:00.000000Z".into())
}

/// An object that is being written.
#[derive(Debug)]
pub struct Object {
    /// What it stands behind, and itself.
    text: String,
    /// It has no member yet.
    is_empty: bool,
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl Object {
    /// An empty one.
    pub fn new() -> Self {
        Self::behind(String::new())
    }

    /// An empty one, with memory for so many bytes.
    pub fn with_room(bytes: usize) -> Self {
        Self::behind(String::with_capacity(bytes))
    }

    /// An empty one, behind whatever this is.
    pub fn behind(mut text: String) -> Self {
        text.push('{');
        Self { text, is_empty: true }
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.is_empty) {
            self.text.push(',');
        }
    }

    fn name(&mut self, name: &'static str) {
        self.comma();
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    /// Adds a string, escaped and cut as in the log (P-22), so that nobody can make a record too long
    /// or forge a part of one.
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        quote(&mut self.text, value);
    }

    /// Adds a string if there is one.
    pub fn optional(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// Adds what shows itself as a string.
    pub fn shown(&mut self, name: &'static str, value: impl fmt::Display) {
        self.text(name, &value.to_string());
    }

    /// Adds a number.
    pub fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        // Writing to a string can't fail.
        let _ = write!(self.text, "{value}");
    }

    /// Adds a time.
    pub fn time(&mut self, name: &'static str, value: SystemTime) {
        self.text(name, &time_text(value));
    }

    /// Adds bytes as lower-case hexadecimal digits, however many there are.
    pub fn bytes(&mut self, name: &'static str, value: &[u8]) {
        self.name(name);
        self.text.push('"');
        push_hex(&mut self.text, value);
        self.text.push('"');
    }

    /// Adds a list of strings.
    pub fn list(&mut self, name: &'static str, values: &[String]) {
        self.name(name);
        self.text.push('[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            quote(&mut self.text, value);
        }
        self.text.push(']');
    }

    /// Adds an object that was written before.
    pub fn object(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.text.push_str(value);
    }

    /// Adds the members of an object that was written before, and has some.
    pub fn members_of(&mut self, object: &str) {
        let members = object.strip_prefix('{').and_then(|object| object.strip_suffix('}'));
        self.comma();
        self.text.push_str(members.unwrap_or_default());
    }

    /// The whole, and what it stands behind.
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    push_hex(&mut text, bytes);
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
    for bytes in bytes.chunks(32) {
        let mut digits = [0; 64];
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [byte >> 4, byte & 0xf].map(digit);
        }
        let digits = digits.get(..bytes.len().saturating_mul(2)).unwrap_or_default();
        text.push_str(std::str::from_utf8(digits).unwrap_or_default());
    }
}

/// Reads an even number of lower-case hexadecimal digits, and nothing else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

/// After [`LogText`] only two characters are left that JSON escapes. Most strings need neither.
fn quote(text: &mut String, value: &str) {
    text.push('"');
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if value.len() <= MAX_LOG_TEXT_LEN && value.bytes().all(is_plain) {
        text.push_str(value);
    } else {
        for c in LogText::new(value).to_string().chars() {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_keep_their_order() {
        let mut object = Object::new();
        object.text("b", "x");
        object.number("a", u64::MAX);
        object.optional("none", None);
        object.list("list", &["1".to_owned(), "2".to_owned()]);
        object.bytes("bytes", &[0, 0xab]);
        object.object("inner", "{}");
        let expected =
            r#"{"b":"x","a":18446744073709551615,"list":["1","2"],"bytes":"00ab","inner":{}}"#;
        assert_eq!(object.finish(), expected);
    }

    #[test]
    fn times_have_one_form() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_795_324_671_000_001_999);
        assert_eq!(time_text(time), "2026-11-22T05:17:51.000001Z");
        assert_eq!(time_text(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
    }

    proptest! {
        #[test]
        fn any_string_makes_one_line_of_json(value in any::<String>()) {
            let mut object = Object::new();
            object.text("value", &value);
            let text = object.finish();
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read["value"].as_str().unwrap(), LogText::new(&value).to_string());
        }

        #[test]
        fn digits_are_read_as_they_were_written(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn no_other_digits_are_read() {
        for text in ["0", "0g", "AB", " 00", "0x00", "é"] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }
}
