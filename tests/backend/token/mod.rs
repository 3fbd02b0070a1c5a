//! A token and its threads, over the backend in memory: its faults come when a test asks for them.

mod canary;
mod faults;
mod ivs;
mod lanes;
mod queue;
mod start;
mod stop;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::gate::PATIENCE;
use support::memory::{KeyRef, MemoryBackend, MemoryKey};
use xksd::catalogue::Catalogue;
use xksd::clock::Deadline;
use xksd::hsm::backend::{ObjectHandle, Sealed};
use xksd::hsm::lanes::Lane;
use xksd::hsm::token::{Opening, Settings, Token, TokenError, TokenState};
use xksd::metrics::Metrics;
use xksd::secret::Plaintext;

const AAD: &[u8] = b"aad";
const TEXT: &[u8] = b"a secret of somebody's";

/// A token with one key, `key`.
struct Bench {
    backend: MemoryBackend,
    key: KeyRef,
    token: Token,
}

/// Reads and probes only when told to, so that a test sees no call that it did not ask for.
fn settings(sessions: usize) -> Settings {
    let never = Duration::from_secs(3600);
    Settings {
        sessions,
        queue: 128,
        catalogue_interval: never,
        probe_interval: never,
        attempt_limit: never,
    }
}

fn start(backend: &MemoryBackend, settings: Settings) -> Token {
    let name: xksd::names::TokenName = "test".parse().expect("it is a token name");
    let metrics = Metrics::new().token(&name);
    Token::start(name, settings, Arc::new(backend.clone()), metrics)
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// The keys as they were read after this moment. Asks for an early reading if there is none yet; all
/// who wait share it.
pub(super) async fn catalogue_since(
    token: &Token,
    moment: Instant,
    deadline: Deadline,
) -> Result<Arc<Catalogue>, TokenError> {
    let mut readings = token.watch_catalogue();
    let fresh = readings.wait_for(|catalogue| {
        let fresh = catalogue.as_ref().is_some_and(|c| c.started() >= moment);
        if !fresh {
            // Again after each reading that had begun too early.
            token.ask_for_reading();
        }
        fresh
    });
    match tokio::time::timeout_at(deadline.instant().into(), fresh).await {
        Ok(Ok(catalogue)) => Ok(catalogue.clone().expect("the condition asked for one")),
        Ok(Err(_closed)) => Err(TokenError::Down),
        Err(_elapsed) if token.state().serves() => Err(TokenError::Late),
        Err(_elapsed) => Err(TokenError::Down),
    }
}

async fn wait_for(token: &Token, condition: impl FnMut(&TokenState) -> bool) -> TokenState {
    let mut states = token.watch_state();
    let state = tokio::time::timeout(PATIENCE, states.wait_for(condition)).await;
    *state.expect("the token gets there").expect("the token is there")
}

impl Bench {
    /// A token that is up.
    async fn up(settings: Settings) -> Self {
        let bench = Self::starting(settings);
        wait_for(&bench.token, |state| *state == TokenState::Up).await;
        bench
    }

    fn starting(settings: Settings) -> Self {
        let backend = MemoryBackend::new();
        let key = backend.add(MemoryKey::aes_256("key"));
        let token = start(&backend, settings);
        Self { backend, key, token }
    }

    fn handle(&self) -> ObjectHandle {
        self.backend.handle(self.key)
    }

    async fn encrypt_with(
        &self,
        key: ObjectHandle,
        deadline: Deadline,
    ) -> Result<Sealed, TokenError> {
        let plaintext = Arc::new(Plaintext::new(TEXT.to_vec()));
        self.token.encrypt(&Lane::Internal, key, AAD.into(), plaintext, deadline).await.result
    }

    async fn encrypt(&self) -> Result<Sealed, TokenError> {
        self.encrypt_with(self.handle(), soon()).await
    }

    async fn decrypt(&self, opening: Opening) -> Result<Plaintext, TokenError> {
        let opening = Arc::new(opening);
        self.token.decrypt(&Lane::Internal, self.handle(), opening, soon()).await.result
    }

    /// A ciphertext of the key's.
    async fn sealed(&self) -> Opening {
        let Sealed { iv, ciphertext, tag } = self.encrypt().await.expect("the token encrypts");
        Opening { iv: iv.as_bytes().to_vec(), aad: AAD.into(), ciphertext, tag }
    }

    /// The key's handle once the token has been connected to again, after `old` was in use.
    async fn reconnected(&self, old: ObjectHandle) -> ObjectHandle {
        let deadline = soon();
        loop {
            let catalogue = catalogue_since(&self.token, Instant::now(), deadline).await;
            let id = "key".parse().expect("it is an external key id");
            let found = catalogue.expect("the token comes back").find(&id);
            let handle = found.expect("it is there").expect("it is usable").newest().at;
            if handle.generation > old.generation {
                wait_for(&self.token, |state| *state == TokenState::Up).await;
                return handle;
            }
        }
    }
}

/// Puts a job into the queue.
async fn begin<F: Future>(job: &mut Pin<&mut F>) {
    let polled = tokio::time::timeout(Duration::ZERO, job).await;
    assert!(polled.is_err(), "it is not done at once");
}

/// What the token answered instead of a result.
fn fault<T>(result: Result<T, TokenError>) -> xksd::hsm::fault::Fault {
    match result.err().expect("the token refuses") {
        TokenError::Fault(fault) => fault,
        other => panic!("no fault, but `{other}`"),
    }
}
