//! The auditor of a group of tokens: a task that tells the counts which versions of keys there are, as
//! often as the tokens are read, and shows what is counted of each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Counts;
use super::ledger::{Counted, TokenSet};
use crate::hsm::fleet::{Group, GroupCatalogue};
use crate::hsm::key::Key;
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

/// A version as metrics name it.
type Shown = (ExternalKeyId, KeyVersion, ObjectId);

/// See the module.
#[derive(Debug)]
pub struct Auditor {
    counts: Arc<Counts>,
    group: Arc<Group>,
    tokens: TokenSet,
    begun: Instant,
    shown: BTreeSet<Shown>,
}

impl Auditor {
    /// The auditor of this group.
    pub fn new(counts: Arc<Counts>, group: Arc<Group>) -> Self {
        let tokens = group.token_set().clone();
        Self { counts, group, tokens, begun: Instant::now(), shown: BTreeSet::new() }
    }

    /// Looks at every reading, for as long as this is awaited.
    pub async fn run(mut self) {
        let mut readings = self.group.watch_catalogue();
        loop {
            let catalogue = readings.borrow_and_update().clone();
            self.audit(&catalogue);
            if readings.changed().await.is_err() {
                return;
            }
        }
    }

    fn audit(&mut self, catalogue: &GroupCatalogue) {
        self.note_complete_reading(catalogue);
        let mut book = self.counts.book();
        let mut shown = BTreeSet::new();
        for key in catalogue.keys() {
            let counted = |object_id| Counted::new(key.id(), object_id, &self.tokens);
            let newest = key.newest();
            // Keys that nobody uses need nothing written down for them.
            let is_used = key.versions().iter().any(|v| book.used(&counted(v.object_id)).is_some());
            if is_used && key.is_enabled() && newest.usage.encrypt {
                book.want(&counted(newest.object_id), &self.tokens);
            }
            for version in key.versions() {
                if let Some(used) = book.used(&counted(version.object_id)) {
                    let version = (key.id().clone(), version.version, version.object_id);
                    self.show(&version, Some(used));
                    shown.insert(version);
                }
            }
        }
        let is_due = book.is_due();
        drop(book);
        for gone in self.shown.difference(&shown) {
            self.show(gone, None);
        }
        self.shown = shown;
        if is_due {
            self.counts.due.notify_one();
        }
    }

    /// What exists at the first complete reading after a loss counts as used; what comes later does not.
    fn note_complete_reading(&self, catalogue: &GroupCatalogue) {
        let is_complete =
            self.group.is_complete_since(catalogue, self.begun) && catalogue.unread() == 0;
        if !is_complete || !self.counts.book().is_lost(&self.tokens) {
            return;
        }
        // Keys too that no rule of a key store allows now: one may have.
        let readings: Vec<_> =
            self.group.tokens().iter().filter_map(|token| token.catalogue()).collect();
        let held = readings.iter().flat_map(|reading| reading.iter());
        let versions: BTreeSet<Counted> = held
            .flat_map(|(id, key)| {
                let versions = key.as_deref().map_or(&[][..], Key::versions);
                versions.iter().map(|version| Counted::new(id, version.object_id, &self.tokens))
            })
            .collect();
        self.counts.book().found(&self.tokens, &versions);
        let (tokens, versions) = (self.tokens.as_str(), versions.len());
        if versions == 0 {
            tracing::info!(
                tokens,
                "there are no keys yet: encryptions are counted from the first on"
            );
        } else {
            tracing::warn!(
                tokens,
                versions,
                "what these versions of keys have encrypted is not known: each counts as having used \
                 this proxy's share"
            );
        }
    }

    fn show(&self, (key, version, object_id): &Shown, used: Option<u64>) {
        let tokens = self.tokens.as_str();
        self.counts.metrics.encryptions_counted(tokens, key, *version, *object_id, used);
    }
}
