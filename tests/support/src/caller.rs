//! A caller of one key store, as KMS is one: its prefix, its credential, its connections.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::http::{Answer, Connection, connect, trusting};
use crate::request::Request;
use crate::site::{Credential, Tenant};

/// Who calls, and where.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The daemon's address.
    pub address: SocketAddr,
    /// How TLS is spoken; `None`: not at all.
    pub tls: Option<Arc<ClientConfig>>,
    /// The key store's prefix.
    pub prefix: String,
    /// Whose signature.
    pub credential: Credential,
}

impl Caller {
    /// A caller of this key store by its first credential, over TLS.
    pub fn new(daemon: &Daemon, tenant: &Tenant) -> Self {
        Self {
            address: daemon.address,
            tls: Some(trusting(daemon.site.authority.certificate())),
            prefix: tenant.prefix.to_owned(),
            credential: tenant.credentials[0].clone(),
        }
    }

    /// The same without TLS.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { tls: None, ..self }
    }

    /// The whole path of `health`, `keys/demo-key/encrypt` and the like.
    pub fn path(&self, rest: &str) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{slash}{}/kms/xks/v1/{rest}", self.prefix)
    }

    /// A request for this key store, signed by this caller.
    pub fn request(&self, rest: &str, body: &Value) -> Request {
        Request::post(&self.path(rest), body, &self.credential)
    }

    /// A new connection.
    ///
    /// # Panics
    /// Where the daemon does not accept it.
    pub fn connect(&self) -> Connection {
        let tcp = connect(self.address);
        match &self.tls {
            None => Connection::plain(tcp),
            Some(config) => Connection::tls(tcp, config.clone())
                .unwrap_or_else(|error| panic!("TLS handshake: {error}")),
        }
    }

    /// Sends a request over a connection of its own.
    pub fn send(&self, request: &Request) -> Answer {
        let mut connection = self.connect();
        connection.send(&request.to_bytes());
        connection.receive()
    }

    /// Calls an operation.
    pub fn call(&self, rest: &str, body: &Value) -> Answer {
        self.send(&self.request(rest, body))
    }

    /// Calls an operation that has to succeed.
    ///
    /// # Panics
    /// Where it does not.
    pub fn accepted(&self, rest: &str, body: &Value) -> Value {
        let answer = self.call(rest, body);
        assert_eq!(answer.status, 200, "{rest}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"), "P-1");
        answer.json()
    }

    /// Calls an operation that has to be refused.
    ///
    /// # Panics
    /// Where it is not, or not in that way.
    pub fn refused(&self, rest: &str, body: &Value, status: u16, error_name: &str) {
        assert_refused(&self.call(rest, body), status, error_name);
    }
}

/// Checks a refusal in all that P-70 asks for.
///
/// # Panics
/// Where it is another one.
pub fn assert_refused(answer: &Answer, status: u16, error_name: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["errorName"], error_name, "{json}");
    let message = json["errorMessage"].as_str().unwrap_or_else(|| panic!("no message: {json}"));
    assert!(message.len() < 512, "P-70: {message}");
    assert!(message.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "P-70: {message}");
    let mut members: Vec<&String> = json.as_object().expect("it has members").keys().collect();
    members.sort();
    assert_eq!(members, ["errorMessage", "errorName"], "nothing else is told");
    let allow = (status == 405).then_some("POST");
    assert_eq!(answer.header("allow"), allow, "P-3");
}
