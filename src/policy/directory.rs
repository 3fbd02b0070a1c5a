//! What the operator says of accounts, principals and keys: their groups and tags, from a JSON file.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use cedar_policy::{Entity, EntityUid};
use serde::Deserialize;

use super::fault::{Place, PolicyFault};
use super::vocabulary::{Described, Kind, Vocabulary};

/// The groups and tags of each entity that the operator has named.
#[derive(Debug, Default)]
pub(super) struct Directory {
    known: HashMap<EntityUid, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Every group that it is in, directly or through others.
    groups: BTreeSet<EntityUid>,
    tags: BTreeMap<String, String>,
}

/// An entity in the file: Cedar's own JSON, of which this is all that makes sense here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    uid: Uid,
    #[serde(default)]
    parents: Vec<Uid>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// Cedar's tools write it. What is in it is xksd's to say.
    #[serde(default)]
    attrs: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uid {
    r#type: String,
    id: String,
}

impl Directory {
    /// Reads the file, or names every fault in it.
    pub(super) fn read(
        vocabulary: &Vocabulary,
        file: &Path,
        text: &str,
    ) -> Result<Self, Vec<PolicyFault>> {
        let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| {
            let offset = offset(text, error.line(), error.column());
            let message = error.to_string();
            // The place is said by ourselves.
            let problem = message.split(" at line ").next().unwrap_or(&message);
            let fault = PolicyFault::of_file(file, problem)
                .hint("the file is a list: [{\"uid\": {\"type\": \"xks::Account\", \"id\": \"111122223333\"}, \"parents\": [{\"type\": \"xks::Group\", \"id\": \"ours\"}]}]");
            vec![PolicyFault { place: Some(Place::of(text, offset, 1)), ..fault }]
        })?;
        let mut faults = Vec::new();
        let mut parents: HashMap<EntityUid, Vec<EntityUid>> = HashMap::new();
        let mut tags = HashMap::new();
        for Entry { uid, parents: groups, tags: own, attrs } in entries {
            let fault = |problem: String| {
                PolicyFault::of_file(file, problem).at(text, &format!("{:?}", uid.id))
            };
            let kind = match Kind::named(&uid.r#type) {
                Some(kind @ (Kind::Keystore | Kind::Metadata | Kind::Unrecognized)) => {
                    faults.push(fault(format!("{} is not for the entities file", kind.name())));
                    continue;
                }
                Some(kind) => kind,
                None => {
                    let names = Kind::ALL.map(Kind::name).join(", ");
                    let problem = format!("`{}` is no entity type", uid.r#type);
                    faults.push(fault(problem).hint(format!("there are: {names}")));
                    continue;
                }
            };
            let Some(Described { uid: own_uid, .. }) = vocabulary.describe(kind, &uid.id) else {
                let problem = format!("`{}` is no id of {}", uid.id, kind.name());
                faults.push(fault(problem).hint(kind.form_of_ids()));
                continue;
            };
            if !attrs.is_empty() {
                let problem = format!("`{}` has attributes, which xksd makes itself", uid.id);
                faults.push(fault(problem).hint("keys may have tags"));
            }
            if !own.is_empty() && kind != Kind::ExternalKey {
                let problem = format!("`{}` has tags, which only external keys have", uid.id);
                faults.push(fault(problem));
            }
            if let Some(other) = groups.iter().find(|group| group.r#type != Kind::Group.name()) {
                let problem = format!("`{}` has a parent that is no xks::Group", uid.id);
                faults.push(fault(problem).hint(format!("it is a {}", other.r#type)));
            }
            if !groups.is_empty() && kind == Kind::AwsInternal {
                faults.push(fault(format!("`{}` is in no group", uid.id)));
            }
            let groups =
                groups.iter().map(|group| vocabulary.uid(Kind::Group, &group.id)).collect();
            if parents.insert(own_uid.clone(), groups).is_some() {
                let problem = format!("`{}` is there twice", uid.id);
                let words = format!("{:?}", uid.id);
                faults.push(PolicyFault::of_file(file, problem).at_nth(text, &words, 1));
            }
            tags.insert(own_uid, own);
        }
        for group in parents.keys().filter(|uid| closure(uid, &parents).contains(*uid)) {
            let words = format!("\"{}\"", group.id().escaped());
            let problem = format!("{group} is in itself, through other groups");
            faults.push(PolicyFault::of_file(file, problem).at(text, &words));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let known = tags.into_iter().map(|(uid, tags)| {
            let groups = closure(&uid, &parents);
            (uid, Known { groups, tags })
        });
        Ok(Self { known: known.collect() })
    }

    /// Every group that is named, as an entity or as what one is in.
    pub(super) fn groups(&self, vocabulary: &Vocabulary) -> BTreeSet<EntityUid> {
        let is_group =
            |uid: &&EntityUid| **uid == vocabulary.uid(Kind::Group, uid.id().unescaped());
        let named = self.known.keys().filter(is_group);
        let groups = self.known.values().flat_map(|known| &known.groups);
        named.chain(groups).cloned().collect()
    }

    /// The external keys that are named, as (key store, external key id).
    pub(super) fn external_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = self.known.keys().filter(|uid| uid.type_name().basename() == "ExternalKey");
        keys.filter_map(|uid| uid.id().unescaped().split_once('/'))
    }

    /// An entity with the groups and tags that the operator has given it. Groups of what it is in,
    /// of an account or a role, are its own as well.
    pub(super) fn complete(&self, described: Described) -> Entity {
        let own = self.known.get(&described.uid);
        let inherited = described.parents.iter().filter_map(|parent| self.known.get(parent));
        let groups: BTreeSet<_> =
            own.into_iter().chain(inherited).flat_map(|known| &known.groups).cloned().collect();
        let tags = own.into_iter().flat_map(|known| &known.tags);
        described.entity(groups, tags.map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

/// All that is reached from an entity: that itself, if groups turn in a circle.
fn closure(uid: &EntityUid, parents: &HashMap<EntityUid, Vec<EntityUid>>) -> BTreeSet<EntityUid> {
    let mut reached = BTreeSet::new();
    let mut open = vec![uid];
    while let Some(next) = open.pop() {
        for parent in parents.get(next).into_iter().flatten() {
            if reached.insert(parent.clone()) {
                open.push(parent);
            }
        }
    }
    reached
}

/// The byte at a line and column, both from 1.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    before + column.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Directory, Vec<PolicyFault>> {
        Directory::read(&Vocabulary::new(), Path::new("entities.json"), text)
    }

    #[test]
    fn groups_are_followed() {
        let directory = read(
            r#"[
                {"uid": {"type": "xks::Account", "id": "111122223333"},
                 "parents": [{"type": "xks::Group", "id": "a"}]},
                {"uid": {"type": "xks::Group", "id": "a"},
                 "parents": [{"type": "xks::Group", "id": "b"}]},
                {"uid": {"type": "xks::Group", "id": "b"}},
                {"uid": {"type": "xks::ExternalKey", "id": "demo/k"}, "attrs": {},
                 "tags": {"team": "payments"}}
            ]"#,
        )
        .unwrap();
        let vocabulary = Vocabulary::new();
        let account = vocabulary.describe(Kind::Account, "111122223333").unwrap();
        let account = directory.complete(account);
        let (_, _, groups) = account.into_inner();
        assert_eq!(groups.len(), 2);
        let key = directory.complete(vocabulary.describe(Kind::ExternalKey, "demo/k").unwrap());
        assert!(key.tag("team").is_some());
        assert_eq!(directory.external_keys().collect::<Vec<_>>(), [("demo", "k")]);
        assert_eq!(directory.groups(&vocabulary).len(), 2);
    }

    #[test]
    fn every_fault_has_its_place() {
        let faults = read(
            r#"[
                {"uid": {"type": "xks::Account", "id": "1111"}},
                {"uid": {"type": "Account", "id": "111122223333"}},
                {"uid": {"type": "xks::Role", "id": "arn:aws:iam::111122223333:user/x"}},
                {"uid": {"type": "xks::Group", "id": "g"}, "tags": {"a": "b"}},
                {"uid": {"type": "xks::Group", "id": "h"}, "attrs": {"a": 1},
                 "parents": [{"type": "xks::Account", "id": "111122223333"}]},
                {"uid": {"type": "xks::Keystore", "id": "demo"}},
                {"uid": {"type": "xks::Group", "id": "h"}}
            ]"#,
        )
        .unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| fault.place.as_ref().unwrap().line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 6, 8, 9], "{faults:#?}");
        let circle = read(
            r#"[{"uid": {"type": "xks::Group", "id": "a"}, "parents": [{"type": "xks::Group", "id": "b"}]},
                {"uid": {"type": "xks::Group", "id": "b"}, "parents": [{"type": "xks::Group", "id": "a"}]}]"#,
        );
        let circle = circle.unwrap_err();
        assert_eq!(circle.len(), 2, "{circle:?}");
        assert!(circle[0].problem.contains("is in itself"));
        let fault = read("[\n  {\"uid\": 1}\n]").unwrap_err().remove(0);
        assert_eq!(fault.place.unwrap().line, 2);
        assert!(!fault.problem.contains("line 2"), "{}", fault.problem);
    }
}
