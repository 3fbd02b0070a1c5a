//! What a configuration asks of the tokens: which stay, which are started, which take a restart.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use super::candidates::{Candidate, Objection};
use super::origin::{Change, Origin};
use super::tokens::{Started, Surroundings, Tokens};
use crate::config::{self, Config};
use crate::names::TokenName;
use crate::secret::{Fingerprint, Fingerprints};
use crate::server::reload::{Finding, Refusal, Source};

/// What each token of a configuration comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) kept: BTreeMap<TokenName, Arc<Started>>,
    pub(super) candidates: Vec<Candidate>,
    /// Keys of tokens that are kept as they were.
    pub(super) restart_pending: Vec<String>,
}

/// A PIN and whose it is.
pub(super) type Pin = (TokenName, Fingerprint);

/// What a plan is made in view of.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) in_use: &'a BTreeMap<TokenName, Arc<Started>>,
    pub(super) fingerprints: &'a Fingerprints,
    /// PINs that an HSM has refused.
    pub(super) refused_pins: &'a HashSet<Pin>,
    pub(super) source: Source,
}

/// A token that is to be started.
type ToStart = (TokenName, config::Token, Origin, Option<Arc<Started>>);

impl View<'_> {
    /// Takes the tokens out of the configuration and starts those that have to be, or none of them.
    pub(super) fn plan(
        &self,
        config: &mut Config,
        tokens: &Arc<Tokens>,
    ) -> Result<Plan, Vec<Objection>> {
        let mut plan = Plan::default();
        let (mut to_start, mut objections) = (Vec::new(), Vec::new());
        for (name, token) in std::mem::take(&mut config.tokens) {
            match self.place(name, token, &mut plan) {
                Ok(start) => to_start.extend(start),
                Err(objection) => objections.push(objection),
            }
        }
        if !objections.is_empty() {
            return Err(objections);
        }
        let surroundings = Surroundings { log: &config.log, secrets: &config.secret_places };
        for (name, token, origin, before) in to_start {
            match tokens.start(&name, token, origin, &surroundings) {
                Ok(started) => plan.candidates.push(Candidate { started, before }),
                Err(error) => objections.push(unstarted(&name, &error)),
            }
        }
        if objections.is_empty() {
            return Ok(plan);
        }
        // Nothing waits for them.
        plan.candidates.iter().for_each(|candidate| tokens.give_up(&candidate.started));
        Err(objections)
    }

    fn place(
        &self,
        name: TokenName,
        token: config::Token,
        plan: &mut Plan,
    ) -> Result<Option<ToStart>, Objection> {
        let origin = Origin::of(&token, self.fingerprints);
        let Some(before) = self.in_use.get(&name) else {
            return match origin.impossible_inside() {
                keys if keys.is_empty() => self.start(name, token, origin, None).map(Some),
                keys => Err(impossible(&name, &keys)),
            };
        };
        match before.origin.change(&origin, before.token.state()) {
            Change::None => drop(plan.kept.insert(name, before.clone())),
            Change::Restart(keys) => {
                let keys = keys.iter().map(|key| format!("tokens.{name}.{key}"));
                plan.restart_pending.extend(keys);
                plan.kept.insert(name, before.clone());
            }
            Change::Replace => {
                return self.start(name, token, origin, Some(before.clone())).map(Some);
            }
        }
        Ok(None)
    }

    fn start(
        &self,
        name: TokenName,
        token: config::Token,
        origin: Origin,
        before: Option<Arc<Started>>,
    ) -> Result<ToStart, Objection> {
        let pin = (name, origin.pin.clone());
        if self.source == Source::Files && self.refused_pins.contains(&pin) {
            let problem = format!("tokens.{}.pin: the HSM has refused it before", pin.0);
            let hint = Some("`xksd reload` has it tried once more".to_owned());
            return Err((Refusal::PinRefused, Finding { problem, hint }));
        }
        Ok((pin.0, token, origin, before))
    }
}

fn unstarted(name: &TokenName, error: &io::Error) -> Objection {
    let problem = format!("tokens.{name}: no threads for it: {error}");
    let hint = Some("fewer `sessions`, or a higher TasksMax= or limit of processes".to_owned());
    (Refusal::Unavailable, Finding { problem, hint })
}

fn impossible(name: &TokenName, keys: &[&str]) -> Objection {
    let keys = keys.join(", ");
    let problem = format!(
        "tokens.{name}.{keys}: a module on the daemon's threads has the environment that xksd was \
         started with"
    );
    let hint = Some("restart xksd, or use isolation = \"process\"".to_owned());
    (Refusal::Configuration, Finding { problem, hint })
}
