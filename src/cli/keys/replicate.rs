//! `xksd keys trust` and `xksd keys replicate`

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::super::failure::{print, say};
use super::scope::{Scope, Unnamed, conclude, token_failure};
use super::{Exit, Failure, words};
use crate::config::SecretSource;
use crate::hsm::backend::Leaves;
use crate::hsm::fault::{Fault, FaultKind};
use crate::lifecycle::{Copies, Error, Office, Refusal, copies, door, replicate};
use crate::names::{ExternalKeyId, TokenName};

#[derive(Debug, Args)]
pub(in crate::cli) struct Replicate {
    /// External key id
    id: ExternalKeyId,
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Trust {
    #[command(flatten)]
    pub(super) scope: Scope,
    /// The token whose security officer trusts those of the others
    #[arg(long, value_name = "TOKEN")]
    on: TokenName,
    /// File with the PIN of the security officer of that token
    #[arg(long, value_name = "FILE")]
    so_pin: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Replicate {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut office = self.scope.open(Unnamed::Group)?;
        let made = if self.dry_run {
            let survey = office.survey(&self.id);
            survey.and_then(|survey| copies(&mut office, &survey))
        } else {
            replicate(&mut office, &self.id)
        };
        let made = match made {
            Ok(made) => made,
            Err(error) => return self.refused(&office, error),
        };
        self.tell(&office, &made)?;
        match made.impossible.into_iter().next() {
            Some(refusal) => self.refused(&office, refusal.into()),
            None => conclude(&office, &self.id, Ok(())),
        }
    }

    fn tell(&self, office: &Office, Copies { possible, .. }: &Copies) -> Result<(), Failure> {
        if self.json {
            let copies: Vec<_> = possible
                .iter()
                .map(|copy| {
                    json!({
                        "version": copy.version.number(),
                        "object_id": copy.object_id.to_string(),
                        "from": office.name(copy.from).as_str(),
                        "to": office.name(copy.to).as_str(),
                    })
                })
                .collect();
            let done = json!({
                "id": self.id.as_str(),
                "dry_run": self.dry_run,
                "copies": copies,
                "unreached": words::failures(office.failures()),
            });
            return print(&format!("{done:#}\n"));
        }
        let verb = if self.dry_run { "would copy" } else { "copied" };
        for copy in possible {
            let (version, id) = (copy.version, &self.id);
            let (from, to) = (office.name(copy.from), office.name(copy.to));
            say(&format!("{verb} version {version} of `{id}` from token `{from}` to token `{to}`"));
        }
        if possible.is_empty() {
            say(&format!("nothing of `{}` is to be copied", self.id));
        }
        Ok(())
    }

    fn refused(&self, office: &Office, error: Error) -> Result<(), Failure> {
        let stays = matches!(error, Error::Refused(Refusal::CannotLeave(_)));
        let untrusted = match &error {
            Error::Refused(Refusal::NotTrusted { on, .. }) => Some(on.clone()),
            _ => None,
        };
        conclude(office, &self.id, Err(error)).map_err(|failure| match untrusted {
            Some(on) => failure.hint(format!("`xksd keys trust --on {on}` puts one there")),
            None if stays => failure
                .hint("a key that cannot be wrapped is copied by its vendor's own means only:")
                .hint("Luna cloning or an HA group, a CloudHSM cluster, an nShield security world,")
                .hint("SoftHSM2's token directory")
                .hint("or `rotate --replicable` makes a next version that all tokens have"),
            None => failure,
        })
    }
}

impl Trust {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let meant = self.scope.meant(Unnamed::Group)?;
        if meant.names().all(|name| *name != self.on) {
            let names: Vec<_> = meant.names().map(TokenName::as_str).collect();
            let failure = format!("`{}` is none of the tokens that are meant", self.on);
            return Err(
                Failure::new(Exit::Usage, failure).hint(format!("tokens: {}", names.join(", ")))
            );
        }
        let mut office = meant.open();
        if let Some(failed) = office.failures().first() {
            return Err(token_failure(failed.fault, &failed.token));
        }
        let mut others = Vec::new();
        for token in 0..office.len() {
            if *office.name(token) == self.on {
                continue;
            }
            match door(&mut office, token, Leaves::UnderTrusted) {
                Ok(door) => others.push((office.name(token).clone(), door.pair.public)),
                Err(Error::Token { token, fault }) => return Err(token_failure(fault, &token)),
                Err(error) => return Err(Failure::new(Exit::CannotCreate, error)),
            }
        }
        // A token knows one login of a process: the user's goes with the last session.
        drop(office);
        let pin = SecretSource::File(self.so_pin.clone()).read().ok_or_else(|| {
            let failure = format!("cannot read a PIN from `{}`", self.so_pin.display());
            Failure::new(Exit::Io, failure)
        })?;
        let mut rows = Vec::new();
        let mut officer = match self.dry_run {
            true => None,
            false => Some(meant.officer(&self.on, &pin).map_err(|fault| self.failed(fault))?),
        };
        for (name, public) in &others {
            let is_new = match &mut officer {
                None => None,
                Some(officer) => Some(officer.trust(public).map_err(|fault| self.failed(fault))?),
            };
            rows.push(json!({
                "token": self.on.as_str(),
                "trusts": name.as_str(),
                "sha256": public.fingerprint(),
                "new": is_new,
                "dry_run": self.dry_run,
            }));
            if !self.json {
                let verb = match is_new {
                    None => "would trust",
                    Some(true) => "trusts",
                    Some(false) => "trusts already",
                };
                let (on, sum) = (&self.on, public.fingerprint());
                say(&format!("token `{on}` {verb} the key of token `{name}`, SHA-256 {sum}"));
            }
        }
        if self.json { print(&format!("{:#}\n", Value::Array(rows))) } else { Ok(()) }
    }

    fn failed(&self, fault: Fault) -> Failure {
        if fault.kind == FaultKind::PinRefused {
            let failure = format!("token `{}`: {fault}", self.on);
            return Failure::new(Exit::NoPermission, failure)
                .hint("the PIN of the security officer was tried once")
                .hint("a token whose officer is locked out has to be initialised anew");
        }
        token_failure(fault, &self.on)
    }
}
