//! `xksd keys freeze` and `xksd keys unfreeze`

use clap::Args;
use serde_json::json;

use super::super::failure::{print, say};
use super::clerk::{Action, Clerk};
use super::scope::{Scope, Unnamed, and_unreached};
use super::{Exit, Failure, words};
use crate::hsm::freeze::Marker;
use crate::lifecycle::{Error, Office, freeze, markers, unfreeze};

/// Whose keys, and how it is told.
#[derive(Debug, Args)]
pub(super) struct Target {
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Every key store that reads the tokens: those of the whole configuration, or of --token
    #[arg(long, conflicts_with = "keystore", required_unless_present = "keystore")]
    all: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Freeze {
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Unfreeze {
    #[command(flatten)]
    pub(super) target: Target,
}

impl Freeze {
    pub(super) fn action(&self) -> Option<Action> {
        self.target.action("keys freeze")
    }

    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        let target = &self.target;
        let (mut office, marker) = target.open(clerk)?;
        let made = if target.dry_run {
            markers(&mut office, &marker).map(|present| {
                let has_none = |token: &usize| !present.iter().any(|(holder, _)| holder == token);
                office.reached().into_iter().filter(has_none).collect()
            })
        } else {
            freeze(&mut office, &marker)
        };
        let verb = if target.dry_run { "would make" } else { "made" };
        target.conclude(&office, &marker, (verb, "is frozen"), made)
    }
}

impl Unfreeze {
    pub(super) fn action(&self) -> Option<Action> {
        self.target.action("keys unfreeze")
    }

    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        let target = &self.target;
        let (mut office, marker) = target.open(clerk)?;
        let destroyed = if target.dry_run {
            let tokens = |found: Vec<_>| found.into_iter().map(|(token, _)| token).collect();
            markers(&mut office, &marker).map(tokens)
        } else {
            unfreeze(&mut office, &marker)
        };
        let verb = if target.dry_run { "would destroy" } else { "destroyed" };
        target.conclude(&office, &marker, (verb, "is not frozen by this marker"), destroyed)?;
        let is_frozen_by_all = marker != Marker::All
            && markers(&mut office, &Marker::All).is_ok_and(|found| !found.is_empty());
        if is_frozen_by_all {
            let still = format!("it is still frozen, by `{}`", Marker::All);
            return Err(Failure::new(Exit::Difference, still).hint("`unfreeze --all` ends that"));
        }
        Ok(())
    }
}

impl Target {
    fn action(&self, name: &'static str) -> Option<Action> {
        (!self.dry_run).then(|| Action { name, key: Some(self.marker().to_string()) })
    }

    fn marker(&self) -> Marker {
        self.scope.keystore.clone().map_or(Marker::All, Marker::Keystore)
    }

    fn open(&self, clerk: &Clerk) -> Result<(Office, Marker), Failure> {
        Ok((self.scope.open(Unnamed::All, clerk)?, self.marker()))
    }

    /// Says what was done, on each token of `done`, and what that comes to.
    fn conclude(
        &self,
        office: &Office,
        marker: &Marker,
        (verb, state): (&str, &str),
        done: Result<Vec<usize>, Error>,
    ) -> Result<(), Failure> {
        // Without any token, all of them are among the office's failures.
        if let Ok(done) = done {
            let tokens: Vec<&str> = done.iter().map(|&token| office.name(token).as_str()).collect();
            if self.json {
                let done = json!({
                    "marker": marker.to_string(),
                    "tokens": tokens,
                    "dry_run": self.dry_run,
                    "unreached": words::failures(office.failures()),
                });
                print(&format!("{done:#}\n"))?;
            } else {
                for token in tokens {
                    say(&format!("token `{token}`: {verb} the marker `{marker}`"));
                }
                if done.is_empty() && office.failures().is_empty() {
                    let whose = match marker {
                        Marker::Keystore(name) => format!("key store `{name}`"),
                        Marker::All => "every key store".to_owned(),
                    };
                    say(&format!("nothing to do: {whose} {state} already"));
                }
            }
        }
        match and_unreached(None, office) {
            None => Ok(()),
            Some(failure) => {
                Err(failure.hint("the other tokens are done; run this again for these"))
            }
        }
    }
}
