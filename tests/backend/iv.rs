//! The pool of IVs: how old they may be, and what is no random number.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use support::memory::{Act, MemoryBackend};
use xksd::hsm::backend::{Backend, Session};
use xksd::hsm::fault::FaultKind;
use xksd::hsm::iv::{BATCH, IvPool, MAX_AGE, Moment, Witness};

/// A session, and a pool that has given out one IV at this moment.
fn pool(backend: &MemoryBackend) -> (Box<dyn Session>, IvPool, Moment) {
    let mut session = backend.connect().expect("nothing was asked to fail");
    let mut pool = IvPool::new(Arc::default());
    let now = Moment::now();
    pool.take(session.as_mut(), now).expect("there are random bytes");
    assert_eq!(backend.calls("C_GenerateRandom"), 1);
    (session, pool, now)
}

fn later(moment: Moment, time: Duration) -> Moment {
    Moment { monotonic: moment.monotonic + time, wall: moment.wall + time }
}

#[test]
fn one_call_is_enough_for_a_batch() {
    let backend = MemoryBackend::new();
    let mut session = backend.connect().expect("nothing was asked to fail");
    let (mut pool, now) = (IvPool::new(Arc::default()), Moment::now());
    let mut seen = HashSet::new();
    for taken in 0..10 * BATCH {
        assert!(seen.insert(pool.take(session.as_mut(), now).expect("there are random bytes")));
        let calls = usize::try_from(backend.calls("C_GenerateRandom")).expect("it is small");
        assert_eq!(calls, taken / BATCH + 1);
    }
}

#[test]
fn none_is_used_at_the_age_of_a_second() {
    let backend = MemoryBackend::new();
    let (mut session, mut pool, now) = pool(&backend);
    let just = later(now, MAX_AGE - Duration::from_nanos(1));
    pool.take(session.as_mut(), just).expect("they are young enough");
    assert_eq!(backend.calls("C_GenerateRandom"), 1);
    pool.take(session.as_mut(), later(now, MAX_AGE)).expect("there are random bytes");
    assert_eq!(backend.calls("C_GenerateRandom"), 2);
}

#[test]
fn either_clock_makes_them_old() {
    // A machine that was stopped: its wall clock went on, or was set.
    let year = Duration::from_secs(365 * 86_400);
    type Change = fn(&mut Moment, Duration);
    let changes: [Change; 3] =
        [|m, by| m.wall += by, |m, by| m.wall -= by, |m, by| m.monotonic += by];
    for change in changes {
        let backend = MemoryBackend::new();
        let (mut session, mut pool, mut now) = pool(&backend);
        change(&mut now, year);
        pool.take(session.as_mut(), now).expect("there are random bytes");
        assert_eq!(backend.calls("C_GenerateRandom"), 2);
    }
}

#[test]
fn what_was_forgotten_is_fetched_anew() {
    let backend = MemoryBackend::new();
    let (mut session, mut pool, now) = pool(&backend);
    pool.clear();
    pool.take(session.as_mut(), now).expect("there are random bytes");
    assert_eq!(backend.calls("C_GenerateRandom"), 2);
}

#[test]
fn the_pools_of_a_token_are_not_given_the_same_twice() {
    let backend = MemoryBackend::new();
    let mut session = backend.connect().expect("nothing was asked to fail");
    backend.always("C_GenerateRandom", Some(Act::StandStill));
    let (witness, now) = (Arc::new(Witness::default()), Moment::now());
    let mut first = IvPool::new(witness.clone());
    first.take(session.as_mut(), now).expect("nobody has seen these");
    let mut second = IvPool::new(witness);
    let fault = second.take(session.as_mut(), now).expect_err("the other has them");
    assert_eq!(fault.kind, FaultKind::Bug);
    // Nor is anything left that a second try could take.
    assert!(second.take(session.as_mut(), now).is_err());
}
