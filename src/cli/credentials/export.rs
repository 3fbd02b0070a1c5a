//! `xksd credentials export`

use std::io;
use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use super::super::failure::{print, say};
use super::{ConfigFile, Exit, Failure, configuration, store};
use crate::names::{AccessKeyId, KeystoreName};

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    config: ConfigFile,
    /// Access key id
    id: AccessKeyId,
    /// Key store that it is for
    #[arg(long, value_name = "NAME")]
    keystore: KeystoreName,
    /// File to be made, which only its owner can read; `-` prints the secret
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Custom key store id that stands in the command
    #[arg(long, value_name = "ID", default_value = "cks-...")]
    custom_key_store_id: String,
}

impl Export {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let config = configuration(&self.config)?;
        let (id, name) = (&self.id, &self.keystore);
        let keystore = config.keystores.iter().find(|keystore| keystore.name == *name);
        let keystore = keystore.ok_or_else(|| {
            let file = self.config.path.display();
            Failure::new(Exit::Config, format!("`{file}` has no [keystores.{name}]"))
        })?;
        let secret = keystore.credentials.secret(id).ok_or_else(|| {
            let failure = format!("key store `{name}` has no credential {id}");
            Failure::new(Exit::CannotCreate, failure).hint("`xksd credentials list` shows all")
        })?;
        let path = keystore.prefix.uri_path();
        // None of the three holds anything that JSON would have to escape.
        let document = Zeroizing::new(format!(
            "{{\n  \"XksProxyUriPath\": \"{path}\",\n  \"XksProxyAuthenticationCredential\": {{\n    \
             \"AccessKeyId\": \"{id}\",\n    \"RawSecretAccessKey\": \"{}\"\n  }}\n}}\n",
            secret.expose()
        ));
        if self.to.as_os_str() == "-" {
            return print(&document);
        }
        let file = std::path::absolute(&self.to).map_err(|error: io::Error| {
            Failure::new(Exit::OsError, format!("no path `{}`: {error}", self.to.display()))
        })?;
        store::write_new(&file, document.as_bytes())?;
        let cks = &self.custom_key_store_id;
        // As a shell wants a quote within quotes.
        let file = file.display().to_string().replace('\'', r"'\''");
        say(&format!("wrote `{file}`; the console takes it as proxy configuration file, or:"));
        print(&format!(
            "aws kms update-custom-key-store --custom-key-store-id {cks} --cli-input-json 'file://{file}'\n"
        ))?;
        say("remove it when KMS has it");
        Ok(())
    }
}
