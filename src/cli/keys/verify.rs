//! `xksd keys verify`

use clap::Args;
use serde_json::{Value, json};

use super::super::failure::print;
use super::clerk::Clerk;
use super::scope::{Scope, Unnamed, conclude, token_failure};
use super::{Exit, Failure};
use crate::lifecycle::{Error, Office, Refusal, Verified, verify};
use crate::names::ExternalKeyId;

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// External key id; without it every key that any of the tokens holds
    id: Option<ExternalKeyId>,
    #[command(flatten)]
    scope: Scope,
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut office = self.scope.open(Unnamed::Group, &Clerk::idle())?;
        let mut ids = Vec::new();
        match &self.id {
            Some(id) => ids.push(id.clone()),
            None => {
                for token in office.reached() {
                    if let Ok((keys, _)) = office.keys(token) {
                        ids.extend(keys.into_iter().map(|key| key.id));
                    }
                }
                ids.sort();
                ids.dedup();
            }
        }
        let mut found = Vec::new();
        for id in ids {
            match examine(&mut office, &id) {
                Ok(verified) => found.push((id, verified)),
                Err(error) => return conclude(&office, &id, Err(error)),
            }
        }
        let rows = || found.iter().flat_map(|(id, all)| all.iter().map(move |row| (id, row)));
        let text: String = if self.json {
            let rows: Vec<_> = rows().map(|(id, row)| in_json(&office, id, row)).collect();
            format!("{:#}\n", Value::Array(rows))
        } else {
            rows().map(|(id, row)| in_text(&office, id, row)).collect()
        };
        print(&text)?;
        let bad = rows().filter(|(_, row)| !row.agreement.is_good()).count();
        let failed = office.failures();
        if bad == 0 && failed.is_empty() {
            return Ok(());
        }
        let mut failure = match failed.first() {
            Some(first) if bad == 0 => return Err(token_failure(first.fault, &first.token)),
            _ => Failure::new(Exit::Difference, format!("{bad} objects are not as the others")),
        };
        for failed in failed {
            failure = failure.and(format!("token `{}`: {}", failed.token, failed.fault));
        }
        Err(failure)
    }
}

fn examine(office: &mut Office, id: &ExternalKeyId) -> Result<Vec<Verified>, Error> {
    let survey = office.survey(id)?;
    match survey.newest() {
        Err(refusal @ (Refusal::NoSuchKey | Refusal::Ambiguous)) => Err(refusal.into()),
        _ => verify(office, &survey),
    }
}

fn in_json(office: &Office, id: &ExternalKeyId, row: &Verified) -> Value {
    json!({
        "id": id.as_str(),
        "version": row.version.number(),
        "object_id": row.object_id.to_string(),
        "token": office.name(row.token).as_str(),
        "result": row.agreement.as_str(),
        "good": row.agreement.is_good(),
    })
}

fn in_text(office: &Office, id: &ExternalKeyId, row: &Verified) -> String {
    let (id, token) = (id.as_str(), office.name(row.token).as_str());
    format!(
        "{id:<32} v{:<4} {} {token:<16} {}\n",
        row.version,
        row.object_id,
        row.agreement.as_str()
    )
}
