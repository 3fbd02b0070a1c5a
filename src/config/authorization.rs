//! The section `keystores.NAME.authorization`: who may use the keys, whatever AWS says.

use std::path::PathBuf;

use super::parse::alternatives;
use super::policy_files;
use super::reader::{Section, Shape, parsed};
use super::report::Wrong;
use crate::policy::arn::AccountId;
use crate::policy::{Authorization, Mode, PolicyFault, Settings, Source};

/// Reads the section, the files that it names, and the policies in them.
pub(super) fn authorization(keystore: &mut Section<'_>) -> Option<Authorization> {
    const SECTION: &str = "authorization";
    let mut section = keystore.section(SECTION);
    let accounts = section.list("accounts", parsed::<AccountId>);
    let report = section.report;
    let paths = section.list("policies", |text| {
        let hint = "one `*` may stand in the last part of a path, for any characters";
        let path = report.path(text);
        // With its `*`: a file that comes later counts as well.
        report.note_file(&path);
        policy_files::find(&path).map_err(|problem| Wrong::from(problem).hint(hint))
    });
    let policies = paths.and_then(|paths| sources(&section, "policies", paths.concat()));
    let entities = section.optional("entities", Shape::Text, |text| {
        let path = report.path(text);
        report.note_file(&path);
        Ok(path)
    });
    let entities = match entities {
        Some(None) => Some(None),
        Some(Some(path)) => {
            sources(&section, "entities", vec![path]).map(|mut sources| sources.pop())
        }
        None => None,
    };
    let mode = section.or("mode", "enforce", Shape::Text, |text| match text {
        "enforce" => Ok(Some(Mode::Enforce)),
        "shadow" => Ok(Some(Mode::Shadow)),
        "off" => Ok(None),
        _ => Err(format!("must be {}", alternatives(&["enforce", "shadow", "off"])).into()),
    });
    let (accounts, policies, entities, mode) = (accounts?, policies?, entities?, mode?);
    if entities.is_some() && policies.is_empty() {
        section.fault("entities", None, "means nothing without `policies`");
        return None;
    }
    if accounts.is_empty() && policies.is_empty() && mode.is_some() {
        let what = "is empty: a key can be used from any AWS account whose KMS key KMS lets name it. \
                    Set `accounts` to your AWS accounts, or mode = \"off\" if that is meant";
        report.warn(&keystore.path(SECTION), what);
    }
    let settings = Settings { accounts, policies, entities, mode: mode.unwrap_or_default() };
    let entities = settings.entities.as_ref().map(|source| source.path.clone());
    match Authorization::new(settings) {
        Ok((authorization, warnings)) => {
            for warning in warnings {
                report.warn(&section.path("policies"), warning);
            }
            // Policies that are off must be good all the same: they may be wanted at once.
            Some(if mode.is_some() { authorization } else { Authorization::Open })
        }
        Err(faults) => {
            for fault in faults {
                let is_of_entities = Some(&fault.file) == entities.as_ref();
                let key = if is_of_entities { "entities" } else { "policies" };
                section.fault(key, None, wrong(fault));
            }
            None
        }
    }
}

fn wrong(fault: PolicyFault) -> Wrong {
    let wrong = Wrong::from(&fault);
    match fault.hint {
        Some(hint) => wrong.hint(hint),
        None => wrong,
    }
}

/// Reads files, each once.
fn sources(
    section: &Section<'_>,
    key: &'static str,
    mut paths: Vec<PathBuf>,
) -> Option<Vec<Source>> {
    let mut seen = Vec::new();
    paths.retain(|path| {
        !seen.contains(path) && {
            seen.push(path.clone());
            true
        }
    });
    let wanted = paths.len();
    let read = paths.into_iter().filter_map(|path| match policy_files::read(&path) {
        Ok(source) => Some(source),
        Err(problem) => {
            section.fault(key, Some(format!("{:?}", path.display().to_string())), problem);
            None
        }
    });
    let read: Vec<_> = read.collect();
    (read.len() == wanted).then_some(read)
}
