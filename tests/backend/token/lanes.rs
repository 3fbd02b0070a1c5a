//! Who shares a token with whom: key stores that send more than it can do, and those that do not.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::gate::Gate;
use support::memory::{MemoryBackend, MemoryKey};
use xksd::clock::Deadline;
use xksd::hsm::backend::Sealed;
use xksd::hsm::lanes::Lane;
use xksd::hsm::token::{Settings, Timed, Token, TokenError, TokenState};
use xksd::metrics::Metrics;
use xksd::secret::Plaintext;

use super::{AAD, Bench, TEXT, begin, settings, soon, wait_for};

type Job<'a> = Pin<Box<dyn Future<Output = Timed<Sealed>> + 'a>>;

fn store(name: &str) -> Lane {
    Lane::Keystore(name.parse().expect("it is the name of a key store"))
}

/// A job that is in the queue, or was refused.
async fn send<'a>(
    bench: &'a Bench,
    lane: &'a Lane,
    deadline: Deadline,
) -> Result<Job<'a>, TokenError> {
    let text = Arc::new(Plaintext::new(TEXT.to_vec()));
    let job = bench.token.encrypt(lane, bench.handle(), AAD.into(), text, deadline);
    let mut job: Job<'a> = Box::pin(job);
    match now(&mut job).await {
        None => Ok(job),
        Some(answer) => Err(answer.result.expect_err("nothing is done at once here")),
    }
}

/// The answer, if it is there.
async fn now<F: Future + Unpin>(job: &mut F) -> Option<F::Output> {
    tokio::time::timeout(Duration::ZERO, job).await.ok()
}

/// Has the only session work for a key store until the gate is opened.
async fn busy<'a>(bench: &'a Bench, lane: &'a Lane) -> (Job<'a>, Gate) {
    let gate = bench.backend.hang("C_Encrypt");
    let running = send(bench, lane, soon()).await.expect("there is room");
    gate.wait_for(1);
    (running, gate)
}

#[tokio::test]
async fn a_lone_job_does_not_wait_for_a_flood() {
    let bench = Bench::up(settings(1)).await;
    let (flood, lone) = (store("flood"), store("lone"));
    let (running, gate) = busy(&bench, &flood).await;
    let mut waiting = Vec::new();
    for _ in 0..50 {
        waiting.push(send(&bench, &flood, soon()).await.expect("there is room"));
    }
    let mut one = send(&bench, &lone, soon()).await.expect("there is room");
    let mut other = send(&bench, &Lane::Internal, soon()).await.expect("there is room");
    // Three lanes: these two are among the next three jobs, and the fourth is not begun before.
    let gates: Vec<_> = (0..4).map(|_| bench.backend.hang("C_Encrypt")).collect();
    gate.open();
    assert!(running.await.result.is_ok());
    gates[..3].iter().for_each(Gate::open);
    gates[3].wait_for(1);
    assert!(now(&mut one).await.expect("it had its turn").result.is_ok());
    assert!(now(&mut other).await.expect("it had its turn").result.is_ok());
    gates[3].open();
    for job in waiting {
        assert!(job.await.result.is_ok());
    }
}

#[tokio::test]
async fn who_floods_makes_room_for_others() {
    let bench = Bench::up(Settings { queue: 3, ..settings(1) }).await;
    let (flood, lone) = (store("flood"), store("lone"));
    let (running, gate) = busy(&bench, &flood).await;
    // All of the queue for who is alone.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(send(&bench, &flood, soon()).await.expect("there is room"));
    }
    assert_eq!(send(&bench, &flood, soon()).await.err(), Some(TokenError::QueueFull));
    let one = send(&bench, &lone, soon()).await.expect("room is made");
    // Who had to leave hears so at once.
    let mut newest = waiting.pop().expect("there are three");
    let newest = now(&mut newest).await.expect("it is answered").result;
    assert_eq!(newest.err(), Some(TokenError::QueueFull));
    // Half of the queue each, as far as that goes: nobody gives up more.
    assert_eq!(send(&bench, &lone, soon()).await.err(), Some(TokenError::QueueFull));
    gate.open();
    for job in [running, one].into_iter().chain(waiting) {
        assert!(job.await.result.is_ok());
    }
}

#[tokio::test]
async fn who_floods_is_refused_early_and_nobody_else_is() {
    let bench = Bench::up(settings(1)).await;
    let (flood, lone) = (store("flood"), store("lone"));
    // The token has shown how slow it is.
    let (slow, gate) = busy(&bench, &flood).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(50) {
        std::thread::yield_now();
    }
    gate.open();
    let took = slow.await.times.hsm();
    let (_running, gate) = busy(&bench, &flood).await;
    let deadline = || Deadline::after(took * 40);
    let mut waiting = Vec::new();
    let refused = loop {
        match send(&bench, &flood, deadline()).await {
            Ok(job) => waiting.push(job),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, TokenError::Overloaded);
    let one = send(&bench, &lone, deadline()).await;
    assert!(one.is_ok(), "{:?}", one.err());
    gate.open();
}

#[tokio::test]
async fn who_gives_up_leaves_the_queue() {
    let backend = MemoryBackend::new();
    let key = backend.add(MemoryKey::aes_256("key"));
    let metrics = Metrics::new();
    let name: xksd::names::TokenName = "test".parse().expect("it is a token name");
    let settings = Settings { queue: 1, ..settings(1) };
    let token =
        Token::start(name.clone(), settings, Arc::new(backend.clone()), metrics.token(&name));
    let bench = Bench { backend, key, token };
    wait_for(&bench.token, |state| *state == TokenState::Up).await;
    let lane = store("store");
    let (running, gate) = busy(&bench, &lane).await;
    // The only session hangs, so nobody but the caller can have taken it out.
    drop(send(&bench, &lane, soon()).await.expect("there is room"));
    let mut expired =
        pin!(bench.encrypt_with(bench.handle(), Deadline::after(Duration::from_millis(50))));
    begin(&mut expired).await;
    assert_eq!(send(&bench, &lane, soon()).await.err(), Some(TokenError::QueueFull));
    assert_eq!(expired.await.err(), Some(TokenError::Late));
    let last = send(&bench, &lane, soon()).await.expect("there is room");
    gate.open();
    assert!(running.await.result.is_ok() && last.await.result.is_ok());
    let rendered = metrics.render();
    let refused = |reason: &str| {
        let line = format!("xksd_hsm_jobs_refused_total{{reason=\"{reason}\",token=\"test\"}} 1\n");
        assert!(rendered.contains(&line), "no `{line}` in {rendered}");
    };
    refused("expired");
    refused("queue_full");
}
