//! Reading the keys of a token: what is read again, and what one object can spoil.

use std::collections::VecDeque;
use std::sync::Arc;

use support::memory::{Act, KeyRef, MemoryBackend, MemoryKey};
use xksd::catalogue::{Catalogue, FULL_EVERY, Reader};
use xksd::hsm::backend::{Backend, Session};
use xksd::hsm::codes;
use xksd::hsm::fault::FaultKind;
use xksd::hsm::key::{Key, KeyFault, KeyKind};
use xksd::hsm::state::VersionStatus;
use xksd::names::KeyVersion;

use crate::blinking::Blinking;

const ONE: &str = "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20261121:-:-";
const TWO: &str = "xksd1:1f8e4a5b6c7d8e9f:2:enabled:1:20261121:-:-";

struct House {
    backend: MemoryBackend,
    session: Box<dyn Session>,
    reader: Reader,
}

impl House {
    fn new() -> Self {
        let backend = MemoryBackend::new();
        let session = backend.connect().expect("nothing was asked to fail");
        Self { backend, session, reader: Reader::default() }
    }

    fn add(&self, label: &str, id: &str) -> KeyRef {
        let id = id.as_bytes().to_vec();
        self.backend.add(MemoryKey { id, ..MemoryKey::aes_256(label) })
    }

    fn read(&mut self) -> Catalogue {
        self.reader.read(self.session.as_mut()).expect("the token can be read")
    }

    /// Reads, and counts the calls for attributes.
    fn calls(&mut self) -> u64 {
        let before = self.backend.calls("C_GetAttributeValue");
        self.read();
        self.backend.calls("C_GetAttributeValue") - before
    }
}

fn find(catalogue: &Catalogue, label: &str) -> Option<Result<Arc<Key>, KeyFault>> {
    catalogue.find(&label.parse().expect("it is an external key id"))
}

fn usable(catalogue: &Catalogue, label: &str) -> Arc<Key> {
    find(catalogue, label).expect("it is there").expect("it is usable")
}

#[test]
fn what_is_known_is_not_read_in_full_again() {
    let mut house = House::new();
    house.add("a", ONE);
    house.add("b", "");
    // In memory a full reading is two calls, a look at what can change is one.
    assert_eq!(house.calls(), 4);
    assert_eq!(house.calls(), 2);
    house.add("c", "");
    assert_eq!(house.calls(), 2 + 2);
    assert_eq!(house.calls(), 3);
}

#[test]
fn a_change_is_seen_with_the_next_reading() {
    let mut house = House::new();
    let key = house.add("old", ONE);
    assert!(usable(&house.read(), "old").is_enabled());
    house.backend.change(key, |key| key.label = b"new".to_vec());
    let catalogue = house.read();
    assert!(find(&catalogue, "old").is_none());
    assert_eq!(usable(&catalogue, "new").newest().version, KeyVersion::FIRST);
    let disabled = ONE.replace("enabled:1", "disabled:2");
    house.backend.change(key, |key| key.id = disabled.into_bytes());
    let catalogue = house.read();
    assert_eq!(usable(&catalogue, "new").newest().status, VersionStatus::Disabled);
    house.backend.change(key, |key| key.usage.decrypt = false);
    let usage = usable(&house.read(), "new").newest().usage;
    assert!(usage.encrypt && !usage.decrypt);
    house.backend.destroy(key);
    assert!(house.read().is_empty());
}

#[test]
fn versions_of_one_label_are_one_key() {
    let mut house = House::new();
    house.add("key", ONE);
    house.add("key", TWO);
    house.add("key", "made by somebody else");
    let catalogue = house.read();
    assert_eq!(catalogue.len(), 1);
    let versions: Vec<u32> =
        usable(&catalogue, "key").versions().iter().map(|v| v.version.number()).collect();
    assert_eq!(versions, [2, 1, 0]);
    house.add("key", "by a third");
    assert_eq!(find(&house.read(), "key"), Some(Err(KeyFault::Ambiguous)));
}

#[test]
fn an_object_destroyed_between_finding_and_reading_is_skipped() {
    let mut house = House::new();
    house.add("a", ONE);
    let doomed = house.add("b", TWO);
    let gate = house.backend.hang("C_GetAttributeValue");
    let House { backend, session, reader } = &mut house;
    let catalogue = std::thread::scope(|scope| {
        let token = backend.clone();
        scope.spawn(move || {
            gate.wait_for(1);
            token.destroy(doomed);
            gate.open();
        });
        reader.read(session.as_mut()).expect("the token can be read")
    });
    // Not known to be gone yet, so nobody is told that it does not exist.
    assert_eq!((catalogue.len(), catalogue.unread()), (1, 1));
    usable(&catalogue, "a");
    let catalogue = house.read();
    assert_eq!((catalogue.len(), catalogue.unread()), (1, 0));
}

/// SoftHSM2 hides an object while another process changes its state.
#[test]
fn what_one_look_misses_is_not_believed_to_be_gone() {
    let House { backend, session, mut reader } = House::new();
    let add = |label: &str, id: &str| {
        let id = id.as_bytes().to_vec();
        backend.handle(backend.add(MemoryKey { id, ..MemoryKey::aes_256(label) }))
    };
    let (first, second) = (add("key", ONE), add("key", TWO));
    let marker = add("xksd:freeze:demo", "");
    let all = vec![first, second, marker];
    let hidden = VecDeque::from([vec![], vec![second], vec![], vec![first, second], vec![marker]]);
    let mut session = Blinking { session, hidden };
    // The first reading is one look; of the second, the second look shows all; of the third, the third.
    for _ in 0..3 {
        let catalogue = reader.read(&mut session).expect("the token can be read");
        let versions: Vec<_> =
            usable(&catalogue, "key").versions().iter().map(|version| version.at).collect();
        assert_eq!(versions, [second, first]);
        assert!(catalogue.freezes().hold(&"demo".parse().expect("it is a name")));
    }
    assert!(session.hidden.is_empty(), "not everything was looked for");
    // What stays away is gone.
    session.hidden.extend([all.clone(), all.clone(), all]);
    let catalogue = reader.read(&mut session).expect("the token can be read");
    assert!(catalogue.is_empty() && session.hidden.is_empty());
}

#[test]
fn a_number_that_was_given_out_again_is_noticed() {
    let mut house = House::new();
    let old = house.add("old", ONE);
    let handle = house.backend.handle(old);
    house.read();
    house.backend.destroy(old);
    let new = house.add("new", TWO);
    assert_eq!(house.backend.handle(new), handle, "the test is about one number");
    let catalogue = house.read();
    assert!(find(&catalogue, "old").is_none());
    assert_eq!(usable(&catalogue, "new").newest().version, KeyVersion::new(2));
}

#[test]
fn a_number_given_to_an_object_that_looks_the_same_is_noticed_in_the_end() {
    let mut house = House::new();
    let small = house.add("key", "");
    house.backend.change(small, |key| key.kind = KeyKind::Aes { bits: 128 });
    assert_eq!(usable(&house.read(), "key").newest().kind, KeyKind::Aes { bits: 128 });
    house.backend.destroy(small);
    house.add("key", "");
    for _ in 0..FULL_EVERY {
        house.read();
    }
    assert!(usable(&house.read(), "key").newest().kind.is_aes_256());
}

#[test]
fn one_object_that_cannot_be_read_spoils_no_other() {
    let mut house = House::new();
    house.add("good", ONE);
    let odd = house.add("odd", TWO);
    let spoil = |code| house.backend.change(odd, |key| key.unreadable = code);
    for code in [codes::GENERAL_ERROR, codes::FUNCTION_FAILED, codes::ATTRIBUTE_VALUE_INVALID] {
        spoil(Some(code));
        let catalogue = house.reader.read(house.session.as_mut()).expect("others can be read");
        usable(&catalogue, "good");
        assert_eq!((catalogue.len(), catalogue.unread()), (1, 1), "{code}");
    }
    spoil(None);
    let catalogue = house.read();
    assert_eq!((catalogue.len(), catalogue.unread()), (2, 0));
}

#[test]
fn a_token_that_describes_nothing_was_not_read() {
    let mut house = House::new();
    house.add("a", ONE);
    house.add("b", TWO);
    house.backend.always("C_GetAttributeValue", Some(Act::Return(codes::GENERAL_ERROR)));
    let fault = house.reader.read(house.session.as_mut()).expect_err("nothing could be read");
    assert_eq!(fault.kind, FaultKind::Ambiguous);
    for code in [codes::DEVICE_ERROR, codes::SESSION_CLOSED, codes::USER_NOT_LOGGED_IN] {
        house.backend.always("C_GetAttributeValue", None);
        house.backend.next("C_GetAttributeValue", Act::Return(code));
        assert!(house.reader.read(house.session.as_mut()).is_err(), "{code}");
    }
    assert_eq!(house.read().len(), 2);
}
