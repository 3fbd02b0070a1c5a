//! What a policy looks at, read from its conditions.

use std::collections::BTreeSet;

use cedar_policy::{EntityUid, Policy};
use serde_json::Value;

/// Which parts of the context, of those that differ from request to request, policies look at.
///
/// Where it is wrong, nothing is permitted by it: what is said not to be read is left out of the
/// context, and a policy that reads it all the same fails, which denies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// `context.time` and `context.weekday`.
    pub(super) time: bool,
    /// `context.metadata`.
    pub(super) others: bool,
}

impl Reads {
    /// Everything.
    pub(super) const ALL: Self = Self { time: true, others: true };

    /// What one of both reads.
    pub(super) fn or(self, other: Self) -> Self {
        Self { time: self.time || other.time, others: self.others || other.others }
    }
}

/// What the conditions of one policy look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) reads: Reads,
    /// Entities that are named, and of which it may matter what they are in or have. That of an entity
    /// that others are compared with, or are in, never matters.
    pub(super) entities: BTreeSet<EntityUid>,
}

impl Sight {
    /// Of what can't be told, everything.
    pub(super) fn of(policy: &Policy) -> Self {
        let conditions = policy.to_json().ok().and_then(|mut json| {
            let conditions = json.get_mut("conditions")?;
            Some(conditions.take())
        });
        let mut sight = Self::default();
        match conditions.and_then(|conditions| sight.look(&conditions)) {
            Some(()) => sight,
            None => {
                Self { reads: Reads::ALL, entities: policy.entity_literals().into_iter().collect() }
            }
        }
    }

    /// Walks through an expression in Cedar's JSON; `None` if there is something that it is not made for.
    fn look(&mut self, at: &Value) -> Option<()> {
        match at {
            Value::Array(values) => values.iter().try_for_each(|value| self.look(value)),
            Value::Object(members) => {
                members.iter().try_for_each(|(name, value)| self.look_at(name, value))
            }
            _ => Some(()),
        }
    }

    fn look_at(&mut self, name: &str, value: &Value) -> Option<()> {
        let (left, right) = (value.get("left"), value.get("right"));
        match (name, left, right) {
            ("." | "has", Some(left), None) if is_context(left) => {
                match value.get("attr")?.as_str()? {
                    "time" | "weekday" => self.reads.time = true,
                    "metadata" => self.reads.others = true,
                    _ => {}
                }
                Some(())
            }
            // As a whole.
            ("Var", None, None) if value == "context" => None,
            ("__entity", None, None) => {
                self.entities.insert(EntityUid::from_json(value.clone()).ok()?);
                Some(())
            }
            ("==" | "!=", Some(left), Some(right)) => {
                let sides = [left, right].into_iter().filter(|side| !is_entity(side));
                sides.into_iter().try_for_each(|side| self.look(side))
            }
            ("in", Some(left), Some(right)) => {
                self.look(left)?;
                let set = right.get("Set").and_then(Value::as_array);
                let is_named = is_entity(right) || set.is_some_and(|set| set.iter().all(is_entity));
                if is_named { Some(()) } else { self.look(right) }
            }
            _ => self.look(value),
        }
    }
}

fn is_context(value: &Value) -> bool {
    value.get("Var").is_some_and(|name| name == "context")
}

/// Whether it is an entity that is named, and nothing besides.
fn is_entity(value: &Value) -> bool {
    value.get("Value").is_some_and(|value| value.get("__entity").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(condition: &str) -> (bool, bool, Vec<String>) {
        let text = format!(
            "permit (principal in xks::Group::\"scope\", action, resource) when {{ {condition} }};"
        );
        let Sight { reads, entities } = Sight::of(&text.parse().unwrap());
        (reads.time, reads.others, entities.iter().map(|uid| uid.id().escaped().into()).collect())
    }

    #[test]
    fn what_is_read_is_seen_p_80() {
        for (condition, time, others) in [
            ("true", false, false),
            ("context.kmsOperation == \"time\" && resource.id like \"weekday\"", false, false),
            ("context has kmsKey && context.kmsKey.account has time", false, false),
            ("context.weekday == 1", true, false),
            ("context.time.toTime() < duration(\"1h\")", true, false),
            (
                "!(resource.id == \"a\" || context[\"time\"] < datetime(\"2026-03-03\"))",
                true,
                false,
            ),
            ("context has time", true, false),
            ("(if context has \"weekday\" then 1 else 2) == 2", true, false),
            ("[1, context.weekday].contains(3)", true, false),
            ("{\"a\": context.weekday}.a == 2", true, false),
            ("context.metadata.hasTag(\"a\")", false, true),
            ("context.metadata == context.metadata && context.weekday > 5", true, true),
            // As a whole.
            ("context == context", true, true),
            ("(if true then context else context).kmsOperation == \"a\"", true, true),
            ("[context].contains(context)", true, true),
            ("{\".\": {\"left\": context, \"attr\": \"region\"}} has a", true, true),
            ("{\"Var\": \"context\"} has a && {\"Value\": \"context\"} has Var", false, false),
        ] {
            let (sees_time, sees_others, _) = sight(condition);
            assert_eq!((sees_time, sees_others), (time, others), "{condition}");
        }
        let unless = "permit (principal, action, resource) unless { context.weekday == 1 };";
        assert!(Sight::of(&unless.parse().unwrap()).reads.time);
        let twice = "permit (principal, action, resource) when { true } when { context has time };";
        assert!(Sight::of(&twice.parse().unwrap()).reads.time);
    }

    #[test]
    fn entities_that_matter_are_seen_p_80() {
        for (condition, expected) in [
            ("principal == xks::User::\"a\" && xks::User::\"b\" != principal", &[][..]),
            ("principal in xks::Group::\"a\" || principal in [xks::Group::\"b\"]", &[]),
            ("xks::Account::\"a\" in xks::Group::\"b\"", &["a"]),
            ("xks::Account::\"a\" in resource.keystore.accounts", &["a"]),
            ("xks::ExternalKey::\"a\".id == \"b\"", &["a"]),
            ("xks::ExternalKey::\"a\".hasTag(\"b\")", &["a"]),
            ("xks::User::\"a\" has path && xks::User::\"b\".path == \"\"", &["a", "b"]),
            (
                "(if true then xks::Account::\"a\" else xks::Account::\"b\") in xks::Group::\"c\"",
                &["a", "b"],
            ),
            ("[xks::User::\"a\"].contains(principal)", &["a"]),
            ("principal in (if true then xks::Group::\"a\" else xks::Group::\"b\")", &["a", "b"]),
            (
                "principal in [xks::Group::\"a\", (if true then xks::Group::\"b\" else xks::Group::\"c\")]",
                &["a", "b", "c"],
            ),
            ("principal == (if true then xks::User::\"a\" else xks::User::\"b\")", &["a", "b"]),
            ("{\"a\": xks::User::\"a\"}.a.path == \"\"", &["a"]),
        ] {
            assert_eq!(sight(condition).2, expected, "{condition}");
        }
    }
}
