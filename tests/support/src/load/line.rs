//! One caller's connection: kept, and made anew where the daemon has closed it.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Outcome, error_name};
use crate::caller::Caller;
use crate::http::{Answer, Connection};

/// P-8: so long KMS tries to get through.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);

/// Pause between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Line {
    kms: Caller,
    connection: Option<Connection>,
    retried: usize,
}

impl Line {
    pub(super) fn new(kms: Caller) -> Self {
        Self { kms, connection: None, retried: 0 }
    }

    /// Who asks from now on, and where the next connection is made to.
    pub(super) fn turn_to(&mut self, kms: &Caller) {
        self.kms.clone_from(kms);
    }

    /// How often, since this was asked last, a request was sent once more because the connection
    /// had been closed instead of an answer.
    pub(super) fn take_retried(&mut self) -> usize {
        std::mem::take(&mut self.retried)
    }

    /// Asks, and has an answer with 200 checked.
    pub(super) fn ask(
        &mut self,
        rest: &str,
        body: &Value,
        check: impl FnOnce(&Value) -> Result<(), String>,
    ) -> Outcome {
        let bytes = self.kms.request(rest, body).to_bytes();
        let answer = match self.exchange(&bytes) {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        if answer.header("connection") == Some("close") {
            self.connection = None;
        }
        if answer.status != 200 {
            return match error_name(&answer.body) {
                Ok(name) => Outcome::Refused(name),
                Err(body) => Outcome::Wrong(format!("{}: {body}", answer.status)),
            };
        }
        match serde_json::from_slice(&answer.body) {
            Ok(json) => check(&json).map_or_else(Outcome::Wrong, |()| Outcome::Served),
            Err(error) => Outcome::Wrong(format!("{error}: {}", answer.text())),
        }
    }

    /// Sends and receives. Over a connection that was closed while it was idle, which shows only when
    /// it is used, nothing comes back: then once more, as KMS does, over a new one.
    fn exchange(&mut self, bytes: &[u8]) -> Result<Answer, Outcome> {
        if let Some(connection) = &mut self.connection {
            match attempt(connection, bytes) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.connection = None;
                    if is_cut(&error) {
                        return Err(Outcome::Unanswered("an answer that was cut off"));
                    }
                    self.retried += 1;
                }
            }
        }
        let connection = self.connect().ok_or(Outcome::Unanswered("no connection"))?;
        let connection = self.connection.insert(connection);
        attempt(connection, bytes).map_err(|error| {
            self.connection = None;
            let cut = is_cut(&error);
            Outcome::Unanswered(if cut { "an answer that was cut off" } else { "no answer" })
        })
    }

    fn connect(&self) -> Option<Connection> {
        let start = Instant::now();
        loop {
            let tcp = TcpStream::connect(self.kms.address);
            let connection = tcp.and_then(|tcp| match &self.kms.tls {
                None => Ok(Connection::plain(tcp)),
                Some(config) => Connection::tls(tcp, config.clone()),
            });
            match connection {
                Ok(connection) => return Some(connection),
                Err(_) if start.elapsed() > CONNECT_PATIENCE => return None,
                Err(_) => std::thread::sleep(CONNECT_PAUSE),
            }
        }
    }
}

fn attempt(connection: &mut Connection, bytes: &[u8]) -> io::Result<Answer> {
    connection.try_send(bytes)?;
    connection.try_receive()
}

/// Whether the connection ended within an answer.
fn is_cut(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}
