//! The metrics of keys that are rotated without anybody asking.

use super::Metrics;
use crate::names::KeystoreName;

/// What came of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotated {
    /// A version was put in use.
    Done,
    /// Another daemon had done so.
    Overtaken,
    /// Nothing was put in use; the log says why.
    Failed,
}

impl Rotated {
    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Overtaken => "overtaken",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// A key fell due, and this came of it.
    pub fn rotated(&self, keystore: &KeystoreName, outcome: Rotated) {
        self.rotations.with_label_values(&[keystore.as_str(), outcome.label()]).inc();
    }
}
