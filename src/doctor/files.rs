//! Files that decide what xksd does, and who else may change them; directories that it writes to.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{Check, Finding, Findings};
use crate::config::Config;

/// Mode bits: others than owner and group may write.
const OTHERS_WRITE: u32 = 0o002;

/// Mode bit of directories in which only its owner removes a file, as in /tmp.
const STICKY: u32 = 0o1000;

pub(super) fn examine(config: &Config, report: &mut dyn FnMut(Finding)) {
    let mut findings = Findings { subject: String::new(), report };
    let modules = config.tokens.values().map(|token| token.module.clone());
    let named = config.files.iter().filter(|path| !path.to_string_lossy().contains('*'));
    writable(named.cloned().chain(modules).collect(), &mut findings);
    if let Some(directory) = &config.state_directory {
        findings.subject = "state.directory".to_owned();
        let advice = "`xksd state init` makes it for a new installation; it must belong to the \
            daemon's user";
        own(directory, advice, &mut findings);
    }
    if let Some(audit) = &config.audit {
        findings.subject = "audit.directory".to_owned();
        let advice = "make it with mode 0700 for the daemon's user";
        own(&audit.place.directory, advice, &mut findings);
    }
}

/// Whoever may write to one of these files, or put another in its place, decides what xksd does.
fn writable(files: BTreeSet<PathBuf>, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::FilesWritable;
    let directories: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    let mut good = true;
    let mut open = |path: &Path, harmless: u32| {
        // One that cannot be looked at is a fault of the configuration already, or will be.
        let Ok(metadata) = fs::metadata(path) else { return };
        let mode = metadata.mode();
        if mode & OTHERS_WRITE != 0 && mode & harmless == 0 {
            let message =
                format!("everybody may write to `{}` (mode {:04o})", path.display(), mode & 0o7777);
            let advice = format!(
                "chmod o-w it: whoever changes it runs code as xksd, or decides who may use keys, \
                 of `{}`",
                path.display()
            );
            findings.fail(CHECK, message, advice);
            good = false;
        }
    };
    files.iter().for_each(|file| open(file, 0));
    directories.iter().for_each(|directory| open(directory, STICKY));
    if good {
        let files = files.len();
        findings.ok(CHECK, format!("not everybody may write to the {files} files and modules"));
    }
}

/// A directory that is there, and may be written to by whoever runs this.
fn own(directory: &Path, advice: &str, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::FilesDirectory;
    let shown = directory.display();
    match fs::metadata(directory) {
        Err(error) => findings.fail(CHECK, format!("`{shown}`: {error}"), advice),
        Ok(metadata) if !metadata.is_dir() => {
            findings.fail(CHECK, format!("`{shown}` is no directory"), advice);
        }
        Ok(metadata) if metadata.mode() & OTHERS_WRITE != 0 => {
            findings.fail(CHECK, format!("everybody may write to `{shown}`"), "chmod 0700 it");
        }
        Ok(_) => match access(directory, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => findings.ok(CHECK, format!("`{shown}` can be written to")),
            Err(error) => {
                let message = format!("`{shown}` cannot be written to: {error}");
                findings.fail(CHECK, message, "run doctor as the daemon's user; else chown it");
            }
        },
    }
}
