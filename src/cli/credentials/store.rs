//! Files of credentials: made whole or not at all, for the daemon's eyes only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::super::failure::say;
use super::super::{Exit, Failure};
use crate::names::AccessKeyId;

/// The alphabet of access key ids (P-14).
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Length of an id: 100 random bits, so that no two are alike.
const ID_LEN: usize = 20;

/// Bytes of a secret: the 256 random bits that P-14 asks for.
const SECRET_LEN: usize = 32;

/// Makes a credential, and a file for it in this directory, which is made if it is not there.
pub(super) fn create(directory: &Path) -> Result<(AccessKeyId, PathBuf), Failure> {
    let mut bytes = [0; ID_LEN];
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    rand::fill(&mut bytes)
        .and_then(|()| rand::fill(&mut *secret))
        .map_err(|_| Failure::new(Exit::OsError, "the operating system gives no random numbers"))?;
    let id: String =
        bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    let id: AccessKeyId = id.parse().expect("20 characters of the alphabet are an id");
    // Room for all of it: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_LEN));
    STANDARD_NO_PAD.encode_string(secret.as_slice(), &mut text);
    text.push('\n');
    let file = directory.join(id.as_str());
    put(directory, &file, text.as_bytes()).map_err(|error| {
        let failure = format!("cannot make `{}`: {error}", file.display());
        Failure::new(Exit::CannotCreate, failure)
    })?;
    Ok((id, file))
}

/// Writes a file that is there whole or not at all, and stays there.
fn put(directory: &Path, file: &Path, content: &[u8]) -> io::Result<()> {
    let is_new = !directory.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let owner = fs::metadata(directory)?;
    let is_root = rustix::process::geteuid().is_root();
    if is_new && is_root {
        let directory = directory.display();
        say(&format!("made `{directory}` for root alone: chown it to the user that runs xksd"));
    }
    // One that begins with a dot is none yet.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let half = directory.join(format!(".{name}.new"));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half).and_then(
        |mut new| {
            if is_root {
                // Else the daemon, which is somebody else, could not read it.
                fchown(&new, Some(owner.uid()), Some(owner.gid()))?;
            }
            new.write_all(content)?;
            new.sync_all()?;
            fs::rename(&half, file)?;
            File::open(directory)?.sync_all()
        },
    );
    if written.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&half);
    }
    written
}

/// Removes the file of a credential for good.
pub(super) fn remove(file: &Path) -> Result<(), Failure> {
    let removed = fs::remove_file(file).and_then(|()| match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    });
    removed.map_err(|error| {
        Failure::new(Exit::CannotCreate, format!("cannot remove `{}`: {error}", file.display()))
    })
}

/// Writes a new file that only its owner can read.
pub(super) fn write_new(file: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(file);
    opened.and_then(|mut new| new.write_all(content)).map_err(|error| {
        let failure =
            Failure::new(Exit::CannotCreate, format!("cannot write `{}`: {error}", file.display()));
        match error.kind() {
            io::ErrorKind::AlreadyExists => failure.hint("a file that is there is not replaced"),
            _ => failure,
        }
    })
}
