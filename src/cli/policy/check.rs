//! `xksd policy check`

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::failure::{print, say};
use crate::cli::startup::configuration;
use crate::cli::{ConfigFile, Failure};
use crate::policy::{Authorization, Mode};

#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Print the policies of each key store as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        // The faults of policies are among those of the configuration.
        let config = configuration(&self.config)?;
        for warning in &config.warnings {
            say(&format!("warning: {warning}"));
        }
        let mut found = Vec::new();
        for keystore in &config.keystores {
            let (name, authorization) = (keystore.name.as_str(), &keystore.authorization);
            let (mode, policies) = match authorization {
                Authorization::Open => ("off", Vec::new()),
                Authorization::Policies(authorizer) => match authorizer.mode() {
                    Mode::Enforce => ("enforce", authorizer.policies()),
                    Mode::Shadow => ("shadow", authorizer.policies()),
                },
            };
            if !self.json {
                say(&format!("{name}: {mode}, policies: {}", policies.len()));
            }
            found.push(json!({ "keystore": name, "mode": mode, "policies": policies }));
        }
        if self.json {
            print(&format!("{:#}\n", Value::from(found)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
