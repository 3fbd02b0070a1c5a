//! Keys that are rotated without anybody asking.
//!
//! The daemon only reads tokens. What changes one runs as a command of its own, `xksd keys rotate`, as
//! an administrator would run it, with the configuration of the daemon and in the way for several daemons
//! at once ([`Kind::Follow`](crate::lifecycle::Kind)): one command makes a version as pending; when all
//! daemons can have seen it, another chooses among those that there are, and puts it in use. One runs at
//! a time, and is killed when it takes too long or the daemon leaves.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::process::Command;

use crate::cli::Exit;
use crate::counts::ledger::Counted;
use crate::hsm::fleet::Group;
use crate::keystore::{Due, Keystore};
use crate::metrics::{Metrics, Rotated};
use crate::names::{ExternalKeyId, KeyVersion, KeystoreName, ObjectId};
use crate::server::drain::{Draining, Phase};
use crate::server::pipeline::Snapshot;
use crate::server::serving::Serving;

/// For how many readings of the keys the versions of other daemons are waited for.
const READINGS: u32 = 2;

/// Daemons that find a key due at the same time begin within so many times of that.
const SPREAD: u32 = 3;

/// How long a command may take: for its tokens to be connected to, and to replicate.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest pause after a rotation that failed; the first is twice as long as others are waited for.
const PAUSE: Duration = Duration::from_secs(3600);

/// What is logged at most of what the command says.
const SAID: usize = 2000;

/// Rotates keys as they fall due.
#[derive(Debug)]
pub(super) struct Rotator {
    serving: Arc<Serving>,
    metrics: Arc<Metrics>,
    /// The configuration of the daemon.
    config: PathBuf,
    draining: Draining,
    /// Keys that are left alone for a while.
    paused: HashMap<Key, Paused>,
    /// What was begun and is neither in use nor destroyed, for all that is known.
    begun: HashMap<Key, Begun>,
}

type Key = (KeystoreName, ExternalKeyId);

#[derive(Debug)]
struct Paused {
    failures: u32,
    until: Instant,
}

#[derive(Debug, Clone)]
struct Begun {
    due: Candidate,
    /// What was made here; `None` if another had begun before.
    own: Option<ObjectId>,
}

/// A command that failed, which the log tells of.
#[derive(Debug)]
enum Failed {
    /// The key or a token does not allow it: what was begun is destroyed, or whoever begins anew goes on
    /// with it.
    Refused,
    /// It may have been about to do it.
    Somehow,
}

/// A key that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    keystore: KeystoreName,
    id: ExternalKeyId,
    newest: (KeyVersion, ObjectId),
    why: Due,
    settling: Duration,
}

impl Rotator {
    /// Rotates the keys of the key stores that are served and want it.
    pub(super) fn new(
        serving: Arc<Serving>,
        metrics: Arc<Metrics>,
        config: PathBuf,
        draining: Draining,
    ) -> Self {
        let (paused, begun) = Default::default();
        Self { serving, metrics, config, draining, paused, begun }
    }

    /// Works for as long as the daemon serves, and never ends.
    pub(super) async fn run(mut self) {
        let mut draining = self.draining.clone();
        tokio::select! {
            () = self.work() => {}
            // With this goes the command that is running, if one is.
            () = draining.closing() => {}
        }
        std::future::pending().await
    }

    async fn work(&mut self) {
        loop {
            let interval = {
                let now = self.serving.current();
                now.groups.values().map(|group| interval(group)).min()
            };
            tokio::time::sleep(interval.expect("there is a key store")).await;
            let Some(due) = self.due() else { continue };
            // So that daemons which see the same seldom begin at the same time. Most of them find it
            // done then.
            tokio::time::sleep(random_part_of(due.settling * SPREAD)).await;
            if self.due().as_ref() == Some(&due) {
                let rotated = self.rotate(&due).await.unwrap_or(Rotated::Failed);
                self.note(due, rotated);
            }
        }
    }

    /// A key that is due, if there is one.
    fn due(&self) -> Option<Candidate> {
        if self.draining.phase() != Phase::Serving {
            return None;
        }
        let now = self.serving.current();
        // Whatever has become of the key since: what was made for it must be used or destroyed.
        let mut keystores: Vec<_> =
            now.keystores.iter().filter(|keystore| is_open(&now, keystore)).collect();
        keystores.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        let begun = self.begun.iter().filter(|((keystore, id), _)| {
            let is_open = keystores.iter().any(|open| open.name() == keystore);
            is_open && !self.is_paused(keystore, id)
        });
        if let Some((_, begun)) = begun.min_by_key(|(key, _)| *key) {
            return Some(begun.due.clone());
        }
        keystores.into_iter().find_map(|keystore| self.due_in(&now, keystore))
    }

    fn due_in(&self, served: &Snapshot, keystore: &Keystore) -> Option<Candidate> {
        let group = &served.groups[keystore.name()];
        let catalogue = group.catalogue();
        let (now, tokens) = (SystemTime::now(), group.token_set());
        // While it is not known what versions have used, new ones would be due at once.
        let counts = served.counts.as_ref().filter(|counts| !counts.is_lost(tokens));
        let mut due: Vec<Candidate> = catalogue
            .keys()
            .filter(|key| key.is_enabled() && key.newest().kind.is_aes_256())
            .filter(|key| keystore.key_rules().iter().any(|rule| rule.allows(key.id())))
            .filter(|key| !self.is_paused(keystore.name(), key.id()))
            .filter_map(|key| {
                let newest = key.newest();
                let counted = || Counted::new(key.id(), newest.object_id, tokens);
                let used = counts.and_then(|counts| counts.used(&counted()));
                let fleet_size = served.fleet_size;
                let why = keystore.rotation().due(newest.created, now, used, fleet_size)?;
                let settling = interval(group) * READINGS;
                let (keystore, id) = (keystore.name().clone(), key.id().clone());
                Some(Candidate { keystore, id, newest: newest.identity(), why, settling })
            })
            .collect();
        due.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        due.into_iter().next()
    }

    fn is_paused(&self, keystore: &KeystoreName, id: &ExternalKeyId) -> bool {
        let key = (keystore.clone(), id.clone());
        self.paused.get(&key).is_some_and(|paused| paused.until > Instant::now())
    }

    async fn rotate(&mut self, due: &Candidate) -> Result<Rotated, Failed> {
        let name = (due.keystore.clone(), due.id.clone());
        let (key, keystore, why) = (due.id.as_str(), due.keystore.as_str(), due.why.name());
        let own = match self.begun.get(&name) {
            Some(begun) => begun.own,
            None => {
                tracing::info!(keystore, key, why, "rotating a key that is due");
                let begun = self.command(due, &["--begin"]).await?;
                let Some(begun) = begun else { return Ok(Rotated::Overtaken) };
                let own = begun["own"].as_str().and_then(ObjectId::from_hex);
                self.begun.insert(name.clone(), Begun { due: due.clone(), own });
                tokio::time::sleep(due.settling).await;
                own
            }
        };
        let own = own.map(|object_id| object_id.to_string());
        let own: Vec<&str> = own.iter().flat_map(|own| ["--own", own]).collect();
        let made = self.command(due, &own).await;
        if !matches!(made, Err(Failed::Somehow)) {
            self.begun.remove(&name);
        }
        let made = made?;
        let Some(made) = made else { return Ok(Rotated::Overtaken) };
        let version = made["version"].as_u64();
        tracing::info!(keystore, key, why, version, "rotated a key");
        Ok(Rotated::Done)
    }

    /// Runs a command for a key. `None`: another daemon has rotated it.
    async fn command(&self, due: &Candidate, more: &[&str]) -> Result<Option<Value>, Failed> {
        let (key, keystore) = (due.id.as_str(), due.keystore.as_str());
        let output = command(due, &self.config, more).output();
        let output = match tokio::time::timeout(PATIENCE, output).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => {
                tracing::warn!(keystore, key, %error, "cannot start the rotation of a key");
                return Err(Failed::Somehow);
            }
            Err(_elapsed) => {
                tracing::warn!(keystore, key, "a key's rotation took too long, and was ended");
                return Err(Failed::Somehow);
            }
        };
        let Output { status, stdout, stderr } = output;
        let said = said(&stderr);
        match (status.success(), serde_json::from_slice(&stdout)) {
            (true, Ok(answer)) => Ok(Some(answer)),
            (true, Err(_)) => {
                tracing::info!(keystore, key, said, "another daemon has rotated the key");
                Ok(None)
            }
            (false, _) => {
                tracing::warn!(keystore, key, %status, said, "cannot rotate a key");
                let is_refused = status.code() == Some(Exit::CannotCreate as i32);
                Err(if is_refused { Failed::Refused } else { Failed::Somehow })
            }
        }
    }

    fn note(&mut self, due: Candidate, rotated: Rotated) {
        self.metrics.rotated(&due.keystore, rotated);
        let key = (due.keystore, due.id);
        let failures = match rotated {
            Rotated::Failed => self.paused.get(&key).map_or(0, |paused| paused.failures) + 1,
            // Until the keys are read again, they look as they did.
            Rotated::Done | Rotated::Overtaken => 0,
        };
        let pause = due.settling.saturating_mul(1 << failures.min(20));
        let until = Instant::now() + pause.min(PAUSE.max(due.settling));
        self.paused.insert(key, Paused { failures, until });
        // What is over is forgotten, but for how often it has failed.
        self.paused.retain(|_, paused| paused.failures > 0 || paused.until > Instant::now());
    }
}

/// Whether the keys of a key store are rotated, and it is not stopped.
fn is_open(served: &Snapshot, keystore: &Keystore) -> bool {
    let catalogue = served.groups[keystore.name()].catalogue();
    let is_frozen = keystore.is_frozen() || catalogue.freezes().hold(keystore.name());
    keystore.rotation().is_on() && keystore.is_enabled() && !is_frozen
}

/// How often the keys of all tokens are read, at least.
fn interval(group: &Group) -> Duration {
    let intervals = group.tokens().iter().map(|token| token.settings().catalogue_interval);
    intervals.max().expect("a group has a token")
}

fn command(due: &Candidate, config: &Path, more: &[&str]) -> Command {
    let (version, object_id) = due.newest;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("xksd")
        .args(["keys", "rotate", due.id.as_str(), "--json", "--keystore", due.keystore.as_str()])
        .args(["--follow", &format!("{version}:{object_id}")])
        .args(more)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn random_part_of(most: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without it daemons begin together, which is slower and nothing else.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return Duration::ZERO;
    }
    most.mul_f64(f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX))
}

/// What a command said, on one line.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").chars().take(SAID).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_says_is_one_line_and_has_an_end() {
        assert_eq!(said(b"error: no\n  hint: mend it\n\n"), "error: no; hint: mend it");
        assert_eq!(said(&b"x".repeat(3 * SAID)).len(), SAID);
    }

    #[test]
    fn delays_are_within_their_bounds_and_not_all_alike() {
        let most = Duration::from_secs(30);
        let delays: Vec<_> = (0..20).map(|_| random_part_of(most)).collect();
        assert!(delays.iter().all(|delay| *delay <= most));
        assert!(delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");
    }

    #[test]
    fn the_command_names_the_version_that_it_is_to_follow() {
        let due = Candidate {
            keystore: "demo".parse().unwrap(),
            id: "orders".parse().unwrap(),
            newest: (KeyVersion::new(3), ObjectId::new([0xab; 8])),
            why: Due::Age,
            settling: Duration::from_secs(10),
        };
        let command = command(&due, "/etc/xksd/xksd.toml".as_ref(), &["--begin"]);
        let arguments: Vec<_> =
            command.as_std().get_args().map(|word| word.to_str().unwrap()).collect();
        let expected = "keys rotate orders --json --keystore demo --follow 3:abababababababab \
                        --begin --config /etc/xksd/xksd.toml";
        assert_eq!(arguments.join(" "), expected);
    }
}
