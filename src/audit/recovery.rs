//! How a log is gone on with: from its last whole record, whatever the process or the machine died of.
//!
//! What stands after it is cut off, but never thrown away: it is put aside in a file of its own, and
//! a record tells of it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::chain::{Chain, Hash, Head, sha256};
use super::line::Line;
use super::names::{self, FileName};
use super::record::Repaired;

/// How much of a file's end is looked at first.
const TAIL: u64 = 1 << 20;

/// Where a log stands.
#[derive(Debug)]
pub(super) struct Found {
    /// The chain, if there is one to go on with.
    pub(super) chain: Option<Chain>,
    /// The file to go on in, and its length.
    pub(super) file: Option<(FileName, u64)>,
    /// The newest name there is, used or put aside.
    pub(super) last: Option<FileName>,
    /// What was cut off.
    pub(super) repaired: Vec<Repaired>,
}

/// Looks for the last whole record, and cuts off what stands after it.
pub(super) fn recover(directory: &Path) -> io::Result<Found> {
    let mut found = Found { chain: None, file: None, last: None, repaired: Vec::new() };
    let files = names::files(directory)?;
    found.last = files.last().copied();
    for name in files.into_iter().rev() {
        let path = directory.join(name.to_string());
        let mut file = File::options().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let last = match last_record(&mut file, length.saturating_sub(TAIL))? {
            None if length > TAIL => last_record(&mut file, 0)?,
            last => last,
        };
        let end = last.as_ref().map_or(0, |(_, end)| *end);
        if end < length {
            found.repaired.push(put_aside(directory, name, &mut file, end)?);
        }
        match last {
            Some((chain, end)) => {
                found.chain = Some(chain);
                found.file = Some((name, end));
                return Ok(found);
            }
            // Not one record: nothing but what was just put aside, or made and never written to.
            None => fs::remove_file(&path)?,
        }
    }
    Ok(found)
}

/// The last whole record that begins after `from`, and where it ends.
fn last_record(file: &mut File, from: u64) -> io::Result<Option<(Chain, u64)>> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut end = bytes.len();
    while let Some(line_end) = bytes.get(..end).and_then(|b| b.iter().rposition(|b| *b == b'\n')) {
        let before = bytes.get(..line_end).unwrap_or_default();
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at.saturating_add(1));
        let text = before.get(start..).unwrap_or_default();
        if let Ok(line) = Line::parse(text) {
            let chain = Chain::resume(line.chain, Head { seq: line.seq, hash: Hash::of(text) });
            let end = from.saturating_add(line_end as u64).saturating_add(1);
            return Ok(Some((chain, end)));
        }
        end = line_end;
    }
    Ok(None)
}

/// Moves what stands beyond this length to a file of its own.
fn put_aside(directory: &Path, name: FileName, file: &mut File, end: u64) -> io::Result<Repaired> {
    file.seek(SeekFrom::Start(end))?;
    let mut torn = Vec::new();
    file.read_to_end(&mut torn)?;
    let aside = format!("{name}.torn-{end}");
    let path = directory.join(&aside);
    let keep = || {
        let mut kept = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        kept.write_all(&torn)?;
        kept.sync_all()
    };
    let kept = match keep() {
        Ok(()) => Some(aside),
        // The disk is full, most likely. The record tells length and hash.
        Err(error) => {
            tracing::error!(%error, file = %path.display(), "cannot put aside the torn end of the audit log");
            None
        }
    };
    file.set_len(end)?;
    file.sync_all()?;
    let (bytes, hash) = (torn.len() as u64, sha256(&torn));
    Ok(Repaired { file: name.to_string(), bytes, hash, kept })
}
