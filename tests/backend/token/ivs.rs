//! Initialization vectors, as they come out of a token with several workers.

use std::collections::HashSet;
use std::time::Instant;

use support::memory::Act;
use xksd::hsm::fault::{Cause, FaultKind};
use xksd::hsm::iv::{BATCH, MAX_AGE};

use super::{Bench, fault, settings};

#[tokio::test]
async fn none_is_used_twice() {
    const ENCRYPTIONS: usize = 10_000;
    const WORKERS: usize = 4;
    let bench = Bench::up(settings(WORKERS)).await;
    let fetched = bench.backend.calls("C_GenerateRandom");
    let start = Instant::now();
    let mut seen = HashSet::new();
    for _ in 0..ENCRYPTIONS / WORKERS {
        let (a, b, c, d) =
            tokio::join!(bench.encrypt(), bench.encrypt(), bench.encrypt(), bench.encrypt());
        for sealed in [a, b, c, d] {
            assert!(seen.insert(sealed.expect("the token encrypts").iv));
        }
    }
    assert_eq!(seen.len(), ENCRYPTIONS);
    let fetched = bench.backend.calls("C_GenerateRandom") - fetched;
    // Full batches, and what each worker threw away because of its age, once a second.
    let aged = start.elapsed().as_secs() / MAX_AGE.as_secs() + 1;
    let most = ENCRYPTIONS / BATCH + WORKERS * usize::try_from(aged).expect("a test is short");
    let fetched = usize::try_from(fetched).expect("it is small");
    assert!((ENCRYPTIONS / BATCH..=most).contains(&fetched), "fetched {fetched} times");
}

#[tokio::test]
async fn a_generator_that_stands_still_repeats_no_iv_on_any_session() {
    let bench = Bench::up(settings(4)).await;
    bench.backend.always("C_GenerateRandom", Some(Act::StandStill));
    let (mut seen, mut refused) = (HashSet::new(), 0);
    for _ in 0..100 {
        let (a, b, c, d) =
            tokio::join!(bench.encrypt(), bench.encrypt(), bench.encrypt(), bench.encrypt());
        for result in [a, b, c, d] {
            match result {
                Ok(sealed) => assert!(seen.insert(sealed.iv), "used twice"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(seen.len() <= BATCH && refused > 0, "{} used, {refused} refused", seen.len());
}

#[tokio::test]
async fn a_generator_that_writes_nothing_is_refused_at_once() {
    let bench = Bench::up(settings(1)).await;
    bench.backend.always("C_GenerateRandom", Some(Act::WriteNothing));
    let fault = fault(bench.encrypt().await);
    assert_eq!(fault.kind, FaultKind::Bug);
    assert!(matches!(fault.cause, Cause::Nonsense(_)), "{fault}");
    // The canary wants an IV as well: the token is found out, and not served.
    super::wait_for(&bench.token, |state| !state.serves()).await;
}
