//! What is known of each credential: how old it is, and when it was last used.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::proto::LabelPair;

use super::Metrics;
use crate::names::{AccessKeyId, KeystoreName};

impl Metrics {
    /// When the secret of a credential was last changed.
    pub fn credential_created(
        &self,
        keystore: &KeystoreName,
        access_key_id: &AccessKeyId,
        at: SystemTime,
    ) {
        let labels = [keystore.as_str(), access_key_id.as_str()];
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.credential_created.with_label_values(&labels).set(since.as_secs_f64());
    }

    /// When a request that was signed with this id was last accepted, in seconds since 1970; `None`:
    /// never, as long as this process lives.
    pub fn credential_last_used(
        &self,
        keystore: &KeystoreName,
        access_key_id: &AccessKeyId,
    ) -> Option<f64> {
        // By name it would be made if it were not there.
        let families = self.credential_last_used.collect();
        let series = families.iter().flat_map(|family| family.get_metric());
        let has = |labels: &[LabelPair], name: &str, value: &str| {
            labels.iter().any(|label| label.name() == name && label.value() == value)
        };
        let mut mine = series.filter(|series| {
            let labels = series.get_label();
            has(labels, "keystore", keystore.as_str())
                && has(labels, "access_key_id", access_key_id.as_str())
        });
        mine.next().map(|series| series.get_gauge().get_value())
    }
}
