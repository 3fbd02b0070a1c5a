//! The metrics of encryption counts.

use super::Metrics;
use crate::names::{ExternalKeyId, KeyVersion, ObjectId};

impl Metrics {
    /// So many encryptions count against a version's limit; `None`: there is no such version.
    pub fn encryptions_counted(
        &self,
        tokens: &str,
        key: &ExternalKeyId,
        version: KeyVersion,
        object_id: ObjectId,
        used: Option<u64>,
    ) {
        let (version, object_id) = (version.to_string(), object_id.to_string());
        let labels = [tokens, key.as_str(), &version, &object_id];
        match used {
            Some(used) => self.encryptions_counted.with_label_values(&labels).set(in_gauge(used)),
            // It may never have been shown.
            None => drop(self.encryptions_counted.remove_label_values(&labels)),
        }
    }

    /// What this proxy may use of each version.
    pub fn encryption_share(&self, encryptions: u64) {
        self.encryption_share.set(in_gauge(encryptions));
    }

    /// The counts could not be written.
    pub fn count_write_failed(&self) {
        self.count_write_failures.inc();
    }
}

fn in_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
