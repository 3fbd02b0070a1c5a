//! What the daemon asks of the HSM for a request, and what callers hear when the HSM is slow.

use std::collections::BTreeMap;

use support::caller::{Caller, assert_refused};
use support::daemon::{Daemon, poll};
use support::request::{bare_body, decrypt_body, encrypt_body};
use support::shim::{Counts, library, set_script};
use support::site::{Configuration, text};

use crate::world::{demo, small_site};

/// Without it, each encryption is followed by a decryption.
const WHEN_ASKED: &str = "verify_writes = \"when_asked\"";

const TIMEOUT: &str = "DependencyTimeoutException";
const THROTTLING: &str = "ThrottlingException";

/// A daemon whose module is the shim, which counts calls and delays them.
struct Shimmed {
    daemon: Daemon,
    kms: Caller,
}

impl Shimmed {
    /// With these settings of the token, and with nothing going on in the background for a while.
    fn start(token: &[(&'static str, &str)], verify_writes: &'static str) -> Self {
        let mut demo = demo();
        demo.lines.push(verify_writes);
        let mut configuration = Configuration::new(vec![demo.clone()]);
        configuration.token.insert("catalogue_interval", text("10m"));
        configuration.token.insert("probe_interval", text("30s"));
        for (key, value) in token {
            configuration.token.insert(key, (*value).to_owned());
        }
        configuration.module = Some(library());
        let site = small_site(&configuration);
        let file = |name: &str| text(site.for_module(name).display());
        let environment = format!(
            "{{ PKCS11_SHIM_COUNTS = {}, PKCS11_SHIM_SCRIPT = {} }}",
            file("counts"),
            file("script")
        );
        configuration.token.insert("environment", environment);
        site.configure(&configuration);
        let daemon = Daemon::start(site);
        let kms = Caller::new(&daemon, &demo);
        Self { daemon, kms }
    }

    fn counts(&self) -> Counts {
        Counts::read(&self.daemon.site.for_module("counts"))
    }

    fn script(&self, text: &str) {
        set_script(&self.daemon.site.for_module("script"), text);
    }

    /// All calls into the module while this is done.
    fn calls(&self, what: impl FnOnce()) -> BTreeMap<String, u64> {
        let before = self.counts();
        what();
        let since = self.counts().since(&before);
        since.called().into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect()
    }
}

/// The HSM is asked for no more than it must be: two calls an operation, four with a check, and
/// nothing is ever searched on the way. Random numbers for IVs come many at a time.
#[test]
fn calls_are_counted() {
    const TWO: [&str; 2] = ["C_EncryptInit", "C_Encrypt"];
    const FOUR: [&str; 4] = ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"];
    count_calls(WHEN_ASKED, &TWO, &FOUR);
    count_calls("", &FOUR, &FOUR);
}

fn count_calls(verify_writes: &'static str, unasked: &[&str], asked: &[&str]) {
    const TIMES: u64 = 50;
    let shimmed = Shimmed::start(&[("sessions", "1")], verify_writes);
    let kms = &shimmed.kms;
    let plain = encrypt_body(b"x", None);
    let sealed = kms.accepted("keys/demo-key/encrypt", &plain);
    let decrypt = decrypt_body(&sealed, None);
    let mut checked = plain.clone();
    checked["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
    let calls = |rest: &str, body: &serde_json::Value| {
        let mut calls = shimmed.calls(|| {
            for _ in 0..TIMES {
                kms.accepted(rest, body);
            }
        });
        // 64 IVs at most come at once, and none is older than a second.
        let random = calls.remove("C_GenerateRandom").unwrap_or_default();
        assert!(random < TIMES / 2, "C_GenerateRandom {random} times for {TIMES} encryptions");
        calls
    };
    let counted = |functions: &[&str]| -> BTreeMap<String, u64> {
        functions.iter().map(|function| ((*function).to_owned(), TIMES)).collect()
    };
    assert_eq!(calls("keys/demo-key/encrypt", &plain), counted(unasked));
    assert_eq!(calls("keys/demo-key/decrypt", &decrypt), counted(&["C_DecryptInit", "C_Decrypt"]));
    assert_eq!(calls("keys/demo-key/encrypt", &checked), counted(asked));
    for (rest, body) in [
        ("keys/demo-key/metadata", bare_body("DescribeKey")),
        ("health", bare_body("KmsHealthCheck")),
    ] {
        assert_eq!(calls(rest, &body), BTreeMap::new(), "{rest}");
    }
}

/// P-8, P-70: who waits for a slow HSM hears so in time; nobody else waits with him, and when the
/// HSM is itself again, so is the daemon.
#[test]
fn a_slow_hsm_is_a_timeout() {
    let shimmed = Shimmed::start(&[("sessions", "8")], WHEN_ASKED);
    let kms = &shimmed.kms;
    let encrypt = encrypt_body(b"x", None);
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt);
    shimmed.script("C_Encrypt delay 2s\n");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| kms.refused("keys/demo-key/encrypt", &encrypt, 503, TIMEOUT));
        }
    });
    // Four sessions are still inside the HSM. The others, and what needs none, are not.
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    kms.accepted("keys/demo-key/metadata", &bare_body("DescribeKey"));
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    assert_eq!(shimmed.daemon.ask(shimmed.daemon.ops, "/livez").0, 200);
    shimmed.script("");
    kms.accepted("keys/demo-key/encrypt", &encrypt);
}

/// P-70: more than can wait for the HSM is throttled at once.
#[test]
fn a_full_queue_throttles() {
    let shimmed = Shimmed::start(&[("sessions", "1"), ("queue", "1")], WHEN_ASKED);
    let kms = &shimmed.kms;
    let encrypt = encrypt_body(b"x", None);
    kms.accepted("keys/demo-key/encrypt", &encrypt);
    shimmed.script("C_Encrypt delay 5s\n");
    let before = shimmed.counts();
    std::thread::scope(|scope| {
        scope.spawn(|| kms.refused("keys/demo-key/encrypt", &encrypt, 503, TIMEOUT));
        let inside = || shimmed.counts().since(&before).of("C_Encrypt") == 1;
        poll(inside, || "the only session is not in use".into());
        // One may wait; the other two are one and two too many.
        let others: Vec<_> =
            (0..3).map(|_| scope.spawn(|| kms.call("keys/demo-key/encrypt", &encrypt))).collect();
        let mut answers: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
        answers.sort_by_key(|answer| answer.status);
        assert_refused(&answers[0], 429, THROTTLING);
        assert_refused(&answers[1], 429, THROTTLING);
        assert_refused(&answers[2], 503, TIMEOUT);
    });
}
