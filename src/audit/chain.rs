//! The chain: each record has the number after the one before, and carries that one's SHA-256.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};

use super::json::{Object, hex, unhex};
use super::record::Draft;

/// SHA-256 of a record's line, without its line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first record of a chain carries.
    pub const NONE: Self = Self([0; 32]);

    /// Of a record's line.
    pub fn of(line: &[u8]) -> Self {
        Self(sha256(line))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Hash {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        unhex(text).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NotHex { digits: 64 })
    }
}

/// Not as many lower-case hexadecimal digits as there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {digits} hexadecimal digits in lower case")]
pub struct NotHex {
    digits: usize,
}

/// Which chain: random, from the first record on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId([u8; 16]);

impl ChainId {
    /// From 16 random bytes.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for ChainId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        unhex(text).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NotHex { digits: 32 })
    }
}

/// A record by its number and hash. Written `17:<64 digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number; the first record of a chain has 1. Zero: there is none yet.
    pub seq: u64,
    /// Hash.
    pub hash: Hash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (seq, hash) = text.split_once(':')?;
            Some(Self { seq: seq.parse().ok()?, hash: hash.parse().ok()? })
        };
        read().ok_or("must be a record's number, a colon and its hash, as `xksd audit head` prints")
    }
}

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    id: ChainId,
    head: Head,
}

impl Chain {
    /// A new one, without records.
    pub fn begin(id: ChainId) -> Self {
        Self { id, head: Head { seq: 0, hash: Hash::NONE } }
    }

    /// One that goes on after this record.
    pub fn resume(id: ChainId, head: Head) -> Self {
        Self { id, head }
    }

    /// Which one.
    pub fn id(&self) -> ChainId {
        self.id
    }

    /// Its last record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Adds a record; gives its line, without line end.
    pub fn append<'a>(&mut self, time: SystemTime, record: impl Into<Draft<'a>>) -> String {
        let mut lines = String::new();
        self.append_to(&mut lines, time, &record.into());
        lines
    }

    /// Adds a record; its line goes behind others, without line end.
    pub(super) fn append_to(&mut self, lines: &mut String, time: SystemTime, record: &Draft<'_>) {
        let seq = self.head.seq.saturating_add(1);
        let start = lines.len();
        let mut object = Object::behind(std::mem::take(lines));
        object.number("seq", seq);
        object.bytes("chain", self.id.as_bytes());
        object.bytes("prev", self.head.hash.as_bytes());
        object.time("time", time);
        record.write(&mut object);
        *lines = object.finish();
        let line = lines.as_bytes().get(start..).unwrap_or_default();
        self.head = Head { seq, hash: Hash::of(line) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Event;
    use super::*;

    #[test]
    fn each_record_carries_the_hash_of_the_one_before() {
        let mut chain = Chain::begin(ChainId::new([0xab; 16]));
        let first = chain.append(SystemTime::UNIX_EPOCH, &Event::Closed);
        let expected = format!(
            r#"{{"seq":1,"chain":"{}","prev":"{}","time":"1970-01-01T00:00:00.000000Z","type":"closed"}}"#,
            "ab".repeat(16),
            "0".repeat(64)
        );
        assert_eq!(first, expected);
        let head = Head { seq: 1, hash: Hash::of(first.as_bytes()) };
        assert_eq!(chain.head(), head);
        let second = chain.append(SystemTime::UNIX_EPOCH, &Event::Closed);
        assert!(second.contains(r#""seq":2,"#));
        assert!(second.contains(&format!(r#""prev":"{}""#, head.hash)));
        assert_eq!(
            Chain::resume(chain.id(), head).append(SystemTime::UNIX_EPOCH, &Event::Closed),
            second
        );
    }

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = Head { seq: 17, hash: Hash::of(b"x") };
        assert_eq!(head.to_string().parse(), Ok(head));
        for text in ["", "17", "17:", ":00", "x:00", "17:zz"] {
            assert!(text.parse::<Head>().is_err(), "{text}");
        }
    }
}
