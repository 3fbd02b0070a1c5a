//! What has to be written about is: errors, codes of KMS, profiles; and what is written about exists.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use support::tool::{ask, python};
use xksd::hsm::profile::{self, Evidence};
use xksd::wire::error::ErrorName;

use crate::markdown::{pages, root};
use crate::none;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The section of the runbook with this name for its heading.
fn section<'a>(runbook: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = runbook.split_once(&format!("\n### `{name}`\n"))?;
    Some(rest.split("\n##").next().unwrap_or(rest))
}

#[test]
fn the_runbook_has_every_error_of_the_protocol() {
    let runbook = read("docs/runbook.md");
    let mut wrong = Vec::new();
    for name in ErrorName::ALL {
        let status = format!("| status | {}", name.status());
        let rows = ["| from |", "| means |", "| look at |", "| do |", &status];
        match section(&runbook, name.as_str()) {
            None => wrong.push(format!("no section {name}")),
            Some(text) => wrong.extend(
                rows.iter().filter(|row| !text.contains(**row)).map(|row| format!("{name}: {row}")),
            ),
        }
    }
    none(&wrong);
}

/// Codes that a connection to an external key store can fail with, and exceptions about one, as AWS's
/// own SDK has them.
const OF_KMS: &str = r#"
import re, botocore.session
model = botocore.session.get_session().get_service_model("kms")
text = model.shape_for("CustomKeyStoresListEntry").members["ConnectionErrorCode"].documentation
known = set(model.shape_for("ConnectionErrorCodeType").enum)
for part in re.split(r"<b>(?=[^<]*key stores:)", text)[1:]:
    if not part.startswith("CloudHSM"):
        for code in re.findall(r"<code>([A-Z_]+)</code> (?:\u2014|-)", part):
            assert code in known, code
            print(code)
for name in model.shape_names:
    if re.fullmatch("Xks.*Exception", name):
        print(name)
"#;

#[test]
fn the_runbook_has_every_code_and_exception_of_kms() {
    let Some(python) = python("botocore", "the runbook beside AWS's SDK") else { return };
    let names = ask(Command::new(python).args(["-c", OF_KMS]), "").unwrap();
    assert!(names.lines().count() >= 22, "{names}");
    let runbook = read("docs/runbook.md");
    let missing = names.lines().filter(|name| section(&runbook, name).is_none());
    none(&missing.map(|name| format!("no section {name}")).collect::<Vec<_>>());
}

#[test]
fn every_profile_is_described_as_it_is() {
    let table = read("docs/hsm.md");
    let mut wrong = Vec::new();
    for profile in profile::ALL {
        let row = table.lines().find(|line| line.starts_with(&format!("| `{}` |", profile.name)));
        let cells: Vec<&str> = row.unwrap_or_default().split('|').map(str::trim).collect();
        let [_, _, _, _, sessions, _, tested, _] = cells[..] else {
            wrong.push(format!("docs/hsm.md has no row of {profile}"));
            continue;
        };
        if sessions.split(',').next() != Some(&profile.sessions.to_string()) {
            wrong.push(format!("{profile}: {sessions}"));
        }
        let is_simulated = profile.evidence == Evidence::Simulation;
        if tested.contains("simulated only") != is_simulated {
            wrong.push(format!("{profile}: {tested}"));
        }
        let pages = pages();
        let pages = pages.iter().filter(|page| page.path.starts_with("docs/hsm/"));
        let text: String = pages.map(|page| read(&page.path)).collect();
        if profile.name != "generic" && !text.contains(&format!("`{}`", profile.name)) {
            wrong.push(format!("docs/hsm has no page with `{profile}`"));
        }
    }
    none(&wrong);
}

/// The text of all sources below a folder.
fn sources(folder: &str) -> String {
    let mut folders = vec![root().join(folder)];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_metric_that_is_mentioned_exists() {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == ':';
    let names = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("xksd_"));
        words.filter(|word| !word.contains(':')).map(str::to_owned).collect()
    };
    let known = names(&sources("src/metrics")).into_iter().chain(names(&read("src/metrics.rs")));
    let known: BTreeSet<String> = known.collect();
    let is_known = |name: &String| {
        let of_histogram = ["_bucket", "_sum", "_count"];
        let base = of_histogram.iter().find_map(|end| name.strip_suffix(end));
        // `xksd_audit_*`
        known.contains(name)
            || base.is_some_and(|base| known.contains(base))
            || name.ends_with('_') && known.iter().any(|known| known.starts_with(name.as_str()))
    };
    let mut wrong = Vec::new();
    for page in pages() {
        let unknown = names(&read(&page.path)).into_iter().filter(|name| !is_known(name));
        wrong.extend(unknown.map(|name| format!("{}: there is no {name}", page.path)));
    }
    none(&wrong);
}

/// "line `no PIN`": the log's messages are constants, and stand so in the sources.
#[test]
fn every_line_of_the_log_that_is_mentioned_exists() {
    let sources = sources("src");
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read(&page.path).replace('\n', " ");
        for rest in text.split("line `").skip(1) {
            let line = rest.split('`').next().unwrap();
            count += 1;
            // What the message of an error goes on with is the error's own.
            if !sources.contains(line.trim_end_matches(" ...")) {
                wrong.push(format!("{}: no line `{line}`", page.path));
            }
        }
    }
    none(&wrong);
    assert!(count > 20, "{count}");
}
