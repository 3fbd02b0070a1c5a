//! The task that has checkpoints signed while the daemon serves.
//!
//! It asks for one signature at a time, in a lane of its own. While the token is down, checkpoints are
//! late and records go on; the first one after it holds for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use super::checkpoint::Statement;
use super::log::{Checkpoints, Log, Safe};
use super::record::Event;
use super::seal;
use super::store::host;
use crate::clock::Deadline;
use crate::hsm::token::{Token, TokenError, TokenState};
use crate::names::TokenName;

/// The tokens that are in use. Another one may take the place of one by its name.
pub type Running = BTreeMap<TokenName, Arc<Token>>;

/// How long a signature may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after one that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Why a checkpoint could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The token holds no audit key.
    #[error("the token holds no key `xksd:audit` that signs: make one by `xksd audit create-key`")]
    NoKey,
    /// What the token gave is no signature.
    #[error("the token gave no signature")]
    Nonsense,
    /// The token did not do it.
    #[error("{0}")]
    Token(#[from] TokenError),
}

/// Has checkpoints of a log signed, for as long as it is polled.
pub async fn run(log: Log, mut running: watch::Receiver<Running>, checkpoints: Checkpoints) {
    let mut safe = log.watch_safe();
    let mut signed: u64 = 0;
    // The first one at once: whether signing works is known then.
    let mut due = Instant::now();
    let mut was_failing = false;
    let name = &checkpoints.token;
    // That it has not been connected to yet is no failure.
    let tried = |state: &TokenState| *state != TokenState::Probing;
    loop {
        let token = running.borrow_and_update().get(name).cloned();
        let Some(token) = token else { break };
        let mut state = token.watch_state();
        tokio::select! {
            _ = state.wait_for(tried) => break,
            changed = running.changed() => if changed.is_err() { return },
        }
    }
    loop {
        if safe.wait_for(|safe| safe.records > signed).await.is_err() {
            return;
        }
        let enough = signed.saturating_add(checkpoints.records);
        // Either may come first.
        let _ = tokio::time::timeout_at(due, safe.wait_for(|safe| safe.records >= enough)).await;
        let now = *safe.borrow_and_update();
        let token = running.borrow().get(name).cloned();
        match sign(&log, token.as_deref(), now).await {
            Ok(()) => {
                if was_failing {
                    tracing::info!(token = %name, "checkpoints are signed again");
                }
                (signed, was_failing) = (now.records, false);
                due = Instant::now() + checkpoints.interval;
            }
            Err(error) => {
                if !was_failing {
                    tracing::warn!(token = %name, %error, "cannot sign a checkpoint");
                }
                was_failing = true;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Has the records up to here signed, and records that. Without a token that fails.
///
/// # Errors
/// See [`SealError`].
pub async fn sign(log: &Log, token: Option<&Token>, safe: Safe) -> Result<(), SealError> {
    let token = token.ok_or(TokenError::Down)?;
    let key = token.catalogue().and_then(|catalogue| catalogue.audit_key());
    // Without a catalogue nothing is known yet.
    let (key, how) = match (key, token.state().serves()) {
        (Some(key), _) => key,
        (None, true) => return Err(SealError::NoKey),
        (None, false) => return Err(TokenError::Down.into()),
    };
    let now = SystemTime::now();
    let statement = Statement::new(safe.chain, safe.head, now, &host());
    let input = seal::input(&statement.text(), how);
    let signed = token.sign(key, how, input, Deadline::after(PATIENCE)).await?;
    let sealed = seal::sealed(statement, token.name().as_str(), how, &signed);
    let sealed = sealed.ok_or(SealError::Nonsense)?;
    log.note(Event::Checkpoint(Box::new(sealed)));
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    log.metrics().checkpoint.set(seconds);
    Ok(())
}
