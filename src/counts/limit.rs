//! How many encryptions a key may make, and what is done about it.

use std::num::NonZeroU32;

/// Encryptions under one AES-GCM key with random IVs of 96 bits, at most (NIST SP 800-38D, 8.3).
pub const MOST: u64 = 1 << 32;

/// Counts are reserved in blocks of so many encryptions; what is left of a block is lost in a crash.
const BLOCK: u64 = 1 << 20;

/// A block is never a larger part of a share than this: in a large fleet shares are small.
const BLOCKS_AT_LEAST: u64 = 64;

/// What one proxy of a fleet may use of [`MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    encryptions: u64,
    block: u64,
}

impl Share {
    /// The share of each of so many proxies.
    pub fn of(fleet_size: NonZeroU32) -> Self {
        let encryptions = MOST / u64::from(fleet_size.get());
        Self { encryptions, block: BLOCK.min(encryptions.div_ceil(BLOCKS_AT_LEAST)).max(1) }
    }

    /// How many encryptions under each version of a key.
    pub fn encryptions(self) -> u64 {
        self.encryptions
    }

    /// How many are reserved at once.
    pub fn block(self) -> u64 {
        self.block
    }
}

/// What is done as a version of a key nears its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionLimit {
    /// From which part of the share on it is warned of, in percent.
    pub warn_percent: u8,
    /// What is done when the share is used up.
    pub at_limit: AtLimit,
}

impl Default for EncryptionLimit {
    fn default() -> Self {
        Self { warn_percent: 80, at_limit: AtLimit::Warn }
    }
}

/// What is done when the share is used up, or cannot be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtLimit {
    /// It is said, and encrypting goes on.
    Warn,
    /// The encryption is refused, before any call to the HSM.
    Refuse,
}

/// How far a version is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Nothing to be said.
    #[default]
    Below,
    /// The part of the share is used that is warned of.
    Near,
    /// The share is used up.
    Reached,
}

impl EncryptionLimit {
    /// How far so many encryptions are.
    pub fn level(self, used: u64, share: Share) -> Level {
        let whole = share.encryptions();
        if used >= whole {
            Level::Reached
        } else if u128::from(used) * 100 >= u128::from(whole) * u128::from(self.warn_percent) {
            Level::Near
        } else {
            Level::Below
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(fleet_size: u32) -> Share {
        Share::of(NonZeroU32::new(fleet_size).unwrap())
    }

    #[test]
    fn the_shares_of_a_fleet_are_no_more_than_the_whole() {
        assert_eq!((share(1).encryptions(), share(1).block()), (1 << 32, 1 << 20));
        assert_eq!((share(64).encryptions(), share(64).block()), (1 << 26, 1 << 20));
        for size in [1, 2, 3, 7, 64, 65, 1000, 10_000] {
            assert!(share(size).encryptions() * u64::from(size) <= MOST, "{size}");
            assert!(share(size).block() * 64 <= share(size).encryptions() + 64, "{size}");
        }
    }

    #[test]
    fn levels_begin_where_they_are_said_to() {
        let (limit, share) = (EncryptionLimit::default(), share(1));
        let near = (1_u64 << 32) * 80 / 100 + 1;
        assert_eq!(limit.level(near - 1, share), Level::Below);
        assert_eq!(limit.level(near, share), Level::Near);
        assert_eq!(limit.level((1 << 32) - 1, share), Level::Near);
        assert_eq!(limit.level(1 << 32, share), Level::Reached);
    }
}
