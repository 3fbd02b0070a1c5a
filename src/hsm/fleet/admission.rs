//! Which token's object of a version is used. Pure.
//!
//! Two tokens that hold keys of one name need not hold the same key. An object is used once it has
//! been proved to be the same as one that is in use: by a decryption on one token of what the other
//! encrypted, or by CKA_CHECK_VALUE where the key does not permit that. The first one in use is
//! elected: the token named first, or the next where that one cannot be asked.

use std::collections::BTreeMap;

use crate::hsm::backend::ObjectHandle;
use crate::hsm::key::{Standing, Version};
use crate::hsm::state::VersionStatus;

/// A token, as far as elections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub(super) presence: Presence,
    /// Whether its keys were read at any time.
    pub(super) is_read: bool,
}

/// Whether a token can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It serves.
    Here,
    /// It has not been connected to yet, and will be in a moment.
    Awaited,
    /// It does not serve.
    Away,
}

/// What was found out about one token's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    handle: ObjectHandle,
    standing: Standing,
    /// What it was compared with, where that was another key.
    differs_from: Option<(usize, ObjectHandle)>,
}

/// What was found out about one version, by token. What is known of an object of an earlier
/// connection says nothing of the one that is there now, but that it once was another key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Findings(BTreeMap<usize, Found>);

/// A proof that is wanted: that these two are the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    /// The token whose object is in doubt.
    pub(super) candidate: (usize, ObjectHandle),
    /// One whose object is in use.
    pub(super) anchor: (usize, ObjectHandle),
}

/// What a proof showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// They are the same key.
    Equal,
    /// They are different keys.
    Unequal,
    /// Nothing: the candidate's token failed.
    Failed,
    /// Nothing: the anchor's token failed. Whether it still serves well is told.
    AnchorFailed {
        /// It does.
        is_up: bool,
    },
}

impl Findings {
    /// What is known of this object.
    pub(super) fn standing(&self, token: usize, handle: ObjectHandle) -> Standing {
        match self.0.get(&token) {
            Some(found) if found.handle == handle => found.standing,
            _ => Standing::Pending,
        }
    }

    /// Notes what a proof showed.
    pub(super) fn note(&mut self, pair: Pair, outcome: Outcome) {
        let (candidate, anchor) = (pair.candidate, pair.anchor);
        match outcome {
            Outcome::Equal => {
                self.set(candidate, Standing::Proved);
                // Unless it has gone since: then it is not in use any more.
                if self.standing(anchor.0, anchor.1).is_admitted() {
                    self.set(anchor, Standing::Proved);
                }
            }
            Outcome::Unequal => self.set_apart(candidate, Standing::Unequal, anchor),
            // Its token is no use: not to serve at all would not be safer.
            Outcome::AnchorFailed { is_up: false } if !self.was_other(candidate.0) => {
                self.set(candidate, Standing::Trusted);
            }
            Outcome::Failed | Outcome::AnchorFailed { .. } => {}
        }
    }

    /// Finds out what can be without asking a token; gives the proofs that are wanted.
    pub(super) fn settle(&mut self, objects: &[(usize, &Version)], views: &[View]) -> Vec<Pair> {
        if objects.len() == 1 && views.iter().all(|view| view.is_read) {
            let (token, version) = objects[0];
            self.set((token, version.at), Standing::Only);
            return Vec::new();
        }
        let Some((anchor, in_use)) = self.anchor(objects, views) else { return Vec::new() };
        let mut wanted = Vec::new();
        for &(token, version) in objects {
            let is_in_doubt = match self.standing(token, version.at) {
                Standing::Pending | Standing::Trusted | Standing::Only => true,
                Standing::Proved => false,
                // Of one key it is not the same, and may be of another that took its place.
                Standing::Unequal | Standing::Unproved => {
                    self.0[&token].differs_from != Some((anchor, in_use.at))
                }
            };
            if token == anchor || !is_in_doubt || views[token].presence != Presence::Here {
                continue;
            }
            match compare(in_use, version) {
                Comparison::Settled(Standing::Proved) => {
                    self.set((token, version.at), Standing::Proved);
                    self.set((anchor, in_use.at), Standing::Proved);
                }
                Comparison::Settled(standing) => {
                    self.set_apart((token, version.at), standing, (anchor, in_use.at));
                }
                Comparison::Wanted => {
                    wanted
                        .push(Pair { candidate: (token, version.at), anchor: (anchor, in_use.at) });
                }
                Comparison::Later => {}
            }
        }
        wanted
    }

    /// The object in use that the others are compared with: proved ones before others. Elects one
    /// if there is none.
    fn anchor<'a>(
        &mut self,
        objects: &[(usize, &'a Version)],
        views: &[View],
    ) -> Option<(usize, &'a Version)> {
        let here = |token: usize| views[token].presence == Presence::Here;
        let in_use = objects.iter().copied().filter(|(token, version)| {
            here(*token) && self.standing(*token, version.at).is_admitted()
        });
        let rank = |&(token, version): &(usize, &Version)| {
            (self.standing(token, version.at) != Standing::Proved, token)
        };
        if let Some(anchor) = in_use.min_by_key(rank) {
            return Some(anchor);
        }
        for &(token, version) in objects {
            // One named earlier may hold it, and comes in a moment.
            if views[..=token].iter().any(|view| view.presence == Presence::Awaited) {
                return None;
            }
            let may_hold = |other: usize| {
                !views[other].is_read || objects.iter().any(|(holder, _)| *holder == other)
            };
            let is_first = !(0..token).any(may_hold);
            if here(token) && !self.was_other(token) && (is_first || is_provable(version)) {
                self.set((token, version.at), Standing::Trusted);
                return Some((token, version));
            }
        }
        None
    }

    fn set(&mut self, (token, handle): (usize, ObjectHandle), standing: Standing) {
        self.0.insert(token, Found { handle, standing, differs_from: None });
    }

    fn set_apart(
        &mut self,
        (token, handle): (usize, ObjectHandle),
        standing: Standing,
        from: (usize, ObjectHandle),
    ) {
        self.0.insert(token, Found { handle, standing, differs_from: Some(from) });
    }

    /// Whether this token's object was last found to be none that may be used.
    fn was_other(&self, token: usize) -> bool {
        let standing = self.0.get(&token).map(|found| found.standing);
        matches!(standing, Some(Standing::Unequal | Standing::Unproved))
    }
}

/// What is known of two objects before any token is asked.
enum Comparison {
    Settled(Standing),
    /// A proof is wanted.
    Wanted,
    /// Once the version may be used.
    Later,
}

fn compare(in_use: &Version, other: &Version) -> Comparison {
    let usage = |version: &Version| (version.usage.encrypt, version.usage.decrypt);
    if in_use.kind != other.kind || usage(in_use) != usage(other) {
        return Comparison::Settled(Standing::Unequal);
    }
    let is_enabled = |version: &Version| version.status == VersionStatus::Enabled;
    if !in_use.kind.is_aes_256() {
        // Nothing is ever done with it, but that it is described.
        return Comparison::Settled(Standing::Proved);
    }
    let is_usable = usage(in_use) == (true, true);
    if is_usable && is_enabled(in_use) && is_enabled(other) {
        return Comparison::Wanted;
    }
    match (in_use.check_value, other.check_value) {
        (Some(one), Some(other)) if one == other => Comparison::Settled(Standing::Proved),
        (Some(_), Some(_)) => Comparison::Settled(Standing::Unequal),
        _ if is_usable => Comparison::Later,
        _ => Comparison::Settled(Standing::Unproved),
    }
}

/// Whether a version can be compared with another at all.
fn is_provable(version: &Version) -> bool {
    version.usage.encrypt && version.usage.decrypt || version.check_value.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::key::{KeyKind, Usage};
    use crate::names::{KeyVersion, ObjectId};

    const HERE: View = View { presence: Presence::Here, is_read: true };
    const AWAY: View = View { presence: Presence::Away, is_read: true };
    const NEVER_SEEN: View = View { presence: Presence::Away, is_read: false };
    const AWAITED: View = View { presence: Presence::Awaited, is_read: false };

    /// An object of a version, in this connection of its token.
    fn object(generation: u64) -> Version {
        Version {
            at: ObjectHandle { generation, number: 1 },
            version: KeyVersion::FIRST,
            object_id: ObjectId::new([1; 8]),
            status: VersionStatus::Enabled,
            epoch: 1,
            created: None,
            kind: KeyKind::Aes { bits: 256 },
            usage: Usage { encrypt: true, decrypt: true, ..Usage::default() },
            check_value: None,
        }
    }

    fn standings(findings: &Findings, objects: &[(usize, &Version)]) -> Vec<Standing> {
        objects.iter().map(|(token, version)| findings.standing(*token, version.at)).collect()
    }

    /// Two tokens that hold a version, and what is known once this outcome is.
    fn proved(outcome: Outcome) -> (Findings, Version, Version) {
        let (mut findings, first, second) = (Findings::default(), object(1), object(1));
        let wanted = findings.settle(&[(0, &first), (1, &second)], &[HERE, HERE]);
        let pair = Pair { candidate: (1, second.at), anchor: (0, first.at) };
        assert_eq!(wanted, [pair]);
        assert_eq!(findings.standing(1, second.at), Standing::Pending);
        findings.note(pair, outcome);
        (findings, first, second)
    }

    #[test]
    fn the_token_named_first_is_elected_and_the_others_are_compared_with_it() {
        for (outcome, expected) in [
            (Outcome::Equal, [Standing::Proved, Standing::Proved]),
            (Outcome::Unequal, [Standing::Trusted, Standing::Unequal]),
            (Outcome::Failed, [Standing::Trusted, Standing::Pending]),
            (Outcome::AnchorFailed { is_up: true }, [Standing::Trusted, Standing::Pending]),
            // Rather the one that answers than none.
            (Outcome::AnchorFailed { is_up: false }, [Standing::Trusted, Standing::Trusted]),
        ] {
            let (findings, first, second) = proved(outcome);
            let objects = [(0, &first), (1, &second)];
            assert_eq!(standings(&findings, &objects), expected, "{outcome:?}");
        }
    }

    #[test]
    fn one_that_is_awaited_is_waited_for_and_one_that_is_away_is_not() {
        let second = object(1);
        for (first, expected) in [
            (AWAITED, Standing::Pending),
            (NEVER_SEEN, Standing::Trusted),
            // It was read, and has none.
            (AWAY, Standing::Only),
            (HERE, Standing::Only),
        ] {
            let mut findings = Findings::default();
            assert_eq!(findings.settle(&[(1, &second)], &[first, HERE]), []);
            assert_eq!(findings.standing(1, second.at), expected, "{first:?}");
        }
    }

    #[test]
    fn with_every_connection_a_token_proves_its_keys_anew() {
        let (mut findings, first, _) = proved(Outcome::Equal);
        let again = object(2);
        let objects = [(0, &first), (1, &again)];
        let wanted = findings.settle(&objects, &[HERE, HERE]);
        assert_eq!(wanted, [Pair { candidate: (1, again.at), anchor: (0, first.at) }]);
        assert_eq!(standings(&findings, &objects), [Standing::Proved, Standing::Pending]);
        // Nor is it the one to be believed when the other has gone.
        findings.note(wanted[0], Outcome::Unequal);
        let back = object(3);
        assert_eq!(findings.settle(&[(0, &first), (1, &back)], &[AWAY, HERE]), []);
        assert_eq!(findings.standing(1, back.at), Standing::Pending);
    }

    #[test]
    fn the_first_comes_back_to_a_second_that_is_in_use() {
        let (mut findings, _, second) = proved(Outcome::Equal);
        let first = object(2);
        let objects = [(0, &first), (1, &second)];
        let wanted = findings.settle(&objects, &[HERE, HERE]);
        assert_eq!(wanted, [Pair { candidate: (0, first.at), anchor: (1, second.at) }]);
    }

    #[test]
    fn another_key_is_compared_again_once_the_one_in_use_was_replaced() {
        let (mut findings, first, second) = proved(Outcome::Unequal);
        assert_eq!(findings.settle(&[(0, &first), (1, &second)], &[HERE, HERE]), []);
        let replaced = object(2);
        let wanted = findings.settle(&[(0, &replaced), (1, &second)], &[HERE, HERE]);
        assert_eq!(wanted, [Pair { candidate: (1, second.at), anchor: (0, replaced.at) }]);
    }

    #[test]
    fn what_cannot_be_tried_is_compared_by_its_check_value() {
        let sealed = |value: Option<u8>| Version {
            usage: Usage { encrypt: true, ..Usage::default() },
            check_value: value.map(|value| [value; 3]),
            ..object(1)
        };
        let disabled =
            |value| Version { status: VersionStatus::Disabled, ..with_check_value(value) };
        for (first, second, expected) in [
            (sealed(Some(1)), sealed(Some(1)), Standing::Proved),
            (sealed(Some(1)), sealed(Some(2)), Standing::Unequal),
            (sealed(None), sealed(Some(2)), Standing::Unproved),
            (disabled(Some(1)), disabled(Some(1)), Standing::Proved),
            // It can be tried once it is enabled.
            (disabled(None), disabled(Some(1)), Standing::Pending),
            (object(1), sealed(Some(1)), Standing::Unequal),
        ] {
            let mut findings = Findings::default();
            assert_eq!(findings.settle(&[(0, &first), (1, &second)], &[HERE, HERE]), []);
            assert_eq!(findings.standing(1, second.at), expected, "{first:?} {second:?}");
        }
        // Alone, the second may be another key, for ever: nothing would prove it.
        let mut findings = Findings::default();
        findings.settle(&[(1, &sealed(None))], &[NEVER_SEEN, HERE]);
        assert_eq!(findings.standing(1, object(1).at), Standing::Pending);
        findings.settle(&[(1, &sealed(Some(1)))], &[NEVER_SEEN, HERE]);
        assert_eq!(findings.standing(1, object(1).at), Standing::Trusted);
    }

    fn with_check_value(value: Option<u8>) -> Version {
        Version { check_value: value.map(|value| [value; 3]), ..object(1) }
    }
}
