//! `xksd keys destroy`

use std::io::{self, BufRead, IsTerminal};
use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};

use super::super::failure::{print, say};
use super::change::Object;
use super::clerk::{Action, Clerk};
use super::scope::{Scope, Unnamed, conclude};
use super::{Exit, Failure};
use crate::hsm::state::Date;
use crate::lifecycle::{self, Doomed, Error, Office, destroy, doomed};
use crate::names::ExternalKeyId;

#[derive(Debug, Args)]
pub(in crate::cli) struct Destroy {
    /// External key id
    id: ExternalKeyId,
    /// Object id of the version, as `list` shows it; of the newest version, the whole key goes
    #[arg(long, value_name = "OBJECT-ID", required = true)]
    object: Object,
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Although it was in use: what it encrypted can never be decrypted again
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Destroy {
    pub(super) fn action(&self) -> Option<Action> {
        let action = || Action { name: "keys destroy", key: Some(self.id.to_string()) };
        (!self.dry_run).then(action)
    }

    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        let mut office = self.scope.open(Unnamed::Group, clerk)?;
        let (Object(object_id), today) = (self.object, Date::of(SystemTime::now()));
        let planned = office.survey(&self.id).and_then(|survey| {
            doomed(&survey, object_id, today, self.force).map_err(Error::Refused)
        });
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => return self.refused(&office, error),
        };
        if self.dry_run {
            self.tell(&office, &planned)?;
            return conclude(&office, &self.id, Ok(()));
        }
        self.confirm(&planned)?;
        match destroy(&mut office, &self.id, object_id, today, self.force) {
            Ok(destroyed) => {
                self.tell(&office, &destroyed)?;
                conclude(&office, &self.id, Ok(()))
            }
            Err(error) => self.refused(&office, error),
        }
    }

    fn refused(&self, office: &Office, error: Error) -> Result<(), Failure> {
        let was_in_use = matches!(error, Error::Refused(lifecycle::Refusal::WasInUse(_)));
        let not_deleting = matches!(error, Error::Refused(lifecycle::Refusal::NotDeleting));
        conclude(office, &self.id, Err(error)).map_err(|failure| {
            if was_in_use {
                failure.hint("--force destroys it all the same")
            } else if not_deleting {
                failure.hint("`xksd keys schedule-deletion` does, and stops the key at once")
            } else {
                failure
            }
        })
    }

    /// Asks, where somebody is there to answer.
    fn confirm(&self, planned: &Doomed) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let id = &self.id;
        if !io::stdin().is_terminal() {
            let failure = "this cannot be undone, and nobody is there to confirm it";
            return Err(Failure::new(Exit::Usage, failure).hint("--yes confirms it"));
        }
        let what = if planned.is_whole_key { "the whole key" } else { "this version" };
        say(&format!("This destroys {what} for good. To confirm, type the external key id:"));
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        if read.is_err() || answer.trim() != id.as_str() {
            return Err(Failure::new(Exit::Usage, "not confirmed: nothing was done"));
        }
        Ok(())
    }

    fn tell(
        &self,
        office: &Office,
        Doomed { objects, is_whole_key }: &Doomed,
    ) -> Result<(), Failure> {
        let of = |object: &lifecycle::Object| object.state.clone();
        if self.json {
            let objects = objects.iter().map(|object| {
                let state = of(object);
                json!({
                    "token": office.name(object.token).as_str(),
                    "version": state.as_ref().map(|state| state.version.number()),
                    "object_id": state.as_ref().map(|state| state.object_id.to_string()),
                })
            });
            let objects: Vec<Value> = objects.collect();
            let done = json!({
                "id": self.id.as_str(),
                "whole_key": is_whole_key,
                "dry_run": self.dry_run,
                "objects": objects,
            });
            return print(&format!("{done:#}\n"));
        }
        let verb = if self.dry_run { "would destroy" } else { "destroyed" };
        for object in objects {
            let name = office.name(object.token);
            if let Some(state) = of(object) {
                let (version, object_id) = (state.version, state.object_id);
                say(&format!(
                    "token `{name}`: {verb} version {version} ({object_id}) of `{}`",
                    self.id
                ));
            }
        }
        Ok(())
    }
}
