//! Checkpoints of the audit log while the token comes, goes and hangs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use support::audit_log::{of_type, records, verify};
use support::gate::PATIENCE;
use support::memory::{Act, MemoryBackend, MemoryKey};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use xksd::audit::checkpoint::{AUDIT_KEY, Sealed};
use xksd::audit::log::{Checkpoints, Log, OnFailure, Settings};
use xksd::audit::record::Event;
use xksd::audit::sealer::{self, Running};
use xksd::audit::store::Place;
use xksd::hsm::codes;
use xksd::hsm::key::{KeyKind, Usage};
use xksd::hsm::token::{self, Token, TokenState};
use xksd::metrics::Metrics;

struct World {
    dir: tempfile::TempDir,
    log: Log,
    token: Arc<Token>,
    running: watch::Sender<Running>,
    sealer: JoinHandle<()>,
}

fn audit_key() -> MemoryKey {
    let mut key = MemoryKey::aes_256(AUDIT_KEY);
    key.kind = KeyKind::Other("GENERIC_SECRET".into());
    key.usage = Usage { sign: true, ..Usage::default() };
    key
}

impl World {
    fn new(backend: &MemoryBackend) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let checkpoints = Checkpoints {
            token: "hsm".parse().expect("a name"),
            records: 10,
            interval: Duration::from_millis(20),
        };
        let settings = Settings {
            place: Place {
                directory: dir.path().to_owned(),
                rotate_size: 1 << 30,
                rotate_age: Duration::from_secs(3600),
            },
            on_failure: OnFailure::Refuse,
            sync_interval: Duration::from_millis(5),
            max_delay: PATIENCE,
            refused_interval: Duration::from_secs(3600),
            checkpoints: None,
            copies: Vec::new(),
        };
        let metrics = Metrics::new();
        let log = Log::start(&settings, metrics.audit()).expect("the directory is good");
        let interval = Duration::from_millis(50);
        let settings = token::Settings {
            sessions: 1,
            catalogue_interval: interval,
            probe_interval: interval,
            ..token::Settings::default()
        };
        let token = metrics.token(&checkpoints.token);
        let backend = Arc::new(backend.clone());
        let token = Token::start(checkpoints.token.clone(), settings, backend, token);
        let token = Arc::new(token);
        let running = BTreeMap::from([(checkpoints.token.clone(), token.clone())]);
        let running = watch::Sender::new(running);
        let sealer = tokio::spawn(sealer::run(log.clone(), running.subscribe(), checkpoints));
        Self { dir, log, token, running, sealer }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn keep(&self) {
        assert!(self.log.admit().expect("it is admitted").keep(Event::Closed).is_none());
    }

    /// Waits until so many records of requests are there and covered by a checkpoint; gives the number
    /// of checkpoints.
    async fn covered(&self, records: usize) -> usize {
        wait_until(|| {
            let kept = of_type(self.path(), "closed");
            let last = kept.last().map(|record| record["seq"].as_u64());
            let signed = of_type(self.path(), "checkpoint").pop();
            let signed = signed.map(|record| record["statement"]["seq"].as_u64());
            kept.len() == records && signed >= last
        })
        .await;
        of_type(self.path(), "checkpoint").len()
    }
}

async fn wait_until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it becomes so");
}

#[tokio::test]
async fn records_are_signed_while_they_come() {
    let backend = MemoryBackend::new();
    let key = audit_key();
    backend.add(key.clone());
    let world = World::new(&backend);
    for _ in 0..25 {
        world.keep();
    }
    let signed = world.covered(25).await;
    world.keep();
    assert!(world.covered(26).await > signed);
    assert!(world.log.stop(PATIENCE));
    assert_eq!(verify(world.path()).findings, []);
    // Nothing is signed twice: a checkpoint is no reason for another.
    let checkpoints = of_type(world.path(), "checkpoint");
    let heads = checkpoints.iter().map(|record| record["statement"]["seq"].as_u64());
    let heads: Vec<u64> = heads.map(|seq| seq.expect("it is a number")).collect();
    for pair in heads.windows(2) {
        let is_new = |record: &serde_json::Value| {
            let seq = record["seq"].as_u64().expect("it is a number");
            record["type"] != "checkpoint" && pair[0] < seq && seq <= pair[1]
        };
        assert!(records(world.path()).iter().any(is_new), "{heads:?}");
    }
    let value = hmac::Key::new(hmac::HMAC_SHA256, &key.value);
    for record in checkpoints {
        assert_eq!(record["token"], "hsm");
        let line = support::audit_log::text(world.path());
        let seq = format!("{{\"seq\":{},", record["seq"]);
        let line = line.lines().find(|line| line.starts_with(&seq)).expect("it is there");
        let sealed = Sealed::read(line).expect("it is a checkpoint");
        let expected = hmac::sign(&value, sealed.statement.text().as_bytes());
        assert_eq!(expected.as_ref(), sealed.signature);
    }
    world.sealer.abort();
}

#[tokio::test]
async fn while_the_token_is_away_records_go_on_and_are_signed_later() {
    let backend = MemoryBackend::new();
    backend.add(audit_key());
    backend.always("C_OpenSession", Some(Act::Return(codes::TOKEN_NOT_PRESENT)));
    let world = World::new(&backend);
    let mut states = world.token.watch_state();
    let down = states.wait_for(|state| matches!(state, TokenState::Down(_)));
    tokio::time::timeout(PATIENCE, down).await.expect("it goes down").expect("it is there");
    world.keep();
    wait_until(|| of_type(world.path(), "closed").len() == 1).await;
    assert_eq!(of_type(world.path(), "checkpoint").len(), 0);
    assert_eq!(world.log.outlook(), Ok(()));
    backend.always("C_OpenSession", None);
    world.covered(1).await;
}

/// A key that is made, or fails, while the daemon runs; nothing but checkpoints is late.
#[tokio::test]
async fn a_key_that_is_made_later_signs_from_then_on() {
    let backend = MemoryBackend::new();
    let world = World::new(&backend);
    world.keep();
    wait_until(|| world.token.catalogue().is_some()).await;
    assert_eq!(of_type(world.path(), "checkpoint").len(), 0);
    let failures = [codes::DEVICE_ERROR, codes::FUNCTION_FAILED];
    for code in failures {
        backend.next("C_Sign", Act::Return(code));
    }
    backend.add(audit_key());
    world.covered(1).await;
    assert!(backend.calls("C_Sign") > failures.len() as u64);
}

#[tokio::test]
async fn a_token_that_takes_the_place_of_another_signs_from_then_on() {
    let backend = MemoryBackend::new();
    backend.add(audit_key());
    let world = World::new(&backend);
    world.keep();
    let signed = world.covered(1).await;
    // As a reload does it: the one before has left by then.
    assert!(world.token.stop(PATIENCE));
    let interval = Duration::from_millis(50);
    let settings = token::Settings {
        sessions: 1,
        catalogue_interval: interval,
        probe_interval: interval,
        ..token::Settings::default()
    };
    let name = world.token.name().clone();
    let metrics = Metrics::new().token(&name);
    let next = Arc::new(Token::start(name.clone(), settings, Arc::new(backend.clone()), metrics));
    world.running.send_replace(BTreeMap::from([(name, next)]));
    world.keep();
    assert!(world.covered(2).await > signed);
    assert!(world.log.stop(PATIENCE));
    assert_eq!(verify(world.path()).findings, []);
    world.sealer.abort();
}
