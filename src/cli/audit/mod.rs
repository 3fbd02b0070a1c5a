//! `xksd audit`: the audit log, for auditors and for whoever makes its key.

mod key;
mod logs;
mod search;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;
use super::keys::clerk::Clerk;
use super::keys::leave;

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Have a token make the key that signs checkpoints; it never leaves it
    CreateKey(key::CreateKey),
    /// Print the public key that verifies checkpoints, as PEM
    PublicKey(key::PublicKey),
    /// Look for records that were changed, removed or moved, and say where
    Verify(verify::Verify),
    /// Find records by request, key or time
    Search(search::Search),
    /// Print the last record of each chain as NUMBER:HASH, to be kept elsewhere
    Head(search::Head),
}

impl Audit {
    /// Does not return after an HSM was used.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        // The PIN is in it.
        crate::daemon::hide_memory();
        match self {
            Self::CreateKey(create) => {
                let clerk = Clerk::of(create.action());
                let outcome = create.run(&clerk);
                leave(&clerk, outcome)
            }
            Self::PublicKey(public) => leave(&Clerk::idle(), public.run()),
            Self::Verify(verify) => leave(&Clerk::idle(), verify.run()),
            Self::Search(search) => search.run().map(|()| ExitCode::SUCCESS),
            Self::Head(head) => head.run().map(|()| ExitCode::SUCCESS),
        }
    }
}
