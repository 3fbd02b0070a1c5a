//! A service manager, as far as a daemon sees one: the socket that it notifies.

use std::os::unix::net::UnixDatagram;

use tempfile::TempDir;

use crate::daemon::PATIENCE;

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
