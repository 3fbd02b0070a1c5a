//! What is in force, and how another configuration takes its place: built whole beside it, and then
//! swapped, or not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::candidates::{self, Candidate, Objection};
use super::fixed::Fixed;
use super::groups::Groups;
use super::origin::Origin;
use super::plan::{Pin, Plan, View};
use super::tokens::{Started, Surroundings, Tokens};
use super::transport::Transport;
use super::{StartError, changes};
use crate::audit::sealer::Running;
use crate::clock::Deadline;
use crate::config::{Config, CredentialPlace};
use crate::counts::Counts;
use crate::counts::limit::Share;
use crate::hsm::token::Token;
use crate::keystore::{self, Clash, Keystore, Keystores};
use crate::metrics::Metrics;
use crate::names::{AccessKeyId, KeystoreName, TokenName};
use crate::secret::Fingerprints;
use crate::server::connections::Connections;
use crate::server::listener::{self, Limits};
use crate::server::pipeline::Snapshot;
use crate::server::reload::{Finding, Refusal, Source};
use crate::server::serving::{Replaced, Serving};
use crate::server::terms::Terms;
use crate::telemetry::{self, Level};
use crate::wire;

/// How the daemon leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    pub(super) delay: Duration,
    pub(super) timeout: Duration,
}

/// What other parts of the daemon look at, and which changes under them.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) serving: Arc<Serving>,
    pub(super) terms: watch::Sender<Arc<Terms>>,
    /// Of the operations listeners.
    pub(super) ops_terms: watch::Sender<Arc<Terms>>,
    pub(super) leaving: watch::Sender<Leaving>,
    pub(super) connections: Arc<Connections>,
    /// For whoever uses a token by its name.
    pub(super) running: watch::Sender<Running>,
}

/// What is in force.
#[derive(Debug)]
pub(super) struct Estate {
    pub(super) shown: Shown,
    /// Where encryptions are counted, if anywhere: from the start on.
    pub(super) counts: Option<Arc<Counts>>,
    /// Keepers of groups that are served, or were a moment ago.
    pub(super) keepers: JoinSet<()>,
    /// What waits for the last request that began before a swap.
    pub(super) retiring: JoinSet<()>,
    pub(super) warnings: Vec<String>,
    pub(super) restart_pending: Vec<String>,
    level: Level,
    metrics: Arc<Metrics>,
    tokens: Arc<Tokens>,
    fingerprints: Arc<Fingerprints>,
    fixed: Fixed,
    log: telemetry::Settings,
    transport: Transport,
    limits: Limits,
    in_use: BTreeMap<TokenName, Arc<Started>>,
    groups: Groups,
    /// PINs that an HSM has refused: no change of a file has them tried again.
    refused_pins: HashSet<Pin>,
    /// Credentials of before, some of which may have gone.
    gone: BTreeSet<(KeystoreName, AccessKeyId)>,
}

/// A configuration, and what was made of it without touching what is in force.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) transport: Transport,
}

/// Why nothing was changed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) faults: Vec<Finding>,
}

/// What is to be in force, and can be.
struct Next {
    config: Config,
    transport: Transport,
    keystores: Keystores,
    plan: Plan,
    in_use: BTreeMap<TokenName, Arc<Started>>,
    groups: Groups,
}

/// What all of the daemon shares.
#[derive(Debug)]
pub(super) struct House {
    pub(super) metrics: Arc<Metrics>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) fingerprints: Arc<Fingerprints>,
    pub(super) level: Level,
}

impl Estate {
    /// The first one: tokens are started and not waited for.
    pub(super) fn first(house: House, loaded: Loaded) -> Result<Self, StartError> {
        let House { metrics, tokens, fingerprints, level } = house;
        let Loaded { config, transport } = loaded;
        let fixed = Fixed::of(&config);
        let Config {
            server,
            log,
            fleet_size,
            state_directory,
            keystores,
            credentials,
            secret_places,
            warnings,
            ..
        } = config;
        show_ages(&metrics, &credentials);
        let keystores = together(keystores, &Keystores::default())?;
        let state = state_directory.as_deref();
        let counts = super::counts::open(state, fleet_size, &keystores, &metrics)?;
        let surroundings = Surroundings { log: &log, secrets: &secret_places };
        let mut in_use = BTreeMap::new();
        for (name, token) in config.tokens {
            let origin = Origin::of(&token, &fingerprints);
            let started = tokens.start(&name, token, origin, &surroundings)?;
            tokens.show(&started);
            in_use.insert(name, started);
        }
        let mut keepers = JoinSet::new();
        let groups = Groups::new(
            &members(&in_use),
            &keystores,
            &Groups::default(),
            counts.as_ref(),
            &mut keepers,
        );
        let snapshot = Snapshot {
            keystores,
            groups: groups.by_keystore.clone(),
            fleet_size,
            counts: counts.clone(),
            limits: wire::limits::Limits::default(),
            deadline: server.deadline,
        };
        transport.show(&metrics);
        metrics.configured(0);
        let limits = server.limits;
        let shown = Shown {
            serving: Arc::new(Serving::new(snapshot)),
            terms: watch::Sender::new(terms(&transport, &limits)),
            ops_terms: watch::Sender::new(ops_terms(&limits)),
            leaving: watch::Sender::new(Leaving {
                delay: server.drain_delay,
                timeout: server.drain_timeout,
            }),
            connections: Connections::new(limits.max_connections),
            running: watch::Sender::new(running(&in_use)),
        };
        Ok(Self {
            shown,
            counts,
            keepers,
            retiring: JoinSet::new(),
            warnings,
            restart_pending: Vec::new(),
            level,
            metrics,
            tokens,
            fingerprints,
            fixed,
            log,
            transport,
            limits,
            in_use,
            groups,
            refused_pins: HashSet::new(),
            gone: BTreeSet::new(),
        })
    }

    /// Puts another configuration in force, or says why not; then nothing is other than before.
    /// Gives what has changed, in words.
    pub(super) async fn replace(
        &mut self,
        loaded: Loaded,
        source: Source,
    ) -> Result<Vec<String>, Refused> {
        let Loaded { mut config, transport } = loaded;
        let settings = std::mem::take(&mut config.keystores);
        let keystores = together(settings, &self.shown.serving.current().keystores);
        let keystores = keystores.map_err(|clash| {
            let finding = Finding { problem: clash.to_string(), hint: None };
            Refused { refusal: Refusal::Configuration, faults: vec![finding] }
        })?;
        let view = View {
            in_use: &self.in_use,
            fingerprints: &self.fingerprints,
            refused_pins: &self.refused_pins,
            source,
        };
        let plan = view.plan(&mut config, &self.tokens).map_err(refused)?;
        let mut in_use = plan.kept.clone();
        for Candidate { started, .. } in &plan.candidates {
            in_use.insert(started.token.name().clone(), started.clone());
        }
        let members = members(&in_use);
        let groups = Groups::new(
            &members,
            &keystores,
            &self.groups,
            self.counts.as_ref(),
            &mut self.keepers,
        );
        match self.wait_for(&plan.candidates, &groups).await {
            Ok(warnings) => config.warnings.extend(warnings),
            Err(objections) => {
                self.abandon(&plan.candidates, &groups);
                return Err(refused(objections));
            }
        }
        Ok(self.swap(Next { config, transport, keystores, plan, in_use, groups }))
    }

    /// Those who began before the last swap are done.
    pub(super) fn settle(&mut self) {
        if !self.retiring.is_empty() {
            return;
        }
        self.groups.narrow();
        let now = self.shown.serving.current();
        for (name, id) in std::mem::take(&mut self.gone) {
            let mut keystores = now.keystores.iter();
            let is_back =
                keystores.any(|k| *k.name() == name && k.credentials().secret(&id).is_some());
            if !is_back {
                self.metrics.credential_gone(&name, &id);
            }
            if !now.keystores.iter().any(|keystore| *keystore.name() == name) {
                self.metrics.keystore_gone(&name);
            }
        }
    }

    async fn wait_for(
        &mut self,
        candidates: &[Candidate],
        groups: &Groups,
    ) -> Result<Vec<String>, Vec<Objection>> {
        let deadline = Deadline::after(candidates::PATIENCE);
        let (mut warnings, mut objections) = (Vec::new(), Vec::new());
        for candidate in candidates {
            let pin =
                (candidate.started.token.name().clone(), candidate.started.origin.pin.clone());
            match candidate.come_up(deadline).await {
                Ok(warning) => {
                    self.refused_pins.remove(&pin);
                    warnings.extend(warning);
                }
                Err(objection) => {
                    if objection.0 == Refusal::PinRefused {
                        self.refused_pins.insert(pin);
                    }
                    objections.push(objection);
                }
            }
        }
        if objections.is_empty() {
            objections = candidates::settle(groups, &self.groups, deadline).await;
        }
        if objections.is_empty() { Ok(warnings) } else { Err(objections) }
    }

    /// Ends what was started for a configuration that is not put in force.
    fn abandon(&self, candidates: &[Candidate], groups: &Groups) {
        groups.kept.iter().filter(|kept| !self.groups.has(&kept.group)).for_each(|kept| kept.end());
        candidates.iter().for_each(|candidate| self.tokens.give_up(&candidate.started));
    }

    fn swap(&mut self, next: Next) -> Vec<String> {
        let Next { config, transport, keystores, plan, in_use, groups } = next;
        let before = self.shown.serving.current();
        let mut changes = changes::of_keystores(&before.keystores, &keystores);
        let Plan { kept, candidates, mut restart_pending } = plan;
        restart_pending.extend(self.fixed.differences(&config).into_iter().map(str::to_owned));
        let Config { server, log, fleet_size, credentials, secret_places, warnings, .. } = config;
        show_ages(&self.metrics, &credentials);
        if log.level != self.log.level {
            let later = "processes of HSM modules that run have it from their next start on";
            changes.push(format!("log.level: `{}`; {later}", log.level));
            self.level.set(&log.level).expect("it was read as a level");
        }
        let surroundings = Surroundings { log: &log, secrets: &secret_places };
        kept.values().for_each(|started| started.prepare_next(&surroundings));
        changes.extend(self.swap_terms(transport, server.limits));
        self.shown
            .leaving
            .send_replace(Leaving { delay: server.drain_delay, timeout: server.drain_timeout });
        for keystore in before.keystores.iter() {
            let ids = keystore.credentials().access_key_ids();
            self.gone.extend(ids.map(|id| (keystore.name().clone(), id.clone())));
        }
        groups.widen();
        if let Some(counts) = &self.counts {
            counts.go_on_with(Share::of(fleet_size), &super::counts::token_sets(&keystores));
        }
        let replaced = self.shown.serving.replace(Snapshot {
            keystores,
            groups: groups.by_keystore.clone(),
            fleet_size,
            counts: self.counts.clone(),
            limits: before.limits,
            deadline: server.deadline,
        });
        drop(before);
        for Candidate { started, before } in &candidates {
            let what = if before.is_some() { "started anew" } else { "added" };
            changes.push(format!("token {}: {what}", started.token.name()));
            self.tokens.show(started);
        }
        let groups_before = std::mem::replace(&mut self.groups, groups);
        let in_use_before = std::mem::replace(&mut self.in_use, in_use);
        self.shown.running.send_replace(running(&self.in_use));
        for name in in_use_before.keys().filter(|name| !self.in_use.contains_key(*name)) {
            changes.push(format!("token {name}: removed"));
            self.metrics.hide(name);
        }
        self.retire(replaced, groups_before, in_use_before);
        self.metrics.configured(restart_pending.len());
        (self.log, self.warnings, self.restart_pending) = (log, warnings, restart_pending);
        changes
    }

    /// Ends what is not served any more, once the last request that began with it is done.
    fn retire(
        &mut self,
        replaced: Replaced,
        groups: Groups,
        in_use: BTreeMap<TokenName, Arc<Started>>,
    ) {
        let is_still = |name: &TokenName, started: &Arc<Started>| {
            self.in_use.get(name).is_some_and(|now| Arc::ptr_eq(now, started))
        };
        let old = in_use.into_iter().filter(|(name, started)| !is_still(name, started));
        let old: Vec<_> = old.map(|(_, started)| started).collect();
        let ended: Vec<_> =
            groups.kept.into_iter().filter(|kept| !self.groups.has(&kept.group)).collect();
        let tokens = self.tokens.clone();
        self.retiring.spawn(async move {
            replaced.unused().await;
            ended.iter().for_each(|kept| kept.end());
            let stop = move || old.iter().for_each(|started| tokens.stop(started));
            let _ = tokio::task::spawn_blocking(stop).await;
        });
    }

    /// TLS and the limits of connections.
    fn swap_terms(&mut self, transport: Transport, limits: Limits) -> Vec<String> {
        let mut changes = Vec::new();
        let is_other = !transport.is_same(&self.transport);
        if is_other && self.transport.can_become(&transport) {
            changes.push("server.tls: certificate, key or who may connect".to_owned());
            transport.show(&self.metrics);
            self.transport = transport;
        }
        if limits != self.limits {
            changes.push("server: limits of connections".to_owned());
            self.shown.connections.set_limit(limits.max_connections);
            self.shown.ops_terms.send_replace(ops_terms(&limits));
            self.limits = limits;
        }
        if !changes.is_empty() {
            self.shown.terms.send_replace(terms(&self.transport, &self.limits));
        }
        changes
    }
}

/// Key stores side by side; what those of before have counted goes on.
fn together(settings: Vec<keystore::Settings>, before: &Keystores) -> Result<Keystores, Clash> {
    let keystore = |settings: keystore::Settings| match before
        .iter()
        .find(|before| *before.name() == settings.name)
    {
        Some(before) => Keystore::in_place_of(before, settings),
        None => Keystore::new(settings),
    };
    let keystores = settings.into_iter().map(keystore).collect();
    // The check of the configuration names all of them.
    Keystores::new(keystores).map_err(|mut clashes| clashes.remove(0))
}

fn show_ages(metrics: &Metrics, credentials: &[CredentialPlace]) {
    for CredentialPlace { keystore, id, since, .. } in credentials {
        if let Some(since) = since {
            metrics.credential_created(keystore, id, *since);
        }
    }
}

fn members(in_use: &BTreeMap<TokenName, Arc<Started>>) -> HashMap<TokenName, Arc<Token>> {
    in_use.iter().map(|(name, started)| (name.clone(), started.token.clone())).collect()
}

fn terms(transport: &Transport, limits: &Limits) -> Arc<Terms> {
    Arc::new(Terms { transport: transport.ready.clone(), limits: Arc::new(limits.clone()) })
}

fn ops_terms(limits: &Limits) -> Arc<Terms> {
    let limits = Limits { proxy_protocol_from: Vec::new(), ..limits.clone() };
    let transport = listener::Transport::Plain;
    Arc::new(Terms { transport, limits: Arc::new(limits) })
}

/// The gravest objection says how: a PIN must not be tried again.
fn refused(objections: Vec<Objection>) -> Refused {
    let of = |wanted: Refusal| objections.iter().any(|(refusal, _)| *refusal == wanted);
    let order = [Refusal::PinRefused, Refusal::Configuration, Refusal::Unavailable];
    let refusal = order.into_iter().find(|refusal| of(*refusal)).unwrap_or(Refusal::Configuration);
    Refused { refusal, faults: objections.into_iter().map(|(_, finding)| finding).collect() }
}

fn running(in_use: &BTreeMap<TokenName, Arc<Started>>) -> Running {
    in_use.iter().map(|(name, started)| (name.clone(), started.token.clone())).collect()
}
