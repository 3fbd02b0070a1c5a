//! Key stores that share a token: one that sends more than the HSM can do is throttled, and nobody
//! else notices.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::Value;
use support::caller::{Caller, assert_refused};
use support::daemon::{Daemon, poll};
use support::request::{decrypt_body, encrypt_body};
use support::shim::{library, set_script};
use support::site::{Configuration, Site, text};

use crate::world::{XKSD, demo, other};

/// Has the flood end, however the test does.
struct Flood<'a>(&'a AtomicBool);

impl Drop for Flood<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The answer, which is never a 429. On a machine that is too busy for the deadline it comes later.
fn served(caller: &Caller, target: &str, body: &Value) -> Value {
    loop {
        let answer = caller.call(target, body);
        match answer.status {
            200 => return serde_json::from_slice(&answer.body).expect("it is JSON"),
            503 => {}
            _ => panic!("{target}: {}", answer.text()),
        }
    }
}

/// P-70: ThrottlingException is for whose requests are too many.
#[test]
fn a_key_store_that_floods_starves_no_other() {
    let mut configuration = Configuration::new(vec![demo(), other()]);
    configuration.module = Some(library());
    configuration.token.extend([
        ("sessions", "1".to_owned()),
        ("queue", "2".to_owned()),
        ("catalogue_interval", text("10m")),
        ("probe_interval", text("30s")),
    ]);
    let site = Site::new(XKSD);
    site.configure(&configuration);
    for key in ["demo-key", "other-key"] {
        site.create_key(key, "encrypt,decrypt");
    }
    let script = site.for_module("script");
    let environment = format!("{{ PKCS11_SHIM_SCRIPT = \"{}\" }}", script.display());
    configuration.token.insert("environment", environment);
    site.configure(&configuration);
    let daemon = Daemon::start(site);
    let (greedy, neighbour) = (Caller::new(&daemon, &demo()), Caller::new(&daemon, &other()));
    let encrypt = encrypt_body(b"x", None);
    set_script(&script, "C_Encrypt delay 5ms\n");

    let (throttled, over) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let flood = Flood(&over);
        // One with the HSM and two in the queue: the others are too many at any time.
        for _ in 0..6 {
            scope.spawn(|| {
                let mut connection = greedy.connect();
                while !over.load(Ordering::Relaxed) {
                    connection.send(&greedy.request("keys/demo-key/encrypt", &encrypt).to_bytes());
                    let answer = connection.receive();
                    if answer.status == 429 {
                        assert_refused(&answer, 429, "ThrottlingException");
                        throttled.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        poll(|| throttled.load(Ordering::Relaxed) > 0, || "the HSM can do all of it".into());
        for _ in 0..10 {
            let before = throttled.load(Ordering::Relaxed);
            let sealed = served(&neighbour, "keys/other-key/encrypt", &encrypt);
            served(&neighbour, "keys/other-key/decrypt", &decrypt_body(&sealed, None));
            poll(|| throttled.load(Ordering::Relaxed) > before, || "the flood has ended".into());
        }
        drop(flood);
    });
}
