//! The section `audit`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::fs::{Access, access};

use super::parse::{alternatives, duration_within, filled, number_within, size_within};
use super::reader::{Section, Shape};
use super::report::Wrong;
use crate::audit::copies::Destination;
use crate::audit::log::{Checkpoints, OnFailure, Settings};
use crate::audit::store::Place;

/// Reads `[audit]`: `Some(None)` where there is to be no log.
pub(super) fn audit(root: &mut Section<'_>, tokens: &[String]) -> Option<Option<Settings>> {
    let mut section = root.section("audit");
    let report = section.report;
    let directory =
        section.optional("directory", Shape::Text, |text| directory(report.path(&filled(text)?)));
    let on_failure = section.or("on_failure", "refuse", Shape::Text, |text| match text {
        "refuse" => Ok(OnFailure::Refuse),
        "warn" => Ok(OnFailure::Warn),
        _ => Err("must be `refuse` or `warn`".into()),
    });
    let sync_interval =
        section.or("sync_interval", "200ms", Shape::Text, duration_within("0s", "1m"));
    let max_delay = section.or("max_delay", "5s", Shape::Text, duration_within("0s", "10m"));
    let size = size_within("64KiB", "64GiB");
    let rotate_size = section.or("rotate_size", "256MiB", Shape::Text, size);
    let rotate_age = section.or("rotate_age", "24h", Shape::Text, duration_within("1m", "8760h"));
    let refused_interval =
        section.or("refused_interval", "1m", Shape::Text, duration_within("1s", "24h"));
    let copies = section.list("copies", |text| Ok(text.parse::<Destination>()?));
    let token = section.optional("token", Shape::Text, |text| {
        if !tokens.iter().any(|name| name == text) {
            let names: Vec<&str> = tokens.iter().map(String::as_str).collect();
            let wrong = Wrong::from("is no token of the configuration");
            return Err(wrong.hint(format!("there is {}", alternatives(&names))));
        }
        Ok(text.parse()?)
    });
    let records = number_within(1..=1_000_000_u64);
    let records = section.or("checkpoint_records", "10000", Shape::Number, records);
    let interval = duration_within("1s", "24h");
    let interval = section.or("checkpoint_interval", "1m", Shape::Text, interval);
    let (directory, token) = (directory?, token?);
    let Some(directory) = directory else {
        let given =
            ["on_failure", "token", "copies"].into_iter().find(|key| section.was_given(key));
        if let Some(key) = given {
            let wrong = Wrong::from("says how an audit log is kept, and `directory` not where");
            section.fault(key, None, wrong.hint("audit.directory = \"/var/lib/xksd/audit\""));
            return None;
        }
        return Some(None);
    };
    if token.is_none() {
        let what = "without `token` no checkpoint is signed: whoever can write to the directory can \
                    rewrite the audit log unseen";
        report.warn("audit", what);
    }
    let (records, interval) = (records?, interval?);
    let checkpoints = token.map(|token| Checkpoints { token, records, interval });
    let place = Place { directory, rotate_size: rotate_size?, rotate_age: rotate_age? };
    Some(Some(Settings {
        place,
        on_failure: on_failure?,
        sync_interval: sync_interval?,
        max_delay: max_delay?,
        refused_interval: refused_interval?,
        checkpoints,
        copies: copies?,
    }))
}

/// A directory that is there, and that we may write to.
fn directory(path: PathBuf) -> Result<PathBuf, Wrong> {
    let metadata = fs::metadata(&path).map_err(|error| {
        let hint = "make it, with mode 0700, for the user that xksd runs as";
        Wrong::from(format!("cannot be used: {error}")).hint(hint)
    })?;
    if !metadata.is_dir() {
        return Err("is no directory".into());
    }
    if metadata.mode() & 0o022 != 0 {
        let wrong = Wrong::from("can be written to by others than its owner");
        return Err(wrong.hint("chmod 0700 it: the audit log is xksd's alone"));
    }
    access(&path, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| {
        let hint = "it must belong to the user that xksd runs as, on a disk that is not read-only";
        Wrong::from(format!("cannot be written to: {errno}")).hint(hint)
    })?;
    Ok(path)
}
