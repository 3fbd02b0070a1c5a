//! Socket activation: listening sockets that the service manager has opened (sd_listen_fds(3)).
//!
//! It keeps them open while the daemon is replaced, so connections wait instead of being refused. A
//! socket has a name, `FileDescriptorName=` of its unit: `xks`, `ops` or `metrics`. What is passed
//! must be what the configuration says; what is not passed is opened here, as ever.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net::TcpListener;

use crate::server::listener::{self, BindError};

/// Why passed sockets can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// `LISTEN_FDS` and `LISTEN_FDNAMES` do not agree.
    #[error("the service manager passes {sockets} sockets under {names} names")]
    Names {
        /// How many there are.
        sockets: usize,
        /// How many names.
        names: usize,
    },
    /// A name that is none of ours.
    #[error("the service manager passes a socket named `{0}`: it takes `xks`, `ops` or `metrics`")]
    Unknown(String),
    /// It can't be accepted from.
    #[error("what the service manager passes as `{name}` is no listening TCP socket")]
    NotListening {
        /// Its name.
        name: &'static str,
    },
    /// The configuration says something else.
    #[error("the service manager passes {passed} as `{name}`, and {}", said(.key, .configured))]
    Disagrees {
        /// Its name.
        name: &'static str,
        /// Where it listens.
        passed: SocketAddr,
        /// The key of the configuration.
        key: &'static str,
        /// What that says.
        configured: Vec<SocketAddr>,
    },
    /// An address for which none is passed can't be listened on.
    #[error("{0}")]
    Bind(#[from] BindError),
    /// The operating system refuses.
    #[error("cannot use a socket that the service manager passes: {0}")]
    System(#[from] io::Error),
}

fn said(key: &str, addresses: &[SocketAddr]) -> String {
    match addresses {
        [] => format!("{key} is not set"),
        _ => {
            let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
            format!("{key} has {}", addresses.join(", "))
        }
    }
}

/// A kind of listener, and the key of the configuration with its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    name: &'static str,
    key: &'static str,
}

pub(super) const XKS: Kind = Kind { name: "xks", key: "server.listen" };
pub(super) const OPS: Kind = Kind { name: "ops", key: "ops.listen" };
pub(super) const METRICS: Kind = Kind { name: "metrics", key: "ops.metrics_listen" };

/// The sockets that were passed and are not in use yet.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<(Kind, StdListener)>);

impl Passed {
    /// Takes those that were passed to this process, and sees to it that no child inherits them.
    ///
    /// Must be called before there are threads: variables leave the environment.
    pub(super) fn take() -> Result<Self, PassedError> {
        let pid = env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok());
        if pid != Some(std::process::id()) {
            return Ok(Self::default());
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let kinds = kinds(&names, sockets.len())?.into_iter().enumerate();
        let passed = kinds.map(|(number, kind)| {
            let socket = sockets.take_tcp_listener(number).ok().flatten();
            let listens =
                |socket: &StdListener| SockRef::from(socket).is_listener().is_ok_and(|is| is);
            match socket.filter(listens) {
                Some(socket) => Ok((kind, socket)),
                None => Err(PassedError::NotListening { name: kind.name }),
            }
        });
        passed.collect::<Result<_, _>>().map(Self)
    }

    /// A listener for each of these addresses: the passed ones, and others newly opened.
    pub(super) fn listeners(
        &mut self,
        kind: Kind,
        addresses: &[SocketAddr],
    ) -> Result<Vec<TcpListener>, PassedError> {
        let mut listeners = Vec::new();
        let mut found = Vec::new();
        for (_, socket) in self.0.extract_if(.., |(other, _)| *other == kind) {
            let passed = socket.local_addr()?;
            if !addresses.contains(&passed) {
                let (Kind { name, key }, configured) = (kind, addresses.to_vec());
                return Err(PassedError::Disagrees { name, passed, key, configured });
            }
            found.push(passed);
            socket.set_nonblocking(true)?;
            listeners.push(TcpListener::from_std(socket)?);
        }
        for address in addresses.iter().filter(|address| !found.contains(address)) {
            listeners.push(listener::bind(*address)?);
        }
        Ok(listeners)
    }
}

/// What each of the sockets is, by their names as `LISTEN_FDNAMES` has them.
fn kinds(names: &str, sockets: usize) -> Result<Vec<Kind>, PassedError> {
    let names: Vec<&str> = if sockets == 0 { Vec::new() } else { names.split(':').collect() };
    if names.len() != sockets {
        return Err(PassedError::Names { sockets, names: names.len() });
    }
    let of = |name: &str| {
        let kind = [XKS, OPS, METRICS].into_iter().find(|kind| kind.name == name);
        kind.ok_or_else(|| PassedError::Unknown(name.escape_debug().to_string()))
    };
    names.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (StdListener, SocketAddr) {
        let socket = StdListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn sockets_are_told_by_name() {
        assert_eq!(kinds("xks:metrics:xks", 3).unwrap(), [XKS, METRICS, XKS]);
        assert_eq!(kinds("", 0).unwrap(), []);
        let refused = |names, sockets| kinds(names, sockets).unwrap_err().to_string();
        assert_eq!(refused("xks", 2), "the service manager passes 2 sockets under 1 names");
        let unknown = "the service manager passes a socket named `xksd.socket`: it takes `xks`, `ops` \
                       or `metrics`";
        assert_eq!(refused("xks:xksd.socket", 2), unknown);
        assert!(matches!(kinds("", 1), Err(PassedError::Unknown(_))));
    }

    #[tokio::test]
    async fn what_is_not_passed_is_opened() {
        let (first, second) = (socket(), socket());
        // A port that is free, and stays so: the address is used once.
        let third = "127.0.0.2:0".parse().unwrap();
        let mut passed = Passed(vec![(XKS, first.0), (OPS, second.0)]);
        let listeners = passed.listeners(XKS, &[third, first.1]).unwrap();
        let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
        assert_eq!(addresses[0], first.1);
        assert_eq!(addresses[1].ip(), third.ip());
        assert_eq!(listeners.len(), 2);
        let ops = passed.listeners(OPS, &[second.1]).unwrap();
        assert_eq!(ops[0].local_addr().unwrap(), second.1);
        assert!(passed.0.is_empty());
    }

    #[tokio::test]
    async fn what_the_configuration_does_not_say_is_refused() {
        let ((socket, address), (other, another)) = (socket(), socket());
        let refused = |kind, socket, addresses: &[SocketAddr]| {
            Passed(vec![(kind, socket)]).listeners(kind, addresses).unwrap_err().to_string()
        };
        let expected = format!(
            "the service manager passes {address} as `xks`, and server.listen has {another}, \
             127.0.0.1:1"
        );
        assert_eq!(refused(XKS, socket, &[another, "127.0.0.1:1".parse().unwrap()]), expected);
        let expected = format!(
            "the service manager passes {another} as `metrics`, and ops.metrics_listen is not set"
        );
        assert_eq!(refused(METRICS, other, &[]), expected);
    }
}
