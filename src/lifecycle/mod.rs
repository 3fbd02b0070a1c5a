//! The life of keys: what `xksd keys` does in the tokens, by hand or started by a daemon.
//!
//! All state is in the tokens, and daemons read it while it changes; there is neither a lock nor a
//! compare-and-swap. So
//!
//! - a version is made as pending, which no daemon uses, and is enabled by one call once it is proved;
//! - each change of a state is one C_SetAttributeValue, with an epoch above all that any token knows,
//!   and means the same on one token as on all: whoever is killed between two calls leaves a state
//!   that is in force, and the next command writes it to the tokens that lack it;
//! - after its last call a command looks again, and acts on what others did meanwhile.

mod birth;
mod change;
mod destroy;
mod door;
mod freeze;
mod making;
mod office;
mod proof;
mod ready;
mod replicate;
mod survey;
mod verify;

pub use birth::{Birth, Follow, Kind, Order, bear, begin, begun, wish};
pub use change::{Change, Plan, Write, apply, plan};
pub use destroy::{Doomed, destroy, doomed};
pub use door::{Door, door};
pub use freeze::{freeze, markers, unfreeze};
pub use making::Source;
pub use office::{Failed, Office};
pub use replicate::{Copies, Copy, copies, replicate};
pub use survey::{Held, Object, Survey};
pub use verify::{Agreement, Verified, verify};

use crate::hsm::fault::Fault;
use crate::hsm::state::Date;
use crate::hsm::transport::WrappingAlgorithm;
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
    /// The key can't show that it is the same on two tokens.
    #[error(
        "token `{0}` tells no check value of a key that may not both encrypt and decrypt: nothing \
         proves that all tokens have the same one"
    )]
    NoProof(TokenName),
    /// Its pair for wrapping is not one that it made for this.
    #[error(
        "the private key `xksd:wrap:...` of token `{0}` was not generated in it, or can do more than \
         unwrap: nothing is encrypted for it"
    )]
    PairNotSound(TokenName),
    /// Neither RSA-OAEP with SHA-256 nor with SHA-1.
    #[error("token `{0}` unwraps no AES key with RSA-OAEP (CKM_RSA_PKCS_OAEP)")]
    DoesNotUnwrap(TokenName),
    /// What is to be unwrapped has another length.
    #[error(
        "for token `{token}` an AES-256 key under {} has {expected} bytes, not {found}",
        algorithm.as_str()
    )]
    WrappedLength {
        /// Whose.
        token: TokenName,
        /// In bytes.
        expected: usize,
        /// In bytes.
        found: usize,
        /// Under which.
        algorithm: WrappingAlgorithm,
    },
    /// It was encrypted for another key, with another algorithm, or is no AES key.
    #[error("token `{0}` cannot unwrap it: {1}")]
    NotUnwrapped(TokenName, Fault),
    /// It would wrap an extractable key under any key.
    #[error(
        "token `{0}` wraps a key under one that nobody trusts although CKA_WRAP_WITH_TRUSTED forbids \
         it: no key that may leave is kept there"
    )]
    WrapsForAnybody(TokenName),
    /// It was made to stay.
    #[error(
        "version {0} never leaves the tokens that it is in: it was not made with `create --replicable \
         --under-trusted`"
    )]
    CannotLeave(KeyVersion),
    /// No trusted public key.
    #[error("token `{on}` has no public key of token `{of}` that its security officer trusts")]
    NotTrusted {
        /// Where the key is.
        on: TokenName,
        /// Where it is to go.
        of: TokenName,
    },
    /// Another run was faster.
    #[error("another run changed the key meanwhile")]
    Overtaken,
}
