//! The life of a key, on each module: what `xksd keys` does, and what the token allows.

use std::time::{Duration, SystemTime};

use support::child::{TokenAtHand, Way, with_token};
use xksd::hsm::backend::NewKeyUsage;
use xksd::hsm::freeze::Marker;
use xksd::hsm::state::{Date, VersionStatus};
use xksd::lifecycle::{
    Agreement, Change, Error, Kind, Office, Order, Refusal, Survey, apply, bear, destroy, freeze,
    markers, unfreeze, verify,
};
use xksd::names::ExternalKeyId;

use crate::contract::pkcs11_backend;

const BOTH: NewKeyUsage = NewKeyUsage { encrypt: true, decrypt: true };

fn generated(kind: Kind) -> Order {
    Order::generated(kind, Duration::ZERO)
}

fn office(token: &TokenAtHand) -> Office {
    let name = "test".parse().expect("it is a token name");
    Office::new([(name, pkcs11_backend(token).administer())])
}

fn states(survey: &Survey) -> Vec<(u32, VersionStatus)> {
    survey.versions.iter().map(|held| (held.version.number(), held.status())).collect()
}

/// Two keys at once, since NSS softokn replaces an object whose CKA_ID is used again.
fn a_key_lives(token: &TokenAtHand) {
    use VersionStatus::{Deleting, Disabled, Enabled};
    let mut office = office(token);
    let [id, other]: [ExternalKeyId; 2] = ["key", "other"].map(|id| id.parse().expect("an id"));
    for id in [&other, &id] {
        let birth = bear(&mut office, id, &generated(Kind::Create(BOTH))).expect("it is made");
        assert_eq!((birth.state.status, birth.state.epoch), (Enabled, 2));
        let again = bear(&mut office, id, &generated(Kind::Create(BOTH)));
        assert!(matches!(again, Err(Error::Refused(Refusal::Exists))), "{again:?}");
    }
    bear(&mut office, &id, &generated(Kind::Rotate)).expect("it is rotated");
    let survey = office.survey(&id).expect("the token is there");
    assert_eq!(states(&survey), [(2, Enabled), (1, Enabled)]);
    for object in survey.versions.iter().flat_map(|held| &held.objects) {
        let kept = office.protection(object).expect("the token tells");
        assert_eq!((kept.sensitive, kept.extractable), (Some(true), Some(false)));
        assert_eq!((kept.always_sensitive, kept.never_extractable), (Some(true), Some(true)));
        assert_eq!((kept.token, kept.private), (Some(true), Some(true)));
    }
    let found = verify(&mut office, &survey).expect("the token proves it");
    assert!(found.iter().all(|row| row.agreement == Agreement::Decrypts), "{found:?}");

    let today = Date::of(SystemTime::now());
    let changes = [
        (Change::Disable, Disabled),
        (Change::Enable, Enabled),
        // Its date has come at once.
        (Change::ScheduleDeletion(today), Deleting),
        (Change::CancelDeletion, Disabled),
        (Change::ScheduleDeletion(today), Deleting),
    ];
    for (change, status) in changes {
        let plan = apply(&mut office, &id, None, change).expect("the CKA_ID can be written");
        assert_eq!((plan.state.status, plan.writes.len()), (status, 1));
        let survey = office.survey(&id).expect("the token is there");
        assert_eq!(states(&survey), [(2, status), (1, Enabled)]);
    }
    let newest = office.survey(&id).expect("the token is there").versions[0].object_id;
    let doomed = destroy(&mut office, &id, newest, today, true).expect("it may be destroyed");
    assert_eq!((doomed.objects.len(), doomed.is_whole_key), (2, true));
    assert!(office.survey(&id).expect("the token is there").versions.is_empty());
    assert_eq!(states(&office.survey(&other).expect("it is there")), [(1, Enabled)]);
    let marker = Marker::All;
    for made in [1, 0] {
        assert_eq!(freeze(&mut office, &marker).expect("the token is there").len(), made);
        assert_eq!(markers(&mut office, &marker).expect("the token is there").len(), 1);
    }
    for destroyed in [1, 0] {
        assert_eq!(unfreeze(&mut office, &marker).expect("the token is there").len(), destroyed);
        assert_eq!(markers(&mut office, &marker).expect("the token is there").len(), 0);
    }
    assert_eq!(office.failures(), []);
}

#[test]
fn softhsm_lets_a_key_live() {
    with_token("lifecycle::softhsm_lets_a_key_live", Way::Direct, a_key_lives);
}

#[test]
fn kryoptic_lets_a_key_live() {
    with_token("lifecycle::kryoptic_lets_a_key_live", Way::Kryoptic, a_key_lives);
}

#[test]
fn nss_lets_a_key_live() {
    with_token("lifecycle::nss_lets_a_key_live", Way::Nss, a_key_lives);
}
