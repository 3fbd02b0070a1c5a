//! Members of `requestMetadata` that version 1 of the protocol does not know (P-21): kept as texts,
//! so that authorization can use what KMS begins to send before xksd knows it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Most members that are kept.
pub const MAX_OTHER_MEMBERS: usize = 32;

/// Longest name and longest text that are kept, in bytes.
pub const MAX_OTHER_MEMBER_LEN: usize = 4096;

/// The members, each name once, in the order of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OtherMembers {
    members: Vec<(Box<str>, Box<str>)>,
    left_out: bool,
}

impl OtherMembers {
    /// Name and text of each. A string is its own text, anything else the JSON that KMS sent; null is
    /// as if it were absent (P-22).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|(name, text)| (&**name, &**text))
    }

    /// Whether there were more, or longer ones, than are kept.
    pub fn left_out(&self) -> bool {
        self.left_out
    }

    /// Reads those members of an object that are not `known`. The object has been read before, and is
    /// good; were it not, what can be read would be kept.
    pub(super) fn read(object: &str, known: &[&str]) -> Self {
        let members: Members<'_> = serde_json::from_str(object).unwrap_or_default();
        let mut others = Self::default();
        for (name, value) in members.0 {
            let value = value.get();
            if known.contains(&name.as_str()) || value == "null" {
                continue;
            }
            let text = match value.starts_with('"') {
                true => serde_json::from_str::<String>(value).unwrap_or_default(),
                false => value.to_owned(),
            };
            let fits = name.len() <= MAX_OTHER_MEMBER_LEN && text.len() <= MAX_OTHER_MEMBER_LEN;
            if fits && others.members.len() < MAX_OTHER_MEMBERS {
                others.members.push((name.into(), text.into()));
            } else {
                others.left_out = true;
            }
        }
        others
    }
}

/// All members of an object, where they stand.
#[derive(Default)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        json.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(object: &str) -> (Vec<(String, String)>, bool) {
        let others = OtherMembers::read(object, &["known"]);
        let owned = others.iter().map(|(name, text)| (name.to_owned(), text.to_owned()));
        (owned.collect(), others.left_out())
    }

    #[test]
    fn what_is_not_known_is_kept_as_text_p_21() {
        let object = r#"{"known": "k", "a": "x\n\u00e9", "\u0062": [1, {"c": 2}], "d": null, "e": 7,
            "f": false, "g": ""}"#;
        let expected =
            [("a", "x\né"), ("b", r#"[1, {"c": 2}]"#), ("e", "7"), ("f", "false"), ("g", "")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
        assert_eq!(read(object), (expected, false));
        assert_eq!(read("{}"), (Vec::new(), false));
    }

    #[test]
    fn what_is_kept_is_bounded_p_21() {
        let many: Vec<String> = (0..100).map(|n| format!("\"m{n}\": \"x\"")).collect();
        let (kept, left_out) = read(&format!("{{{}}}", many.join(",")));
        assert_eq!((kept.len(), left_out), (MAX_OTHER_MEMBERS, true));
        let text = |len: usize| format!(r#"{{"a": "{}", "b": "x"}}"#, "x".repeat(len));
        assert_eq!(read(&text(MAX_OTHER_MEMBER_LEN)).0.len(), 2);
        let (kept, left_out) = read(&text(MAX_OTHER_MEMBER_LEN + 1));
        assert_eq!((kept, left_out), (vec![("b".to_owned(), "x".to_owned())], true));
        let name = "n".repeat(MAX_OTHER_MEMBER_LEN + 1);
        assert_eq!(read(&format!(r#"{{"{name}": "x"}}"#)), (Vec::new(), true));
    }
}
