//! `xksd credentials revoke`

use std::io::{self, BufRead, IsTerminal};

use clap::Args;
use serde_json::json;

use super::super::failure::{print, say};
use super::list::{now, rows};
use super::{ConfigFile, Exit, Failure, configuration, directory, make_known, store};
use crate::config::CredentialPlace;
use crate::names::{AccessKeyId, KeystoreName};

#[derive(Debug, Args)]
pub(in crate::cli) struct Revoke {
    #[command(flatten)]
    config: ConfigFile,
    /// Access key id
    id: AccessKeyId,
    /// Key store that it is for
    #[arg(long, value_name = "NAME")]
    keystore: KeystoreName,
    /// Although it is the last one: another takes its place, which KMS has to be given
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

impl Revoke {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (id, name) = (&self.id, &self.keystore);
        let config = configuration(&self.config)?;
        let mut mine: Vec<CredentialPlace> = config.credentials;
        mine.retain(|credential| credential.keystore == *name);
        let place = mine.iter().find(|credential| credential.id == *id).ok_or_else(|| {
            let failure = format!("key store `{name}` has no credential {id}");
            Failure::new(Exit::CannotCreate, failure).hint("`xksd credentials list` shows all")
        })?;
        let Some(file) = &place.file else {
            let failure =
                format!("the configuration itself names {id}, with its secret in {}", place.place);
            let hint = "take its section out, and the secret away; then `xksd reload`";
            return Err(Failure::new(Exit::CannotCreate, failure).hint(hint));
        };
        let is_last = mine.len() == 1;
        if is_last && !self.force {
            let failure = format!("{id} is the only credential of key store `{name}`");
            return Err(Failure::new(Exit::CannotCreate, failure)
                .hint("`xksd credentials create` makes the next; give KMS that one first")
                .hint(
                    "--force revokes it all the same, and KMS is refused until it has the next",
                ));
        }
        self.confirm()?;
        // A key store without any would be none that can be served.
        let next = match is_last {
            true => Some(store::create(&directory(&self.config, name)?)?.0),
            false => None,
        };
        store::remove(file)?;
        say(&format!("removed `{}`", file.display()));
        if let Some(next) = &next {
            say(&format!("made credential {next} in its place"));
        }
        let known = make_known(&self.config);
        if self.json {
            let done = json!({
                "keystore": name.as_str(),
                "access_key_id": id.as_str(),
                "next": next.as_ref().map(AccessKeyId::as_str),
                "in_force": matches!(known, Ok(true)),
            });
            print(&format!("{done:#}\n"))?;
        }
        match known? {
            true => say("requests that it signs are refused from now on"),
            false => say("daemons that run ACCEPT IT until they are reloaded"),
        }
        Ok(())
    }

    /// Asks, where somebody is there to answer.
    fn confirm(&self) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let failure = "this cannot be undone, and nobody is there to confirm it";
            return Err(Failure::new(Exit::Usage, failure).hint("--yes confirms it"));
        }
        let (keystore, id) = (self.keystore.as_str(), self.id.as_str());
        if let Some(row) = rows(&self.config)?.iter().find(|row| row.is(keystore, id)) {
            say(&format!("last used: {}", row.last_used(now())));
        }
        say("Requests that it signs will be refused. To confirm, type the access key id:");
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        if read.is_err() || answer.trim() != id {
            return Err(Failure::new(Exit::Usage, "not confirmed: nothing was done"));
        }
        Ok(())
    }
}
