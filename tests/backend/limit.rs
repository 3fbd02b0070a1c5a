//! What counts against the limit of a key, and that nothing is asked of the HSM beyond it.

use std::fs;

use support::memory::{Act, MemoryBackend, MemoryKey};
use support::request::encrypt_body;
use xksd::counts::ledger::{Counted, Ledger};
use xksd::counts::limit::{AtLimit, EncryptionLimit};
use xksd::counts::store;

use crate::proxy::{Proxy, TEXT};

fn hsm() -> MemoryBackend {
    let hsm = MemoryBackend::new();
    hsm.add(MemoryKey::aes_256("key"));
    hsm
}

#[tokio::test]
async fn retries_count_and_checks_do_not() {
    let (hsm, directory) = (hsm(), tempfile::tempdir().expect("one can be made"));
    let limit = EncryptionLimit::default();
    let (proxy, counts) = Proxy::counting(&hsm, directory.path(), limit).await;
    let keeping = tokio::spawn(counts.clone().keep());
    // One is thrown away, since it does not decrypt, and made again.
    proxy.encrypt("key", &encrypt_body(TEXT, None)).await.expect("it is answered");
    let before = hsm.calls("C_Encrypt");
    hsm.next("C_Encrypt", Act::FlipBit);
    proxy.encrypt("key", &encrypt_body(TEXT, None)).await.expect("it is answered");
    assert_eq!(hsm.calls("C_Encrypt"), before + 2);
    keeping.abort();
    counts.close();
    let ledger = store::read(directory.path()).expect("it is there").expect("it is there");
    let ledger = ledger.expect("it is whole");
    let (counted, used) = ledger.reserved.first_key_value().expect("it is counted");
    assert!(matches!(counted, Counted::Foreign(key, _) if key.as_str() == "key"), "{ledger}");
    // The state directory was lost: they come on top of a whole share.
    assert_eq!(*used, (1 << 32) + 3);
}

#[tokio::test]
async fn beyond_the_limit_nothing_is_asked_of_the_hsm() {
    let (hsm, directory) = (hsm(), tempfile::tempdir().expect("one can be made"));
    let used = (1_u64 << 32) - 1;
    let ledger = format!("xksd-counts 1\nforeign key hsm-0 {used}\nend\n");
    Ledger::parse(&ledger).expect("it is as xksd writes it");
    fs::write(directory.path().join(store::FILE), ledger).expect("it can be written");
    let limit = EncryptionLimit { at_limit: AtLimit::Refuse, ..EncryptionLimit::default() };
    let (proxy, counts) = Proxy::counting(&hsm, directory.path(), limit).await;
    let keeping = tokio::spawn(counts.clone().keep());
    proxy.encrypt("key", &encrypt_body(TEXT, None)).await.expect("it is the last");
    let before = hsm.calls("C_EncryptInit");
    for _ in 0..3 {
        let refused = proxy.ask("keys/key/encrypt", &encrypt_body(TEXT, None)).await;
        assert_eq!(refused, Err((400, "InvalidStateException".to_owned())));
    }
    assert_eq!(hsm.calls("C_EncryptInit"), before);
    keeping.abort();
}
