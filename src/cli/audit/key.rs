//! `xksd audit create-key` and `xksd audit public-key`

use clap::Args;

use super::super::failure::{print, say};
use super::super::keys::clerk::{Action, Clerk};
use super::super::keys::scope::{Scope, Unnamed, token_failure};
use super::super::{Exit, Failure};
use crate::audit::checkpoint::AUDIT_KEY;
use crate::hsm::backend::Signing;
use crate::lifecycle::{Error, Office, Refusal, audit_public_keys, make_audit_key};

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateKey {
    #[command(flatten)]
    scope: Scope,
    /// A key for HMAC, where the token has no ECDSA: checkpoints are then verified with the token
    #[arg(long)]
    hmac: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublicKey {
    #[command(flatten)]
    scope: Scope,
}

impl CreateKey {
    pub(super) fn action(&self) -> Option<Action> {
        Some(Action { name: "audit create-key", key: Some(AUDIT_KEY.to_owned()) })
    }

    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        let mut office = self.scope.open(Unnamed::One, clerk)?;
        let how = if self.hmac { Signing::HmacSha256 } else { Signing::EcdsaP256 };
        make_audit_key(&mut office, how).map_err(|error| match error {
            Error::Refused(Refusal::Exists) => {
                let name = office.name(0);
                Failure::new(
                    Exit::CannotCreate,
                    format!("token `{name}` holds a key `{AUDIT_KEY}` already"),
                )
                .hint("rename the old one with the vendor's tool first, and keep its public key")
            }
            error => failed(&office, error),
        })?;
        let name = office.name(0);
        say(&format!("made the key `{AUDIT_KEY}` in token `{name}` ({})", how.as_str()));
        Ok(())
    }
}

impl PublicKey {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut office = self.scope.open(Unnamed::One, &Clerk::idle())?;
        let keys = audit_public_keys(&mut office).map_err(|error| failed(&office, error))?;
        if keys.is_empty() {
            let name = office.name(0);
            let failure = format!("token `{name}` shows no public key `{AUDIT_KEY}` of P-256");
            return Err(Failure::new(Exit::CannotCreate, failure)
                .hint("`xksd audit create-key` makes one; a key for HMAC has none"));
        }
        print(&keys.iter().map(|key| key.pem()).collect::<String>())
    }
}

/// How the token failed.
pub(super) fn failed(office: &Office, error: Error) -> Failure {
    match (error, office.failures().first()) {
        (Error::Token { token, fault }, _) => token_failure(fault, &token),
        (_, Some(failed)) => token_failure(failed.fault, &failed.token),
        (error, None) => Failure::new(Exit::CannotCreate, error),
    }
}
