//! `xksd keys list` and `xksd keys describe`

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::super::failure::{print, say};
use super::counts::Reading;
use super::scope::{Scope, Unnamed, conclude, token_failure};
use super::{Failure, words};
use crate::hsm::backend::Protection;
use crate::hsm::state::{Origin, VersionStatus};
use crate::lifecycle::{Held, Object, Office, Refusal, Survey};
use crate::names::{ExternalKeyId, TokenName};

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    scope: Scope,
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Describe {
    /// External key id
    id: ExternalKeyId,
    #[command(flatten)]
    scope: Scope,
    /// Print an object
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut office = self.scope.open(Unnamed::All)?;
        let mut listed = Vec::new();
        for token in office.reached() {
            let Ok((keys, unread)) = office.keys(token) else { continue };
            let name = office.name(token).clone();
            if unread > 0 {
                say(&format!("warning: token `{name}`: {unread} objects could not be read"));
            }
            listed.extend(keys.into_iter().map(|key| (key.id.clone(), name.clone(), key)));
        }
        listed.sort_by(|(a, token_a, _), (b, token_b, _)| (a, token_a).cmp(&(b, token_b)));
        // A list that lacks a token's keys would be read as if it had them.
        if let Some((first, others)) = office.failures().split_first() {
            let failure = token_failure(first.fault, &first.token);
            return Err(others.iter().fold(failure, |failure, other| {
                failure.and(format!("token `{}`: {}", other.token, other.fault))
            }));
        }
        if self.json {
            let keys = listed.iter().map(|(_, token, key)| in_json(token, key)).collect();
            return print(&format!("{:#}\n", Value::Array(keys)));
        }
        let lines = listed.iter().map(|(_, token, key)| in_text(token, key));
        print(&lines.collect::<String>())
    }
}

impl Describe {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (mut office, counts) = self.scope.open_with_counts(Unnamed::Group)?;
        let counts = counts.as_ref();
        let survey = match office.survey(&self.id) {
            Ok(survey) if survey.versions.is_empty() => {
                return conclude(&office, &self.id, Err(Refusal::NoSuchKey.into()));
            }
            Ok(survey) => survey,
            Err(error) => return conclude(&office, &self.id, Err(error)),
        };
        let versions: Vec<_> =
            survey.versions.iter().map(|held| described(&mut office, held)).collect();
        let text = if self.json {
            let (status, fault) = status(&survey);
            let versions: Vec<_> = versions
                .iter()
                .map(|version| in_detail(&office, &self.id, version, counts))
                .collect();
            let failed = words::failures(office.failures());
            let id = self.id.as_str();
            let mut key = json!({
                "id": id, "status": status, "versions": versions, "unreached": failed,
            });
            if let Some(fault) = fault {
                key["fault"] = fault.to_string().into();
            }
            format!("{key:#}\n")
        } else {
            versions.iter().map(|version| in_lines(&office, &self.id, version, counts)).collect()
        };
        print(&text)?;
        conclude(&office, &self.id, Ok(()))
    }
}

/// A version, and what the tokens say of how its objects are kept.
struct Described<'a> {
    held: &'a Held,
    objects: Vec<(&'a Object, Protection)>,
    missing: Vec<usize>,
}

fn described<'a>(office: &mut Office, held: &'a Held) -> Described<'a> {
    let mut objects = Vec::new();
    for object in &held.objects {
        objects.extend(office.protection(object).ok().map(|protection| (object, protection)));
    }
    let holds = |token: &usize| held.objects.iter().any(|object| object.token == *token);
    let missing = office.reached().into_iter().filter(|token| !holds(token)).collect();
    Described { held, objects, missing }
}

/// The word for the status of a key, and why its label names no usable one.
fn status(survey: &Survey) -> (&'static str, Option<Refusal>) {
    match survey.newest() {
        Ok(newest) => (newest.status().as_str(), None),
        Err(Refusal::NoneReady) => ("pending", Some(Refusal::NoneReady)),
        Err(refusal) => ("ambiguous", Some(refusal)),
    }
}

fn in_json(token: &TokenName, survey: &Survey) -> Value {
    let (status, fault) = status(survey);
    let versions: Vec<_> = survey.versions.iter().map(words::version).collect();
    let (id, token) = (survey.id.as_str(), token.as_str());
    let mut key = json!({ "id": id, "token": token, "status": status, "versions": versions });
    match (fault, survey.newest()) {
        (None, Ok(newest)) => {
            let attributes = &newest.objects[0].attributes;
            key["key_spec"] = words::spec(&attributes.kind).into();
            key["usage"] = words::usages(attributes.usage).into();
        }
        (fault, _) => key["fault"] = fault.map(|fault| fault.to_string()).into(),
    }
    key
}

fn in_text(token: &TokenName, survey: &Survey) -> String {
    let (id, token) = (survey.id.as_str(), token.as_str());
    let (status, fault) = status(survey);
    let rest = match (fault, survey.newest()) {
        (None, Ok(newest)) => {
            let attributes = &newest.objects[0].attributes;
            let (spec, usage) =
                (words::spec(&attributes.kind), words::usage_words(attributes.usage));
            let mut rest = format!("v{} {spec} {usage}", newest.version);
            rest.push_str(&origin(newest));
            if let Some(date) = newest.state.as_ref().and_then(|state| state.deletion) {
                let _ = write!(rest, " deletion {}", date.iso());
            }
            rest
        }
        (fault, _) => fault.map(|fault| fault.to_string()).unwrap_or_default(),
    };
    let is_pending = |held: &&Held| held.status() == VersionStatus::Pending;
    let pending = match survey.versions.iter().filter(is_pending).count() {
        0 => String::new(),
        some => format!(" ({some} pending)"),
    };
    format!("{id:<32} {token:<16} {status:<9} {rest}{pending}\n")
}

/// Where the key material came from, if it ever was outside of its token.
fn origin(held: &Held) -> String {
    match held.state.as_ref().map(|state| state.origin) {
        None | Some(Origin::Generated) => String::new(),
        Some(origin) => format!(" {}", origin.as_str()),
    }
}

fn in_detail(
    office: &Office,
    id: &ExternalKeyId,
    described: &Described<'_>,
    counts: Option<&Reading>,
) -> Value {
    let mut version = words::version(described.held);
    let object = |(object, kept): &(&Object, Protection)| {
        let state = object.state.as_ref();
        json!({
            "token": office.name(object.token).as_str(),
            "status": state.map_or(VersionStatus::Enabled, |state| state.status).as_str(),
            "epoch": state.map(|state| state.epoch),
            "key_spec": words::spec(&object.attributes.kind),
            "usage": words::usages(object.attributes.usage),
            "check_value": words::check_value(object.attributes.check_value),
            "protection": words::protection(*kept),
        })
    };
    version["objects"] = described.objects.iter().map(object).collect();
    version["encryptions"] = counts.map(|counts| counts.in_json(id, described.held)).into();
    version["missing"] =
        described.missing.iter().map(|&token| Value::from(office.name(token).as_str())).collect();
    version
}

fn in_lines(
    office: &Office,
    id: &ExternalKeyId,
    described: &Described<'_>,
    counts: Option<&Reading>,
) -> String {
    let Described { held, objects, missing } = described;
    let attributes = &held.objects[0].attributes;
    let mut text = format!(
        "version {} {} {} {} {}",
        held.version,
        held.object_id,
        held.status().as_str(),
        words::spec(&attributes.kind),
        words::usage_words(attributes.usage),
    );
    let mut add = |words: String| text.push_str(&words);
    add(origin(held));
    if let Some(state) = &held.state {
        add(format!(" created {}", state.created.iso()));
        if let Some(date) = state.deletion {
            add(format!(" deletion {}", date.iso()));
        }
    }
    add("\n".to_owned());
    if let Some(counts) = counts {
        add(counts.in_text(id, held));
    }
    for (object, kept) in objects {
        let status = object.state.as_ref().map_or("foreign", |state| state.status.as_str());
        let epoch = object.state.as_ref().map_or(0, |state| state.epoch);
        let check = words::check_value(object.attributes.check_value);
        let flag = |value: Option<bool>| match value {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not told",
        };
        add(format!(
            "  {:<16} {status:<9} epoch {epoch} check value {} sensitive {} extractable {}\n",
            office.name(object.token).as_str(),
            check.as_deref().unwrap_or("not told"),
            flag(kept.sensitive),
            match (kept.extractable, kept.wrap_with_trusted) {
                (Some(true), Some(true)) => "under trusted keys",
                (extractable, _) => flag(extractable),
            },
        ));
    }
    for &token in missing {
        add(format!("  {:<16} missing\n", office.name(token).as_str()));
    }
    text
}
