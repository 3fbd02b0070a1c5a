//! `xksd credentials`: the SigV4 credentials of key stores, as files of their directories.

mod create;
mod export;
mod list;
mod revoke;
mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::failure::say;
use super::reload::{refused, reload};
use super::startup::{configuration, credentials_directories};
use super::{ConfigFile, Exit, Failure};
use crate::names::KeystoreName;

#[derive(Debug, Subcommand)]
pub(super) enum Credentials {
    /// Make a credential for a key store, beside those that it has
    Create(create::Create),
    /// List the credentials of all key stores: where they are, how old, when last used
    List(list::List),
    /// Take a credential away: requests that it signs are refused from then on
    Revoke(revoke::Revoke),
    /// Write a credential as KMS takes it, and the command that gives it to KMS
    Export(export::Export),
}

impl Credentials {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(create) => create.run(),
            Self::List(list) => list.run(),
            Self::Revoke(revoke) => revoke.run(),
            Self::Export(export) => export.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where the credentials of a key store are made.
fn directory(config: &ConfigFile, keystore: &KeystoreName) -> Result<PathBuf, Failure> {
    let mut directories = credentials_directories(config)?;
    let file = config.path.display();
    match directories.remove(keystore) {
        Some(Some(directory)) => Ok(directory),
        Some(None) => {
            let failure = format!("`{file}`: keystores.{keystore} has no credentials_directory");
            let hint = format!("credentials_directory = \"credentials/{keystore}\" in its section");
            Err(Failure::new(Exit::Config, failure).hint(hint))
        }
        None => {
            let known: Vec<&str> = directories.keys().map(KeystoreName::as_str).collect();
            let failure = format!("`{file}` has no [keystores.{keystore}]");
            Err(Failure::new(Exit::Config, failure).hint(format!("known: {}", known.join(", "))))
        }
    }
}

/// Has a running daemon know of a change, if one answers; says so if none does. Gives whether it does.
///
/// # Errors
/// If the daemon refuses to reload.
fn make_known(config: &ConfigFile) -> Result<bool, Failure> {
    let socket = match configuration(config) {
        Ok(config) => config.ops.control_socket,
        Err(errors) => {
            let faults = errors.faults.len();
            say(&format!("the configuration cannot be reloaded yet, faults: {faults}"));
            say("`xksd config check` names them, `xksd reload` has it known");
            return Ok(false);
        }
    };
    let Some(socket) = socket else {
        say("there is no ops.control_socket: SIGHUP has running daemons know of it");
        return Ok(false);
    };
    if !answers(&socket) {
        say(&format!("no xksd answers at `{}`: one that is started knows of it", socket.display()));
        return Ok(false);
    }
    let answer: Value = reload(&socket)?;
    let report = &answer["reload"];
    if report["outcome"] != "applied" {
        return Err(refused(report).and("the file is as it was asked for; the daemon is as before"));
    }
    Ok(true)
}

fn answers(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}
