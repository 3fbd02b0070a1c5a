//! The keys of several tokens as one: which versions there are, what state they are in, and which
//! tokens hold them. Pure; whether two objects are the same key is told to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::catalogue::Catalogue;
use crate::hsm::backend::ObjectHandle;
use crate::hsm::freeze::Freezes;
use crate::hsm::key::{Holder, Holders, Key, KeyFault, Standing, Version};
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// The last reading of each token, in the group's order.
pub(super) type Readings = [Option<Arc<Catalogue>>];

/// One version of one key, wherever its objects are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) key: ExternalKeyId,
    pub(super) version: KeyVersion,
    pub(super) object_id: ObjectId,
}

/// One version, and each token's object of it, in the group's order.
#[derive(Debug)]
pub(super) struct Held<'a> {
    pub(super) subject: Subject,
    pub(super) objects: Vec<(usize, &'a Version)>,
}

/// A version that a token does not serve, although the group has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lack {
    pub(super) key: ExternalKeyId,
    pub(super) version: KeyVersion,
    /// Of the token's object; `None` where it has none.
    pub(super) standing: Option<Standing>,
}

/// External keys, and labels that are no usable key.
type Keys = HashMap<ExternalKeyId, Result<Arc<Key<Holders>>, KeyFault>>;

/// What was in the tokens of a group at one time, as one.
#[derive(Debug, Clone, Default)]
pub struct GroupCatalogue {
    keys: Arc<Keys>,
    /// By token: when the reading began that is in here; `None` where there was none yet.
    started: Arc<[Option<Instant>]>,
    unread: usize,
    freezes: Arc<Freezes>,
    /// By token.
    lacks: Arc<[Vec<Lack>]>,
}

impl GroupCatalogue {
    /// Looks a key up. `None`: no object of any token that was read bears this label.
    pub fn find(&self, id: &ExternalKeyId) -> Option<Result<Arc<Key<Holders>>, KeyFault>> {
        self.keys.get(id).cloned()
    }

    /// All external keys that can be used, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<Key<Holders>>> {
        self.keys.values().filter_map(|key| key.as_ref().ok())
    }

    /// Whether the reading of this token began at this moment or later.
    pub fn is_since(&self, token: usize, moment: Instant) -> bool {
        self.started.get(token).is_some_and(|started| started.is_some_and(|at| at >= moment))
    }

    /// Whether any reading of this token is in here.
    pub(super) fn has_read(&self, token: usize) -> bool {
        self.started.get(token).is_some_and(Option::is_some)
    }

    /// Every version of every usable key.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Version<Holders>> {
        self.keys.values().filter_map(|key| key.as_ref().ok()).flat_map(|key| key.versions())
    }

    /// How many objects the tokens refused to describe.
    pub fn unread(&self) -> usize {
        self.unread
    }

    /// Which key stores are frozen by a marker in any token, also one that has gone since.
    pub fn freezes(&self) -> &Freezes {
        &self.freezes
    }

    /// How many versions this token lacks that another token has, or has as another key.
    pub fn lacking(&self, token: usize) -> usize {
        self.lacks.get(token).map_or(0, Vec::len)
    }

    /// These versions.
    pub(super) fn lacks(&self, token: usize) -> &[Lack] {
        self.lacks.get(token).map_or(&[], |lacks| lacks)
    }

    /// By token, how many of its objects have each standing.
    pub(super) fn standings(&self) -> Vec<HashMap<Standing, usize>> {
        let mut counts = vec![HashMap::new(); self.started.len()];
        for holder in
            self.keys().flat_map(|key| key.versions()).flat_map(|version| version.at.iter())
        {
            *counts[holder.token].entry(holder.standing).or_default() += 1;
        }
        counts
    }

    /// The same keys, read again.
    pub(super) fn read_again(&self, readings: &Readings) -> Self {
        Self { started: started(readings), ..self.clone() }
    }
}

/// Every version of the keys that are wanted, by name.
pub(super) fn held(readings: &Readings, wants: impl Fn(&ExternalKeyId) -> bool) -> Vec<Held<'_>> {
    type Objects<'a> =
        BTreeMap<(&'a ExternalKeyId, KeyVersion, ObjectId), Vec<(usize, &'a Version)>>;
    let mut all = Objects::new();
    for (token, catalogue) in readings.iter().enumerate() {
        let keys = catalogue.iter().flat_map(|catalogue| catalogue.iter());
        for (id, key) in keys.filter(|(id, _)| wants(id)) {
            let versions = key.as_ref().map_or(&[][..], |key| key.versions());
            for version in versions {
                let (number, object_id) = version.identity();
                all.entry((id, number, object_id)).or_default().push((token, version));
            }
        }
    }
    let held = |((key, version, object_id), objects): ((&ExternalKeyId, _, _), _)| {
        let subject = Subject { key: key.clone(), version, object_id };
        Held { subject, objects }
    };
    all.into_iter().map(held).collect()
}

/// Puts the readings of all tokens together; `held` is what they hold of the keys that are wanted.
pub(super) fn merge(
    readings: &Readings,
    held: Vec<Held<'_>>,
    wants: impl Fn(&ExternalKeyId) -> bool,
    standing: impl Fn(&Subject, usize, ObjectHandle) -> Standing,
) -> GroupCatalogue {
    let mut lacks = vec![Vec::new(); readings.len()];
    let mut versions: HashMap<ExternalKeyId, Vec<Version<Holders>>> = HashMap::new();
    for Held { subject, objects } in held {
        let holder = |&(token, version): &(usize, &Version)| {
            let standing = standing(&subject, token, version.at);
            Holder { token, handle: version.at, standing }
        };
        let holders: Holders = objects.iter().map(holder).collect();
        for (token, lacks) in lacks.iter_mut().enumerate() {
            let standing = holders.iter().find(|h| h.token == token).map(|h| h.standing);
            let lacks_it = match standing {
                // Of a token that was never read nothing is known.
                None => readings[token].is_some(),
                Some(standing) => matches!(standing, Standing::Unequal | Standing::Unproved),
            };
            if lacks_it {
                lacks.push(Lack { key: subject.key.clone(), version: subject.version, standing });
            }
        }
        versions.entry(subject.key).or_default().push(as_one(&objects, holders));
    }
    let mut keys: HashMap<_, _> = versions
        .into_iter()
        .map(|(id, versions)| (id.clone(), Key::new(id, versions).map(Arc::new)))
        .collect();
    for (id, key) in readings.iter().flatten().flat_map(|catalogue| catalogue.iter()) {
        match key {
            _ if !wants(id) => {}
            // Nothing says which one is meant there, whatever the other tokens hold.
            Err(KeyFault::Ambiguous) => drop(keys.insert(id.clone(), Err(KeyFault::Ambiguous))),
            Err(fault) => drop(keys.entry(id.clone()).or_insert(Err(*fault))),
            Ok(_) => {}
        }
    }
    let mut freezes = Freezes::default();
    readings.iter().flatten().for_each(|catalogue| freezes.join(catalogue.freezes()));
    GroupCatalogue {
        keys: Arc::new(keys),
        freezes: Arc::new(freezes),
        started: started(readings),
        unread: readings.iter().flatten().map(|catalogue| catalogue.unread()).sum(),
        lacks: lacks.into(),
    }
}

/// One version from its objects: what the first token says of it, in the newest state that any
/// token knows. Of two states of one epoch the more careful one counts.
fn as_one(objects: &[(usize, &Version)], at: Holders) -> Version<Holders> {
    let (_, first) = objects[0];
    let rank = |(_, version): &&(usize, &Version)| (version.epoch, version.status.severity());
    let (_, newest) = objects.iter().max_by_key(rank).expect("somebody holds it");
    let (epoch, status) = (newest.epoch, newest.status);
    let Version { version, object_id, created, kind, usage, check_value, .. } = first.clone();
    Version { at, version, object_id, status, epoch, created, kind, usage, check_value }
}

fn started(readings: &Readings) -> Arc<[Option<Instant>]> {
    readings.iter().map(|catalogue| catalogue.as_ref().map(|c| c.started())).collect()
}
