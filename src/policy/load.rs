//! From policy files to a set of policies that is valid as a whole, or all that is wrong with them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cedar_policy::{Policy, PolicyId, PolicySet, ValidationMode, Validator};

use super::directory::Directory;
use super::fault::PolicyFault;
use super::vocabulary::{Kind, Vocabulary, schema};

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// What ids of xksd's own policies begin with.
pub(super) const OWN: &str = "xksd:";

/// A policy set, and what is said of its policies.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) set: PolicySet,
    pub(super) faults: Vec<PolicyFault>,
    pub(super) warnings: Vec<PolicyFault>,
}

/// Reads and validates the operator's policies together with ours.
pub(super) fn load(
    vocabulary: &Vocabulary,
    directory: &Directory,
    sources: &[Source],
    own: &[&str],
) -> Loaded {
    let mut loaded = Loaded::default();
    let mut origins: BTreeMap<PolicyId, usize> = BTreeMap::new();
    for text in own {
        for policy in parsed(text) {
            let id = policy.annotation("id").expect("each of our policies has one").to_owned();
            let added = loaded.set.add(policy.new_id(PolicyId::new(id)));
            added.expect("ours have different ids");
        }
    }
    for (index, source) in sources.iter().enumerate() {
        match source.text.parse::<PolicySet>() {
            Ok(set) => loaded.take(index, set, sources, &mut origins),
            Err(errors) => {
                let fault = |error| PolicyFault::of_cedar(&source.path, &source.text, error);
                loaded.faults.extend(errors.iter().map(|error| fault(error)));
            }
        }
    }
    loaded.check_literals(vocabulary, directory, sources, &origins);
    let result = Validator::new(schema()).validate(&loaded.set, ValidationMode::Strict);
    // Ours are valid, which a test holds: what is said is said of the operator's.
    let source = |id: &PolicyId| origins.get(id).and_then(|index| sources.get(*index));
    let mut errors: Vec<_> = result
        .validation_errors()
        .filter_map(|error| {
            let Source { path, text } = source(error.policy_id())?;
            let fault = PolicyFault::of_cedar(path, text, error);
            Some((std::mem::discriminant(error), fault))
        })
        .collect();
    // The validator says it anew for each kind of principal and action, in no order.
    errors.sort_by(|(_, one), (_, other)| one.problem.cmp(&other.problem));
    let mut seen = Vec::new();
    for (kind, fault) in errors {
        let what = (kind, fault.file.clone(), fault.place.clone());
        if !seen.contains(&what) {
            seen.push(what);
            loaded.faults.push(fault);
        }
    }
    for warning in result.validation_warnings() {
        if let Some(Source { path, text }) = source(warning.policy_id()) {
            loaded.warnings.push(PolicyFault::of_cedar(path, text, warning));
        }
    }
    // In the order of the files, and of the places in them.
    let order = |fault: &PolicyFault| {
        let file = sources.iter().position(|source| source.path == fault.file);
        let place = fault.place.as_ref().map(|place| (place.line, place.column));
        (file, place)
    };
    loaded.faults.sort_by_key(order);
    loaded.warnings.sort_by_key(order);
    loaded
}

impl Loaded {
    /// Takes the policies of one file, each under the id that it gives itself.
    fn take(
        &mut self,
        index: usize,
        set: PolicySet,
        sources: &[Source],
        origins: &mut BTreeMap<PolicyId, usize>,
    ) {
        let Source { path, text } = &sources[index];
        if set.num_of_templates() > 0 {
            let problem = "templates are not supported: a policy must not have slots";
            let fault = PolicyFault::of_file(path, problem);
            let slot = ["?principal", "?resource"].into_iter().find(|slot| text.contains(slot));
            self.faults.push(fault.at(text, slot.unwrap_or_default()));
        }
        for policy in in_order(&set) {
            let Some(id) = policy.annotation("id").map(str::to_owned) else {
                let first = policy.to_string();
                let problem =
                    "a policy has no @id: log lines and audit records name policies by it";
                let fault =
                    PolicyFault::of_file(path, problem).hint("write @id(\"...\") before it");
                self.faults.push(fault.at(text, first.trim()));
                continue;
            };
            let words = format!("@id({id:?})");
            if let Err(problem) = check_id(&id) {
                self.faults.push(PolicyFault::of_file(path, problem).at(text, &words));
                continue;
            }
            let id = PolicyId::new(id);
            if let Some(other) = origins.get(&id) {
                let problem = format!("`{id}` is the @id of another policy as well");
                let fault = PolicyFault::of_file(path, problem).at_nth(
                    text,
                    &words,
                    usize::from(*other == index),
                );
                self.faults
                    .push(fault.hint(format!("it is in {}", sources[*other].path.display())));
                continue;
            }
            self.set.add(policy.new_id(id.clone())).expect("its id is new, and it is no template");
            origins.insert(id, index);
        }
    }

    /// An entity that no request can have would never match, without a word: that is a fault, too.
    fn check_literals(
        &mut self,
        vocabulary: &Vocabulary,
        directory: &Directory,
        sources: &[Source],
        origins: &BTreeMap<PolicyId, usize>,
    ) {
        let groups = directory.groups(vocabulary);
        for policy in self.set.policies() {
            let Some(Source { path, text }) =
                origins.get(policy.id()).and_then(|index| sources.get(*index))
            else {
                continue;
            };
            let mut literals = policy.entity_literals();
            literals.sort();
            literals.dedup();
            for uid in literals {
                // Of a type that is none, the validator speaks.
                let Some(kind) = Kind::named(&uid.type_name().to_string()) else { continue };
                let id = uid.id().unescaped();
                let words = format!("\"{}\"", uid.id().escaped());
                let fault = |problem: String| PolicyFault::of_file(path, problem).at(text, &words);
                if vocabulary.describe(kind, id).is_none() {
                    let problem = format!("no {} has the id `{id}`", kind.name());
                    self.faults.push(fault(problem).hint(kind.form_of_ids()));
                } else if kind == Kind::Group && !groups.contains(&uid) {
                    let problem = format!("nothing is in xks::Group::\"{id}\"");
                    self.faults.push(fault(problem).hint("the entities file must name it"));
                }
            }
        }
    }
}

/// The policies of a text of ours.
fn parsed(text: &str) -> Vec<Policy> {
    let set: PolicySet = text.parse().expect("our policies are constants, and tested");
    set.policies().cloned().collect()
}

/// Cedar numbers the policies of a text, `policy0` and on.
fn in_order(set: &PolicySet) -> Vec<Policy> {
    let number = |policy: &Policy| -> Option<usize> {
        AsRef::<str>::as_ref(policy.id()).strip_prefix("policy")?.parse().ok()
    };
    let mut policies: Vec<Policy> = set.policies().cloned().collect();
    policies.sort_by_key(number);
    policies
}

/// Ids stand in log lines, side by side.
fn check_id(id: &str) -> Result<(), String> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b);
    if id.starts_with(OWN) {
        return Err(format!(
            "an @id must not begin with `{OWN}`, as those of xksd's own policies do"
        ));
    }
    if id.is_empty() || id.len() > 128 || !id.bytes().all(is_allowed) {
        return Err("an @id must have 1 to 128 characters of A-Z a-z 0-9 - _ . : /".to_owned());
    }
    Ok(())
}
