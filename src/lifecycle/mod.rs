//! The life of keys, by hand: what `xksd keys` does in the tokens.
//!
//! All state is in the tokens, and daemons read it while it changes; there is neither a lock nor a
//! compare-and-swap. So
//!
//! - a version is made as pending, which no daemon uses, and is enabled by one call once it is proved;
//! - each change of a state is one C_SetAttributeValue, with an epoch above all that any token knows,
//!   and means the same on one token as on all: whoever is killed between two calls leaves a state
//!   that is in force, and the next command writes it to the tokens that lack it;
//! - after its last call a command looks again, and acts on what others did meanwhile.

mod audit_key;
mod birth;
mod change;
mod destroy;
mod office;
mod proof;
mod survey;
mod verify;
mod witness;

pub use audit_key::{audit_key, audit_public_keys, hmac, make_audit_key};
pub use birth::{Birth, Kind, bear, wish};
pub use change::{Change, Plan, Write, apply, plan};
pub use destroy::{Doomed, destroy, doomed};
pub use office::{Failed, Office};
pub use survey::{Held, Object, Survey};
pub use verify::{Agreement, Verified, verify};
pub use witness::{Observer, watched};

use crate::hsm::fault::Fault;
use crate::hsm::state::Date;
use crate::names::{KeyVersion, ObjectId, TokenName};

/// Why nothing was changed, or not all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is not in a state for it.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// A token failed, without which it cannot be done.
    #[error("{fault}")]
    Token {
        /// Which one.
        token: TokenName,
        /// How.
        fault: Fault,
    },
    /// No token is left; [`Office::failures`] says why.
    #[error("no token could be reached")]
    NoToken,
    /// Somebody else changed the key again and again.
    #[error("others change this key at the same time; look at it and run this again")]
    Unsettled,
}

/// Why a key is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No object bears the label.
    #[error("there is no such key")]
    NoSuchKey,
    /// Nothing says which object is meant.
    #[error("two objects of one token bear this label, and nothing says which one is meant")]
    Ambiguous,
    /// All versions are pending.
    #[error("no version of this key is in use yet")]
    NoneReady,
    /// No version has this object id.
    #[error("no version of this key has the object id {0}")]
    NoSuchVersion(ObjectId),
    /// Its `CKA_ID` is not ours to write.
    #[error(
        "xksd did not make this version: its CKA_ID belongs to somebody else and is never rewritten"
    )]
    Foreign,
    /// A version of the key was made by another tool.
    #[error(
        "version 0 of this key was not made by xksd, and would be the newest if the others were \
         destroyed: destroy it first, with the tool that made it"
    )]
    ForeignWouldRemain,
    /// The label is taken.
    #[error("an object with the label of this key exists already")]
    Exists,
    /// It is to be destroyed.
    #[error("it is to be deleted from {} on, and refused until then", .0.iso())]
    Deleting(Date),
    /// Its deletion is not scheduled.
    #[error("its deletion is not scheduled")]
    NotDeleting,
    /// Its date has not come.
    #[error("it may not be destroyed before {} (UTC)", .0.iso())]
    TooEarly(Date),
    /// It was in use once.
    #[error("version {0} was in use: what it encrypted could never be decrypted again")]
    WasInUse(KeyVersion),
    /// It is pending: it has no other state yet.
    #[error("this version is pending: `rotate` or `create` completes it, `destroy` removes it")]
    Pending,
    /// Only what serves is rotated.
    #[error("its newest version is {0}: a new one would put the key in use again")]
    NotInUse(&'static str),
    /// There is no version number left.
    #[error("it has as many versions as there are numbers")]
    NoVersionLeft,
    /// Only AES-256 keys are rotated.
    #[error("it is no AES-256 key")]
    NotAes256,
    /// All tokens of the group are needed, and one is not there.
    #[error("every token of the key store is needed for this, and `{0}` cannot be reached")]
    Incomplete(TokenName),
    /// A new object does not come to the other tokens by itself.
    #[error(
        "token `{0}` does not show the new key: these tokens do not replicate by themselves, and a \
         version that is not on all of them is not put in use"
    )]
    NotReplicated(TokenName),
    /// The token made another key than it was asked for.
    #[error("token `{token}` made a key with another {attribute} than was asked for")]
    Attribute {
        /// Where.
        token: TokenName,
        /// Of which attribute.
        attribute: &'static str,
    },
    /// The new key is no good.
    #[error("token `{0}` does not decrypt what was encrypted with the new key")]
    NotProved(TokenName),
    /// Another run was faster.
    #[error("another run changed the key meanwhile")]
    Overtaken,
}
