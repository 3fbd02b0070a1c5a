//! Takes a JSON object apart: its known members are left where they are in the body, its unknown
//! ones are skipped, and no member may stand twice anywhere (P-21, P-22).

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The known members of one JSON object, each as the JSON text that stands in the request.
pub(super) struct Object<'a, const N: usize> {
    members: [(&'static str, Option<&'a RawValue>); N],
    has_others: bool,
}

/// Why an object could not be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObjectError {
    NotAnObject,
    Malformed { line: usize, column: usize },
    Duplicate { member: &'static str },
}

/// Stands for the name of a member that is not the protocol's: names are content, too.
const UNKNOWN: &str = "a member that is not part of version 1 of the protocol";

impl<'a, const N: usize> Object<'a, N> {
    /// Reads `json`, which must be one object and nothing after it.
    ///
    /// On failure the members that stood before the fault are there all the same, so that a
    /// refused request can be logged with its `kmsRequestId`.
    pub(super) fn read(
        json: &'a [u8],
        names: [&'static str; N],
    ) -> (Self, Result<(), ObjectError>) {
        let mut object = Self { members: names.map(|name| (name, None)), has_others: false };
        if json.trim_ascii_start().first() != Some(&b'{') {
            return (object, Err(ObjectError::NotAnObject));
        }
        let mut twice = None;
        let mut json = serde_json::Deserializer::from_slice(json);
        let members = Members { object: &mut object, twice: &mut twice };
        // P-22: nothing but white space may follow.
        let read = members.deserialize(&mut json).and_then(|()| json.end());
        let result = read.map_err(|error| match (twice, error.classify()) {
            (Some(member), _) => ObjectError::Duplicate { member },
            // The visitors below take every type, and fail for one reason.
            (None, Category::Data) => ObjectError::Duplicate { member: UNKNOWN },
            _ => ObjectError::Malformed { line: error.line(), column: error.column() },
        });
        (object, result)
    }

    /// The JSON text of a member; `None` if it is absent or null, which are alike (P-22).
    pub(super) fn member(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.members.iter().find(|(known, _)| *known == name)?;
        value.filter(|value| value.get() != "null")
    }

    /// Whether members stood there that are not known.
    pub(super) fn has_others(&self) -> bool {
        self.has_others
    }
}

/// Fills an [`Object`] as the parser comes by its members.
struct Members<'o, 'a, const N: usize> {
    object: &'o mut Object<'a, N>,
    /// Name of the known member that was met twice.
    twice: &'o mut Option<&'static str>,
}

impl<'de, const N: usize> DeserializeSeed<'de> for Members<'_, 'de, N> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, 'de, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut unknown = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            match self.object.members.iter_mut().find(|(known, _)| *known == name) {
                Some((known, Some(_))) => {
                    *self.twice = Some(known);
                    return Err(A::Error::custom("duplicate member"));
                }
                // A RawValue is a slice of the body: no copy of a plaintext is made (P-45).
                Some((_, value)) => *value = Some(map.next_value()?),
                // P-21: what is not known is accepted.
                None => {
                    self.object.has_others = true;
                    map.next_value::<Skipped>()?;
                    if !unknown.insert(name) {
                        return Err(A::Error::custom("duplicate member"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// A value that is of no interest, in which no member may stand twice all the same (P-22).
///
/// serde_json bounds the depth of nesting, and so the depth of this recursion.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if !names.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<(), ObjectError> {
        Object::read(json.as_bytes(), ["a", "b"]).1
    }

    #[test]
    fn members_are_found_where_they_stand() {
        let json = r#" { "x": [1, {"a": 2}], "a": "text" , "\u0062": null } "#;
        let (object, result) = Object::read(json.as_bytes(), ["a", "b", "c"]);
        assert_eq!(result, Ok(()));
        let a = object.member("a").unwrap().get();
        assert_eq!(a, "\"text\"");
        assert!(json.as_bytes().as_ptr_range().contains(&a.as_ptr()), "not a slice of the body");
        // P-22: null and absent are alike.
        assert!(object.member("b").is_none());
        assert!(object.member("c").is_none());
    }

    #[test]
    fn no_member_stands_twice_anywhere_p_22() {
        for json in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": null, "b": 2, "a": 1}"#,
            r#"{"a": 1, "\u0061": 1}"#,
            r#"{"a": {}, "a": {}}"#,
        ] {
            assert_eq!(read(json), Err(ObjectError::Duplicate { member: "a" }), "{json}");
        }
        for json in [
            r#"{"x": 1, "a": 1, "x": 1}"#,
            r#"{"x": 1, "\u0078": 1}"#,
            r#"{"x": {"y": 1, "y": 1}}"#,
            r#"{"x": [[{"y": {"z": 1, "z": null}}]]}"#,
        ] {
            assert_eq!(read(json), Err(ObjectError::Duplicate { member: UNKNOWN }), "{json}");
        }
        assert_eq!(read(r#"{"x": {"y": 1}, "z": [{"y": 1}, {"y": 1}], "a": {"a": 1}}"#), Ok(()));
    }

    #[test]
    fn what_is_no_object_is_said_so_p_22() {
        for json in ["", " ", "null", "[]", "\"a\"", "1", "true", "\u{feff}{}", "x{}"] {
            assert_eq!(read(json), Err(ObjectError::NotAnObject), "{json:?}");
        }
    }

    #[test]
    fn malformed_json_is_located_p_22() {
        for (json, expected) in [
            ("{", 1),
            ("{}x", 1),
            ("{} {}", 1),
            ("{\"a\": 1,\n}", 2),
            ("{\n\"a\":\n}", 3),
            ("{\"a\": tru}", 1),
            ("{\"a\": 01}", 1),
            ("{'a': 1}", 1),
            ("{\"a\": \"\t\"}", 1),
            ("{\"x\": \"\\ud800\"}", 1),
            ("{\"x\": \"\\x\"}", 1),
        ] {
            // The column is serde_json's notion of it.
            let Err(ObjectError::Malformed { line, .. }) = read(json) else { panic!("{json}") };
            assert_eq!(line, expected, "{json}");
        }
        let not_utf_8 = Object::read(b"{\"a\": \"\xff\"}", ["a"]).1;
        assert!(matches!(not_utf_8, Err(ObjectError::Malformed { .. })));
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        for depth in [200, 100_000] {
            let unknown = format!("{{\"x\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
            assert!(matches!(read(&unknown), Err(ObjectError::Malformed { .. })));
            let objects = format!("{{\"x\": {}1{}}}", "{\"y\":".repeat(depth), "}".repeat(depth));
            assert!(matches!(read(&objects), Err(ObjectError::Malformed { .. })));
            // A known member is not taken apart here.
            assert_eq!(read(&unknown.replace('x', "a")), Ok(()));
        }
    }

    #[test]
    fn members_before_a_fault_are_kept() {
        let (object, result) = Object::read(br#"{"a": "kept", "b": "kept", "x"#, ["a", "b"]);
        assert!(matches!(result, Err(ObjectError::Malformed { .. })));
        assert_eq!(object.member("b").unwrap().get(), "\"kept\"");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(json in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Object::read(&json, ["a", "b"]);
        }

        #[test]
        fn nothing_like_json_panics(json in "[\\{\\}\\[\\]:,\"ab\\\\u0 1e.-]{0,60}") {
            let (_, result) = Object::read(json.as_bytes(), ["a", "b"]);
            // Whatever is taken here is JSON to others, too.
            if result.is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok()
                    || json.contains("\\u"), "{json}");
            }
        }
    }
}
