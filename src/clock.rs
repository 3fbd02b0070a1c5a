//! Time as a value: the wall clock that signatures are judged by, and the deadline of a request.

use std::time::{Duration, Instant, SystemTime};

/// Tells the wall-clock time. Tests put a fixed one in its place.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The operating system's clock.
    System,
    /// Always the same time.
    Fixed(SystemTime),
}

impl Clock {
    /// The time now, by this clock.
    pub fn now(self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            Self::Fixed(time) => time,
        }
    }
}

/// The moment after which an answer is of no use to KMS any more (P-8).
///
/// Made when the head of a request has arrived; it travels with the request down to the thread
/// that calls the HSM, which does not start what has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this far from now.
    pub fn after(budget: Duration) -> Self {
        Self(Instant::now() + budget)
    }

    /// A deadline at this moment.
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The moment itself, for timers.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left of it; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_zero_has_passed() {
        assert!(Deadline::after(Duration::ZERO).has_passed());
        assert!(!Deadline::after(Duration::from_secs(3600)).has_passed());
    }

    #[test]
    fn a_fixed_clock_stands_still() {
        let clock = Clock::Fixed(SystemTime::UNIX_EPOCH);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH);
    }
}
