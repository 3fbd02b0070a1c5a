//! `xksd credentials create`

use clap::Args;
use serde_json::json;

use super::super::failure::{print, say};
use super::super::keys::clerk::Clerk;
use super::{CREATE, ConfigFile, Failure, configuration, directory, make_known, store};
use crate::names::KeystoreName;

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    config: ConfigFile,
    /// Key store that it is for
    #[arg(long, value_name = "NAME")]
    keystore: KeystoreName,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

impl Create {
    pub(super) fn run(&self, clerk: &Clerk) -> Result<(), Failure> {
        let directory = directory(&self.config, &self.keystore)?;
        match configuration(&self.config) {
            Ok(config) => clerk.begin(config.audit.as_ref(), &[])?,
            // As long as this credential is missing, for one.
            Err(_) => say(
                "the configuration has faults yet: this is recorded in no audit log, if it has one",
            ),
        }
        let (id, file) = store::create(&directory)?;
        clerk.note(CREATE, id.as_str(), &Ok(()));
        let keystore = self.keystore.as_str();
        say(&format!("made credential {id} of key store `{keystore}` in `{}`", file.display()));
        let known = make_known(&self.config);
        if self.json {
            let made = json!({
                "keystore": keystore,
                "access_key_id": id.as_str(),
                "file": file,
                "in_force": matches!(known, Ok(true)),
            });
            print(&format!("{made:#}\n"))?;
        } else {
            print(&format!("{id}\n"))?;
        }
        if known? {
            say("it is in force; `xksd credentials export` writes what KMS has to be given");
        }
        Ok(())
    }
}
