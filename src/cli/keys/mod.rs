//! `xksd keys`: the keys of HSM tokens, from making them to destroying them.

mod birth;
mod change;
pub(super) mod clerk;
mod destroy;
pub(super) mod scope;
mod show;
mod verify;
mod words;

use std::process::ExitCode;

use clap::Subcommand;

use super::{Exit, Failure};
use crate::hsm::pkcs11::exit_now;
use clerk::{Action, Clerk};

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
    /// Have all tokens prove that they hold the same keys
    Verify(verify::Verify),
}

impl Keys {
    /// Does not return after an HSM was used: modules do not survive an ordinary exit.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let clerk = Clerk::of(self.action());
        let outcome = match self {
            Self::Create(create) => create.run(&clerk),
            Self::List(list) => list.run(),
            Self::Describe(describe) => describe.run(),
            Self::Rotate(rotate) => rotate.run(&clerk),
            Self::Disable(disable) => disable.run(&clerk),
            Self::Enable(enable) => enable.run(&clerk),
            Self::ScheduleDeletion(schedule) => schedule.run(&clerk),
            Self::CancelDeletion(cancel) => cancel.run(&clerk),
            Self::Destroy(destroy) => destroy.run(&clerk),
            Self::Verify(verify) => verify.run(),
        };
        leave(&clerk, outcome)
    }

    /// What the command changes, for the audit log. `None`: it only looks, and can't do more.
    fn action(&self) -> Option<Action> {
        match self {
            Self::Create(create) => create.action(),
            Self::Rotate(rotate) => rotate.action(),
            Self::Disable(disable) => disable.action(),
            Self::Enable(enable) => enable.action(),
            Self::ScheduleDeletion(schedule) => schedule.action(),
            Self::CancelDeletion(cancel) => cancel.action(),
            Self::Destroy(destroy) => destroy.action(),
            Self::List(_) | Self::Describe(_) | Self::Verify(_) => None,
        }
    }
}

/// Records how a command ended, and leaves: modules do not survive an ordinary exit.
pub(super) fn leave(clerk: &Clerk, outcome: Result<(), Failure>) -> Result<ExitCode, Failure> {
    clerk.end(&outcome);
    let code = match outcome {
        Ok(()) => 0,
        Err(failure) => {
            failure.report();
            failure.code()
        }
    };
    exit_now(code.into())
}
