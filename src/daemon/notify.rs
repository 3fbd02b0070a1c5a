//! What the service manager is told, by systemd's protocol: sd_notify(3).
//!
//! A message is lines of `KEY=value` in one datagram to the socket that `NOTIFY_SOCKET` names, a path
//! or, after `@`, an abstract name. Without one nothing is sent. The crates for it open the socket
//! anew for each message, block on it, and know no abstract names.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::net::UnixDatagram;

/// The variable that names the socket.
pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How long a message may wait for a manager that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells the service manager, if there is one that wants to know.
///
/// What can't be sent is logged and otherwise no reason to do anything: the manager draws its own
/// conclusions from silence.
#[derive(Debug, Clone, Default)]
pub struct Notifier(Option<Arc<UnixDatagram>>);

impl Notifier {
    /// Connects to the address in `NOTIFY_SOCKET`; `None` or nothing in it: nobody is told anything.
    ///
    /// # Errors
    /// If there is no such socket, or the address is neither a path nor an abstract name.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn connect(address: Option<&OsStr>) -> io::Result<Self> {
        let address = match address.map(OsStr::as_bytes) {
            None | Some([]) => return Ok(Self::default()),
            Some([b'@', name @ ..]) => SocketAddr::from_abstract_name(name)?,
            Some(path @ [b'/', ..]) => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
            Some(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let socket = StdDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some(Arc::new(UnixDatagram::from_std(socket)?))))
    }

    /// Whether there is somebody to tell.
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// The start, or a reload, is done.
    pub async fn ready(&self, status: &str) {
        self.send(format!("READY=1\n{}", status_line(status))).await;
    }

    /// The configuration is being read again; [`Self::ready`] says when that is done, however it
    /// went. `Type=notify-reload` wants the time with it.
    pub async fn reloading(&self, status: &str) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        let state = format!("RELOADING=1\nMONOTONIC_USEC={micros}\n{}", status_line(status));
        self.send(state).await;
    }

    /// What it is doing, for people: `systemctl status` shows it.
    pub async fn status(&self, status: &str) {
        self.send(status_line(status)).await;
    }

    /// It is leaving, and the next word comes within this time, its end if nothing else:
    /// `TimeoutStopSec=` does not cut it short before.
    pub async fn stopping(&self, status: &str, within: Duration) {
        self.send(format!("STOPPING=1\n{}{}", extension(within), status_line(status))).await;
    }

    /// It is leaving still, see [`Self::stopping`].
    pub async fn still_stopping(&self, status: &str, within: Duration) {
        self.send(format!("{}{}", extension(within), status_line(status))).await;
    }

    /// It is alive, for `WatchdogSec=`.
    pub async fn alive(&self) {
        self.send("WATCHDOG=1\n".to_owned()).await;
    }

    async fn send(&self, message: String) {
        let Some(socket) = &self.0 else { return };
        let sent = tokio::time::timeout(PATIENCE, socket.send(message.as_bytes())).await;
        let sent = sent.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()));
        if let Err(error) = sent {
            let what = message.lines().next();
            tracing::warn!(%error, what, "cannot tell the service manager");
        }
    }
}

/// One line, whatever is in it.
fn status_line(status: &str) -> String {
    format!("STATUS={}\n", status.replace('\n', " "))
}

fn extension(within: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}\n", within.as_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &StdDatagram) -> String {
        let mut message = [0; 1024];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn each_word_is_as_the_manual_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(Some(path.as_os_str())).unwrap();
        notifier.ready("serving").await;
        assert_eq!(receive(&socket), "READY=1\nSTATUS=serving\n");
        notifier.status("two\nlines").await;
        assert_eq!(receive(&socket), "STATUS=two lines\n");
        notifier.stopping("leaving", Duration::from_millis(1500)).await;
        let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nSTATUS=leaving\n";
        assert_eq!(receive(&socket), stopping);
        notifier.still_stopping("closing", Duration::from_secs(2)).await;
        assert_eq!(receive(&socket), "EXTEND_TIMEOUT_USEC=2000000\nSTATUS=closing\n");
        notifier.alive().await;
        assert_eq!(receive(&socket), "WATCHDOG=1\n");
    }

    /// By the kernel's own clock, and never back: systemd compares it with its signal's time.
    #[tokio::test]
    async fn a_reload_says_when_it_began() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(Some(path.as_os_str())).unwrap();
        let micros = || {
            let now = clock_gettime(ClockId::Monotonic);
            now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
        };
        let before = micros();
        notifier.reloading("reading the configuration").await;
        let after = micros();
        let message = receive(&socket);
        let rest = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        let (at, rest) = rest.split_once('\n').unwrap();
        assert!((before..=after).contains(&at.parse().unwrap()), "{before} {at} {after}");
        assert_eq!(rest, "STATUS=reading the configuration\n");
    }

    #[tokio::test]
    async fn abstract_names_begin_with_an_at_sign() {
        let name = format!("xksd-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = StdDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::connect(Some(OsStr::new(&format!("@{name}")))).unwrap();
        notifier.alive().await;
        assert_eq!(receive(&socket), "WATCHDOG=1\n");
    }

    #[tokio::test]
    async fn without_a_manager_nothing_is_sent() {
        for none in [None, Some(OsStr::new(""))] {
            let notifier = Notifier::connect(none).unwrap();
            assert!(!notifier.is_heard());
            notifier.ready("serving").await;
        }
        for wrong in ["relative/path", "vsock:2:1234", "/nonexistent/notify"] {
            assert!(Notifier::connect(Some(OsStr::new(wrong))).is_err(), "{wrong}");
        }
    }

    /// A manager that is gone, or does not read, is no reason to wait for ever.
    #[tokio::test]
    async fn a_manager_that_is_gone_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = StdDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(Some(path.as_os_str())).unwrap();
        drop(socket);
        notifier.ready("serving").await;
    }
}
