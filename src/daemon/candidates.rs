//! Tokens and groups that are to be served: waiting until they can be.

use std::sync::Arc;
use std::time::Duration;

use super::groups::Groups;
use super::tokens::Started;
use crate::clock::Deadline;
use crate::hsm::fleet::Group;
use crate::hsm::token::TokenState;
use crate::server::reload::{Finding, Refusal};

/// How long tokens may take to come up and to have their keys read and compared: longer than a module
/// needs to load and log in across a network, and shorter than an administrator waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a token that is up may take to open its other sessions. An HSM that has no room for all of
/// them beside those of the token before opens the rest when that one is gone.
const SESSIONS_PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether they are open.
const LOOK: Duration = Duration::from_millis(20);

/// What stands against serving something.
pub(super) type Objection = (Refusal, Finding);

/// A token that was started, and the one whose place it is to take.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) started: Arc<Started>,
    pub(super) before: Option<Arc<Started>>,
}

impl Candidate {
    /// Waits until the token serves with all of its sessions. One that can't be reached is only warned
    /// of where nothing is lost by it.
    pub(super) async fn come_up(&self, deadline: Deadline) -> Result<Option<String>, Objection> {
        let token = &self.started.token;
        let mut states = token.watch_state();
        let settled = states.wait_for(|state| state.serves() || *state == TokenState::PinRefused);
        // Whatever has come of it, the state tells.
        let _ = tokio::time::timeout_at(deadline.instant().into(), settled).await;
        let key = format!("tokens.{}", token.name());
        match token.state() {
            state if state.serves() => {
                self.open_sessions(deadline).await;
                Ok(None)
            }
            TokenState::PinRefused => {
                let problem = format!("{key}.pin: the HSM refuses it; it was tried once");
                let hint = "HSMs lock after a few tries: correct it before the next reload";
                Err((Refusal::PinRefused, Finding { problem, hint: Some(hint.to_owned()) }))
            }
            state => {
                let why = match state {
                    TokenState::Down(fault) => format!(": {fault}"),
                    _ => String::new(),
                };
                let problem = format!("{key}: the token does not come up{why}");
                // What was known of it, markers that freeze its keys among that, would be lost.
                let is_known = self.before.as_ref().is_some_and(|b| b.token.catalogue().is_some());
                if !is_known {
                    return Ok(Some(problem));
                }
                let hint = "the token is served on as it was before; its log lines say more";
                Err((Refusal::Unavailable, Finding { problem, hint: Some(hint.to_owned()) }))
            }
        }
    }

    async fn open_sessions(&self, deadline: Deadline) {
        let token = &self.started.token;
        let all_open = async {
            while !token.has_all_sessions() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(SESSIONS_PATIENCE.min(deadline.remaining()), all_open)
            .await
            .is_err()
        {
            let (name, sessions) = (token.name().as_str(), token.sessions());
            tracing::warn!(token = name, sessions, "not all sessions of the token are open");
        }
    }
}

/// Waits until the keys of groups that are new are known and compared, and names the key stores that
/// are served now and would not be.
pub(super) async fn settle(groups: &Groups, before: &Groups, deadline: Deadline) -> Vec<Objection> {
    let mut objections = Vec::new();
    for kept in groups.kept.iter().filter(|kept| !before.has(&kept.group)) {
        if !kept.group.settled(deadline).await {
            let problem =
                format!("the keys of {} could not be compared in time", names(&kept.group));
            objections.push((Refusal::Unavailable, Finding { problem, hint: None }));
        }
    }
    for (name, group) in &groups.by_keystore {
        let was_served = before.by_keystore.get(name).is_some_and(|group| group.serves());
        if was_served && !group.serves() {
            let problem = format!("keystores.{name}.tokens: none of {} is up", names(group));
            let hint = "the key store is served now, and would not be: it stays with its tokens";
            let finding = Finding { problem, hint: Some(hint.to_owned()) };
            objections.push((Refusal::Unavailable, finding));
        }
    }
    objections
}

fn names(group: &Group) -> String {
    let names: Vec<&str> = group.tokens().iter().map(|token| token.name().as_str()).collect();
    format!("`{}`", names.join("`, `"))
}
