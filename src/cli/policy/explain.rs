//! `xksd policy explain`

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::question::{OwnAuthorization, Written, configured, in_json};
use super::{read, unusable};
use crate::cli::failure::print;
use crate::cli::startup::configuration;
use crate::cli::{ConfigFile, Exit, Failure};
use crate::policy::{Authorization, Explanation, Fit};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(in crate::cli) struct Explain {
    /// A request (TOML): the section [request] of a file with test cases
    #[arg(long, value_name = "FILE", group = "what")]
    request: Option<PathBuf>,
    /// A request of the audit log, by the kmsRequestId that CloudTrail has, too
    #[arg(long, value_name = "KMS_REQUEST_ID", group = "what", requires = "audit_file")]
    from_audit: Option<String>,
    /// The audit log's file, or any other with its fields: one JSON object a line
    #[arg(long, value_name = "FILE")]
    audit_file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print the explanation as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Asked {
    authorization: Option<OwnAuthorization>,
    request: Written,
}

impl Explain {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let (own, written, what) = match (&self.request, &self.from_audit, &self.audit_file) {
            (Some(path), ..) => {
                let Asked { authorization, request } = read(path)?;
                let directory = path.parent().unwrap_or(Path::new("."));
                let own = authorization.map(|own| own.read(directory)).transpose();
                (own.map_err(unusable)?, request, path.display().to_string())
            }
            (None, Some(id), Some(path)) => {
                let record = find(path, id)?;
                (None, Written::from_record(&record), format!("{}: {id}", path.display()))
            }
            _ => return Err(Failure::new(Exit::Usage, "--from-audit wants --audit-file")),
        };
        let invalid = |problem: String| Failure::new(Exit::Config, format!("{what}: {problem}"));
        let question = written.read().map_err(invalid)?;
        let config = if own.is_none() { Some(configuration(&self.config)?) } else { None };
        let authorization: &Authorization = match (&own, &config) {
            (Some(own), _) => own,
            (None, Some(config)) => configured(config, &question.keystore).map_err(invalid)?,
            (None, None) => return Err(invalid("there are no policies".to_owned())),
        };
        let explanation = authorization.authorizer().map(|a| a.explain(&question.facts()));
        let text = match (&explanation, self.json) {
            (None, false) => {
                "allowed: no policies are asked, the key rules alone decide\n".to_owned()
            }
            (None, true) => "{\"decision\": \"allowed\", \"policies\": []}\n".to_owned(),
            (Some(explanation), false) => shown(explanation),
            (Some(explanation), true) => format!("{:#}\n", as_json(explanation)),
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The last record of this request.
fn find(path: &Path, id: &str) -> Result<Map<String, Value>, Failure> {
    let failed =
        |problem: String| Failure::new(Exit::Config, format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
    let records = text.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
    let is_it = |record: &Map<String, Value>| {
        let is_of_a_key = record.get("key").is_some_and(Value::is_string);
        is_of_a_key && record.get("kms_request_id").and_then(Value::as_str) == Some(id)
    };
    records.into_iter().find(is_it).ok_or_else(|| {
        failed(format!("no record of a request for a key has the kms_request_id `{id}`"))
            .hint("it may be in another file of the audit log, or on another proxy")
    })
}

fn shown(explanation: &Explanation) -> String {
    let Explanation { decision, terms, policies } = explanation;
    let mut text = format!("{}\n", decision.outcome().label());
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    for reason in decision.reasons() {
        line("reason", reason);
    }
    for error in decision.errors() {
        line("error", error);
    }
    if let Some(terms) = terms {
        for (name, value) in ["principal", "action", "resource", "context"].iter().zip(terms) {
            line(name, value);
        }
    }
    for (id, permits, fit) in policies {
        let effect = if *permits { "permit" } else { "forbid" };
        line(effect, &format!("{id}: {}", word(*fit)));
    }
    let permits = policies.iter().any(|(_, permits, fit)| *permits && *fit == Fit::Applies);
    if !permits && !decision.is_allowed() {
        text.push_str("No policy permits it, and what none permits is denied.\n");
    }
    text
}

fn word(fit: Fit) -> &'static str {
    match fit {
        Fit::Applies => "applies",
        Fit::DoesNotApply => "does not apply",
        Fit::Fails => "could not be evaluated",
    }
}

fn as_json(explanation: &Explanation) -> Value {
    let mut json = in_json(&explanation.decision);
    if let Some([principal, action, resource, context]) = &explanation.terms {
        json["principal"] = principal.clone().into();
        json["action"] = action.clone().into();
        json["resource"] = resource.clone().into();
        json["context"] = context.clone().into();
    }
    let policies = explanation.policies.iter().map(|(id, permits, fit)| {
        let effect = if *permits { "permit" } else { "forbid" };
        json!({ "id": id, "effect": effect, "fit": word(*fit) })
    });
    json["each_policy"] = policies.collect();
    json
}
