//! `xksd keys disable`, `enable`, `schedule-deletion` and `cancel-deletion`

use std::str::FromStr;
use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use super::super::failure::{print, say};
use super::clerk::{Action, Clerk};
use super::scope::{Scope, Unnamed, conclude};
use super::{Failure, words};
use crate::hsm::state::{Date, KeyState, VersionStatus};
use crate::lifecycle::{Change, Error, Office, Plan, apply, plan};
use crate::names::{ExternalKeyId, ObjectId};

/// What all changes of a key's state take.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// External key id
    id: ExternalKeyId,
    #[command(flatten)]
    pub(super) scope: Scope,
    /// Object id of the version that is meant; without it the newest, whose status is the key's
    #[arg(long, value_name = "OBJECT-ID")]
    object: Option<Object>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Disable {
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Enable {
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ScheduleDeletion {
    #[command(flatten)]
    pub(super) target: Target,
    /// After how many days it may be destroyed
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u8).range(7..=30))]
    days: u8,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CancelDeletion {
    #[command(flatten)]
    pub(super) target: Target,
}

/// `--object`
#[derive(Debug, Clone, Copy)]
pub(super) struct Object(pub(super) ObjectId);

impl FromStr for Object {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ObjectId::from_hex(text)
            .map(Self)
            .ok_or("must be 16 hexadecimal digits, as `list` shows them")
    }
}

impl Disable {
    pub(super) fn action(&self) -> Option<Action> {
        self.target.action("keys disable")
    }

    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        self.target.change(Change::Disable, clerk)
    }
}

impl Enable {
    pub(super) fn action(&self) -> Option<Action> {
        self.target.action("keys enable")
    }

    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        self.target.change(Change::Enable, clerk)
    }
}

impl ScheduleDeletion {
    pub(super) fn action(&self) -> Option<Action> {
        self.target.action("keys schedule-deletion")
    }

    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        let date = Date::days_after(SystemTime::now(), self.days);
        self.target.change(Change::ScheduleDeletion(date), clerk)
    }
}

impl CancelDeletion {
    pub(super) fn action(&self) -> Option<Action> {
        self.target.action("keys cancel-deletion")
    }

    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        self.target.change(Change::CancelDeletion, clerk)
    }
}

impl Target {
    fn action(&self, name: &'static str) -> Option<Action> {
        (!self.dry_run).then(|| Action { name, key: Some(self.id.to_string()) })
    }

    fn change(&self, change: Change, clerk: &Clerk) -> Result<(), Failure> {
        let mut office = self.scope.open(Unnamed::Group, clerk)?;
        let meant = self.object.map(|Object(object_id)| object_id);
        let outcome = if self.dry_run {
            let survey = office.survey(&self.id);
            survey.and_then(|survey| plan(&survey, meant, change).map_err(Error::Refused))
        } else {
            apply(&mut office, &self.id, meant, change)
        };
        let outcome = match outcome {
            Ok(plan) => {
                self.tell(&office, &plan)?;
                Ok(())
            }
            Err(error) => Err(error),
        };
        conclude(&office, &self.id, outcome)
    }

    fn tell(&self, office: &Office, Plan { state, writes }: &Plan) -> Result<(), Failure> {
        if self.json {
            let calls: Vec<_> = writes.iter().map(|write| words::write(office, write)).collect();
            let done = json!({
                "id": self.id.as_str(),
                "version": state.version.number(),
                "object_id": state.object_id.to_string(),
                "status": state.status.as_str(),
                "epoch": state.epoch,
                "deletion": state.deletion.map(Date::iso),
                "dry_run": self.dry_run,
                "writes": calls,
                "unreached": words::failures(office.failures()),
            });
            return print(&format!("{done:#}\n"));
        }
        for write in writes {
            let (verb, name) =
                (if self.dry_run { "would write" } else { "wrote" }, office.name(write.token));
            say(&format!("token `{name}`: {verb} {} over {}", write.to, write.from));
        }
        let tense = match (writes.is_empty(), self.dry_run) {
            (true, _) => "is already",
            (false, true) => "would be",
            (false, false) => "is now",
        };
        let status = status_words(state);
        say(&format!("version {} of `{}` {tense} {status}", state.version, self.id));
        Ok(())
    }
}

fn status_words(state: &KeyState) -> String {
    match (state.status, state.deletion) {
        (VersionStatus::Deleting, Some(date)) => format!("to be deleted from {} on", date.iso()),
        (status, _) => status.as_str().to_owned(),
    }
}
