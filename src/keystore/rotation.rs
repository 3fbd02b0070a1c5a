//! When a key is rotated without anybody asking.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::{Duration, SystemTime};

use crate::hsm::state::Date;

/// When the keys of a key store are rotated by themselves. Nothing set: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotation {
    /// When the newest version is so old, by the days of its creation date.
    pub every: Option<Duration>,
    /// Before the newest version has made so many encryptions, by all proxies together.
    pub before: Option<NonZeroU64>,
}

/// Why a key is to be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its newest version is too old.
    Age,
    /// Its newest version has encrypted too often.
    Count,
}

impl Due {
    /// The word for it in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Count => "count",
        }
    }
}

impl Rotation {
    /// Whether keys are ever rotated so.
    pub fn is_on(self) -> bool {
        self.every.is_some() || self.before.is_some()
    }

    /// Whether a key is to be rotated whose newest version was made on this date, if that is known, and
    /// has made so many encryptions on this proxy. Proxies know nothing of each other: each looks at
    /// its own share of the number.
    pub fn due(
        self,
        created: Option<Date>,
        now: SystemTime,
        used: Option<u64>,
        fleet_size: NonZeroU32,
    ) -> Option<Due> {
        let mine = |before: NonZeroU64| (before.get() / u64::from(fleet_size.get())).max(1);
        let is_spent = used.zip(self.before.map(mine)).is_some_and(|(used, most)| used >= most);
        let newest_that_is_due = self.every.and_then(|every| now.checked_sub(every)).map(Date::of);
        let is_old = created.zip(newest_that_is_due).is_some_and(|(made, due)| made <= due);
        if is_spent { Some(Due::Count) } else { is_old.then_some(Due::Age) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn fleet(size: u32) -> NonZeroU32 {
        NonZeroU32::new(size).unwrap()
    }

    #[test]
    fn nothing_is_due_unless_asked_for() {
        let (off, made) = (Rotation::default(), Date::of(SystemTime::UNIX_EPOCH));
        assert!(!off.is_on());
        assert_eq!(off.due(Some(made), SystemTime::now(), Some(u64::MAX), fleet(1)), None);
    }

    #[test]
    fn a_version_is_due_on_the_day_and_not_before() {
        let rotation = Rotation { every: Some(DAY * 365), before: None };
        let now = SystemTime::UNIX_EPOCH + DAY * 1000 + Duration::from_secs(7);
        let due = |days| {
            let made = Date::of(now - DAY * days);
            rotation.due(Some(made), now, Some(u64::MAX), fleet(1))
        };
        assert_eq!((due(364), due(365), due(366)), (None, Some(Due::Age), Some(Due::Age)));
        assert_eq!(rotation.due(None, now, None, fleet(1)), None, "a foreign key has no date");
    }

    #[test]
    fn a_proxy_looks_at_its_share_of_the_number() {
        let rotation = Rotation { every: None, before: NonZeroU64::new(3000) };
        let due = |used, size| rotation.due(None, SystemTime::now(), used, fleet(size));
        assert_eq!((due(Some(2999), 1), due(Some(3000), 1)), (None, Some(Due::Count)));
        assert_eq!((due(Some(999), 3), due(Some(1000), 3)), (None, Some(Due::Count)));
        assert_eq!((due(Some(0), 10_000), due(Some(1), 10_000)), (None, Some(Due::Count)));
        assert_eq!(due(None, 1), None, "nothing is known of it yet");
    }
}
