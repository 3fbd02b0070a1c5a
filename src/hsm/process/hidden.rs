//! Which files the child can't read: those in which the daemon's secrets are kept.
//!
//! The child runs as the daemon's user, whom file permissions don't stop. Landlock (landlock(7))
//! does; but its rules only ever allow. So reading is allowed beneath all that lies beside the hidden
//! files, and beside the directories that lead to them, from the root on. What is put into one of
//! these directories later is covered by no rule and can't be read either, by this child. Moving or
//! linking a hidden file to where it could be read is refused by the kernel.
//!
//! With it the child can't send signals to processes outside (Linux 6.12), nor read their memory, nor
//! gain privileges by running a program. Nothing else is restricted.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// Whether the kernel could do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hiding {
    /// From now on, for this thread and those that it starts.
    Done,
    /// The kernel is older than 5.19, or its Landlock is turned off.
    Unsupported,
}

/// Hides files from this thread and those that it will start, for good. Others go on as they did.
///
/// # Errors
/// If the kernel knows Landlock and refuses; nothing is hidden then.
pub(super) fn hide(files: &[PathBuf]) -> Result<Hiding, RulesetError> {
    // Without Refer no file could be moved from one directory to another, and modules may want to.
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::ReadFile)?
        .scope(Scope::Signal)?
        .create()?;
    if let Ok(root) = PathFd::new("/") {
        (&mut rules).add_rule(PathBeneath::new(root, AccessFs::Refer))?;
    }
    for path in beside(files) {
        // Else it has vanished meanwhile.
        if let Ok(there) = PathFd::new(&path)
            && let Err(error) = (&mut rules).add_rule(PathBeneath::new(there, AccessFs::ReadFile))
        {
            tracing::debug!(path = %path.display(), %error, "hidden from the HSM library");
        }
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Hiding::Unsupported,
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Hiding::Done,
    })
}

/// What lies beside the files and beside the directories that lead to them. No symbolic links: what
/// they lead to is found where it lies.
fn beside(files: &[PathBuf]) -> Vec<PathBuf> {
    let hidden: BTreeSet<PathBuf> = files.iter().map(|file| resolved(file)).collect();
    let ways: BTreeSet<&Path> = hidden.iter().flat_map(|file| file.ancestors().skip(1)).collect();
    if ways.is_empty() {
        return vec!["/".into()];
    }
    let mut beside = Vec::new();
    for way in &ways {
        let entries = match fs::read_dir(way) {
            Ok(entries) => entries,
            Err(error) => {
                let directory = way.display();
                tracing::warn!(%directory, %error, "all of it is hidden from the HSM library");
                continue;
            }
        };
        for entry in entries.flatten() {
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            let path = entry.path();
            if !is_link && !ways.contains(path.as_path()) && !hidden.contains(&path) {
                beside.push(path);
            }
        }
    }
    beside
}

/// Where a file really lies, or will, if it is not there now.
fn resolved(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    fs::canonicalize(&absolute).unwrap_or_else(|_| {
        let directory = absolute.parent().and_then(|parent| fs::canonicalize(parent).ok());
        match (directory, absolute.file_name()) {
            (Some(directory), Some(name)) => directory.join(name),
            _ => absolute,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{CrossesDevices, PermissionDenied};
    use std::os::unix::fs::symlink;
    use std::process::{Child, Command, Stdio};

    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};

    use super::*;

    /// Does this on a thread of its own, with these files hidden; `None` where the kernel can't.
    fn confined<T: Send>(files: &[PathBuf], what: impl FnOnce() -> T + Send) -> Option<T> {
        let confine = || match hide(files).expect("the kernel takes the rules") {
            Hiding::Done => Some(what()),
            Hiding::Unsupported => None,
        };
        let done = std::thread::scope(|scope| scope.spawn(confine).join().expect("it is well"));
        if done.is_none() {
            support::not_run("what Landlock hides: this kernel has none");
        }
        done
    }

    #[test]
    fn hidden_files_are_the_only_ones_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["tls", "tls/deep", "token", "elsewhere"] {
            fs::create_dir(path(name)).unwrap();
        }
        let hidden = ["pin", "tls/key", "tls/deep/secret", "elsewhere/linked"];
        let visible = ["xksd.toml", "tls/pem", "tls/deep/open", "token/object", "elsewhere/open"];
        for name in hidden.iter().chain(&visible) {
            fs::write(path(name), name).unwrap();
        }
        // As Kubernetes has them: the name in the configuration is a link.
        symlink("elsewhere/linked", path("link")).unwrap();
        symlink(directory.path(), path("token/back")).unwrap();
        fs::hard_link(path("xksd.toml"), path("token/hard")).unwrap();
        let configured = ["pin", "tls/key", "tls/deep/secret", "link"].map(path);
        confined(&configured, || {
            for name in hidden.iter().chain(&["link", "token/back/pin", "tls/../pin"]) {
                let read = fs::read(path(name)).map_err(|error| error.kind());
                assert_eq!(read, Err(PermissionDenied), "{name}");
            }
            for name in visible.iter().chain(&["token/back/tls/pem"]) {
                fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            fs::read("/proc/self/status").unwrap();
            fs::read("/etc/passwd").unwrap();
            fs::File::open("/dev/urandom").unwrap();
            // No way around: a file takes what hides it along.
            for (from, to) in [("pin", "token/pin"), ("tls/deep/secret", "token/secret")] {
                for moved in [fs::rename(path(from), path(to)), fs::hard_link(path(from), path(to))]
                {
                    let kind = moved.map_err(|error| error.kind());
                    assert!(matches!(kind, Err(CrossesDevices | PermissionDenied)), "{kind:?}");
                }
            }
            // What a module does with its own files.
            fs::write(path("token/new"), "new").unwrap();
            fs::create_dir(path("token/directory")).unwrap();
            fs::rename(path("token/new"), path("token/directory/new")).unwrap();
            assert_eq!(fs::read(path("token/directory/new")).unwrap(), b"new");
            // The price: a directory with a secret in it shows nothing that came later.
            fs::write(path("tls/new"), "new").unwrap();
            let read = fs::read(path("tls/new")).map_err(|error| error.kind());
            assert_eq!(read, Err(PermissionDenied));
        });
        fs::read(path("pin")).expect("for all others nothing has changed");
    }

    #[test]
    fn what_is_hidden_stays_so_when_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        confined(std::slice::from_ref(&secret), || {
            fs::write(&secret, "it was not there before").unwrap();
            let read = fs::read(&secret).map_err(|error| error.kind());
            assert_eq!(read, Err(PermissionDenied));
        });
    }

    #[test]
    fn processes_outside_are_out_of_reach() {
        struct KillOnDrop(Child);
        impl Drop for KillOnDrop {
            fn drop(&mut self) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
        // It ends when nothing can be read any more.
        let other = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let other = KillOnDrop(other);
        let pid = Pid::from_child(&other.0);
        let memory = format!("/proc/{}/mem", other.0.id());
        fs::File::open(&memory).expect("it is our own");
        assert_eq!(test_kill_process(pid), Ok(()));
        confined(&[], || {
            fs::read("/etc/passwd").expect("no file is hidden");
            let opened = fs::File::open(&memory).map_err(|error| error.kind());
            assert_eq!(opened.err(), Some(PermissionDenied));
            let signalled = test_kill_process(pid);
            // Since Linux 6.12.
            assert!(signalled == Err(Errno::PERM) || !has_signal_scope(), "{signalled:?}");
        });
    }

    fn has_signal_scope() -> bool {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(6), Some(12))
    }
}
