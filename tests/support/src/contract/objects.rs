//! Clauses on what a token says of its objects.

use std::collections::BTreeSet;

use xksd::catalogue::Reader;
use xksd::hsm::backend::Backend;
use xksd::hsm::key::{KeyFault, KeyKind, Usage};
use xksd::names::ExternalKeyId;

use super::{BOTH, Keys, VALUE, aes, connect, find};
use crate::foreign::Material;

/// Each object is found once, however many there are, again and again.
pub fn objects(backend: &dyn Backend, keys: &dyn Keys) {
    let mut session = connect(backend);
    let mut labels = BTreeSet::new();
    // More than fit into one C_FindObjects call, and just as many.
    for count in [0, 1, 256, 300] {
        while labels.len() < count {
            let label = format!("key-{:03}", labels.len());
            keys.add(label.as_bytes(), label.as_bytes(), Material::Aes(VALUE), BOTH);
            labels.insert(label.into_bytes());
        }
        for _again in 0..2 {
            let found = session.objects().expect("the token can be searched");
            assert_eq!(found.len(), count);
            let read = found.into_iter().map(|object| {
                let read = session.read_changeable(object).expect("it can be read");
                assert_eq!(read.id, read.label);
                read.label
            });
            assert_eq!(read.collect::<BTreeSet<_>>(), labels);
        }
    }
}

/// Labels come back byte for byte; those that are no external key id (P-6) are no keys, and hide
/// none.
pub fn labels(backend: &dyn Backend, keys: &dyn Keys) {
    let mut session = connect(backend);
    let long = vec![b'x'; 129];
    let odd: [&[u8]; 8] =
        [b"", b"\xff\xfe", b"a\0b", b"xksd:probe", b"a:b", b"a b", "ключ".as_bytes(), &long];
    let is_taken = |label: &&[u8]| keys.takes_any_label() || std::str::from_utf8(label).is_ok();
    let odd: Vec<&[u8]> = odd.into_iter().filter(is_taken).collect();
    for (number, label) in odd.iter().enumerate() {
        keys.add(label, number.to_string().as_bytes(), Material::Aes(VALUE), BOTH);
    }
    keys.add(b"Good-one_1.2", b"\xff\0id", Material::Aes(VALUE), BOTH);
    let objects = session.objects().expect("the token can be searched");
    let read = objects
        .into_iter()
        .map(|object| session.read_changeable(object).expect("it can be read").label);
    let expected: BTreeSet<Vec<u8>> =
        odd.iter().copied().chain([&b"Good-one_1.2"[..]]).map(<[u8]>::to_vec).collect();
    assert_eq!(read.collect::<BTreeSet<_>>(), expected);
    let catalogue = Reader::default().read(session.as_mut()).expect("the token can be read");
    assert_eq!((catalogue.len(), catalogue.unread()), (1, 0));
    let good: ExternalKeyId = "Good-one_1.2".parse().expect("it keeps P-6");
    assert!(catalogue.find(&good).is_some_and(|key| key.is_ok()));
}

/// A label that two foreign objects bear is no key, until one of them is gone (P-6).
pub fn twins(backend: &dyn Backend, keys: &dyn Keys) {
    let mut session = connect(backend);
    keys.add(b"twin", b"1", Material::Aes(VALUE), BOTH);
    keys.add(b"other", b"2", Material::Aes(VALUE), BOTH);
    let id: ExternalKeyId = "twin".parse().expect("it keeps P-6");
    let mut reader = Reader::default();
    let mut find = || reader.read(session.as_mut()).expect("the token can be read").find(&id);
    assert!(find().expect("it is there").is_ok());
    keys.rename(b"other", b"twin");
    assert_eq!(find(), Some(Err(KeyFault::Ambiguous)));
    keys.destroy(b"twin");
    assert_eq!(find(), None);
    keys.add(b"twin", b"3", Material::Aes(VALUE), BOTH);
    assert!(find().expect("it is there").is_ok());
}

/// Kind, length and usages are told as they are (P-30).
pub fn attributes(backend: &dyn Backend, keys: &dyn Keys) {
    let mut session = connect(backend);
    let none = Usage::default();
    let all = Usage {
        encrypt: true,
        decrypt: true,
        sign: true,
        verify: true,
        wrap: true,
        unwrap: true,
        derive: true,
    };
    let one_each = [
        Usage { encrypt: true, ..none },
        Usage { decrypt: true, ..none },
        Usage { sign: true, ..none },
        Usage { verify: true, ..none },
        Usage { wrap: true, ..none },
        Usage { unwrap: true, ..none },
        Usage { derive: true, ..none },
        none,
        all,
    ];
    let mut expected = Vec::new();
    for (number, usage) in one_each.into_iter().enumerate() {
        expected.push((format!("usage-{number}"), Material::Aes(VALUE), usage, aes(32)));
    }
    let generic = KeyKind::Other("GENERIC_SECRET".into());
    let rsa = KeyKind::Other("RSA_2048".into());
    let sign = Usage { sign: true, ..none };
    expected.push(("aes-128".into(), Material::Aes(&[1; 16]), BOTH, aes(16)));
    expected.push(("aes-192".into(), Material::Aes(&[1; 24]), BOTH, aes(24)));
    expected.push(("generic".into(), Material::GenericSecret, sign, generic));
    expected.push(("rsa".into(), Material::Rsa2048, Usage { decrypt: true, ..none }, rsa));
    for (label, material, usage, _) in &expected {
        keys.add(label.as_bytes(), label.as_bytes(), *material, *usage);
    }
    for (label, _, usage, kind) in expected {
        let object = find(session.as_mut(), label.as_bytes());
        let read = session.read_attributes(object).expect("it can be read");
        assert_eq!((read.usage, &read.kind), (usage, &kind), "{label}");
        assert_eq!(read.changeable.id, label.as_bytes());
        assert_eq!(read.changeable.encrypt, usage.encrypt, "{label}");
        assert_eq!(read.changeable.decrypt, usage.decrypt, "{label}");
        assert_eq!(read.changeable, session.read_changeable(object).expect("it can be read"));
    }
}
