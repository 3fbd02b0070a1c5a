//! How much a caller may ask for: so many requests a second, so many at once.
//!
//! A limiter knows neither who asks nor what for. Requests a second are counted by GCRA, which gives a
//! caller `burst` requests at once and one more every `1 / per_second` after that, without a window at
//! whose ends twice as many pass.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::names::ExternalKeyId;

/// What is allowed; nothing is limited by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Requests a second.
    pub rate: Option<Rate>,
    /// Requests that are being served at any moment.
    pub concurrent: Option<NonZeroU32>,
}

/// Requests a second, and how uneven they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: NonZeroU32,
    /// At once, after a while without any.
    pub burst: NonZeroU32,
}

/// Which limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// [`Settings::rate`]
    Rate,
    /// [`Settings::concurrent`]
    Concurrent,
}

/// Time that only goes forward.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic(Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Counts what one caller asks for.
#[derive(Debug)]
pub struct Limiter<C: Clock = Monotonic> {
    rate: Option<RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>>,
    concurrent: Option<NonZeroU32>,
    serving: Arc<AtomicU32>,
}

impl<C: Clock + Default> Limiter<C> {
    /// A limiter that has counted nothing yet.
    pub fn new(settings: &Settings) -> Self {
        Self::with_clock(settings, C::default())
    }
}

impl<C: Clock> Limiter<C> {
    fn with_clock(settings: &Settings, clock: C) -> Self {
        let rate = settings.rate.map(|Rate { per_second, burst }| {
            RateLimiter::direct_with_clock(Quota::per_second(per_second).allow_burst(burst), clock)
        });
        Self { rate, concurrent: settings.concurrent, serving: Arc::default() }
    }

    /// Lets one request in, for as long as its admission is kept.
    ///
    /// # Errors
    /// The limit that it is over. It has been charged for nothing then.
    pub fn admit(&self) -> Result<Admission, Exceeded> {
        let most = self.concurrent.map_or(u32::MAX, NonZeroU32::get);
        let one_more = |serving: u32| (serving < most).then(|| serving.saturating_add(1));
        self.serving
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| Exceeded::Concurrent)?;
        let admission = Admission { serving: self.serving.clone() };
        match &self.rate {
            Some(rate) if rate.check().is_err() => Err(Exceeded::Rate),
            _ => Ok(admission),
        }
    }
}

/// Proof that a request is within its limits; it counts as being served until this is dropped.
///
/// It cannot be made elsewhere:
/// ```compile_fail,E0451
/// let admission = xksd::limits::Admission { serving: Default::default() };
/// ```
#[derive(Debug)]
#[must_use]
pub struct Admission {
    serving: Arc<AtomicU32>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A limiter for each external key, all with the same settings.
#[derive(Debug)]
pub struct KeyLimiters {
    settings: Settings,
    by_key: RwLock<HashMap<ExternalKeyId, Arc<Limiter>>>,
}

impl KeyLimiters {
    /// Limiters that have counted nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, by_key: RwLock::default() }
    }

    /// Lets one request for a key in. The key must be one that exists: a limiter is kept for each that
    /// is named here.
    ///
    /// # Errors
    /// See [`Limiter::admit`].
    pub fn admit(&self, id: &ExternalKeyId) -> Result<Option<Admission>, Exceeded> {
        if self.settings == Settings::default() {
            return Ok(None);
        }
        let known = self.by_key.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let limiter = known.unwrap_or_else(|| {
            let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Limiter::new(&self.settings));
            by_key.entry(id.clone()).or_insert_with(new).clone()
        });
        limiter.admit().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn settings(per_second: u32, burst: u32, concurrent: Option<u32>) -> Settings {
        let rate = Rate { per_second: number(per_second), burst: number(burst) };
        Settings { rate: Some(rate), concurrent: concurrent.map(number) }
    }

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let clock = FakeRelativeClock::default();
        let limiter = Limiter::with_clock(&settings(10, 3, None), clock.clone());
        let admitted = || (0..100).filter(|_| limiter.admit().is_ok()).count();
        assert_eq!(admitted(), 3);
        clock.advance(Duration::from_millis(99));
        assert_eq!(admitted(), 0);
        clock.advance(Duration::from_millis(1));
        assert_eq!(admitted(), 1);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(admitted(), 3);
        assert_eq!(limiter.admit().unwrap_err(), Exceeded::Rate);
    }

    #[test]
    fn who_is_refused_for_being_one_too_many_is_not_charged() {
        let clock = FakeRelativeClock::default();
        let limiter = Limiter::with_clock(&settings(1, 3, Some(1)), clock);
        let first = limiter.admit().unwrap();
        for _ in 0..10 {
            assert_eq!(limiter.admit().unwrap_err(), Exceeded::Concurrent);
        }
        drop(first);
        drop(limiter.admit().unwrap());
        drop(limiter.admit().unwrap());
        // Who is over the rate is not being served.
        assert_eq!(limiter.admit().unwrap_err(), Exceeded::Rate);
        assert_eq!(limiter.serving.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nothing_is_limited_by_default() {
        let limiter = Limiter::<Monotonic>::new(&Settings::default());
        let admissions: Vec<_> = (0..10_000).map(|_| limiter.admit().unwrap()).collect();
        assert_eq!(limiter.serving.load(Ordering::Relaxed), 10_000);
        drop(admissions);
        assert_eq!(limiter.serving.load(Ordering::Relaxed), 0);
        let keys = KeyLimiters::new(Settings::default());
        assert!(keys.admit(&"k".parse().unwrap()).unwrap().is_none());
        assert!(keys.by_key.read().unwrap().is_empty());
    }

    #[test]
    fn each_key_has_limits_of_its_own() {
        let keys = KeyLimiters::new(Settings { rate: None, concurrent: Some(number(1)) });
        let [one, two] = ["one", "two"].map(|id| id.parse::<ExternalKeyId>().unwrap());
        let held = keys.admit(&one).unwrap();
        assert_eq!(keys.admit(&one).unwrap_err(), Exceeded::Concurrent);
        assert!(keys.admit(&two).is_ok());
        drop(held);
        assert!(keys.admit(&one).is_ok());
    }

    proptest! {
        /// Whatever the pauses: never more than the burst and what the time has brought.
        #[test]
        fn no_more_pass_than_are_allowed(
            per_second in 1u32..2000,
            burst in 1u32..100,
            steps in proptest::collection::vec((0u64..200, 0u32..50), 1..60),
        ) {
            let clock = FakeRelativeClock::default();
            let limiter = Limiter::with_clock(&settings(per_second, burst, None), clock.clone());
            let (mut passed, mut elapsed) = (0u64, 0u64);
            for (pause, requests) in steps {
                clock.advance(Duration::from_millis(pause));
                elapsed += pause;
                passed += (0..requests).filter(|_| limiter.admit().is_ok()).count() as u64;
                let allowed = u64::from(burst) + u64::from(per_second) * elapsed / 1000 + 1;
                prop_assert!(passed <= allowed, "{passed} of {allowed}");
            }
        }
    }
}
