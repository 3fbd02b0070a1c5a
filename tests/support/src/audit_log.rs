//! Audit logs as an auditor has them: files.

use std::fs;
use std::path::Path;

use serde_json::Value;
use xksd::audit::names;
use xksd::audit::verify::{Judgement, Report, Verifier};

/// The text of all files, the oldest first. Empty where there is none, or no directory.
///
/// # Panics
/// Where one cannot be read.
pub fn text(directory: &Path) -> String {
    let files = names::files(directory).unwrap_or_default();
    let read = |name: names::FileName| fs::read_to_string(directory.join(name.to_string()));
    files.into_iter().map(|name| read(name).expect("audit logs are ASCII")).collect()
}

/// All whole records.
///
/// # Panics
/// Where one is no JSON.
pub fn records(directory: &Path) -> Vec<Value> {
    let text = text(directory);
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("each record is JSON")).collect()
}

/// The records of one type.
pub fn of_type(directory: &Path, kind: &str) -> Vec<Value> {
    records(directory).into_iter().filter(|record| record["type"] == kind).collect()
}

/// What is wrong with the chain; signatures are not looked at.
///
/// # Panics
/// Where there are no records at all.
pub fn verify(directory: &Path) -> Report {
    let mut verifier = Verifier::new(|_| Judgement::Unjudged, &[]);
    verifier.file("all");
    let text = text(directory);
    assert!(!text.is_empty(), "no records in {}", directory.display());
    text.split_inclusive('\n').for_each(|line| verifier.line(line.as_bytes()));
    verifier.finish()
}
