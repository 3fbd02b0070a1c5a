//! The groups of tokens that are served, each with its keeper at work.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet};

use crate::counts::Counts;
use crate::counts::auditor::Auditor;
use crate::hsm::fleet::{Group, Keeper};
use crate::hsm::token::Token;
use crate::keystore::{KeyRule, Keystore, Keystores};
use crate::names::{KeystoreName, TokenName};

/// A group, and the task that keeps it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) group: Arc<Group>,
    /// What its keys are wanted for now.
    pub(super) rules: Vec<KeyRule>,
    keeper: AbortHandle,
    /// Who tells the counts which versions there are, where encryptions are counted.
    auditor: Option<AbortHandle>,
}

impl Kept {
    /// Ends the keeper. Whoever still has the group sees its keys as they were last.
    pub(super) fn end(&self) {
        self.keeper.abort();
        self.auditor.iter().for_each(AbortHandle::abort);
    }
}

/// The groups of a configuration.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) kept: Vec<Arc<Kept>>,
    pub(super) by_keystore: HashMap<KeystoreName, Arc<Group>>,
}

impl Groups {
    /// The tokens of each key store, those with the same tokens in one group. A group of the same
    /// tokens that was kept before stays.
    pub(super) fn new(
        tokens: &HashMap<TokenName, Arc<Token>>,
        keystores: &Keystores,
        before: &Self,
        counts: Option<&Arc<Counts>>,
        keepers: &mut JoinSet<()>,
    ) -> Self {
        let mut by_tokens: HashMap<&[TokenName], Vec<&Keystore>> = HashMap::new();
        for keystore in keystores.iter() {
            by_tokens.entry(keystore.tokens()).or_default().push(keystore);
        }
        let mut groups = Self::default();
        for (names, keystores) in by_tokens {
            let members: Vec<_> = names.iter().map(|name| tokens[name].clone()).collect();
            let rules = keystores.iter().flat_map(|keystore| keystore.key_rules());
            let rules: Vec<KeyRule> = rules.cloned().collect();
            let kept = match before.of(&members) {
                Some(Kept { group, keeper, auditor, .. }) => {
                    let (keeper, auditor) = (keeper.clone(), auditor.clone());
                    Kept { group: group.clone(), rules, keeper, auditor }
                }
                None => {
                    let group = Arc::new(Group::new(members));
                    let keeper = keepers.spawn(Keeper::new(group.clone(), rules.clone()).run());
                    let audit = |counts: &Arc<Counts>| {
                        keepers.spawn(Auditor::new(counts.clone(), group.clone()).run())
                    };
                    let auditor = counts.map(audit);
                    Kept { group, rules, keeper, auditor }
                }
            };
            let names = keystores.iter().map(|keystore| keystore.name().clone());
            groups.by_keystore.extend(names.map(|name| (name, kept.group.clone())));
            groups.kept.push(Arc::new(kept));
        }
        groups
    }

    /// Whether this group is among them.
    pub(super) fn has(&self, group: &Arc<Group>) -> bool {
        self.kept.iter().any(|kept| Arc::ptr_eq(&kept.group, group))
    }

    /// Has the keepers look at all keys that are wanted, besides those that requests may still be about
    /// which began before.
    pub(super) fn widen(&self) {
        for kept in &self.kept {
            kept.group.look_at_also(&kept.rules);
        }
    }

    /// There are no such requests any more.
    pub(super) fn narrow(&self) {
        for kept in &self.kept {
            kept.group.look_at(kept.rules.clone());
        }
    }

    fn of(&self, members: &[Arc<Token>]) -> Option<&Kept> {
        let is_same = |kept: &&Arc<Kept>| {
            let tokens = kept.group.tokens();
            tokens.len() == members.len()
                && tokens.iter().zip(members).all(|(one, other)| Arc::ptr_eq(one, other))
        };
        self.kept.iter().find(is_same).map(|kept| &**kept)
    }
}
