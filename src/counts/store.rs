//! The file with the counts, in a directory that one daemon has to itself.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::ledger::{Ledger, LedgerError};

/// The file in the state directory.
pub const FILE: &str = "encryption-counts";

/// Where the next one is written, before it takes the place of the file.
const DRAFT: &str = "encryption-counts.new";

/// What a file that cannot be read is kept as.
const DAMAGED: &str = "encryption-counts.damaged";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there, or not ours.
    #[error("cannot use the state directory `{0}`: {1}")]
    Directory(PathBuf, io::Error),
    /// Another daemon has it.
    #[error("another xksd uses the state directory `{0}`")]
    InUse(PathBuf),
    /// A later release has written the file. To begin anew would count less than there was.
    #[error("cannot go on with `{0}`: {1}")]
    Later(PathBuf, LedgerError),
    /// There is one, and what it counts is not to be forgotten.
    #[error("`{0}` exists already")]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("cannot write `{0}`: {1}")]
    Write(PathBuf, io::Error),
}

/// What the file said.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The counts.
    Ledger(Ledger),
    /// There is no file.
    Nothing,
    /// It cannot be read, for this reason.
    Damaged(String),
}

/// A state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// Holds the lock, and is what a rename is synced by.
    handle: File,
}

impl Store {
    /// Locks a state directory, and reads the file in it. One that cannot be read is kept aside when
    /// the next is written.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(directory: &Path) -> Result<(Self, Found), StoreError> {
        let store = Self::lock(directory)?;
        let found = match read(directory) {
            Ok(Some(Ok(ledger))) => Found::Ledger(ledger),
            Ok(None) => Found::Nothing,
            Ok(Some(Err(error @ LedgerError::Format(_)))) => {
                return Err(StoreError::Later(directory.join(FILE), error));
            }
            Ok(Some(Err(error))) => store.keep_damaged(error.to_string()),
            Err(error) => store.keep_damaged(error.to_string()),
        };
        Ok((store, found))
    }

    /// Makes a file without counts, for an installation that has never encrypted; and the directory,
    /// if that is missing.
    ///
    /// # Errors
    /// [`StoreError::Exists`], and whatever else stands in the way.
    pub fn init(directory: &Path) -> Result<(), StoreError> {
        let file = directory.join(FILE);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| StoreError::Directory(directory.to_owned(), error))?;
        let mut store = Self::lock(directory)?;
        match fs::symlink_metadata(&file) {
            Ok(_) => Err(StoreError::Exists(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                store.save(&Ledger::default()).map_err(|error| StoreError::Write(file, error))
            }
            Err(error) => Err(StoreError::Directory(directory.to_owned(), error)),
        }
    }

    /// Puts this in the place of what the file says. When it has returned, that outlives a crash; if it
    /// fails, the file says the one or the other.
    ///
    /// # Errors
    /// The operating system's.
    pub fn save(&mut self, ledger: &Ledger) -> io::Result<()> {
        save(self, &ledger.to_string())
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    fn lock(directory: &Path) -> Result<Self, StoreError> {
        let wrong = |error| StoreError::Directory(directory.to_owned(), error);
        let handle = File::open(directory).map_err(wrong)?;
        if !handle.metadata().map_err(wrong)?.is_dir() {
            return Err(wrong(ErrorKind::NotADirectory.into()));
        }
        // On the directory itself: that needs no room on a disk that is full.
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { directory: directory.to_owned(), handle }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(directory.to_owned())),
            Err(error) => Err(wrong(error.into())),
        }
    }

    /// For whoever wants to find out what happened. If it cannot be kept, it is replaced all the same.
    fn keep_damaged(&self, why: String) -> Found {
        let _ = fs::hard_link(self.path(), self.directory.join(DAMAGED));
        Found::Damaged(why)
    }
}

/// Reads the file of a state directory, whoever has it. `None`: there is none.
///
/// # Errors
/// The operating system's; the inner ones are about what is in it.
pub fn read(directory: &Path) -> io::Result<Option<Result<Ledger, LedgerError>>> {
    match fs::read(directory.join(FILE)) {
        Ok(bytes) => Ok(Some(Ledger::parse(&String::from_utf8_lossy(&bytes)))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The steps by which a file is replaced.
trait Medium {
    /// Writes a draft beside the file.
    fn write_draft(&mut self, text: &str) -> io::Result<()>;
    /// Has the draft's content on the disk.
    fn sync_draft(&mut self) -> io::Result<()>;
    /// Puts the draft in the place of the file.
    fn replace(&mut self) -> io::Result<()>;
    /// Has that on the disk.
    fn sync_directory(&mut self) -> io::Result<()>;
}

fn save(medium: &mut impl Medium, text: &str) -> io::Result<()> {
    medium.write_draft(text)?;
    medium.sync_draft()?;
    medium.replace()?;
    medium.sync_directory()
}

impl Medium for Store {
    fn write_draft(&mut self, text: &str) -> io::Result<()> {
        let mut options = File::options();
        let draft = options.write(true).create(true).truncate(true).mode(0o600);
        draft.open(self.directory.join(DRAFT))?.write_all(text.as_bytes())
    }

    fn sync_draft(&mut self) -> io::Result<()> {
        File::open(self.directory.join(DRAFT))?.sync_all()
    }

    fn replace(&mut self) -> io::Result<()> {
        fs::rename(self.directory.join(DRAFT), self.path())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

#[cfg(test)]
mod tests;
