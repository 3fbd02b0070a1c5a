//! Asks for health as KMS does, by one way to the proxy, and measures each step.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use rustls::pki_types::CertificateDer;

use crate::client::connector::ConnectTiming;
use crate::client::{CallError, Connection};
use crate::client::{
    Caller, ConnectError, Connector, Endpoint, HealthAnswer, HttpVersion, Prepared, Signer, Trust,
    Witness, answer,
};

/// Longest wait for a connection, and for each answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Connections that are made, and requests on each: the fastest counts, since what this machine does
/// besides is nothing that KMS would meet.
const ROUNDS: usize = 3;

/// How a proxy is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// As KMS does.
    Tls,
    /// Without TLS, which ends before.
    Plain,
}

/// What was seen on one way.
#[derive(Debug)]
pub(super) struct Seen {
    /// The certificates, the server's own first; empty where there were none.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) outcome: Outcome,
}

/// How far it went.
#[derive(Debug)]
pub(super) enum Outcome {
    /// No connection.
    Unconnected(ConnectError),
    /// A request, and no answer to it that KMS would take.
    Refused(CallError, HeaderMap),
    /// It was answered.
    Answered(Times, HealthAnswer, HeaderMap),
}

/// The fastest of several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Of a new connection.
    pub(super) connect: ConnectTiming,
    /// The first answer on it.
    pub(super) first: Duration,
    /// A request on a connection that is there.
    pub(super) again: Duration,
}

impl Times {
    /// What KMS would wait for where it has no connection yet.
    pub(super) fn whole(&self) -> Duration {
        self.connect.tcp + self.connect.tls + self.first
    }
}

/// Goes the way: the endpoint of a key store, at this address.
pub(super) async fn go(signer: &Signer, at: SocketAddr, transport: Transport) -> Seen {
    let witness = Arc::new(Witness::default());
    let connector = connector(signer.endpoint(), at, transport, Trust::whoever(witness.clone()));
    let outcome = match connector {
        Ok(connector) => ask(&connector, signer).await,
        Err(error) => Outcome::Unconnected(error),
    };
    Seen { chain: witness.chain(), outcome }
}

/// The way for anything else that is to be sent.
pub(super) fn connector(
    endpoint: &Endpoint,
    at: SocketAddr,
    transport: Transport,
    trust: Trust,
) -> Result<Connector, ConnectError> {
    let (endpoint, http) = (endpoint.clone(), HttpVersion::Http1);
    match transport {
        Transport::Tls => Ok(Connector::new(endpoint, &trust, None, http, PATIENCE)?.at(at)),
        Transport::Plain => Ok(Connector::behind_tls(endpoint, at, http, PATIENCE)),
    }
}

async fn ask(connector: &Connector, signer: &Signer) -> Outcome {
    let mut best: Option<(Times, HealthAnswer, HeaderMap)> = None;
    for _ in 0..ROUNDS {
        let mut connection = match connector.connect().await {
            Ok(connection) => connection,
            Err(error) => return Outcome::Unconnected(error),
        };
        let (first, health, headers) = match timed(&mut connection, signer).await {
            Ok(answered) => answered,
            Err((error, headers)) => return Outcome::Refused(error, headers),
        };
        let mut again = Duration::MAX;
        for _ in 0..ROUNDS {
            match timed(&mut connection, signer).await {
                Ok((time, ..)) => again = again.min(time),
                Err((error, headers)) => return Outcome::Refused(error, headers),
            }
        }
        let mut times = Times { connect: connection.timing(), first, again };
        if let Some((before, ..)) = &best {
            times.again = times.again.min(before.again);
            if before.whole() < times.whole() {
                times = Times { again: times.again, ..*before };
            }
        }
        best = Some((times, health, headers));
    }
    let (times, health, headers) = best.expect("there was a round at least");
    Outcome::Answered(times, health, headers)
}

async fn timed(
    connection: &mut Connection,
    signer: &Signer,
) -> Result<(Duration, HealthAnswer, HeaderMap), (CallError, HeaderMap)> {
    let caller = Caller::made_up(signer.region(), "xksd-doctor");
    let request = Prepared::health(signer.endpoint(), &caller);
    let start = Instant::now();
    let raw = connection.call(signer, &request).await;
    let time = start.elapsed();
    let raw = raw.map_err(|error| (error, HeaderMap::new()))?;
    match answer::health(&raw) {
        Ok(health) => Ok((time, health, raw.headers)),
        Err(error) => Err((error, raw.headers)),
    }
}
