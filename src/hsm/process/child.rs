//! The child process, as its parent sees it: started, watched, ended.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::frame::Writer;
use crate::names::TokenName;

/// How long a process that has closed its sockets may take to be gone.
const LEAVING: Duration = Duration::from_millis(200);

/// How a child is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The executable; `/proc/self/exe` is this one, even after another was installed over it.
    pub program: PathBuf,
    /// Its arguments: nothing secret, for everybody can read them.
    pub arguments: Vec<OsString>,
    /// All of its environment.
    pub environment: BTreeMap<OsString, OsString>,
}

/// A child, from its start to its end. Killed when dropped.
pub(super) struct Child {
    token: TokenName,
    control: UnixStream,
    /// Names the process for ever, as its number does not.
    pidfd: OwnedFd,
    fate: Arc<Fate>,
}

/// What becomes of a child.
#[derive(Default)]
struct Fate {
    /// Nobody talks to it any more.
    useless: AtomicBool,
    /// It is ended by us, if it has not ended.
    condemned: AtomicBool,
    ended: Mutex<bool>,
    ended_changed: Condvar,
}

impl Child {
    /// Starts a child and a thread that waits for its end, so that none is left as a zombie.
    ///
    /// That thread starts it too: the child asks the kernel to be killed when the *thread* that
    /// started it ends (PR_SET_PDEATHSIG, prctl(2)), and this one ends after the child or with
    /// the process. It calls `lost` if the child has ended and nobody ended it.
    pub(super) fn start(
        launch: &Launch,
        token: &TokenName,
        patience: Duration,
        lost: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_write_timeout(Some(patience))?;
        let mut command = Command::new(&launch.program);
        command
            .arg0("xksd")
            .args(&launch.arguments)
            .env_clear()
            .envs(&launch.environment)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        let (report, started) = mpsc::channel();
        let fate = Arc::<Fate>::default();
        let (watched, name) = (fate.clone(), token.clone());
        let watch = move || {
            let spawned = command.spawn();
            // With it goes our copy of the child's end of the socket.
            drop(command);
            let mut child = match spawned {
                Ok(child) => child,
                Err(error) => return drop(report.send(Err(error))),
            };
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
            if pidfd.is_err() {
                // It can still be killed by its number, since nobody has waited for it yet.
                let _ = child.kill();
            }
            tracing::debug!(token = %name, pid = child.id(), "started a process for the HSM library");
            drop(report.send(pidfd.map_err(io::Error::from)));
            if watched.end(&name, child.wait()) {
                lost();
            }
        };
        std::thread::Builder::new().name(format!("{token}-child")).spawn(watch)?;
        let pidfd = started.recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))??;
        Ok(Self { token: token.clone(), control, pidfd, fate })
    }

    /// Says something on the control socket.
    pub(super) fn tell(&self, message: Writer) -> io::Result<()> {
        message.send(&self.control)
    }

    /// Gives the child one end of a new socket, and keeps the other.
    pub(super) fn session_socket(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let descriptors = [theirs.as_fd()];
        let fits = rights.push(SendAncillaryMessage::ScmRights(&descriptors));
        debug_assert!(fits, "the space is for one descriptor");
        // A descriptor travels with at least one byte.
        sendmsg(&self.control, &[IoSlice::new(&[0])], &mut rights, SendFlags::NOSIGNAL)?;
        Ok(ours)
    }

    /// Whether it can be talked to, for all that is known.
    pub(super) fn is_alive(&self) -> bool {
        !self.fate.useless.load(Ordering::Acquire) && !self.fate.has_ended()
    }

    /// It has left a socket: it must be ending, and is seen to end.
    pub(super) fn left(&self) {
        self.fate.useless.store(true, Ordering::Release);
        if !self.fate.wait(LEAVING) {
            self.kill("it does not answer any more");
        }
    }

    /// Kills it, whatever it is doing: it may be stopped, or inside a call that never returns.
    pub(super) fn kill(&self, why: &'static str) {
        self.fate.useless.store(true, Ordering::Release);
        if !self.fate.condemned.swap(true, Ordering::AcqRel) && !self.fate.has_ended() {
            tracing::warn!(token = %self.token, why, "ending the process of the HSM library");
        }
        self.signal();
    }

    /// Kills it without a word: why it is of no use is said elsewhere.
    pub(super) fn discard(&self) {
        self.fate.useless.store(true, Ordering::Release);
        self.fate.condemned.store(true, Ordering::Release);
        self.signal();
    }

    /// Tells it to end, then kills it; says whether it has ended.
    pub(super) fn end(&self, patience: Duration) -> bool {
        self.fate.useless.store(true, Ordering::Release);
        self.fate.condemned.store(true, Ordering::Release);
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        if self.fate.wait(patience) {
            return true;
        }
        self.signal();
        self.fate.wait(patience)
    }

    fn signal(&self) {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.discard();
    }
}

impl Fate {
    fn has_ended(&self) -> bool {
        *self.ended.lock().expect("nothing panics while holding this lock")
    }

    /// The child has ended; says whether by itself.
    fn end(&self, token: &TokenName, status: io::Result<ExitStatus>) -> bool {
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let is_meant = self.condemned.load(Ordering::Acquire);
        if is_meant {
            tracing::debug!(%token, status, "the process of the HSM library is gone");
        } else {
            tracing::error!(%token, status, "the process of the HSM library has ended by itself");
        }
        *self.ended.lock().expect("nothing panics while holding this lock") = true;
        self.ended_changed.notify_all();
        !is_meant
    }

    fn wait(&self, patience: Duration) -> bool {
        let ended = self.ended.lock().expect("nothing panics while holding this lock");
        let (ended, _timeout) = self
            .ended_changed
            .wait_timeout_while(ended, patience, |ended| !*ended)
            .expect("nothing panics while holding this lock");
        *ended
    }
}
