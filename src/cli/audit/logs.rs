//! The files of audit logs, in the order of their records.

use std::borrow::Borrow;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::super::{Exit, Failure};
use crate::audit::chain::ChainId;
use crate::audit::journal;
use crate::audit::line::{Line, MAX_LINE_LEN};
use crate::audit::names;
use crate::config::Config;

/// The files that are named, those of directories that are, or those of the configuration: each chain's
/// from its oldest on.
pub(super) fn files<C: Borrow<Config>>(
    named: &[PathBuf],
    configuration: impl FnOnce() -> Result<C, Failure>,
) -> Result<Vec<PathBuf>, Failure> {
    let mut named = named.to_vec();
    if named.is_empty() {
        let config = configuration()?;
        let audit = config.borrow().audit.as_ref().ok_or_else(|| {
            Failure::new(Exit::Config, "the configuration has no audit log")
                .hint("name its files or directory, or set audit.directory")
        })?;
        named.push(audit.place.directory.clone());
    }
    let mut found = Vec::new();
    for path in named {
        if path.is_dir() {
            found.extend(directory(&path)?);
            let below = journal::directory(&path);
            if below.is_dir() {
                found.extend(directory(&below)?);
            }
        } else {
            found.push(path);
        }
    }
    let mut ordered = Vec::with_capacity(found.len());
    for path in found {
        ordered.push((first(&path)?, path));
    }
    ordered.sort();
    ordered.dedup();
    Ok(ordered.into_iter().map(|(_, path)| path).collect())
}

fn directory(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let files = names::files(path).map_err(|error| unreadable(path, &error))?;
    Ok(files.into_iter().map(|name| path.join(name.to_string())).collect())
}

/// Which chain a file belongs to, and where in it it begins; what can't be read comes first.
fn first(path: &Path) -> Result<Option<(ChainId, u64)>, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut line = Vec::new();
    let read = BufReader::new(file).take(MAX_LINE_LEN as u64).read_until(b'\n', &mut line);
    read.map_err(|error| unreadable(path, &error))?;
    let line = Line::parse(line.strip_suffix(b"\n").unwrap_or(&line)).ok();
    Ok(line.map(|line| (line.chain, line.seq)))
}

/// Reads a file line by line; a line has its end, if it has one.
pub(super) fn each_line(path: &Path, mut visit: impl FnMut(&[u8])) -> Result<(), Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A file without line ends is no reason to fill the memory: it is read in pieces, none of which is
        // a record.
        let limit = 2 * MAX_LINE_LEN as u64;
        let read = file.by_ref().take(limit).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => visit(&line),
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::OsError, format!("cannot read `{}`: {error}", path.display()))
}
