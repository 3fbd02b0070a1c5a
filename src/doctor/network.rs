//! Addresses to listen on, how many connections may be open, and what protects memory.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::{Check, Finding, Findings};
use crate::config::Config;

/// How long a running daemon may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a daemon opens besides its connections: sessions, logs, the operations listeners'.
const OTHER_FILES: u64 = 384;

/// Gives whether a daemon runs.
pub(super) fn examine(config: &Config, report: &mut dyn FnMut(Finding)) -> bool {
    let ops = config.ops.listen;
    let is_running = is_xksd(ops);
    let xks = config.server.listen.iter().map(|address| ("server.listen", *address));
    let metrics = config.ops.metrics_listen.map(|address| ("ops.metrics_listen", address));
    for (key, address) in xks.chain([("ops.listen", ops)]).chain(metrics) {
        let mut findings = Findings { subject: key.to_owned(), report };
        // As the daemon binds: std sets SO_REUSEADDR too.
        listen(address, TcpListener::bind(address).map(drop), is_running, &mut findings);
    }
    let findings = Findings { subject: "server.max_connections".to_owned(), report };
    open_files(config.server.limits.max_connections, getrlimit(Resource::Nofile).maximum, findings);
    let mut findings = Findings { subject: String::new(), report };
    memory(may_lock(), getrlimit(Resource::Core).current, &mut findings);
    is_running
}

fn listen(
    address: SocketAddr,
    bound: io::Result<()>,
    is_running: bool,
    findings: &mut Findings<'_>,
) {
    const CHECK: Check = Check::ListenAddress;
    let Err(error) = bound else {
        return findings.ok(CHECK, format!("{address} can be listened on"));
    };
    match error.kind() {
        ErrorKind::AddrInUse if is_running => {
            findings.ok(CHECK, format!("{address} is in use, and an xksd is running"));
        }
        ErrorKind::AddrInUse => {
            let advice = "another process listens there: `ss -ltnp` shows which";
            findings.fail(CHECK, format!("{address} is in use, and not by a live xksd"), advice);
        }
        ErrorKind::AddrNotAvailable => {
            let advice = "use an address of this machine, or 0.0.0.0 for all of IPv4";
            findings.fail(CHECK, format!("this machine has no address {}", address.ip()), advice);
        }
        ErrorKind::PermissionDenied => {
            let advice = "give the daemon the capability CAP_NET_BIND_SERVICE, or use a port from \
                1024 on behind a load balancer; run doctor as the daemon's user";
            findings.fail(CHECK, format!("port {} is privileged", address.port()), advice);
        }
        _ => {
            let message = format!("{address} cannot be listened on: {error}");
            findings.fail(CHECK, message, "use another address");
        }
    }
}

/// Whether a daemon's operations listener answers here.
fn is_xksd(ops: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&ops, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET /livez HTTP/1.1\r\nhost: {ops}\r\nconnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(start == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// The daemon raises its soft limit to the hard one by itself, so the hard one counts.
fn open_files(max_connections: usize, hard: Option<u64>, mut findings: Findings<'_>) {
    const CHECK: Check = Check::OpenFiles;
    let wanted = max_connections as u64 + OTHER_FILES;
    match hard {
        Some(hard) if hard < wanted => {
            let message = format!("{hard} open files are allowed, and {wanted} may be needed");
            let advice = "raise it (LimitNOFILE= of the unit, ulimit -Hn) or lower max_connections";
            findings.warn(CHECK, message, advice);
        }
        Some(hard) => {
            findings.ok(CHECK, format!("{hard} open files are allowed, {wanted} may be needed"));
        }
        None => findings.ok(CHECK, "open files are not limited"),
    }
}

/// The daemon locks its memory where it may.
fn may_lock() -> bool {
    let may = CapabilitySet::IPC_LOCK | CapabilitySet::SYS_RESOURCE;
    let has = |ours: rustix::thread::CapabilitySets| ours.effective.intersects(may);
    getrlimit(Resource::Memlock).maximum.is_none() || capabilities(None).is_ok_and(has)
}

/// Whether secrets stay in memory. `core` is the limit of this process, which has turned its core dumps
/// off as the daemon does.
fn memory(may_lock: bool, core: Option<u64>, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::Memory;
    if core != Some(0) {
        let advice = "set LimitCORE=0 in the unit: a core dump has every secret in it";
        findings.warn(CHECK, "core dumps cannot be turned off", advice);
    } else if may_lock {
        findings.ok(CHECK, "memory can be locked, and core dumps are off");
    } else {
        let advice = "LimitMEMLOCK=infinity in the unit, ulimit -Hl unlimited, or CAP_IPC_LOCK; the \
            limits of doctor are those of its shell, not those of the unit";
        findings.warn(CHECK, "memory cannot be locked: secrets may be written to swap", advice);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn one(examine: impl FnOnce(Findings<'_>)) -> Finding {
        let mut all = Vec::new();
        let mut report = |finding| all.push(finding);
        examine(Findings { subject: String::new(), report: &mut report });
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn an_address_in_use_is_fine_if_a_daemon_runs() {
        let address = "127.0.0.1:8443".parse().unwrap();
        let status = |kind: ErrorKind, is_running| {
            one(|mut findings| listen(address, Err(kind.into()), is_running, &mut findings)).status
        };
        assert_eq!(status(ErrorKind::AddrInUse, true), Status::Ok);
        assert_eq!(status(ErrorKind::AddrInUse, false), Status::Fail);
        assert_eq!(status(ErrorKind::PermissionDenied, true), Status::Fail);
        assert_eq!(status(ErrorKind::AddrNotAvailable, true), Status::Fail);
    }

    #[test]
    fn a_stranger_on_the_operations_port_is_no_daemon() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
        });
        assert!(!is_xksd(address));
        stranger.join().unwrap();
    }

    #[test]
    fn secrets_that_may_leave_memory_are_warned_of() {
        let status =
            |may_lock, core| one(|mut findings| memory(may_lock, core, &mut findings)).status;
        assert_eq!(status(true, Some(0)), Status::Ok);
        assert_eq!(status(false, Some(0)), Status::Warn);
        assert_eq!(status(true, None), Status::Warn);
        assert_eq!(status(true, Some(1)), Status::Warn);
    }

    #[test]
    fn too_few_open_files_are_warned_of() {
        let status = |hard| one(|findings| open_files(1000, hard, findings)).status;
        assert_eq!(status(Some(1000)), Status::Warn);
        assert_eq!(status(Some(1000 + OTHER_FILES)), Status::Ok);
        assert_eq!(status(None), Status::Ok);
    }
}
