//! The files of an audit log, as narrow traits: tests play disks that are full, slow or gone.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Makes and opens files.
pub trait Disk: Send + fmt::Debug {
    /// Makes a file that nobody else can read, durably: it is there after a power cut.
    ///
    /// # Errors
    /// The operating system's; that there is one already, too.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sheet>>;

    /// Opens a file to add to its end.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Sheet>>;
}

/// A file that is written to at its end.
pub trait Sheet: Send {
    /// Adds bytes. After an error some of them may stand there.
    ///
    /// # Errors
    /// The operating system's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when everything that was written survives a power cut.
    ///
    /// # Errors
    /// The operating system's.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts off what stands beyond this length, durably.
    ///
    /// # Errors
    /// The operating system's; that the file is shorter, too.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Whether the path leads to this file, and it has this length.
    ///
    /// # Errors
    /// The operating system's; that there is no such path, too.
    fn is_at(&self, path: &Path, length: u64) -> io::Result<bool>;
}

/// The machine's own file systems.
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl Disk for Local {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sheet>> {
        let file = File::options().append(true).create_new(true).mode(0o600).open(path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Box::new(LocalSheet(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Sheet>> {
        Ok(Box::new(LocalSheet(File::options().append(true).open(path)?)))
    }
}

struct LocalSheet(File);

impl Sheet for LocalSheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.0.metadata()?.len() < length {
            return Err(io::Error::other("it is shorter than what was written to it"));
        }
        self.0.set_len(length)?;
        self.0.sync_all()
    }

    fn is_at(&self, path: &Path, length: u64) -> io::Result<bool> {
        let (there, own) = (fs::metadata(path)?, self.0.metadata()?);
        Ok((there.dev(), there.ino(), there.len()) == (own.dev(), own.ino(), length))
    }
}
