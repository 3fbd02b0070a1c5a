//! The log of this machine's administrators: a chain of its own, below the directory of the daemon's,
//! to which one command writes at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::checkpoint::Statement;
use super::disk::Local;
use super::log::Settings;
use super::record::{Draft, Event};
use super::seal;
use super::store::{Place, Store, StoreError, host, make_directory};
use crate::hsm::backend::Session;
use crate::names::TokenName;

/// Its directory, below that of the daemon's log.
const ADMINISTRATION: &str = "administration";

/// How long a command waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// Where administrators' records are, below the directory of the daemon's log.
pub fn directory(audit: &Path) -> PathBuf {
    audit.join(ADMINISTRATION)
}

/// The log of administrators, open for one command.
#[derive(Debug)]
pub struct Journal(Store);

impl Journal {
    /// Opens it, once no other command has it open.
    ///
    /// # Errors
    /// Where nothing can be written there, or another command does not end.
    pub fn open(settings: &Settings) -> Result<Self, StoreError> {
        let place =
            Place { directory: directory(&settings.place.directory), ..settings.place.clone() };
        let failed = |cause| StoreError::Directory { directory: place.directory.clone(), cause };
        make_directory(&place.directory).map_err(failed)?;
        let begun = Instant::now();
        loop {
            match Store::open(place.clone(), Box::new(Local), "xksd keys", SystemTime::now()) {
                Err(StoreError::Locked(_)) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(LOOK)
                }
                store => return store.map(Self),
            }
        }
    }

    /// Adds a record, and returns when it survives a power cut.
    ///
    /// # Errors
    /// The operating system's; the record is written with the next one then.
    pub fn record<'a>(&mut self, event: impl Into<Draft<'a>>) -> io::Result<()> {
        let now = SystemTime::now();
        self.0.append(now, event);
        self.0.sync(now)
    }

    /// Has all records so far signed by a token, and records that. Says whether the token holds a key
    /// for it.
    ///
    /// # Errors
    /// The token's, or the operating system's, in words.
    pub fn seal(&mut self, session: &mut dyn Session, token: &TokenName) -> Result<bool, String> {
        let now = SystemTime::now();
        let statement = Statement::new(self.0.chain(), self.0.head(), now, &host());
        let sealed = seal::seal(session, statement, token.as_str());
        let Some(sealed) = sealed.map_err(|fault| fault.to_string())? else { return Ok(false) };
        self.record(Event::Checkpoint(Box::new(sealed))).map_err(|error| error.to_string())?;
        Ok(true)
    }
}
