//! `xksd config check` and `xksd config template`

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::{print, say};
use super::startup::configuration;
use super::{ConfigFile, Exit, Failure};
use crate::config::{Fault, Origin, TEMPLATE};

#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Name everything that is wrong with a configuration
    Check(Check),
    /// Print a configuration with every key, its meaning and its default
    Template,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match self {
            Self::Check(check) => check.run(),
            Self::Template => print(TEMPLATE).map(|()| ExitCode::SUCCESS),
        }
    }
}

impl Check {
    fn run(&self) -> Result<ExitCode, Failure> {
        let outcome = configuration(&self.config);
        if self.json {
            let (faults, warnings) = match &outcome {
                Ok(config) => (Vec::new(), &config.warnings),
                Err(errors) => (errors.faults.iter().map(in_json).collect(), &errors.warnings),
            };
            let valid = outcome.is_ok();
            let findings = json!({ "valid": valid, "faults": faults, "warnings": warnings });
            print(&format!("{findings:#}\n"))?;
            let code = if valid { 0 } else { Exit::Config as u8 };
            return Ok(ExitCode::from(code));
        }
        let config = outcome?;
        for warning in &config.warnings {
            say(&format!("warning: {warning}"));
        }
        let (keystores, tokens) = (config.keystores.len(), config.tokens.len());
        let file = self.config.path.display();
        say(&format!("{file} is valid; key stores: {keystores}, tokens: {tokens}"));
        Ok(ExitCode::SUCCESS)
    }
}

fn in_json(fault: &Fault) -> serde_json::Value {
    let Fault { origin, key, value, problem, hint } = fault;
    let (file, variable) = match origin {
        Origin::File(path) => (Some(path.display().to_string()), None),
        Origin::Variable(name) => (None, Some(name)),
    };
    json!({
        "file": file,
        "variable": variable,
        "key": key,
        "value": value,
        "problem": problem,
        "hint": hint,
    })
}
