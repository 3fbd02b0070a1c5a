//! The spans of one request.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;

/// Tells one trace from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// A new one. It is random, since proxies that know nothing of each other send to one collector.
    pub fn random() -> Self {
        Self(random())
    }

    #[cfg(test)]
    pub(super) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, as OTLP wants them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Tells one span from the others of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

impl SpanId {
    /// A new one.
    pub fn random() -> Self {
        Self(random())
    }

    /// Its bytes, as OTLP wants them.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// Who is on the other side of a span; the values are OTLP's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nobody: a step of our own.
    Internal = 1,
    /// A caller whose request is served.
    Server = 2,
    /// Somebody who is asked: the HSM.
    Client = 3,
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// An attribute: OpenTelemetry's name where it has one, else `kms.`, `xks.` or `hsm.` and a word.
pub type Attribute = (&'static str, Value);

/// Something that took time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it is.
    pub name: &'static str,
    /// Who is on its other side.
    pub kind: Kind,
    /// From when.
    pub start: Instant,
    /// Until when.
    pub end: Instant,
    /// What else is known of it.
    pub attributes: Vec<Attribute>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// The spans of one request: the request, and its steps below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans {
    /// Which trace they are.
    pub trace: TraceId,
    /// The request.
    pub request: Span,
    /// Its steps, in order.
    pub steps: Vec<Span>,
    /// What the clocks said when it had ended.
    pub clock: WallClock,
}

/// Turns moments of the steady clock into time of day: two readings of the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClock {
    moment: Instant,
    since_1970: Duration,
}

impl WallClock {
    /// Reads both clocks.
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { moment: Instant::now(), since_1970 }
    }

    /// Nanoseconds since 1970 at a moment.
    pub fn nanoseconds(&self, moment: Instant) -> u64 {
        let ago = self.moment.saturating_duration_since(moment);
        let ahead = moment.saturating_duration_since(self.moment);
        let since = (self.since_1970 + ahead).saturating_sub(ago);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn random<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    rand::fill(&mut bytes).expect("the generator of aws-lc-rs does not fail once it is seeded");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_goes_with_the_steady_clock() {
        let clock = WallClock::now();
        let at = clock.nanoseconds(clock.moment);
        let second = Duration::from_secs(1);
        assert_eq!(clock.nanoseconds(clock.moment + second), at + 1_000_000_000);
        assert_eq!(clock.nanoseconds(clock.moment - second), at - 1_000_000_000);
    }
}
