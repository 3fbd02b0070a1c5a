//! The encryption counts of the daemon: where they are, and the tasks that keep them.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::counts::Counts;
use crate::counts::auditor::Auditor;
use crate::counts::ledger::TokenSet;
use crate::counts::limit::Share;
use crate::counts::store::StoreError;
use crate::hsm::fleet::Group;
use crate::keystore::Keystores;
use crate::metrics::Metrics;
use crate::names::KeystoreName;

/// Opens the state directory, if there is one.
pub(super) fn open(
    directory: Option<&Path>,
    fleet_size: NonZeroU32,
    keystores: &Keystores,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Counts>>, StoreError> {
    let Some(directory) = directory else {
        tracing::info!("no state directory: encryptions are not counted against their limit");
        return Ok(None);
    };
    let groups = keystores.iter().map(|keystore| TokenSet::new(keystore.tokens())).collect();
    let share = Share::of(fleet_size);
    Counts::open(directory, share, &groups, metrics.clone()).map(Some)
}

/// Starts what writes, and an auditor for each group of tokens.
pub(super) fn start(
    counts: &Arc<Counts>,
    groups: &HashMap<KeystoreName, Arc<Group>>,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(counts.clone().keep());
    let mut audited = BTreeSet::new();
    for group in groups.values() {
        if audited.insert(group.token_set()) {
            tasks.spawn(Auditor::new(counts.clone(), group.clone()).run());
        }
    }
}
