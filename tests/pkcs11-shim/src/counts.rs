//! The file of counters: one per function, shared by all threads and processes that name it.
//!
//! The file is mapped into memory and counted in place by atomic additions, so that nothing is
//! lost between processes, a reader of the file sees each call before it returns, and counting
//! costs no system call. The layout, in full:
//!
//! - 64 bytes: [`MAGIC`], filled up with zeros;
//! - for each function 64 bytes: its name in 56 bytes, filled up with zeros, then the number of
//!   calls as an unsigned 64-bit integer in the byte order of the machine.
//!
//! Readers need no list of functions, and each counter has a cache line to itself.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::function::Function;

/// First bytes of the file.
const MAGIC: &[u8] = b"pkcs11-shim counts 1\n";
/// Size of the header and of each record.
const RECORD: usize = 64;
/// Where in a record the counter is.
const COUNTER: usize = 56;
/// Size of the file.
const SIZE: usize = RECORD * (1 + Function::COUNT);

/// An open file of counters.
pub(crate) struct Counts {
    /// Start of a shared, writable mapping of `SIZE` bytes that is never unmapped.
    map: *mut u8,
}

// SAFETY: the mapping belongs to no thread, and it is accessed by atomic operations only.
unsafe impl Send for Counts {}
// SAFETY: as above.
unsafe impl Sync for Counts {}

/// Why there can be no counts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CountsError {
    #[error("cannot make `{0}`: {1}")]
    Create(PathBuf, io::Error),
    #[error("cannot open `{0}`: {1}")]
    Open(PathBuf, io::Error),
    #[error("`{0}` exists and was not made by this version of the shim; remove it")]
    Foreign(PathBuf),
    #[error("cannot map `{0}`: {1}")]
    Map(PathBuf, io::Error),
}

impl Counts {
    /// Opens the file, making it with all counters at zero where there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, CountsError> {
        let file = match open_existing(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(|error| CountsError::Create(path.to_owned(), error))?;
                open_existing(path)
            }
            other => other,
        }
        .map_err(|error| CountsError::Open(path.to_owned(), error))?;
        if !is_ours(&file) {
            return Err(CountsError::Foreign(path.to_owned()));
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let map = unsafe {
            mmap(
                ptr::null_mut(),
                SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }
        .map_err(|error| CountsError::Map(path.to_owned(), error.into()))?;
        Ok(Self { map: map.cast() })
    }

    /// Counts one call.
    pub(crate) fn add(&self, function: Function) {
        let offset = RECORD * (1 + function.index()) + COUNTER;
        // SAFETY: the offset is inside the mapping, since the index is below `Function::COUNT`,
        // and a multiple of 8; all processes access these bytes atomically. A file that is
        // truncated meanwhile ends the process by SIGBUS; the README warns of it.
        let counter = unsafe { AtomicU64::from_ptr(self.map.add(offset).cast()) };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Makes the file under another name first: under its own it appears complete or not at all, and
/// a process that makes it at the same time finds the other's and uses that.
fn create(path: &Path) -> io::Result<()> {
    let mut name = OsString::from(path);
    name.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(name);
    let linked = fs::write(&draft, empty_file()).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => removed,
    }
}

fn empty_file() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    for (function, record) in Function::ALL.iter().zip(bytes[RECORD..].chunks_mut(RECORD)) {
        let name = function.name().as_bytes();
        record[..name.len()].copy_from_slice(name);
    }
    bytes
}

/// Whether everything but the counters is as this version writes it.
fn is_ours(file: &File) -> bool {
    let mut bytes = vec![0; SIZE];
    let size = file.metadata().map(|metadata| metadata.len());
    if !size.is_ok_and(|size| size == SIZE as u64) || file.read_exact_at(&mut bytes, 0).is_err() {
        return false;
    }
    for record in bytes[RECORD..].chunks_mut(RECORD) {
        record[COUNTER..].fill(0);
    }
    bytes == empty_file()
}
