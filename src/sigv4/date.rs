//! `X-Amz-Date`: the signer's time in UTC, `yyyymmddThhmmssZ` and no other form.

use std::time::{SystemTime, UNIX_EPOCH};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime};

const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// Bytes of that form.
const TEXT_LENGTH: usize = 16;

/// A moment to the second, in a year from 0 to 9999, so that it can be written in its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmzDate(PrimitiveDateTime);

impl AmzDate {
    /// Reads the header's bytes. `None` for another form or a day that no calendar has.
    pub fn parse(value: &[u8]) -> Option<Self> {
        // The parser below would also take a sign before the year, one byte more.
        if value.len() != TEXT_LENGTH {
            return None;
        }
        let text = str::from_utf8(value).ok()?;
        PrimitiveDateTime::parse(text, FORMAT).ok().map(Self)
    }

    /// The second in which this moment lies. `None` outside the years 0 to 9999.
    pub fn at(time: SystemTime) -> Option<Self> {
        let utc = OffsetDateTime::from_unix_timestamp(unix_seconds(time)).ok()?;
        (utc.year() >= 0).then(|| Self(PrimitiveDateTime::new(utc.date(), utc.time())))
    }

    /// The form of the header.
    pub fn text(self) -> String {
        let (hour, minute, second) = self.0.as_hms();
        format!("{}T{hour:02}{minute:02}{second:02}Z", self.day_text())
    }

    /// The form of the credential scope, `yyyymmdd`.
    pub fn day_text(self) -> String {
        let (year, month, day) = self.0.date().to_calendar_date();
        format!("{year:04}{:02}{day:02}", u8::from(month))
    }

    /// The day in UTC.
    pub(super) fn day(self) -> Date {
        self.0.date()
    }

    /// The moment, for the derivation of a signing key.
    pub(super) fn system_time(self) -> SystemTime {
        self.0.assume_utc().into()
    }

    /// Seconds that this date is ahead of `now`; negative where it is behind.
    ///
    /// Whole seconds, as the header has no finer ones: what is signed in the same second as
    /// `now` is not late by the fraction that has passed since.
    pub fn seconds_ahead_of(self, now: SystemTime) -> i64 {
        self.0.assume_utc().unix_timestamp().saturating_sub(unix_seconds(now))
    }
}

/// Whole seconds since 1970, rounded down.
fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX).saturating_neg();
            whole.saturating_sub(i64::from(before.subsec_nanos() > 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn date(text: &str) -> AmzDate {
        AmzDate::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_date_is_written_as_it_was_read() {
        for text in ["20150830T123600Z", "20261121T235959Z", "19691231T235959Z", "00000101T000000Z"]
        {
            assert_eq!(date(text).text(), text);
            assert_eq!(date(text).day_text(), text[..8]);
            assert_eq!(AmzDate::at(date(text).system_time()), Some(date(text)));
        }
        assert_eq!(AmzDate::at(UNIX_EPOCH).unwrap().text(), "19700101T000000Z");
    }

    #[test]
    fn other_forms_are_no_dates() {
        for text in [
            "",
            "20150830",
            "20150830T123600",
            "20150830T123600z",
            "20150830t123600Z",
            "20150830T123600ZZ",
            "20150830T123600+0000",
            " 20150830T123600Z",
            "20150830T123600.0Z",
            "2015-08-30T12:36:00Z",
            "+2150830T123600Z",
            "+20150830T123600Z",
            "-20150830T123600Z",
            "2015 830T123600Z",
            "20151330T123600Z",
            "20150229T123600Z",
            "20150830T243600Z",
            "20150830T126000Z",
            "20150830T123660Z",
            "2015083\u{660}T23600Z",
            "Sun, 30 Aug 2015 12:36:00 GMT",
            "1440938160",
        ] {
            assert_eq!(AmzDate::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(AmzDate::parse(b"20150830T12360\xff"), None);
    }

    #[test]
    fn distance_is_signed_and_in_whole_seconds() {
        let date = date("20150830T123600Z");
        let now = date.system_time();
        assert_eq!(date.seconds_ahead_of(now), 0);
        assert_eq!(date.seconds_ahead_of(now + Duration::from_millis(999)), 0);
        assert_eq!(date.seconds_ahead_of(now + Duration::from_secs(300)), -300);
        assert_eq!(date.seconds_ahead_of(now - Duration::from_secs(301)), 301);
    }

    #[test]
    fn clocks_far_off_do_not_panic() {
        let far = UNIX_EPOCH.checked_add(Duration::from_secs(i64::MAX.unsigned_abs())).unwrap();
        assert_eq!(AmzDate::at(far), None);
        assert!(date("20150830T123600Z").seconds_ahead_of(far) < 0);
        let before = UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(AmzDate::at(before).unwrap().text(), "19691231T235958Z");
        let ancient = UNIX_EPOCH - Duration::from_secs(100_000_000_000);
        assert_eq!(AmzDate::at(ancient), None);
    }
}
