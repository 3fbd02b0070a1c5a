//! Copies of records for others to read: stdout, syslog (RFC 5424), the journal of systemd.
//!
//! The files are the log; a copy that can't be sent is counted and nothing waits for it. Each
//! destination has a thread of its own, and so many records wait for it at most.

use std::fmt;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::line::Line;
use super::store::host;
use crate::metrics::AuditMetrics;

/// Records that wait for one destination.
const WAITING: usize = 4096;

/// How long until a destination that failed is tried again; what comes meanwhile is lost to it.
const RETRY: Duration = Duration::from_secs(1);

/// For a connection over TCP, and for each message on it.
const TCP_PATIENCE: Duration = Duration::from_secs(5);

/// Facility 13, log audit; severity 6, informational (RFC 5424, 6.2.1).
const PRIORITY: u8 = 13 * 8 + 6;

/// Where the local syslog listens.
const DEV_LOG: &str = "/dev/log";

/// Where the journal of systemd listens.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where copies go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output, one record a line.
    Stdout,
    /// The journal of systemd, over this socket.
    Journald(PathBuf),
    /// The local syslog, over this socket.
    Syslog(PathBuf),
    /// A syslog over UDP (RFC 5426).
    SyslogUdp(SocketAddr),
    /// A syslog over TCP, with lengths before messages (RFC 6587, 3.4.1).
    SyslogTcp(SocketAddr),
}

impl Destination {
    /// As a label of metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Journald(_) => "journald",
            Self::Syslog(_) => "syslog",
            Self::SyslogUdp(_) => "syslog-udp",
            Self::SyslogTcp(_) => "syslog-tcp",
        }
    }
}

/// Why a text is no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be `stdout`, `journald`, `syslog`, `syslog-udp:ADDRESS:PORT` or `syslog-tcp:ADDRESS:PORT`"
)]
pub struct NoDestination;

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, NoDestination> {
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        let address = || rest.and_then(|rest| rest.parse().ok()).ok_or(NoDestination);
        let path = |default: &str| match rest {
            None => Ok(PathBuf::from(default)),
            Some(path) if path.starts_with('/') => Ok(PathBuf::from(path)),
            Some(_) => Err(NoDestination),
        };
        match kind {
            "stdout" if rest.is_none() => Ok(Self::Stdout),
            "journald" => Ok(Self::Journald(path(JOURNAL)?)),
            "syslog" => Ok(Self::Syslog(path(DEV_LOG)?)),
            "syslog-udp" => Ok(Self::SyslogUdp(address()?)),
            "syslog-tcp" => Ok(Self::SyslogTcp(address()?)),
            _ => Err(NoDestination),
        }
    }
}

/// The way to all destinations.
pub(super) struct Copies {
    destinations: Vec<(&'static str, SyncSender<String>)>,
    metrics: AuditMetrics,
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies").finish_non_exhaustive()
    }
}

impl Copies {
    /// Starts a thread for each.
    pub(super) fn start(destinations: &[Destination], metrics: &AuditMetrics) -> Self {
        let start = |destination: &Destination| {
            let (sender, receiver) = sync_channel(WAITING);
            let (label, destination) = (destination.label(), destination.clone());
            let counted = metrics.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("audit-{label}"))
                .spawn(move || send_all(&receiver, &destination, &counted));
            if let Err(error) = spawned {
                // Its copies are counted as lost, since nobody receives them.
                tracing::error!(%error, label, "cannot start the thread that copies audit records");
            }
            (label, sender)
        };
        Self { destinations: destinations.iter().map(start).collect(), metrics: metrics.clone() }
    }

    /// Sends a record's line on its way.
    pub(super) fn offer(&self, line: &str) {
        for (label, sender) in &self.destinations {
            if sender.try_send(line.to_owned()).is_err() {
                self.metrics.copy_lost(label);
            }
        }
    }
}

/// Sends until nobody offers any more.
fn send_all(lines: &Receiver<String>, destination: &Destination, metrics: &AuditMetrics) {
    let host = host();
    let mut wire = None;
    let mut failed: Option<Instant> = None;
    for line in lines {
        if failed.is_some_and(|at| at.elapsed() < RETRY) {
            metrics.copy_lost(destination.label());
            continue;
        }
        let sent = connected(&mut wire, destination).and_then(|wire| wire.send(&line, &host));
        match sent {
            Ok(()) => failed = None,
            Err(error) => {
                if failed.is_none() {
                    let to = destination.label();
                    tracing::warn!(%error, to, "cannot send copies of audit records");
                }
                (wire, failed) = (None, Some(Instant::now()));
                metrics.copy_lost(destination.label());
            }
        }
    }
}

enum Wire {
    Stdout,
    Journald(UnixDatagram),
    Syslog(UnixDatagram),
    SyslogUdp(UdpSocket),
    SyslogTcp(TcpStream),
}

fn connected<'a>(wire: &'a mut Option<Wire>, to: &Destination) -> io::Result<&'a mut Wire> {
    let new = match wire.take() {
        Some(open) => open,
        None => Wire::open(to)?,
    };
    Ok(wire.insert(new))
}

impl Wire {
    fn open(to: &Destination) -> io::Result<Self> {
        Ok(match to {
            Destination::Stdout => Self::Stdout,
            Destination::Journald(path) => Self::Journald(datagram(path)?),
            Destination::Syslog(path) => Self::Syslog(datagram(path)?),
            Destination::SyslogUdp(address) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Self::SyslogUdp(socket)
            }
            Destination::SyslogTcp(address) => {
                let stream = TcpStream::connect_timeout(address, TCP_PATIENCE)?;
                stream.set_write_timeout(Some(TCP_PATIENCE))?;
                Self::SyslogTcp(stream)
            }
        })
    }

    fn send(&mut self, line: &str, host: &str) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(format!("{line}\n").as_bytes())?;
                stdout.flush()
            }
            // https://systemd.io/JOURNAL_NATIVE_PROTOCOL: a record has no line end within.
            Self::Journald(socket) => {
                let entry = format!("PRIORITY=6\nSYSLOG_IDENTIFIER=xksd-audit\nMESSAGE={line}\n");
                socket.send(entry.as_bytes()).map(drop)
            }
            Self::Syslog(socket) => socket.send(syslog(line, host).as_bytes()).map(drop),
            Self::SyslogUdp(socket) => socket.send(syslog(line, host).as_bytes()).map(drop),
            Self::SyslogTcp(stream) => {
                let message = syslog(line, host);
                stream.write_all(format!("{} {message}", message.len()).as_bytes())
            }
        }
    }
}

fn datagram(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// RFC 5424, 6: priority, version, time, host, application, process, kind of message, no structured
/// data, and the record.
fn syslog(line: &str, host: &str) -> String {
    let (time, kind) = Line::parse(line.as_bytes()).map_or(("-", "-"), |l| (l.time, l.kind));
    let (host, pid) = (if host.is_empty() { "-" } else { host }, std::process::id());
    format!("<{PRIORITY}>1 {time} {host} xksd {pid} {kind} - {line}")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::SystemTime;

    use super::super::chain::{Chain, ChainId};
    use super::super::record::Event;
    use super::*;
    use crate::metrics::Metrics;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn line() -> String {
        Chain::begin(ChainId::new([1; 16])).append(SystemTime::UNIX_EPOCH, &Event::Closed)
    }

    fn copies(destination: Destination) -> Copies {
        Copies::start(&[destination], &Metrics::new().audit())
    }

    fn expected_syslog() -> String {
        let (host, pid) = (host(), std::process::id());
        format!("<110>1 1970-01-01T00:00:00.000000Z {host} xksd {pid} closed - {}", line())
    }

    #[test]
    fn destinations_are_read() {
        let address: SocketAddr = "10.0.0.1:514".parse().unwrap();
        let cases = [
            ("stdout", Destination::Stdout),
            ("journald", Destination::Journald(JOURNAL.into())),
            ("syslog", Destination::Syslog(DEV_LOG.into())),
            ("syslog:/run/log", Destination::Syslog("/run/log".into())),
            ("syslog-udp:10.0.0.1:514", Destination::SyslogUdp(address)),
            ("syslog-tcp:10.0.0.1:514", Destination::SyslogTcp(address)),
        ];
        for (text, destination) in cases {
            assert_eq!(text.parse(), Ok(destination), "{text}");
        }
        for text in ["", "stdout:", "syslog:log", "syslog-udp", "syslog-udp:host", "kafka"] {
            assert_eq!(text.parse::<Destination>(), Err(NoDestination), "{text}");
        }
    }

    #[test]
    fn the_local_syslog_gets_rfc_5424() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let copies = copies(Destination::Syslog(path));
        copies.offer(&line());
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected_syslog());
    }

    #[test]
    fn the_journal_gets_its_own_protocol() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let copies = copies(Destination::Journald(path));
        copies.offer(&line());
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).unwrap();
        let expected = format!("PRIORITY=6\nSYSLOG_IDENTIFIER=xksd-audit\nMESSAGE={}\n", line());
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected);
    }

    #[test]
    fn a_syslog_far_away_gets_datagrams_or_counted_messages() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        let over_udp = copies(Destination::SyslogUdp(udp.local_addr().unwrap()));
        over_udp.offer(&line());
        let mut buffer = [0; 2048];
        let length = udp.recv(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), expected_syslog());

        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let over_tcp = copies(Destination::SyslogTcp(tcp.local_addr().unwrap()));
        over_tcp.offer(&line());
        over_tcp.offer(&line());
        let (mut stream, _) = tcp.accept().unwrap();
        drop(over_tcp);
        let mut text = String::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_string(&mut text).unwrap();
        let message = expected_syslog();
        assert_eq!(text, format!("{0} {message}{0} {message}", message.len()));
    }

    #[test]
    fn a_copy_that_cannot_be_sent_is_counted() {
        let metrics = Metrics::new();
        let nowhere = Destination::Syslog("/nonexistent/log".into());
        let copies = Copies::start(&[nowhere], &metrics.audit());
        copies.offer(&line());
        let counted = r#"xksd_audit_copies_lost_total{destination="syslog"} 1"#;
        let start = Instant::now();
        while !metrics.render().contains(counted) {
            assert!(start.elapsed() < PATIENCE, "{}", metrics.render());
            std::thread::yield_now();
        }
    }
}
