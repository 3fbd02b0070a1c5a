//! Secrets that a command prints.
//!
//! It is run without a shell, has nothing to read, and a limited time. What it prints is the secret,
//! but for one line end; what it says on standard error is shown if it fails.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zeroize::{Zeroize, Zeroizing};

use super::report::Wrong;
use crate::secret::Secret;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Most bytes of a secret, and of what is said if there is none.
const MOST: usize = 64 * 1024;

/// Most of what is said on standard error that is shown, in characters.
const SHOWN: usize = 500;

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretCommand {
    /// An absolute path.
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
}

impl fmt::Display for SecretCommand {
    /// The program alone: its arguments may be nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command `{}`", self.program.display())
    }
}

impl SecretCommand {
    /// Runs it. Blocks for as long as it takes, ten seconds at most.
    pub(super) fn run(&self) -> Result<Secret<String>, Wrong> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = command.spawn().map_err(|error| format!("{self} cannot be run: {error}"))?;
        let mut child = Reaped(started);
        let said = read(child.0.stderr.take().expect("it is piped"));
        let printed = read(child.0.stdout.take().expect("it is piped"));
        let end = Instant::now() + PATIENCE;
        // The pipes end with it, or with what it has started, which may live on.
        let left = || end.saturating_duration_since(Instant::now());
        let late = |_| Wrong::from(format!("{self} has not ended within {PATIENCE:?}"));
        let printed = printed.recv_timeout(left()).map_err(late)?;
        let status = child.wait_until(end).ok_or_else(|| late(mpsc::RecvTimeoutError::Timeout))?;
        if !status.success() {
            let said = said.recv_timeout(left()).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let said: String = said.trim().chars().take(SHOWN).collect();
            let said =
                if said.is_empty() { String::new() } else { format!(": {}", said.escape_debug()) };
            return Err(format!("{self} has failed ({status}){said}").into());
        }
        let mut printed = printed;
        let mut text = String::from_utf8(std::mem::take(&mut *printed)).map_err(|error| {
            error.into_bytes().zeroize();
            format!("{self} has printed what is not UTF-8 text")
        })?;
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(Secret::new(text))
    }
}

/// Killed if it has not ended, and waited for.
struct Reaped(Child);

impl Reaped {
    fn wait_until(&mut self, end: Instant) -> Option<ExitStatus> {
        loop {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads to the end, on a thread of its own; not more than fits into a buffer that does not grow.
fn read(pipe: impl Read + Send + 'static) -> mpsc::Receiver<Zeroizing<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST));
        // What could be read counts; how it has ended says the status.
        let _ = pipe.take(MOST as u64).read_to_end(&mut bytes);
        // Nobody waits any more if it took too long.
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> SecretCommand {
        let arguments = ["-c", script].map(str::to_owned).into();
        SecretCommand { program: "/bin/sh".into(), arguments }
    }

    #[test]
    fn what_it_prints_is_the_secret() {
        assert_eq!(shell("echo two words").run().unwrap().expose(), "two words");
        assert_eq!(shell("printf 'x\\n\\n'").run().unwrap().expose(), "x\n");
        assert_eq!(shell("echo talk >&2; cat; printf x").run().unwrap().expose(), "x");
    }

    #[test]
    fn what_it_says_is_shown_if_it_fails() {
        let said = |script: &str| shell(script).run().unwrap_err().problem;
        let problem = said("echo CANARY; echo 'vault is sealed' >&2; exit 3");
        assert_eq!(problem, "the command `/bin/sh` has failed (exit status: 3): vault is sealed");
        assert!(said("exit 1").ends_with("(exit status: 1)"));
        assert!(said("printf '\\377'").ends_with("is not UTF-8 text"));
        let nowhere = SecretCommand { program: "/nowhere".into(), arguments: vec![] };
        assert!(
            nowhere.run().unwrap_err().problem.starts_with("the command `/nowhere` cannot be run")
        );
    }
}
