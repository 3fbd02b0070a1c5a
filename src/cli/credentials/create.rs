//! `xksd credentials create`

use clap::Args;
use serde_json::json;

use super::super::failure::{print, say};
use super::{ConfigFile, Failure, directory, make_known, store};
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
    pub(super) fn run(&self) -> Result<(), Failure> {
        let directory = directory(&self.config, &self.keystore)?;
        let (id, file) = store::create(&directory)?;
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
