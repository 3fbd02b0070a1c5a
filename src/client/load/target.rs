//! A proxy under load: operations in turn, again and again, over connections that are kept or new
//! ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::Target;
use crate::client::answer;
use crate::client::connection::{CallError, Connection, RawAnswer};
use crate::client::connector::{ConnectError, Connector};
use crate::client::request::{Caller, Encrypt, IntegrityValue, Prepared, Signer};
use crate::names::ExternalKeyId;
use crate::secret::Plaintext;
use crate::wire::route::Operation;

/// Pause after a failed connection: a closed loop would fill its run with refusals.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How many ciphertexts decryptions take turns with.
const CIPHERTEXTS: usize = 16;

/// Which operation is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Encrypt.
    Encrypt,
    /// Encrypt with a CDIV, for which the proxy decrypts as well (P-43).
    EncryptCdiv,
    /// Decrypt, of ciphertexts made beforehand.
    Decrypt,
    /// GetKeyMetadata.
    Metadata,
    /// GetHealthStatus.
    Health,
}

/// Operations, and how often each is asked for among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Workload, u32)>);

impl Mix {
    /// These, by weight. `None` where there are none, or one has no weight or stands twice.
    pub fn new(parts: Vec<(Workload, u32)>) -> Option<Self> {
        let is_sound = |(at, (workload, weight)): (usize, &(Workload, u32))| {
            *weight > 0 && parts[..at].iter().all(|(other, _)| other != workload)
        };
        let all_sound = !parts.is_empty() && parts.iter().enumerate().all(is_sound);
        all_sound.then_some(Self(parts))
    }

    /// One round of turns, as indices of the parts: each as often as its weight says, spread evenly.
    fn turns(&self) -> Vec<usize> {
        let total: u32 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut credit = vec![0_i64; self.0.len()];
        let mut turns = Vec::new();
        for _ in 0..total {
            for (credit, (_, weight)) in credit.iter_mut().zip(&self.0) {
                *credit += i64::from(*weight);
            }
            // The first of those with most credit.
            let most = *credit.iter().max().expect("there is a part");
            let next = credit.iter().position(|credit| *credit == most).expect("it was found");
            credit[next] -= i64::from(total);
            turns.push(next);
        }
        turns
    }
}

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It is used again.
    Keep,
    /// Each request has a connection of its own, whose making counts as part of its latency.
    Always,
}

/// What a proxy is to be loaded with.
pub struct Load<'a> {
    /// With which key.
    pub key: &'a ExternalKeyId,
    /// What is asked for.
    pub mix: &'a Mix,
    /// What is encrypted.
    pub plaintext: Plaintext,
    /// How many connections are kept.
    pub connections: usize,
    /// Whether they are.
    pub renewal: Renewal,
}

impl Workload {
    /// The operation's name in the protocol.
    fn operation(self) -> &'static str {
        match self {
            Self::Encrypt | Self::EncryptCdiv => Operation::Encrypt.name(),
            Self::Decrypt => Operation::Decrypt.name(),
            Self::Metadata => Operation::GetKeyMetadata.name(),
            Self::Health => Operation::GetHealthStatus.name(),
        }
    }
}

/// Everything that the workers share.
pub struct Bench {
    connector: Connector,
    signer: Signer,
    plaintext: Plaintext,
    renewal: Renewal,
    /// What each part of the mix sends in turn.
    operations: Vec<(Workload, Vec<Prepared>)>,
    /// Whose turn it is, round after round.
    turns: Vec<usize>,
    connections: Vec<Mutex<Option<Connection>>>,
    /// Connections made in place of lost ones.
    reconnected: AtomicU64,
}

/// Why a bench could not begin.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// A first request failed.
    #[error("the first {operation} failed: {cause}")]
    First {
        /// What was asked.
        operation: &'static str,
        /// Why it failed.
        cause: CallError,
    },
}

impl Bench {
    /// Makes the connections and the ciphertexts, and checks the operation once.
    ///
    /// # Errors
    /// [`PrepareError`]: a bench of refusals would measure nothing.
    pub async fn prepare(
        connector: Connector,
        signer: Signer,
        load: Load<'_>,
    ) -> Result<Self, PrepareError> {
        let Load { key, mix, plaintext, connections, renewal } = load;
        let caller = Caller::made_up(signer.region(), "xksd-bench");
        let mut pool = Vec::with_capacity(connections);
        for _ in 0..connections.max(1) {
            pool.push(connector.connect().await?);
        }
        let mut operations = Vec::with_capacity(mix.0.len());
        for (workload, _) in &mix.0 {
            let workload = *workload;
            let input = encryption(workload, &plaintext);
            let endpoint = signer.endpoint();
            let prepared = match workload {
                Workload::Health => vec![Prepared::health(endpoint, &caller)],
                Workload::Metadata => vec![Prepared::metadata(endpoint, key, &caller)],
                Workload::Encrypt | Workload::EncryptCdiv => {
                    vec![Prepared::encrypt(endpoint, key, &caller, &input)]
                }
                Workload::Decrypt => {
                    let mut decryptions = Vec::with_capacity(CIPHERTEXTS);
                    for _ in 0..CIPHERTEXTS {
                        let sealed = pool[0].encrypt(&signer, &caller, key, &input).await;
                        let sealed = sealed
                            .map_err(|cause| PrepareError::First { operation: "Encrypt", cause })?;
                        decryptions.push(Prepared::decrypt(endpoint, key, &caller, &sealed, AAD));
                    }
                    decryptions
                }
            };
            operations.push((workload, prepared));
        }
        let connections = pool.into_iter().map(|connection| Mutex::new(Some(connection))).collect();
        let (turns, reconnected) = (mix.turns(), AtomicU64::new(0));
        let bench = Self {
            connector,
            signer,
            plaintext,
            renewal,
            operations,
            turns,
            connections,
            reconnected,
        };
        for (workload, prepared) in &bench.operations {
            let first = match bench.call(0, &prepared[0]).await {
                Ok(answer) => bench.check(*workload, &answer),
                Err(AttemptError::Call(cause)) => Err(cause),
                Err(AttemptError::Connect(cause)) => return Err(cause.into()),
            };
            let operation = workload.operation();
            first.map_err(|cause| PrepareError::First { operation, cause })?;
        }
        Ok(bench)
    }

    /// How many connections had to be made again.
    pub fn reconnected(&self) -> u64 {
        self.reconnected.load(Ordering::Relaxed)
    }

    /// One target for each worker; they take turns with the connections.
    pub fn targets(self: &Arc<Self>, workers: usize) -> Vec<Worker> {
        let turn = Arc::new(AtomicUsize::new(0));
        (0..workers)
            .map(|worker| Worker {
                bench: self.clone(),
                connection: worker % self.connections.len(),
                turn: turn.clone(),
            })
            .collect()
    }

    /// Sends over one of the connections, made again first if it was lost, or over a new one.
    async fn call(&self, number: usize, operation: &Prepared) -> Result<RawAnswer, AttemptError> {
        if self.renewal == Renewal::Always {
            let mut connection = self.connector.connect().await?;
            return Ok(connection.call(&self.signer, operation).await?);
        }
        let mut place = self.connections[number].lock().await;
        let connection = match place.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => place.insert(connection),
            None => {
                let connection = self.connector.connect().await?;
                self.reconnected.fetch_add(1, Ordering::Relaxed);
                place.insert(connection)
            }
        };
        if let Some(mut shared) = connection.share() {
            drop(place);
            return Ok(shared.call(&self.signer, operation).await?);
        }
        // HTTP/1.1: the lock is held, since the connection carries one request at a time. After
        // an answer that did not come, it carries no further one.
        let answer = connection.call(&self.signer, operation).await;
        if answer.as_ref().is_err_and(|error| !error.keeps_connection()) {
            *place = None;
        }
        Ok(answer?)
    }

    /// Whether an answer is the right one, as KMS would see it.
    fn check(&self, workload: Workload, answer: &RawAnswer) -> Result<(), CallError> {
        match workload {
            Workload::Health => answer::health(answer).map(drop),
            Workload::Metadata => answer::metadata(answer).map(drop),
            Workload::Encrypt | Workload::EncryptCdiv => {
                answer::encrypt(answer, &encryption(workload, &self.plaintext)).map(drop)
            }
            Workload::Decrypt => {
                if answer::decrypt(answer)? == self.plaintext {
                    Ok(())
                } else {
                    Err(CallError::Malformed("another plaintext than was encrypted"))
                }
            }
        }
    }
}

/// Why one request got no answer.
enum AttemptError {
    Connect(ConnectError),
    Call(CallError),
}

impl From<ConnectError> for AttemptError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<CallError> for AttemptError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// The AAD of each encryption, about as long as that of KMS.
const AAD: &[u8] = b"arn:aws:kms:us-east-1:123456789012:key/bench,encryption-context=none";

fn encryption(workload: Workload, plaintext: &Plaintext) -> Encrypt<'_> {
    let integrity_value = match workload {
        Workload::EncryptCdiv => IntegrityValue::Sha256,
        _ => IntegrityValue::Off,
    };
    Encrypt { plaintext: plaintext.expose(), aad: AAD, integrity_value }
}

/// One worker's way to the proxy.
pub struct Worker {
    bench: Arc<Bench>,
    connection: usize,
    turn: Arc<AtomicUsize>,
}

impl Target for Worker {
    async fn call(&mut self) -> Result<(), String> {
        let bench = &self.bench;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (workload, prepared) = &bench.operations[bench.turns[turn % bench.turns.len()]];
        match bench.call(self.connection, &prepared[turn % prepared.len()]).await {
            Ok(answer) => bench.check(*workload, &answer).map_err(|error| error.label().to_owned()),
            Err(AttemptError::Call(error)) => Err(error.label().to_owned()),
            Err(AttemptError::Connect(_)) => {
                tokio::time::sleep(CONNECT_PAUSE).await;
                Err("(cannot connect)".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_spread_evenly() {
        let mix = |parts: &[(Workload, u32)]| Mix::new(parts.to_vec());
        let two = mix(&[(Workload::Encrypt, 3), (Workload::Decrypt, 1)]).unwrap();
        assert_eq!(two.turns(), [0, 0, 1, 0]);
        let one = mix(&[(Workload::Health, 1)]).unwrap();
        assert_eq!(one.turns(), [0]);
        let three =
            mix(&[(Workload::Encrypt, 2), (Workload::Decrypt, 2), (Workload::Health, 1)]).unwrap();
        let turns = three.turns();
        let counts = [0, 1, 2].map(|part| turns.iter().filter(|turn| **turn == part).count());
        assert_eq!(counts, [2, 2, 1]);
        assert!(mix(&[]).is_none());
        assert!(mix(&[(Workload::Encrypt, 0)]).is_none());
        assert!(mix(&[(Workload::Encrypt, 1), (Workload::Encrypt, 1)]).is_none());
    }
}
