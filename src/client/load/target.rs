//! A proxy under load: one operation, again and again, over connections that are kept.

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
    workload: Workload,
    plaintext: Plaintext,
    operations: Vec<Prepared>,
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
        (key, workload): (&ExternalKeyId, Workload),
        plaintext: Plaintext,
        connections: usize,
    ) -> Result<Self, PrepareError> {
        let request_id = "xksd-bench";
        let caller = Caller::made_up(signer.region(), request_id);
        let endpoint = signer.endpoint();
        let input = encryption(workload, &plaintext);
        let mut pool = Vec::with_capacity(connections);
        for _ in 0..connections.max(1) {
            pool.push(connector.connect().await?);
        }
        let operations = match workload {
            Workload::Health => vec![Prepared::health(endpoint, &caller)],
            Workload::Metadata => vec![Prepared::metadata(endpoint, key, &caller)],
            Workload::Encrypt | Workload::EncryptCdiv => {
                vec![Prepared::encrypt(endpoint, key, &caller, &input)]
            }
            Workload::Decrypt => {
                let mut operations = Vec::with_capacity(CIPHERTEXTS);
                for _ in 0..CIPHERTEXTS {
                    let sealed = pool[0].encrypt(&signer, &caller, key, &input).await;
                    let sealed = sealed
                        .map_err(|cause| PrepareError::First { operation: "Encrypt", cause })?;
                    operations.push(Prepared::decrypt(endpoint, key, &caller, &sealed, AAD));
                }
                operations
            }
        };
        let connections = pool.into_iter().map(|connection| Mutex::new(Some(connection))).collect();
        let reconnected = AtomicU64::new(0);
        let bench =
            Self { connector, signer, workload, plaintext, operations, connections, reconnected };
        let first = match bench.call(0, &bench.operations[0]).await {
            Ok(answer) => bench.check(&answer),
            Err(AttemptError::Call(cause)) => Err(cause),
            Err(AttemptError::Connect(cause)) => return Err(cause.into()),
        };
        first.map_err(|cause| PrepareError::First { operation: workload.operation(), cause })?;
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

    /// Sends over one of the connections, made again first if it was lost.
    async fn call(&self, number: usize, operation: &Prepared) -> Result<RawAnswer, AttemptError> {
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
    fn check(&self, answer: &RawAnswer) -> Result<(), CallError> {
        match self.workload {
            Workload::Health => answer::health(answer).map(drop),
            Workload::Metadata => answer::metadata(answer).map(drop),
            Workload::Encrypt | Workload::EncryptCdiv => {
                answer::encrypt(answer, &encryption(self.workload, &self.plaintext)).map(drop)
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
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % bench.operations.len();
        match bench.call(self.connection, &bench.operations[turn]).await {
            Ok(answer) => bench.check(&answer).map_err(|error| error.label().to_owned()),
            Err(AttemptError::Call(error)) => Err(error.label().to_owned()),
            Err(AttemptError::Connect(_)) => {
                tokio::time::sleep(CONNECT_PAUSE).await;
                Err("(cannot connect)".to_owned())
            }
        }
    }
}
