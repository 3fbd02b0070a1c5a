//! A service manager, as far as a daemon sees one: the socket that it notifies, and the sockets that
//! it is passed. What systemd does, without systemd.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use crate::daemon::{Daemon, PATIENCE};
use crate::site::Site;

/// What a daemon has told it, in order.
#[derive(Debug)]
pub struct Notifications {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Notifications {
    /// Begins to listen.
    ///
    /// # Panics
    /// Where that cannot be done.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let socket = UnixDatagram::bind(directory.path().join("notify"));
        let socket = socket.expect("a socket can be made in a new directory");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is no zero");
        Self { socket, directory }
    }

    /// `NOTIFY_SOCKET` for the daemon.
    pub fn address(&self) -> String {
        self.directory.path().join("notify").display().to_string()
    }

    /// The lines of the next message.
    ///
    /// # Panics
    /// Where there is none within [`PATIENCE`].
    pub fn next(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("the daemon says something");
        let text = String::from_utf8_lossy(&message[..length]);
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for a message with a line that begins so, and gives all of the message.
    ///
    /// # Panics
    /// Where there is none for longer than [`PATIENCE`].
    pub fn wait_for(&self, beginning: &str) -> Vec<String> {
        loop {
            let message = self.next();
            if message.iter().any(|line| line.starts_with(beginning)) {
                return message;
            }
        }
    }
}

impl Default for Notifications {
    fn default() -> Self {
        Self::new()
    }
}

/// A listening socket, kept open while daemons come and go.
#[derive(Debug)]
pub struct Listening {
    /// `FileDescriptorName=` of its unit.
    pub name: &'static str,
    socket: TcpListener,
}

impl Listening {
    /// One on a port of the system's choice.
    ///
    /// # Panics
    /// Where there is none.
    pub fn new(name: &'static str) -> Self {
        Self { name, socket: TcpListener::bind("127.0.0.1:0").expect("a port is free") }
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    fn descriptor(&self) -> OwnedFd {
        self.socket.try_clone().expect("descriptors are left").into()
    }
}

/// A command that becomes the daemon and passes it these one or two sockets, from descriptor 3 on.
///
/// # Panics
/// Where there are more.
pub fn passing(site: &Site, sockets: &[&Listening]) -> Command {
    let serve = site.command(&["serve"]);
    // Only what has become the daemon knows its number.
    let script = match sockets {
        [_] => "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"",
        [_, _] => "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"",
        _ => panic!("one or two sockets, not {}", sockets.len()),
    };
    let names: Vec<_> = sockets.iter().map(|socket| socket.name).collect();
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(serve.get_program()).args(serve.get_args());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("LISTEN_FDS", sockets.len().to_string());
    command.env("LISTEN_FDNAMES", names.join(":"));
    command.stdin(sockets[0].descriptor());
    command.stdout(sockets.get(1).map_or_else(Stdio::null, |second| second.descriptor().into()));
    command
}

/// Starts a daemon with these sockets and waits until it listens.
///
/// # Panics
/// Where it does not; its log is shown.
pub fn activate(site: &Arc<Site>, sockets: &[&Listening]) -> Daemon {
    Daemon::launch_by(passing(site, sockets), site.clone())
}
