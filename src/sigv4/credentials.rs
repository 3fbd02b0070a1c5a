//! Who may sign for a key store, and the cache of their signing keys.
//!
//! The cache is part of [`Credentials`] on purpose: whoever replaces the credentials, on reload,
//! replaces the keys that were derived from them, even where an access key id stays and only its
//! secret is another.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq;
use time::Date;
use zeroize::Zeroizing;

use crate::names::{AccessKeyId, Region};

use super::date::AmzDate;
use super::secret_key::{SecretAccessKey, SigningKey};

/// Most (day, Region) pairs whose keys are kept; more than AWS has Regions, twice, is never used.
const MAX_CACHED: usize = 64;

/// What signs in place of an access key id that does not exist. It opens nothing: a signature
/// made with it is refused whether it fits or not.
const DECOY: &str = "0000000000000000000000000000000000000000000";

/// The credentials that may sign for one key store: one or more, all active at once (P-13).
pub struct Credentials {
    pairs: Vec<(AccessKeyId, SecretAccessKey)>,
    /// Oldest first.
    cache: RwLock<Vec<Arc<CachedKeys>>>,
}

/// The signing keys of *all* credentials for one day and Region.
///
/// They are derived together, so that whether a request finds the cache warm says nothing about
/// the access key id it names (P-15).
struct CachedKeys {
    day: Date,
    region: Region,
    /// In the order of `Credentials::pairs`.
    keys: Vec<SigningKey>,
    decoy: SigningKey,
}

/// Why a list of credentials cannot serve a key store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// No credential: nobody could ever sign.
    #[error("a key store needs at least one credential")]
    Empty,
    /// An access key id that is there twice (P-14).
    #[error("access key id `{0}` is there twice")]
    Duplicate(AccessKeyId),
}

/// What the signature of a request should be.
pub(super) struct Expected<'a> {
    /// Whose secret made the signature; `None` if it was the decoy.
    pub(super) access_key_id: Option<&'a AccessKeyId>,
    /// 64 lower-case hex digits.
    pub(super) signature: Zeroizing<String>,
}

impl Credentials {
    /// The credentials of one key store.
    ///
    /// # Errors
    /// [`CredentialsError`] if there are none, or one id comes twice. That an id is also unique
    /// over all key stores (P-14) is for the configuration to check.
    pub fn new(
        pairs: impl IntoIterator<Item = (AccessKeyId, SecretAccessKey)>,
    ) -> Result<Self, CredentialsError> {
        let mut unique: Vec<(AccessKeyId, SecretAccessKey)> = Vec::new();
        for (id, secret) in pairs {
            if unique.iter().any(|(earlier, _)| *earlier == id) {
                return Err(CredentialsError::Duplicate(id));
            }
            unique.push((id, secret));
        }
        if unique.is_empty() {
            return Err(CredentialsError::Empty);
        }
        Ok(Self { pairs: unique, cache: RwLock::default() })
    }

    /// The ids, in the order in which they were given.
    pub fn access_key_ids(&self) -> impl Iterator<Item = &AccessKeyId> {
        self.pairs.iter().map(|(id, _)| id)
    }

    /// The secret of an id, to sign with.
    pub fn secret(&self, access_key_id: &AccessKeyId) -> Option<&SecretAccessKey> {
        self.pairs.iter().find(|(id, _)| id == access_key_id).map(|(_, secret)| secret)
    }

    /// Signs as the owner of `access_key_id` would have; for an id that does not exist, with a
    /// decoy and the same effort (P-15). The id may be of any form.
    pub(super) fn expect_signature(
        &self,
        access_key_id: &str,
        date: AmzDate,
        region: &Region,
        string_to_sign: &str,
    ) -> Expected<'_> {
        let cached = self.keys(date, region);
        let mut found = (None, &cached.decoy);
        // No early end, and no comparison that tells how many characters were right.
        for ((id, _), key) in self.pairs.iter().zip(&cached.keys) {
            if id.as_str().as_bytes().ct_eq(access_key_id.as_bytes()).into() {
                found = (Some(id), key);
            }
        }
        let (access_key_id, key) = found;
        Expected { access_key_id, signature: key.sign(string_to_sign) }
    }

    /// The keys for this day and Region, from the cache if they are there.
    fn keys(&self, date: AmzDate, region: &Region) -> Arc<CachedKeys> {
        // A poisoned lock guards a list that is whole at any time: nothing below can panic
        // between two changes of it.
        let is_wanted = |keys: &&Arc<CachedKeys>| keys.day == date.day() && keys.region == *region;
        let hit = {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            cache.iter().find(is_wanted).cloned()
        };
        hit.unwrap_or_else(|| {
            // Derived without the lock; two threads may do so at once, and the first one counts.
            let derived = Arc::new(self.derive(date, region));
            let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(theirs) = cache.iter().find(is_wanted) {
                return Arc::clone(theirs);
            }
            // Around midnight two days are in use; anything else will not be asked for again.
            cache.retain(|keys| (keys.day - date.day()).whole_days().unsigned_abs() <= 1);
            if cache.len() >= MAX_CACHED {
                cache.remove(0);
            }
            cache.push(Arc::clone(&derived));
            derived
        })
    }

    fn derive(&self, date: AmzDate, region: &Region) -> CachedKeys {
        CachedKeys {
            day: date.day(),
            region: region.clone(),
            keys: self.pairs.iter().map(|(_, secret)| secret.signing_key(date, region)).collect(),
            decoy: SigningKey::derive(DECOY, date, region.as_str(), super::SERVICE),
        }
    }
}

impl PartialEq for Credentials {
    /// The same ids with the same secrets, in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.access_key_ids()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ABCDEFGHIJKLMNOPQRST";

    fn pair(id: &str, fill: &str) -> (AccessKeyId, SecretAccessKey) {
        (id.parse().unwrap(), fill.repeat(43).parse().unwrap())
    }

    fn date(text: &str) -> AmzDate {
        AmzDate::parse(text.as_bytes()).unwrap()
    }

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    fn cached(credentials: &Credentials) -> usize {
        credentials.cache.read().unwrap().len()
    }

    #[test]
    fn an_id_names_one_secret() {
        // P-14
        let error = Credentials::new([pair(ID, "a"), pair(ID, "b")]).unwrap_err();
        assert_eq!(error, CredentialsError::Duplicate(ID.parse().unwrap()));
        assert_eq!(Credentials::new([]).unwrap_err(), CredentialsError::Empty);
    }

    #[test]
    fn several_credentials_are_active_at_once() {
        // P-13
        let second = "TSRQPONMLKJIHGFEDCBA";
        let both = Credentials::new([pair(ID, "a"), pair(second, "b")]).unwrap();
        let (date, region) = (date("20261121T120000Z"), region("us-east-1"));
        for (id, fill) in [(ID, "a"), (second, "b")] {
            let expected = both.expect_signature(id, date, &region, "text");
            assert_eq!(expected.access_key_id.unwrap().as_str(), id);
            let alone = pair(id, fill).1.signing_key(date, &region).sign("text");
            assert_eq!(expected.signature, alone);
        }
        assert_eq!(
            both.access_key_ids().map(AccessKeyId::as_str).collect::<Vec<_>>(),
            [ID, second]
        );
    }

    #[test]
    fn an_unknown_id_gets_a_decoy_and_the_same_cache_entry() {
        // P-15
        let credentials = Credentials::new([pair(ID, "a")]).unwrap();
        let (date, region) = (date("20261121T120000Z"), region("us-east-1"));
        for id in ["", "TSRQPONMLKJIHGFEDCBA", "InvalidABCDEFGHIJKLMNOPQRST", "ABCDEFGHIJKLMNOPQRS"]
        {
            let expected = credentials.expect_signature(id, date, &region, "text");
            assert!(expected.access_key_id.is_none(), "{id:?}");
            assert_eq!(expected.signature.len(), 64);
            assert_eq!(cached(&credentials), 1);
        }
        credentials.expect_signature(ID, date, &region, "text");
        assert_eq!(cached(&credentials), 1);
    }

    #[test]
    fn the_cache_is_bounded_and_forgets_past_days() {
        let credentials = Credentials::new([pair(ID, "a")]).unwrap();
        let use_it = |day: &str, name: &str| {
            credentials.keys(date(day), &region(name));
            cached(&credentials)
        };
        assert_eq!(use_it("20261121T235959Z", "us-east-1"), 1);
        assert_eq!(use_it("20261122T000000Z", "us-east-1"), 2);
        assert_eq!(use_it("20261121T000000Z", "us-east-1"), 2);
        assert_eq!(use_it("20261123T000000Z", "us-east-1"), 2);
        for number in 0..2 * MAX_CACHED {
            assert!(use_it("20261123T000000Z", &format!("region-{number}")) <= MAX_CACHED);
        }
    }

    #[test]
    fn a_cached_key_is_that_of_its_day_and_region() {
        let credentials = Credentials::new([pair(ID, "a")]).unwrap();
        let signature = |day: &str, name: &str| {
            credentials.expect_signature(ID, date(day), &region(name), "text").signature
        };
        let first = signature("20261121T000000Z", "us-east-1");
        assert_eq!(signature("20261121T235959Z", "us-east-1"), first);
        assert_ne!(signature("20261122T000000Z", "us-east-1"), first);
        assert_ne!(signature("20261121T000000Z", "us-east-2"), first);
        assert_eq!(signature("20261121T000000Z", "us-east-1"), first);
    }

    #[test]
    fn debug_shows_ids_only() {
        let secret = format!("hunter2{}", "a".repeat(40)).parse().unwrap();
        let credentials = Credentials::new([(ID.parse().unwrap(), secret)]).unwrap();
        assert_eq!(format!("{credentials:?}"), format!("{{{ID:?}}}"));
    }
}
