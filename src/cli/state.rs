//! `xksd state init`

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::failure::say;
use super::startup::configuration;
use super::{ConfigFile, Exit, Failure};
use crate::counts::store::{Store, StoreError};

#[derive(Debug, Subcommand)]
pub(super) enum State {
    /// Begin counting encryptions, for a new installation whose keys have never been used
    Init(Init),
}

#[derive(Debug, Args)]
pub(super) struct Init {
    #[command(flatten)]
    config: ConfigFile,
    /// Succeed, and change nothing, where encryptions are counted already
    #[arg(long)]
    if_missing: bool,
}

impl State {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match self {
            Self::Init(init) => init.run(),
        }
    }
}

impl Init {
    fn run(&self) -> Result<ExitCode, Failure> {
        let Some(directory) = configuration(&self.config)?.state_directory else {
            let failure = format!("`{}` sets no state.directory", self.config.path.display());
            return Err(Failure::new(Exit::Config, failure)
                .hint("directory = \"/var/lib/xksd\" in [state]"));
        };
        let shown = directory.display();
        match Store::init(&directory) {
            Ok(()) => say(&format!("encryptions are counted in {shown}, from zero on")),
            Err(StoreError::Exists(_)) if self.if_missing => {
                say(&format!("encryptions are counted in {shown} already"));
            }
            Err(error) => return Err(failure(error)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn failure(error: StoreError) -> Failure {
    let hint = match &error {
        StoreError::Exists(_) => {
            "it counts what was encrypted; a new one would begin at zero, and so count too few"
        }
        StoreError::InUse(_) => "the daemon has begun to count already",
        _ => "run this as the daemon's user, who must own the directory",
    };
    let exit = match error {
        StoreError::Exists(_) | StoreError::InUse(_) => Exit::CannotCreate,
        _ => Exit::OsError,
    };
    Failure::new(exit, error).hint(hint)
}
