//! The names of the files of a log: sorted by name, they are in the order in which they were made.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::PrimitiveDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

const TIME: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// `audit-20261122T051751Z-000000000001.jsonl`: when it was made, and the number of its first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// When it was made, in whole seconds since 1970.
    pub seconds: u64,
    /// Number of its first record.
    pub seq: u64,
}

impl FileName {
    /// The name for a file made now, sorted after the last one whatever the clock does.
    pub fn next(now: SystemTime, seq: u64, last: Option<Self>) -> Self {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let new = Self { seconds, seq };
        match last {
            Some(last) if new <= last && seq > last.seq => Self { seconds: last.seconds, seq },
            Some(last) if new <= last => Self { seconds: last.seconds.saturating_add(1), seq },
            _ => new,
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        let (time, seq) = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.split_once('-')?;
        let time = PrimitiveDateTime::parse(time, &TIME).ok()?.assume_utc();
        let seconds = u64::try_from(time.unix_timestamp()).ok()?;
        let name_read = Self { seconds, seq: seq.parse().ok()? };
        (name_read.to_string() == name).then_some(name_read)
    }

    /// When it was made.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.seconds)).unwrap_or(UNIX_EPOCH)
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = OffsetDateTime::from(self.time()).format(&TIME).unwrap_or_default();
        write!(f, "audit-{time}-{:012}.jsonl", self.seq)
    }
}

/// The files of a directory, the oldest first.
///
/// # Errors
/// Where the directory can't be read.
pub fn files(directory: &Path) -> io::Result<Vec<FileName>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        found.extend(entry?.file_name().to_str().and_then(FileName::parse));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = FileName { seconds: 1_795_324_671, seq: 1 };
        assert_eq!(name.to_string(), "audit-20261122T051751Z-000000000001.jsonl");
        assert_eq!(FileName::parse(&name.to_string()), Some(name));
        for other in ["audit-x-1.jsonl", "audit-20261122T051751Z-1.jsonl", "lock", "audit-.jsonl"] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_new_file_is_sorted_last_even_if_the_clock_was_set_back() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let last = FileName { seconds: 1000, seq: 50 };
        for (now, seq) in [(1001, 60), (1000, 60), (10, 60), (1000, 1), (10, 1), (2000, 1)] {
            let next = FileName::next(at(now), seq, Some(last));
            assert!(next > last && next.to_string() > last.to_string(), "{next}");
            assert_eq!(next.seq, seq);
        }
    }
}
