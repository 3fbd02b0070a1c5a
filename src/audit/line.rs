//! A record as it stands in a file.

use serde::de::IgnoredAny;

use super::chain::{ChainId, Hash};

/// Longest line that is read. None is written that comes near it: strings are cut.
pub const MAX_LINE_LEN: usize = 64 * 1024;

/// What every record begins with, and the line that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Number in the chain.
    pub seq: u64,
    /// Which chain.
    pub chain: ChainId,
    /// Hash of the record before.
    pub prev: Hash,
    /// When.
    pub time: &'a str,
    /// What.
    pub kind: &'a str,
    /// All of it, without line end.
    pub text: &'a str,
}

/// A line that is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no record of an audit log")]
pub struct NoRecord;

impl<'a> Line<'a> {
    /// Reads a line, without its end. What every record begins with must stand exactly as it is
    /// written; what follows must be JSON.
    ///
    /// # Errors
    /// Where it is no record.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NoRecord> {
        let read = || {
            if bytes.len() > MAX_LINE_LEN || !bytes.iter().all(|byte| (b' '..=b'~').contains(byte))
            {
                return None;
            }
            let text = std::str::from_utf8(bytes).ok()?;
            let rest = text.strip_prefix("{\"seq\":")?;
            let (digits, rest) = rest.split_once(',')?;
            let seq: u64 = digits.parse().ok()?;
            if seq == 0 || digits.starts_with(['0', '+']) {
                return None;
            }
            let (chain, rest) = member(rest, "\"chain\":\"")?;
            let (prev, rest) = member(rest.strip_prefix(',')?, "\"prev\":\"")?;
            let (time, rest) = member(rest.strip_prefix(',')?, "\"time\":\"")?;
            let (kind, rest) = member(rest.strip_prefix(',')?, "\"type\":\"")?;
            if !rest.starts_with([',', '}']) {
                return None;
            }
            serde_json::from_str::<IgnoredAny>(text).ok()?;
            Some(Self {
                seq,
                chain: chain.parse().ok()?,
                prev: prev.parse().ok()?,
                time,
                kind,
                text,
            })
        };
        read().ok_or(NoRecord)
    }
}

/// The value of a member that is a string without escapes, and what follows it.
fn member<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(name)?.split_once('"')
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::chain::Chain;
    use super::super::record::{Event, Opened};
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let id = ChainId::new([3; 16]);
        let mut chain = Chain::begin(id);
        let opened = Opened { host: "a".into(), writer: "test", instead_of: None };
        for (seq, kind, event) in
            [(1, "opened", Event::Opened(opened)), (2, "closed", Event::Closed)]
        {
            let prev = chain.head().hash;
            let text = chain.append(SystemTime::UNIX_EPOCH, &event);
            let time = "1970-01-01T00:00:00.000000Z";
            let expected = Line { seq, chain: id, prev, time, kind, text: &text };
            assert_eq!(Line::parse(text.as_bytes()), Ok(expected));
        }
    }

    #[test]
    fn what_is_written_otherwise_is_no_record() {
        let good =
            Chain::begin(ChainId::new([3; 16])).append(SystemTime::UNIX_EPOCH, &Event::Closed);
        assert!(Line::parse(good.as_bytes()).is_ok());
        let long =
            good.replace("closed\"", &format!("closed\",\"a\":\"{}\"", "x".repeat(MAX_LINE_LEN)));
        let cases = [
            "".to_owned(),
            "{}".to_owned(),
            format!(" {good}"),
            format!("{good}\r"),
            good.replace(":1,", ":01,"),
            good.replace(":1,", ":0,"),
            good.replace(":1,", ":+1,"),
            good.replace("\"chain\"", "\"Chain\""),
            good.replace("0303", "03A3"),
            good.trim_end_matches('}').to_owned(),
            good.replace("closed\"", "closed\"x"),
            good.replace("closed", "clos\u{e9}d"),
            long,
        ];
        for case in cases {
            assert_eq!(Line::parse(case.as_bytes()), Err(NoRecord), "{case:.200}");
        }
    }
}
