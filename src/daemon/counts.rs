//! The encryption counts of the daemon: where they are, and for which tokens.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use crate::counts::Counts;
use crate::counts::ledger::TokenSet;
use crate::counts::limit::Share;
use crate::counts::store::StoreError;
use crate::keystore::Keystores;
use crate::metrics::Metrics;

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
    let share = Share::of(fleet_size);
    Counts::open(directory, share, &token_sets(keystores), metrics.clone()).map(Some)
}

/// The groups of tokens of these key stores, as counts know them.
pub(super) fn token_sets(keystores: &Keystores) -> BTreeSet<TokenSet> {
    keystores.iter().map(|keystore| TokenSet::new(keystore.tokens())).collect()
}
