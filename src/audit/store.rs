//! One log on disk: its lock, its files, and the records that are not yet safe there.
//!
//! INVARIANT: what was not yet synced is kept in memory, so that after a failure it is written once
//! more, to the same place or to another file, and no record is there twice.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::chain::{Chain, ChainId, Head};
use super::disk::{Disk, Sheet};
use super::names::FileName;
use super::record::{Draft, Event, Opened};
use super::recovery;

/// Held by the one who writes.
const LOCK: &str = "lock";

/// Where a log is, and how its files are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory of its files.
    pub directory: PathBuf,
    /// A file that is as large is followed by another, in bytes.
    pub rotate_size: u64,
    /// And one that is as old.
    pub rotate_age: Duration,
}

/// Why a log can't be written to.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory is not there, or nothing can be made in it.
    #[error("cannot write to the directory of the audit log `{}`: {cause}", directory.display())]
    Directory {
        /// Which one.
        directory: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Somebody else writes there.
    #[error("another process writes the audit log in `{}`: each has a directory of its own", .0.display())]
    Locked(PathBuf),
    /// There is no thread to write it.
    #[error("cannot start the thread that writes the audit log: {0}")]
    Thread(io::Error),
    /// The machine gives no random numbers.
    #[error("the operating system gives no random numbers")]
    NoRandom,
}

/// A log that is open for writing. Its lock is held until it is dropped.
#[derive(Debug)]
pub struct Store {
    place: Place,
    disk: Box<dyn Disk>,
    lock: File,
    chain: Chain,
    open: Option<Open>,
    /// Others have written to the file, or put another in its place: it is left as it is.
    is_foreign: bool,
    /// The file that is, or was last, written to.
    name: FileName,
    /// How much of it is synced.
    synced: u64,
    /// Lines that are not synced, and how much of them is written.
    unsynced: String,
    written: usize,
}

/// The file that is written to.
struct Open(Box<dyn Sheet>);

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

impl Store {
    /// Goes on with the log of a directory, or begins one, and records that. Nothing is synced yet.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(
        place: Place,
        disk: Box<dyn Disk>,
        writer: &'static str,
        now: SystemTime,
    ) -> Result<Self, StoreError> {
        let failed = |cause| StoreError::Directory { directory: place.directory.clone(), cause };
        let lock = lock(&place.directory)?;
        let recovery::Found { chain, file, last, repaired } =
            recovery::recover(&place.directory).map_err(failed)?;
        let instead_of = match (&chain, last) {
            (None, Some(last)) => Some(last.to_string()),
            _ => None,
        };
        let chain = match chain {
            Some(chain) => chain,
            None => Chain::begin(ChainId::new(random()?)),
        };
        let (name, synced, open) = match file {
            Some((name, length)) => {
                let sheet = disk.open(&place.directory.join(name.to_string())).map_err(failed)?;
                (name, length, Open(sheet))
            }
            None => {
                let name = FileName::next(now, chain.head().seq.saturating_add(1), last);
                let sheet = disk.create(&place.directory.join(name.to_string())).map_err(failed)?;
                (name, 0, Open(sheet))
            }
        };
        let (unsynced, written) = (String::new(), 0);
        let (open, is_foreign) = (Some(open), false);
        let mut store =
            Self { place, disk, lock, chain, open, is_foreign, name, synced, unsynced, written };
        for repaired in repaired {
            store.append(now, Event::Repaired(repaired));
        }
        store.append(now, Event::Opened(Opened { host: host(), writer, instead_of }));
        Ok(store)
    }

    /// The chain that is written.
    pub fn chain(&self) -> ChainId {
        self.chain.id()
    }

    /// The last record, safe or not.
    pub fn head(&self) -> Head {
        self.chain.head()
    }

    /// How many bytes are not safe yet.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Adds a record to those that are to be written; gives its line.
    pub fn append<'a>(&mut self, time: SystemTime, record: impl Into<Draft<'a>>) -> &str {
        let start = self.unsynced.len();
        self.chain.append_to(&mut self.unsynced, time, &record.into());
        let end = self.unsynced.len();
        self.unsynced.push('\n');
        self.unsynced.get(start..end).unwrap_or_default()
    }

    /// Writes what was added. It survives the end of this process then, and not yet a power cut.
    ///
    /// # Errors
    /// The operating system's. It can be tried again: nothing is lost.
    pub fn write(&mut self, now: SystemTime) -> io::Result<()> {
        let result = self.try_write(now);
        self.settle(result)
    }

    /// Writes what was added, and returns when it survives a power cut.
    ///
    /// # Errors
    /// The operating system's. It can be tried again: nothing is lost.
    pub fn sync(&mut self, now: SystemTime) -> io::Result<()> {
        let result = self.try_write(now).and_then(|()| self.try_sync());
        self.settle(result)
    }

    fn try_write(&mut self, now: SystemTime) -> io::Result<()> {
        if self.is_full(now) && self.written == 0 && !self.unsynced.is_empty() {
            self.create(now)?;
        }
        if self.open.is_none() {
            self.reopen(now)?;
        }
        let rest = self.unsynced.as_bytes().get(self.written..).unwrap_or_default();
        if let Some(Open(sheet)) = &mut self.open
            && !rest.is_empty()
        {
            sheet.write(rest)?;
            self.written = self.unsynced.len();
        }
        Ok(())
    }

    fn try_sync(&mut self) -> io::Result<()> {
        let Some(Open(sheet)) = &mut self.open else { return Ok(()) };
        sheet.sync()?;
        let length = self.synced.saturating_add(self.unsynced.len() as u64);
        let path = self.place.directory.join(self.name.to_string());
        if !sheet.is_at(&path, length)? {
            self.is_foreign = true;
            return Err(io::Error::other("the file was replaced, or others write to it"));
        }
        self.synced = length;
        self.unsynced.clear();
        self.written = 0;
        Ok(())
    }

    /// After a failure, whatever of the unsynced lines stands in the file is cut off, and the file is
    /// let go of: what a failed fsync has left in the cache is not to be trusted.
    fn settle(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.written = 0;
            if let Some(Open(mut sheet)) = self.open.take()
                && !self.is_foreign
                && let Err(error) = sheet.cut(self.synced)
            {
                tracing::debug!(%error, "cannot cut the audit log back to its last synced record");
            }
        }
        result
    }

    fn is_full(&self, now: SystemTime) -> bool {
        let age = now.duration_since(self.name.time()).unwrap_or_default();
        self.open.is_some()
            && self.synced > 0
            && (self.synced >= self.place.rotate_size || age >= self.place.rotate_age)
    }

    /// Goes on in the file before, if it is what it was, else in a new one, and says so.
    fn reopen(&mut self, now: SystemTime) -> io::Result<()> {
        let path = self.place.directory.join(self.name.to_string());
        let same = match self.is_foreign {
            true => Err(io::Error::other("it was removed, replaced, or written to by others")),
            false => self.disk.open(&path).and_then(|mut sheet| {
                // What could not be cut off at once, since the disk did not answer, say.
                sheet.cut(self.synced)?;
                Ok(sheet)
            }),
        };
        match same {
            Ok(sheet) => self.open = Some(Open(sheet)),
            Err(reason) => {
                // Whoever has taken the directory's place may have no lock in it.
                self.lock = self.lock_again()?;
                let (file, reason) = (self.name.to_string(), reason.to_string());
                self.create(now)?;
                self.append(now, Event::FileLost { file, reason });
            }
        }
        Ok(())
    }

    /// Makes the next file. What is not synced goes there.
    fn create(&mut self, now: SystemTime) -> io::Result<()> {
        let first = self.first_unsynced();
        let name = FileName::next(now, first, Some(self.name));
        let sheet = self.disk.create(&self.place.directory.join(name.to_string()))?;
        self.open = Some(Open(sheet));
        self.is_foreign = false;
        self.name = name;
        self.synced = 0;
        Ok(())
    }

    fn first_unsynced(&self) -> u64 {
        let lines = self.unsynced.bytes().filter(|byte| *byte == b'\n').count() as u64;
        self.chain.head().seq.saturating_add(1).saturating_sub(lines)
    }

    fn lock_again(&self) -> io::Result<File> {
        let path = self.place.directory.join(LOCK);
        let own = self.lock.metadata()?;
        if fs::metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == (own.dev(), own.ino())) {
            return self.lock.try_clone();
        }
        lock(&self.place.directory).map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Makes a directory for a log that nobody else can read, below one that is there.
///
/// # Errors
/// The operating system's.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let open = File::options().write(true).create(true).truncate(false).mode(0o600).open(path);
    let failed = |cause| StoreError::Directory { directory: directory.to_owned(), cause };
    let file = open.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(directory.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn random() -> Result<[u8; 16], StoreError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::NoRandom)?;
    Ok(bytes)
}

/// The machine's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
