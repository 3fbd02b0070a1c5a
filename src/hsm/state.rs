//! The state that a key made by xksd carries in the HSM, in its `CKA_ID`.
//!
//! `CKA_ID` is the one attribute that every token lets an administrator change later and that
//! every PKCS#11 tool shows. The text is ASCII, at most 100 bytes, and unique in the token, since
//! it holds a random object id:
//!
//! ```text
//! xksd1:<object id>:<version>:<status>:<epoch>:<created>:<deletion>:<origin>
//! xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20261121:-:-
//! ```
//!
//! What does not parse is foreign: a key of version 0, enabled, that xksd never rewrites.

use std::fmt;
use std::str::FromStr;

use crate::names::{KeyVersion, ObjectId};

/// First field of the text; another release of the format gets another tag.
const TAG: &str = "xksd1";

/// Epoch of a copy that is not proved; a version that is made begins with 1.
const UNPROVED: u64 = 0;

/// Longest text that is parsed or written, in bytes.
pub const MAX_LEN: usize = 100;

/// Whether a version may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionStatus {
    /// Made, but not yet proved on every token: decrypts nothing, encrypts nothing.
    Pending,
    /// In use.
    Enabled,
    /// Refused until enabled again.
    Disabled,
    /// Refused, and to be destroyed from its deletion date on.
    Deleting,
}

impl VersionStatus {
    /// The word for it in `CKA_ID`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Deleting => "deleting",
        }
    }

    /// Which of two states of one epoch counts, on two tokens that were changed at the same time: the
    /// one that allows less.
    pub fn severity(self) -> u8 {
        match self {
            Self::Enabled => 0,
            Self::Pending => 1,
            Self::Disabled => 2,
            Self::Deleting => 3,
        }
    }
}

impl FromStr for VersionStatus {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Foreign> {
        [Self::Pending, Self::Enabled, Self::Disabled, Self::Deleting]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or(Foreign)
    }
}

/// Where the key material of a version came from: decided when it is made, and never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// One token generated it, and it was never outside of it, but as that token's vendor copies keys.
    Generated,
    /// One token generated it, and it was wrapped for each token of a group under that token's own
    /// RSA key.
    Replicable,
    /// It came from outside.
    Imported,
}

impl Origin {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Replicable => "replicable",
            Self::Imported => "imported",
        }
    }

    /// What stands for it in `CKA_ID`.
    fn letter(self) -> &'static str {
        match self {
            Self::Generated => "-",
            Self::Replicable => "r",
            Self::Imported => "i",
        }
    }
}

/// A calendar date, `yyyymmdd` in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(u32);

impl Date {
    /// The date of this moment, in UTC.
    pub fn of(time: std::time::SystemTime) -> Self {
        let date = time::OffsetDateTime::from(time).date();
        let number = date.year().unsigned_abs() * 10_000 + u32::from(u8::from(date.month())) * 100;
        Self(number + u32::from(date.day()))
    }

    /// As people and programs read it: `2026-11-21`.
    pub fn iso(self) -> String {
        let (year, month, day) = (self.0 / 10_000, self.0 / 100 % 100, self.0 % 100);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// The date so many days after this moment's.
    pub fn days_after(time: std::time::SystemTime, days: u8) -> Self {
        Self::of(time + std::time::Duration::from_secs(u64::from(days) * 24 * 3600))
    }
}

impl FromStr for Date {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Foreign> {
        let number: u32 = decimal(text)?;
        let (month, day) = (number / 100 % 100, number % 100);
        let is_date = text.len() == 8 && (1..=12).contains(&month) && (1..=31).contains(&day);
        if is_date { Ok(Self(number)) } else { Err(Foreign) }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// The state of one version of a key that xksd made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// Identity of the key material, the same on every token that holds it.
    pub object_id: ObjectId,
    /// Number of the version.
    pub version: KeyVersion,
    /// Whether it may be used.
    pub status: VersionStatus,
    /// Grows with each change; across tokens the higher one is right.
    pub epoch: u64,
    /// When it was made.
    pub created: Date,
    /// From when on it may be destroyed.
    pub deletion: Option<Date>,
    /// Where its key material came from.
    pub origin: Origin,
}

/// A `CKA_ID` that is not in xksd's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign;

impl KeyState {
    /// The state that a version is made in: not used before it has been proved.
    pub fn pending(
        object_id: ObjectId,
        version: KeyVersion,
        created: Date,
        origin: Origin,
    ) -> Self {
        let (status, epoch, deletion) = (VersionStatus::Pending, 1, None);
        Self { object_id, version, status, epoch, created, deletion, origin }
    }

    /// The state of a copy of this version that is not proved to be one.
    #[must_use]
    pub fn unproved(&self) -> Self {
        let (status, deletion) = (VersionStatus::Pending, None);
        Self { status, deletion, epoch: UNPROVED, ..self.clone() }
    }

    /// Whether it is such a copy: only whoever proves it may write another state over this one.
    pub fn is_unproved(&self) -> bool {
        self.epoch == UNPROVED
    }

    /// The state after a change.
    #[must_use]
    pub fn changed(&self, status: VersionStatus, deletion: Option<Date>) -> Self {
        Self { status, deletion, epoch: self.epoch.saturating_add(1), ..self.clone() }
    }

    /// Of the states that two tokens know of one version the one with the higher rank counts.
    pub fn rank(&self) -> (u64, u8) {
        (self.epoch, self.status.severity())
    }

    /// Reads a `CKA_ID`.
    pub fn parse(id: &[u8]) -> Result<Self, Foreign> {
        if id.len() > MAX_LEN {
            return Err(Foreign);
        }
        let text = std::str::from_utf8(id).map_err(|_| Foreign)?;
        let fields: Vec<&str> = text.split(':').collect();
        let &[tag, object_id, version, status, epoch, created, deletion, origin] =
            fields.as_slice()
        else {
            return Err(Foreign);
        };
        let version: u32 = decimal(version)?;
        let object_id = ObjectId::from_hex(object_id).ok_or(Foreign)?;
        // Version 0 and object id zero mean "foreign" in ciphertext metadata.
        if tag != TAG || version == 0 || object_id == ObjectId::FOREIGN {
            return Err(Foreign);
        }
        Ok(Self {
            object_id,
            version: KeyVersion::new(version),
            status: status.parse()?,
            epoch: decimal(epoch)?,
            created: created.parse()?,
            deletion: if deletion == "-" { None } else { Some(deletion.parse()?) },
            origin: [Origin::Generated, Origin::Replicable, Origin::Imported]
                .into_iter()
                .find(|known| known.letter() == origin)
                .ok_or(Foreign)?,
        })
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object_id, version, status, epoch, created, deletion, origin } = self;
        write!(f, "{TAG}:{object_id}:{version}:{}:{epoch}:{created}:", status.as_str())?;
        match deletion {
            Some(date) => write!(f, "{date}")?,
            None => f.write_str("-")?,
        }
        write!(f, ":{}", origin.letter())
    }
}

/// Decimal digits only, without the sign and the leading zeros that `parse` would take.
fn decimal<T: FromStr + fmt::Display>(text: &str) -> Result<T, Foreign> {
    let number: T = text.parse().map_err(|_| Foreign)?;
    if number.to_string() == text { Ok(number) } else { Err(Foreign) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20261121:-:-";

    #[test]
    fn the_documented_example_parses() {
        let state = KeyState::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(state.version, KeyVersion::FIRST);
        assert_eq!(state.status, VersionStatus::Enabled);
        assert_eq!(state.to_string(), EXAMPLE);
    }

    #[test]
    fn anything_else_is_foreign() {
        for bad in [
            "",
            "my key",
            "xksd2:0f8e4a5b6c7d8e9f:1:enabled:1:20261121:-:-",
            "xksd1:0f8e4a5b6c7d8e9f:0:enabled:1:20261121:-:-",
            "xksd1:0000000000000000:1:enabled:1:20261121:-:-",
            "xksd1:0f8e4a5b6c7d8e9f:+1:enabled:1:20261121:-:-",
            "xksd1:0f8e4a5b6c7d8e9f:01:enabled:1:20261121:-:-",
            "xksd1:0F8E4A5B6C7D8E9F:1:enabled:1:20261121:-:-",
            "xksd1:0f8e4a5b6c7d8e9f:1:unknown:1:20261121:-:-",
            "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20261321:-:-",
            "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20261121:-",
            "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20261121:-:x",
            "xksd1:0f8e4a5b6c7d8e9f:1:enabled:1:20261121:-:-:",
            "xksd1:0f8e4a5b6c7d8e9f:4294967296:enabled:1:20261121:-:-",
        ] {
            assert_eq!(KeyState::parse(bad.as_bytes()), Err(Foreign), "{bad:?}");
        }
        assert_eq!(KeyState::parse(b"\xff\xfe"), Err(Foreign));
    }

    #[test]
    fn a_copy_that_is_not_proved_outranks_nothing() {
        let state = KeyState::parse(EXAMPLE.as_bytes()).unwrap();
        let copy = state.unproved();
        assert!(copy.is_unproved() && !state.is_unproved());
        assert!(copy.rank() < state.rank());
        let begun =
            KeyState::pending(state.object_id, state.version, state.created, Origin::Generated);
        assert!(!begun.is_unproved());
        assert_eq!((copy.object_id, copy.status), (state.object_id, VersionStatus::Pending));
    }

    #[test]
    fn today_is_a_date() {
        let epoch = Date::of(std::time::SystemTime::UNIX_EPOCH);
        assert_eq!((epoch.to_string().as_str(), epoch.iso().as_str()), ("19700101", "1970-01-01"));
    }

    #[test]
    fn dates_are_counted_on() {
        let new_year = std::time::UNIX_EPOCH + std::time::Duration::from_secs(360 * 24 * 3600);
        assert_eq!(Date::days_after(new_year, 7).to_string(), "19710103");
        assert!(Date::of(new_year) < Date::days_after(new_year, 7));
    }

    #[test]
    fn a_change_outranks_what_was_and_the_careful_one_wins_a_tie() {
        let state = KeyState::parse(EXAMPLE.as_bytes()).unwrap();
        let disabled = state.changed(VersionStatus::Disabled, None);
        let enabled = state.changed(VersionStatus::Enabled, None);
        assert_eq!((disabled.epoch, disabled.object_id), (2, state.object_id));
        assert!(disabled.rank() > state.rank());
        assert!(disabled.rank() > enabled.rank());
    }

    fn states() -> impl Strategy<Value = KeyState> {
        let status = prop_oneof![
            Just(VersionStatus::Pending),
            Just(VersionStatus::Enabled),
            Just(VersionStatus::Disabled),
            Just(VersionStatus::Deleting),
        ];
        let date = (1970u32..9999, 1u32..=12, 1u32..=28)
            .prop_map(|(y, m, d)| Date(y * 10_000 + m * 100 + d));
        let identity = (1u64..=u64::MAX, 1u32..=u32::MAX);
        let origin =
            prop_oneof![Just(Origin::Generated), Just(Origin::Replicable), Just(Origin::Imported)];
        (identity, status, any::<u64>(), date.clone(), proptest::option::of(date), origin).prop_map(
            |((object, version), status, epoch, created, deletion, origin)| KeyState {
                object_id: ObjectId::new(object.to_be_bytes()),
                version: KeyVersion::new(version),
                status,
                epoch,
                created,
                deletion,
                origin,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(state in states()) {
            let text = state.to_string();
            prop_assert!(text.len() <= MAX_LEN && text.is_ascii());
            prop_assert_eq!(KeyState::parse(text.as_bytes()), Ok(state));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = KeyState::parse(&bytes);
        }
    }
}
