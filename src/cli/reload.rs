//! `xksd reload`: has a running daemon read its configuration anew, over its control socket.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::failure::{print, say};
use super::status::{ask_for, control_socket};
use super::{ConfigFile, Exit, Failure};

/// Longer than the daemon waits for tokens that have to come up, another reload before this one
/// included.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    config: ConfigFile,
    /// The daemon's control socket, if it is not to be looked up in the configuration
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

impl Reload {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let socket = control_socket(&self.config, self.socket.as_deref())
            .map_err(|failure| failure.hint("nothing was reloaded"))?;
        let answer = reload(&socket)?;
        if self.json {
            print(&format!("{answer}\n"))?;
        }
        let report = &answer["reload"];
        if report["outcome"] != "applied" {
            return Err(refused(report));
        }
        for warning in texts(&report["warnings"]) {
            say(&format!("warning: {warning}"));
        }
        for setting in texts(&answer["restart_pending"]) {
            say(&format!("warning: {setting} counts once xksd is started anew"));
        }
        if !self.json {
            let changes = texts(&report["changes"]).map(|change| format!("{change}\n"));
            print(&changes.collect::<String>())?;
            say("the configuration was reloaded");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Has the daemon at this socket reload; the answer says what became of it.
pub(super) fn reload(socket: &Path) -> Result<Value, Failure> {
    ask_for(socket, "reload", PATIENCE)
}

/// What stands against it, and an exit code for it.
pub(super) fn refused(report: &Value) -> Failure {
    let exit = match report["refusal"].as_str() {
        Some("unavailable") => Exit::Unavailable,
        Some("pin_refused") => Exit::NoPermission,
        _ => Exit::Config,
    };
    let failure = "nothing was reloaded: what was served before is served on";
    let faults = report["faults"].as_array().into_iter().flatten();
    faults.fold(Failure::new(exit, failure), |failure, fault| {
        let failure = failure.and(fault["problem"].as_str().unwrap_or_default());
        match fault["hint"].as_str() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}
