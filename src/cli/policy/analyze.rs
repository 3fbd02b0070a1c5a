//! `xksd policy analyze`

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::question::Written;
use super::read;
use crate::cli::failure::{print, say};
use crate::cli::startup::configuration;
use crate::cli::{ConfigFile, Exit, Failure};
use crate::keystore::{self, KeyRule};
use crate::policy::Authorizer;

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is proved: what no caller of the list does is not seen. Exit codes: 0 \
    nothing was found, 1 something was."
)]
pub(in crate::cli) struct Analyze {
    /// Callers (TOML): each a [[caller]] with what stands in [request] of test cases
    #[arg(long, value_name = "FILE")]
    callers: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Callers {
    #[serde(rename = "caller")]
    callers: Vec<Written>,
}

/// What KMS asks for, by its own operation.
const OPERATIONS: [(&str, &[&str]); 3] = [
    ("describe", &["CreateKey", "DescribeKey"]),
    ("encrypt", &["Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncrypt"]),
    ("decrypt", &["Decrypt", "ReEncrypt"]),
];

impl Analyze {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let callers: Callers = read(&self.callers)?;
        let config = configuration(&self.config)?;
        for warning in &config.warnings {
            say(&format!("warning: {warning}"));
        }
        let mut all = Vec::new();
        for keystore in &config.keystores {
            let Some(authorizer) = keystore.authorization.authorizer() else { continue };
            let found = examine(keystore, authorizer, &callers.callers).map_err(|problem| {
                Failure::new(Exit::Config, format!("{}: {problem}", self.callers.display()))
            })?;
            all.push((keystore.name.as_str(), found));
        }
        let is_clean = all.iter().all(|(_, found)| found.is_clean());
        let text = match self.json {
            true => {
                let json: Vec<Value> = all.iter().map(|(name, found)| found.json(name)).collect();
                format!("{:#}\n", Value::from(json))
            }
            false => all.iter().map(|(name, found)| found.text(name)).collect(),
        };
        print(&text)?;
        Ok(ExitCode::from(if is_clean { 0 } else { Exit::Difference as u8 }))
    }
}

/// What was found of one key store.
struct Found {
    requests: usize,
    allowed: usize,
    /// Key and operation.
    unusable: Vec<(String, &'static str)>,
    undecided: Vec<String>,
}

/// Puts every kind of request of every caller, for every key, to the policies.
fn examine(
    keystore: &keystore::Settings,
    authorizer: &Authorizer,
    callers: &[Written],
) -> Result<Found, String> {
    let mut decided = BTreeSet::new();
    let mut found = Found { requests: 0, allowed: 0, unusable: vec![], undecided: vec![] };
    for key in keys(keystore, authorizer) {
        for (operation, kms) in OPERATIONS {
            let mut is_usable = false;
            for caller in callers {
                for kms in kms {
                    let (name, written) = (keystore.name.as_str(), caller.clone());
                    let question = written.of(name, &key, operation, kms).read()?;
                    let decision = authorizer.decide(&question.facts());
                    found.requests += 1;
                    found.allowed += usize::from(decision.is_allowed());
                    is_usable |= decision.is_allowed();
                    decided.extend(decision.policies().iter().cloned());
                }
            }
            if !is_usable {
                found.unusable.push((key.clone(), operation));
            }
        }
    }
    found.undecided = authorizer.policies();
    found.undecided.retain(|id| !decided.contains(id));
    Ok(found)
}

/// The keys that the key rules and the entities file name. For a rule with a `*`, one that fits.
fn keys(keystore: &keystore::Settings, authorizer: &Authorizer) -> BTreeSet<String> {
    let named = authorizer.external_keys().filter(|(name, _)| *name == keystore.name.as_str());
    let allows = |key: &&str| {
        let id = key.parse();
        id.is_ok_and(|id| keystore.keys.iter().any(|rule| rule.allows(&id)))
    };
    let named = named.map(|(_, key)| key).filter(allows).map(str::to_owned);
    let example = |rule: &KeyRule| {
        let rule = rule.to_string();
        match rule.strip_suffix('*') {
            Some(beginning) => format!("{beginning}any"),
            None => rule,
        }
    };
    named.chain(keystore.keys.iter().map(example)).collect()
}

impl Found {
    fn is_clean(&self) -> bool {
        self.unusable.is_empty() && self.undecided.is_empty()
    }

    fn text(&self, keystore: &str) -> String {
        let Self { requests, allowed, unusable, undecided } = self;
        let mut text = format!("{keystore}: {requests} requests, {allowed} allowed\n");
        for (key, operation) in unusable {
            text += &format!("  nobody can {operation} with key {key}\n");
        }
        for id in undecided {
            text += &format!("  policy {id} never decided\n");
        }
        text
    }

    fn json(&self, keystore: &str) -> Value {
        let unusable = self.unusable.iter();
        let unusable = unusable.map(|(key, op)| json!({ "key": key, "operation": op }));
        json!({
            "keystore": keystore,
            "requests": self.requests,
            "allowed": self.allowed,
            "unusable": unusable.collect::<Vec<_>>(),
            "never_decided": self.undecided,
        })
    }
}
