//! `xksd probe`: what a running daemon answers at its operations address, where there is no curl: the
//! health check of a container.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::failure::print;
use super::startup::ops_address;
use super::{ConfigFile, Exit, Failure};

/// For a connection, and for each part of the answer. A daemon of this machine has it at hand.
const PATIENCE: Duration = Duration::from_secs(3);

/// Longest answer that is looked at.
const LONGEST: u64 = 64 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 yes, 1 no, 69 nothing answers, 78 configuration.")]
pub(super) struct Probe {
    /// What to ask
    question: Question,
    #[command(flatten)]
    config: ConfigFile,
    /// The daemon's operations address, if it is not to be looked up in the configuration
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Question {
    /// Whether the process turns
    Livez,
    /// Whether it should receive traffic
    Readyz,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
        }
    }
}

impl Probe {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let address = match self.address {
            Some(address) => address,
            None => ops_address(&self.config)?,
        };
        let address = reachable(address);
        let answer = ask(address, self.question.path()).map_err(|error| {
            Failure::new(Exit::Unavailable, format!("no xksd answers at {address}: {error}"))
                .hint("is it running, with this ops.listen?")
        })?;
        let Some((status, text)) = parse(&answer) else {
            return Err(Failure::new(Exit::Unavailable, format!("{address} speaks no HTTP")));
        };
        if status != "200" {
            let failure = format!("{}: {status} {}", self.question.path(), text.escape_debug());
            return Err(Failure::new(Exit::Difference, failure));
        }
        print(&format!("{text}\n")).map(|()| ExitCode::SUCCESS)
    }
}

/// Who listens everywhere is asked over loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            address.set_ip(Ipv4Addr::LOCALHOST.into())
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            address.set_ip(Ipv6Addr::LOCALHOST.into())
        }
        _ => {}
    }
    address
}

fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The status and the first line of the body.
fn parse(answer: &str) -> Option<(&str, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    Some((status, body.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_first_line() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\nleaving\n";
        assert_eq!(parse(answer), Some(("503", "leaving")));
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n"), Some(("200", "")));
        for other in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 20\r\n\r\n"] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_asked_over_loopback() {
        let cases = [
            ("0.0.0.0:9443", "127.0.0.1:9443"),
            ("[::]:9443", "[::1]:9443"),
            ("192.0.2.1:9443", "192.0.2.1:9443"),
        ];
        for (listens, asked) in cases {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
