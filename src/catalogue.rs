//! The keys of one token, read in the background and published as an immutable snapshot.
//!
//! No request ever searches the token. A search costs from 19 µs to 10 ms on a soft token and a
//! round trip or more on a network HSM; the [`crate::hsm::steward`] does it on a session of its
//! own at an interval, and at once when a request meets a key or version that it does not know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::seal;
use crate::hsm::backend::{ObjectHandle, Session, Signing};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::freeze::Freezes;
use crate::hsm::key::{Key, KeyAttributes, KeyFault, Version};
use crate::names::ExternalKeyId;

/// External keys, and labels that are no usable key.
type Keys = HashMap<ExternalKeyId, Result<Arc<Key>, KeyFault>>;

/// What was in the token at one time.
#[derive(Debug)]
pub struct Catalogue {
    /// One and the same from reading to reading, for as long as nothing has changed.
    keys: Arc<Keys>,
    freezes: Freezes,
    audit_key: Option<(ObjectHandle, Signing)>,
    started: Instant,
    unread: usize,
}

impl Catalogue {
    /// Looks a key up. `None`: no object of the token bears this label, unless one of those that
    /// could not be read does ([`Catalogue::unread`]).
    pub fn find(&self, id: &ExternalKeyId) -> Option<Result<Arc<Key>, KeyFault>> {
        self.keys.get(id).cloned()
    }

    /// When reading it began: what was in the token before is in here.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How many objects the token refused to describe. While there are any, that a label was not
    /// found does not prove that there is no such key.
    pub fn unread(&self) -> usize {
        self.unread
    }

    /// Whether an earlier reading of the same token found just the same.
    pub fn has_not_changed_since(&self, earlier: &Self) -> bool {
        Arc::ptr_eq(&self.keys, &earlier.keys)
            && self.freezes == earlier.freezes
            && self.unread == earlier.unread
    }

    /// Which key stores are frozen by markers in the token.
    pub fn freezes(&self) -> &Freezes {
        &self.freezes
    }

    /// The key that signs checkpoints of the audit log, if the token holds one.
    pub fn audit_key(&self) -> Option<(ObjectHandle, Signing)> {
        self.audit_key
    }

    /// How many external keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Everything in it, in no order: the external keys, and labels that are no usable key.
    pub fn iter(&self) -> impl Iterator<Item = (&ExternalKeyId, &Result<Arc<Key>, KeyFault>)> {
        self.keys.iter()
    }

    /// All labels that are no usable key, and why.
    pub fn faults(&self) -> impl Iterator<Item = (&ExternalKeyId, KeyFault)> {
        self.keys.iter().filter_map(|(id, key)| key.as_ref().err().map(|fault| (id, *fault)))
    }
}

/// Label of a key that an administrator may make for probes, where the token lets nobody make session
/// keys (P-61). Of the colon in it: no external key id names it.
pub const HEALTH_KEY: &str = "xksd:health";

/// After this many readings everything is read in full again: an object may have been destroyed and
/// another of the same label and id, but of another kind, been given its number.
pub const FULL_EVERY: u32 = 64;

/// How often a token is read before it is believed that something is gone.
///
/// SoftHSM2 does not show an object while another process writes its attributes: for a third of a
/// millisecond, at each change of a key's state. That a key does not exist is final for KMS.
const LOOKS: u32 = 3;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Reads a token again and again, in full only what it has not seen before.
#[derive(Debug, Default)]
pub struct Reader {
    known: HashMap<ObjectHandle, KeyAttributes>,
    last: Arc<Keys>,
    last_freezes: Freezes,
    readings: u32,
}

/// What one look at the token found.
struct Look {
    started: Instant,
    seen: HashMap<ObjectHandle, KeyAttributes>,
    keys: Keys,
    freezes: Freezes,
    audit_key: Option<(ObjectHandle, Signing)>,
    unread: usize,
}

impl Reader {
    /// The key for probes, if the last reading found one that can be used so.
    pub fn health_key(&self) -> Option<ObjectHandle> {
        let is_it = |attributes: &KeyAttributes| {
            attributes.changeable.label == HEALTH_KEY.as_bytes()
                && attributes.kind.is_aes_256()
                && attributes.usage.encrypt
                && attributes.usage.decrypt
        };
        let found = self.known.iter().filter(|(_, attributes)| is_it(attributes));
        // The same one each time, should there be several.
        found.map(|(object, _)| *object).min_by_key(|object| object.number)
    }

    /// Reads all keys of the token. What was there before and is not seen now is looked for again.
    ///
    /// # Errors
    /// A fault of the session: then nothing is known, and the snapshot before stays. One object
    /// that the token refuses to describe costs no more than itself.
    pub fn read(&mut self, session: &mut dyn Session) -> Result<Catalogue, Fault> {
        self.readings = self.readings.wrapping_add(1);
        if self.readings.is_multiple_of(FULL_EVERY) {
            self.known.clear();
        }
        let mut look = self.look(session)?;
        for _ in 1..LOOKS {
            if !self.misses_something(&look) {
                break;
            }
            std::thread::sleep(PAUSE);
            look = self.look(session)?;
        }
        let Look { started, seen, keys, freezes, audit_key, unread } = look;
        self.known = seen;
        self.last_freezes = freezes.clone();
        if keys != *self.last {
            self.last = Arc::new(keys);
        }
        Ok(Catalogue { keys: self.last.clone(), freezes, audit_key, started, unread })
    }

    /// Whether a version or a marker is gone that the last reading found.
    fn misses_something(&self, look: &Look) -> bool {
        let is_gone = |(id, known): (&ExternalKeyId, &Result<Arc<Key>, KeyFault>)| match (
            known,
            look.keys.get(id),
        ) {
            (_, None) => true,
            (Ok(known), Some(Ok(now))) => {
                let is_there = |version: &Version| {
                    let (version, object_id) = version.identity();
                    now.version(version, object_id).is_some()
                };
                !known.versions().iter().all(is_there)
            }
            (Ok(_), Some(Err(KeyFault::NoneReady))) => true,
            (_, Some(_)) => false,
        };
        self.last.iter().any(is_gone) || !look.freezes.include(&self.last_freezes)
    }

    /// Lists the objects once, and reads what is not known of them.
    fn look(&self, session: &mut dyn Session) -> Result<Look, Fault> {
        let started = Instant::now();
        let mut unread = Vec::new();
        let mut freezes = Freezes::default();
        let mut seen = HashMap::with_capacity(self.known.len());
        let mut versions: HashMap<ExternalKeyId, Vec<Version>> = HashMap::new();
        for object in session.objects()? {
            let attributes = match self.attributes(session, object) {
                Ok(attributes) => attributes,
                // Destroyed by somebody since it was found; or the token says so, and it is there. The
                // next reading tells, and until then it is not said that there is no such key.
                // Else about this object, if others can be read: tokens fail so on attributes that
                // they do not understand, and an administrator may have set such a one.
                Err(fault)
                    if matches!(
                        fault.kind,
                        FaultKind::HandleStale | FaultKind::Ambiguous | FaultKind::Bug
                    ) =>
                {
                    unread.push(fault);
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            // A label that is no external key id can't be asked for.
            let label = std::str::from_utf8(&attributes.changeable.label).unwrap_or_default();
            if let Ok(id) = label.parse() {
                versions.entry(id).or_default().push(Version::new(object, &attributes));
            } else {
                freezes.note(label);
            }
            seen.insert(object, attributes);
        }
        if let (Some(fault), true) = (unread.first(), seen.is_empty()) {
            return Err(*fault);
        }
        let signing = |(object, attributes): (&ObjectHandle, &KeyAttributes)| {
            Some((*object, seal::signing(attributes)?))
        };
        // The same one each time, should there be several.
        let audit_key = seen.iter().filter_map(signing).min_by_key(|(object, _)| object.number);
        let keys: Keys = versions
            .into_iter()
            .map(|(id, versions)| (id.clone(), Key::new(id, versions).map(Arc::new)))
            .collect();
        Ok(Look { started, seen, keys, freezes, audit_key, unread: unread.len() })
    }

    /// Label and id are read each time: they can be changed, and a token may give the number of a
    /// destroyed object to a new one at once.
    fn attributes(
        &self,
        session: &mut dyn Session,
        object: ObjectHandle,
    ) -> Result<KeyAttributes, Fault> {
        let Some(known) = self.known.get(&object) else {
            return session.read_attributes(object);
        };
        let now = session.read_changeable(object)?;
        if now == known.changeable {
            return Ok(known.clone());
        }
        session.read_attributes(object)
    }
}
