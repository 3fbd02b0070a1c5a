//! `xksd keys`: the keys of HSM tokens, from making them to destroying them.

mod birth;
mod change;
mod counts;
mod destroy;
mod freeze;
mod herald;
mod import;
mod replicate;
mod scope;
mod show;
mod verify;
mod words;

use std::process::ExitCode;

use clap::Subcommand;

use super::{Exit, Failure};
use crate::hsm::pkcs11::exit_now;
use scope::Scope;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make an AES-256 key in an HSM token; it never leaves it
    Create(birth::Create),
    /// List the external keys of all tokens, or of some; the daemon may be running
    List(show::List),
    /// Show all versions of a key, on each token
    Describe(show::Describe),
    /// Make a new version of a key: it encrypts from now on, all older ones still decrypt
    Rotate(birth::Rotate),
    /// Write the public keys under which key material can be encrypted for import
    ImportParameters(import::ImportParameters),
    /// Make a key from material of your own, or its next version
    Import(import::Import),
    /// Have a token's security officer trust the wrapping keys of the others, for `replicate`
    Trust(replicate::Trust),
    /// Bring a key to tokens that lack it, if it was made so that it can
    Replicate(replicate::Replicate),
    /// Stop a key: daemons refuse it within one catalogue_interval
    Disable(change::Disable),
    /// Put a disabled key in use again
    Enable(change::Enable),
    /// Stop a key, to be destroyed when 7 to 30 days have passed
    ScheduleDeletion(change::ScheduleDeletion),
    /// Keep a key whose deletion is scheduled; it is disabled then
    CancelDeletion(change::CancelDeletion),
    /// Destroy a key or a version for good, once its date has come
    Destroy(destroy::Destroy),
    /// Stop the use of all keys of a key store, or of every key store
    Freeze(freeze::Freeze),
    /// Serve a frozen key store again
    Unfreeze(freeze::Unfreeze),
    /// Have all tokens prove that they hold the same keys
    Verify(verify::Verify),
}

impl Keys {
    /// Does not return after an HSM was used: modules do not survive an ordinary exit.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        // The PIN is in it, and key material that is imported.
        crate::daemon::hide_memory();
        let outcome = match self {
            Self::Create(create) => create.run(),
            Self::List(list) => list.run(),
            Self::Describe(describe) => describe.run(),
            Self::Rotate(rotate) => rotate.run(),
            Self::ImportParameters(parameters) => parameters.run(),
            Self::Import(import) => import.run(),
            Self::Trust(trust) => trust.run(),
            Self::Replicate(replicate) => replicate.run(),
            Self::Disable(disable) => disable.run(),
            Self::Enable(enable) => enable.run(),
            Self::ScheduleDeletion(schedule) => schedule.run(),
            Self::CancelDeletion(cancel) => cancel.run(),
            Self::Destroy(destroy) => destroy.run(),
            Self::Freeze(freeze) => freeze.run(),
            Self::Unfreeze(unfreeze) => unfreeze.run(),
            Self::Verify(verify) => verify.run(),
        };
        if let Some(scope) = self.changed() {
            herald::tell(scope);
        }
        let code = match outcome {
            Ok(()) => 0,
            Err(failure) => {
                failure.report();
                failure.code()
            }
        };
        exit_now(code.into())
    }

    /// Where something may have been changed, even if the command failed.
    fn changed(&self) -> Option<&Scope> {
        let (scope, dry_run) = match self {
            Self::Create(create) => (&create.scope, create.dry_run),
            Self::Rotate(rotate) => (&rotate.scope, rotate.dry_run),
            Self::Disable(change::Disable { target })
            | Self::Enable(change::Enable { target })
            | Self::ScheduleDeletion(change::ScheduleDeletion { target, .. })
            | Self::CancelDeletion(change::CancelDeletion { target }) => {
                (&target.scope, target.dry_run)
            }
            Self::Destroy(destroy) => (&destroy.scope, destroy.dry_run),
            Self::Import(import) => (&import.scope, import.dry_run),
            Self::Trust(trust) => (&trust.scope, trust.dry_run),
            Self::Replicate(replicate) => (&replicate.scope, replicate.dry_run),
            Self::Freeze(freeze::Freeze { target })
            | Self::Unfreeze(freeze::Unfreeze { target }) => (&target.scope, target.dry_run),
            // The wrapping keys that are made for an import are no external keys.
            Self::ImportParameters(_) | Self::List(_) | Self::Describe(_) | Self::Verify(_) => {
                return None;
            }
        };
        (!dry_run).then_some(scope)
    }
}
