//! The control socket: what an administrator of this machine may ask the daemon, without a port.
//!
//! A Unix socket that only its owner can open; who connects is checked again by the kernel's word
//! (SO_PEERCRED, unix(7)): the daemon's own user, or root. A client sends one word and a line end,
//! gets one JSON document, and the connection ends.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connections::Connections;
use super::drain::{Draining, Phase};
use super::reload::{Reloading, Report};
use super::serving::{Lease, Serving};
use crate::clock::Deadline;
use crate::hsm::fleet::{Enough, Group};
use crate::hsm::token::{Token, TokenState};
use crate::keystore::Keystore;
use crate::metrics::Metrics;
use crate::names::AccessKeyId;

/// Time for a client to say its word, and as much again to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clients at once; more wait.
const CLIENTS: usize = 8;

/// Longest word, with its line end.
const WORD_MAX: u64 = 64;

/// Longest path of a Unix socket, without the zero at its end (unix(7)).
pub const PATH_MAX: usize = 107;

/// Why the control socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another daemon answers there.
    #[error("another xksd answers at `{0}`: give each its own ops.control_socket")]
    InUse(PathBuf),
    /// There is something that is no socket.
    #[error("`{0}` is no socket, and is not replaced by one")]
    NoSocket(PathBuf),
    /// The operating system refuses.
    #[error("cannot listen at `{0}`: {1}")]
    System(PathBuf, io::Error),
}

/// Makes the socket, in the place of one that a daemon has left behind.
///
/// # Errors
/// See [`ControlError`].
pub fn bind(path: &Path) -> Result<UnixListener, ControlError> {
    let system = |error| ControlError::System(path.to_owned(), error);
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NoSocket(path.to_owned()));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(ControlError::InUse(path.to_owned()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(system)?,
        Err(_) => {}
    }
    // Nobody can connect before it listens, and then it is its owner's alone.
    let kind = socket2::Type::STREAM.cloexec().nonblocking();
    let socket = socket2::Socket::new(socket2::Domain::UNIX, kind, None).map_err(system)?;
    socket2::SockAddr::unix(path).and_then(|address| socket.bind(&address)).map_err(system)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(system)?;
    socket.listen(CLIENTS as i32).map_err(system)?;
    UnixListener::from_std(socket.into()).map_err(system)
}

/// Answers at the control socket.
#[derive(Debug)]
pub struct Control {
    /// What is served.
    pub serving: Arc<Serving>,
    /// Connections of the XKS listener.
    pub connections: Arc<Connections>,
    /// How far the daemon is on its way out.
    pub draining: Draining,
    /// When the daemon was started.
    pub started: (Instant, SystemTime),
    /// Has the configuration read anew.
    pub reloading: Reloading,
    /// Tells when credentials were last used.
    pub metrics: Arc<Metrics>,
}

impl Control {
    /// Answers for as long as this is awaited.
    pub async fn run(self, listener: UnixListener) {
        let (control, places) = (Arc::new(self), Arc::new(Semaphore::new(CLIENTS)));
        loop {
            let place = places.clone().acquire_owned().await.expect("it is never closed");
            let (control, client) = match listener.accept().await {
                Ok((client, _address)) => (control.clone(), client),
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = control.answer(client).await {
                    tracing::debug!(%error, "control socket");
                }
            });
        }
    }

    async fn answer(&self, mut client: UnixStream) -> io::Result<()> {
        let uid = client.peer_cred()?.uid();
        let (read, mut write) = client.split();
        let mut word = String::new();
        let mut read = BufReader::new(read.take(WORD_MAX));
        timeout(PATIENCE, read.read_line(&mut word)).await??;
        let answer = match word.trim_end() {
            _ if uid != 0 && uid != rustix::process::geteuid().as_raw() => {
                tracing::warn!(uid, "refused at the control socket: neither our user nor root");
                json!({ "refused": uid })
            }
            "status" => self.status(),
            "refresh" => self.refresh().await,
            "reload" => match self.reloading.reload().await {
                Some(report) => self.reloaded(&report),
                None => json!({ "error": "xksd is leaving" }),
            },
            other => json!({ "error": format!("`{}` is no command", other.escape_debug()) }),
        };
        timeout(PATIENCE, write.write_all(format!("{answer}\n").as_bytes())).await?
    }

    fn reloaded(&self, report: &Report) -> Value {
        let restart_pending = self.reloading.known.borrow().restart_pending.clone();
        json!({ "reload": report.in_json(), "restart_pending": restart_pending })
    }

    fn status(&self) -> Value {
        let (since, at) = self.started;
        let now = self.serving.current();
        let mut keystores: Vec<&Arc<Keystore>> = now.keystores.iter().collect();
        keystores.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        let mut tokens = Vec::<Value>::new();
        let mut seen = Vec::<*const Token>::new();
        for keystore in &keystores {
            let group = &now.groups[keystore.name()];
            for (number, token) in group.tokens().iter().enumerate() {
                // Key stores that share one token share all of them.
                if !seen.contains(&Arc::as_ptr(token)) {
                    seen.push(Arc::as_ptr(token));
                    tokens.push(describe(token, group, number));
                }
            }
        }
        let in_json = |keystore: &&Arc<Keystore>| {
            let tokens: Vec<&str> = keystore.tokens().iter().map(|name| name.as_str()).collect();
            json!({
                "name": keystore.name().as_str(),
                "prefix": keystore.prefix().as_str(),
                "enabled": keystore.is_enabled(),
                "frozen": {
                    "by_configuration": keystore.is_frozen(),
                    "by_marker": is_frozen(&now, keystore),
                },
                "served": now.groups[keystore.name()].serves(),
                "tokens": tokens,
                "credentials": self.credentials(keystore),
            })
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "phase": match self.draining.phase() {
                Phase::Serving => "serving",
                Phase::Leaving => "leaving",
                Phase::Closing => "closing",
            },
            "started": at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            "uptime_seconds": since.elapsed().as_secs(),
            "connections": self.connections.count(),
            "keystores": keystores.iter().map(in_json).collect::<Vec<_>>(),
            "tokens": tokens,
            "reload": self.reloading.in_json(),
        })
    }

    fn credentials(&self, keystore: &Keystore) -> Vec<Value> {
        let describe = |id: &AccessKeyId| {
            let last_used = self.metrics.credential_last_used(keystore.name(), id);
            json!({ "access_key_id": id.as_str(), "last_used": last_used.map(|at| at as u64) })
        };
        keystore.credentials().access_key_ids().map(describe).collect()
    }

    /// Has the keys of all tokens read at once: what an administrator has changed in the HSM counts
    /// from then on.
    async fn refresh(&self) -> Value {
        let (moment, deadline) = (Instant::now(), Deadline::after(PATIENCE));
        let mut read = serde_json::Map::new();
        for group in self.serving.current().groups.values() {
            let catalogue = group.catalogue_since(moment, deadline, |_| Enough::No).await;
            // Those that were read count, whatever is with the others.
            let catalogue = catalogue.unwrap_or_else(|_late| group.catalogue());
            for (number, token) in group.tokens().iter().enumerate() {
                let is_read = catalogue.is_since(number, moment);
                read.insert(token.name().to_string(), is_read.into());
            }
        }
        json!({ "read": read })
    }
}

fn is_frozen(now: &Lease, keystore: &Keystore) -> bool {
    now.groups[keystore.name()].catalogue().freezes().hold(keystore.name())
}

fn describe(token: &Token, group: &Group, number: usize) -> Value {
    let identity = token.identity();
    let state = token.state();
    let fault = match state {
        TokenState::Down(fault) => Some(fault.to_string()),
        _ => None,
    };
    let catalogue = token.catalogue();
    let seconds = |at: Instant| at.elapsed().as_secs_f64();
    json!({
        "name": token.name().as_str(),
        "state": state.name(),
        "fault": fault,
        "manufacturer": identity.manufacturer,
        "model": identity.model,
        "serial": identity.serial,
        "sessions": token.sessions(),
        "sessions_wanted": token.settings().sessions,
        "waiting": token.waiting(),
        "expected_seconds": token.expected().as_secs_f64(),
        "proved_seconds_ago": token.last_proved().map(seconds),
        "keys": catalogue.as_ref().map(|catalogue| catalogue.len()),
        "keys_read_seconds_ago": catalogue.as_ref().map(|catalogue| seconds(catalogue.started())),
        "versions_lacking": group.catalogue().lacking(number),
    })
}
