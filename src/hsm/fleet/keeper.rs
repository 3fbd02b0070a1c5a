//! The keeper of a group: a task that puts the readings of its tokens together, and has keys of one
//! name proved to be one key before more than one token's is used.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Group;
use super::admission::{Findings, Outcome, Pair, Presence, View};
use super::merge::{GroupCatalogue, Held, Lack, Readings, Subject, held, merge};
use crate::catalogue::Catalogue;
use crate::clock::Deadline;
use crate::hsm::fault::FaultKind;
use crate::hsm::key::Standing;
use crate::hsm::lanes::Lane;
use crate::hsm::proof::{AAD, TEXT, TRIES};
use crate::hsm::token::{Opening, Token, TokenError, TokenState};
use crate::keystore::KeyRule;
use crate::names::ExternalKeyId;
use crate::secret::Plaintext;

/// How long a group that has just started waits for tokens named earlier, before it elects another.
const ELECTION_PATIENCE: Duration = Duration::from_secs(5);

/// How many proofs run at once: they share the sessions with requests.
const PROOFS_AT_ONCE: usize = 4;

/// How long one encryption or decryption of a proof may take.
const PROOF_PATIENCE: Duration = Duration::from_secs(1);

/// How long after a proof that showed nothing it is tried again.
const PROOF_PAUSE: Duration = Duration::from_millis(500);

/// How often what proofs show is published while more of them run.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    group: Arc<Group>,
    begun: Instant,
    findings: HashMap<Subject, Findings>,
    /// What was last judged.
    readings: Vec<Option<Arc<Catalogue>>>,
    views: Vec<View>,
    /// What was found out has changed since.
    dirty: bool,
    wanted: VecDeque<(Subject, Pair)>,
    running: HashSet<(Subject, usize)>,
    proofs: JoinSet<(Subject, Pair, Outcome)>,
    /// No proof is started before: one has just failed.
    paused: Option<Instant>,
}

impl Keeper {
    /// The keeper of a group, which looks at the keys that these rules allow until told otherwise
    /// ([`Group::look_at`]).
    pub fn new(group: Arc<Group>, rules: Vec<KeyRule>) -> Self {
        group.look_at(rules);
        let (findings, readings, views, wanted, running, proofs) = Default::default();
        let (begun, dirty, paused) = (Instant::now(), true, None);
        Self { group, begun, findings, readings, views, dirty, wanted, running, proofs, paused }
    }

    /// Keeps the group, for as long as this is awaited.
    pub async fn run(mut self) {
        let (changes, _watchers) = watch(self.group.tokens());
        let mut rules = self.group.rules.subscribe();
        let mut judged = None::<Instant>;
        let mut is_due = true;
        loop {
            if is_due {
                self.judge();
                judged = Some(Instant::now());
            }
            self.start_proofs();
            let wake = self.election().into_iter().chain(self.paused).min();
            is_due = tokio::select! {
                () = changes.notified() => true,
                _ = rules.changed() => {
                    self.dirty = true;
                    true
                }
                () = wait_until(wake) => {
                    self.dirty = true;
                    true
                }
                Some(done) = self.proofs.join_next() => {
                    let (subject, pair, outcome) = done.expect("a proof does not panic");
                    self.note(subject, pair, outcome);
                    let is_old = judged.is_none_or(|at| at.elapsed() > PUBLISH_INTERVAL);
                    is_old || self.running.is_empty()
                }
            };
        }
    }

    /// Finds out what can be without asking a token, and publishes what is known.
    fn judge(&mut self) {
        let tokens = self.group.tokens();
        let readings: Vec<_> = tokens.iter().map(|token| token.catalogue()).collect();
        let views: Vec<View> = tokens.iter().map(|token| self.view(token)).collect();
        if !self.dirty && views == self.views && are_same(&readings, &self.readings) {
            let again = self.group.catalogue.borrow().read_again(&readings);
            self.readings = readings;
            self.group.catalogue.send_replace(again);
            return;
        }
        let rules = self.group.rules.borrow().clone();
        let wants = |id: &ExternalKeyId| rules.iter().any(|rule| rule.allows(id));
        let mut findings = HashMap::with_capacity(self.findings.len());
        self.wanted.clear();
        let held = held(&readings, wants);
        for Held { subject, objects } in &held {
            let mut found = self.findings.remove(subject).unwrap_or_default();
            for pair in found.settle(objects, &views) {
                if !self.running.contains(&(subject.clone(), pair.candidate.0)) {
                    self.wanted.push_back((subject.clone(), pair));
                }
            }
            findings.insert(subject.clone(), found);
        }
        let merged = merge(&readings, held, wants, |subject, token, handle| {
            findings.get(subject).map_or(Standing::Pending, |f| f.standing(token, handle))
        });
        (self.findings, self.readings, self.views, self.dirty) = (findings, readings, views, false);
        self.report(&merged);
        self.group.catalogue.send_replace(merged);
    }

    fn view(&self, token: &Token) -> View {
        let presence = match token.state() {
            TokenState::Up | TokenState::Suspect => Presence::Here,
            TokenState::Probing if self.begun.elapsed() < ELECTION_PATIENCE => Presence::Awaited,
            TokenState::Probing | TokenState::Down(_) | TokenState::PinRefused => Presence::Away,
        };
        View { presence, is_read: token.catalogue().is_some() }
    }

    /// When a token that is still awaited is waited for no longer.
    fn election(&self) -> Option<Instant> {
        let is_awaited = self.views.iter().any(|view| view.presence == Presence::Awaited);
        is_awaited.then(|| self.begun + ELECTION_PATIENCE)
    }

    fn start_proofs(&mut self) {
        if self.paused.is_some_and(|until| until > Instant::now()) {
            return;
        }
        self.paused = None;
        while self.running.len() < PROOFS_AT_ONCE
            && let Some((subject, pair)) = self.wanted.pop_front()
        {
            let token = |number: usize| self.group.tokens()[number].clone();
            let (candidate, anchor) = (token(pair.candidate.0), token(pair.anchor.0));
            self.running.insert((subject.clone(), pair.candidate.0));
            self.proofs.spawn(async move {
                let outcome = prove(&candidate, &anchor, pair).await;
                (subject, pair, outcome)
            });
        }
    }

    fn note(&mut self, subject: Subject, pair: Pair, outcome: Outcome) {
        self.dirty = true;
        if let Outcome::Failed | Outcome::AnchorFailed { .. } = outcome {
            self.paused = Some(Instant::now() + PROOF_PAUSE);
        }
        if let Some(findings) = self.findings.get_mut(&subject) {
            findings.note(pair, outcome);
        }
        self.running.remove(&(subject, pair.candidate.0));
    }

    /// Says what the operator must look after, when it appears.
    fn report(&self, merged: &GroupCatalogue) {
        let before = self.group.catalogue.borrow();
        let standings = merged.standings();
        for (number, token) in self.group.tokens().iter().enumerate() {
            for standing in Standing::ALL {
                let count = standings[number].get(&standing).copied().unwrap_or(0);
                token.metrics().key_versions(standing.name(), count);
            }
            let missing = merged.lacks(number).iter().filter(|lack| lack.standing.is_none());
            token.metrics().key_versions("missing", missing.count());
            let known: HashSet<&Lack> = before.lacks(number).iter().collect();
            for lack in merged.lacks(number).iter().filter(|lack| !known.contains(lack)) {
                let (token, Lack { key, version, standing }) = (token.name().as_str(), lack);
                let problem = match standing {
                    None => "the token lacks a key that another token of the key store holds",
                    Some(Standing::Unequal) => {
                        "the token holds another key under this name than the other tokens of the \
                         key store: it is not used"
                    }
                    Some(_) => {
                        "nothing can prove that the token's key is that of the other tokens of the \
                         key store: it is not used"
                    }
                };
                tracing::error!(token, %key, %version, "{problem}");
            }
        }
    }
}

/// Has one token decrypt what the other encrypted.
async fn prove(candidate: &Token, anchor: &Token, pair: Pair) -> Outcome {
    for _try in 0..TRIES {
        let deadline = || Deadline::after(PROOF_PATIENCE);
        let plaintext = Arc::new(Plaintext::new(TEXT.to_vec()));
        let sealed = candidate
            .encrypt(&Lane::Internal, pair.candidate.1, AAD.into(), plaintext, deadline())
            .await;
        let Ok(sealed) = sealed.result else { return Outcome::Failed };
        let opening = Arc::new(Opening {
            iv: sealed.iv.as_bytes().to_vec(),
            aad: AAD.into(),
            ciphertext: sealed.ciphertext,
            tag: sealed.tag,
        });
        let opened = anchor.decrypt(&Lane::Internal, pair.anchor.1, opening, deadline()).await;
        match opened.result {
            Ok(opened) if opened.expose() == TEXT => return Outcome::Equal,
            Ok(_) => {}
            Err(TokenError::Fault(fault)) if fault.kind == FaultKind::BadCiphertext => {}
            Err(_) => {
                let is_up = anchor.state() == TokenState::Up;
                return Outcome::AnchorFailed { is_up };
            }
        }
    }
    Outcome::Unequal
}

fn are_same(now: &Readings, before: &Readings) -> bool {
    let is_same =
        |(now, before): (&Option<Arc<Catalogue>>, &Option<Arc<Catalogue>>)| match (now, before) {
            (Some(now), Some(before)) => now.has_not_changed_since(before),
            (None, None) => true,
            _ => false,
        };
    now.len() == before.len() && now.iter().zip(before).all(is_same)
}

/// Notifies of every change of a token's state and of every reading of its keys.
fn watch(tokens: &[Arc<Token>]) -> (Arc<Notify>, JoinSet<()>) {
    let changes = Arc::new(Notify::new());
    let mut watchers = JoinSet::new();
    for token in tokens {
        let (mut states, mut readings) = (token.watch_state(), token.watch_catalogue());
        let changes = changes.clone();
        watchers.spawn(async move {
            loop {
                let changed = tokio::select! {
                    changed = states.changed() => changed,
                    changed = readings.changed() => changed,
                };
                if changed.is_err() {
                    return;
                }
                changes.notify_one();
            }
        });
    }
    (changes, watchers)
}

async fn wait_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
