//! What requests are served by now, and who still uses what was before it.

use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::pipeline::Snapshot;

/// The one place from which requests take what they are served by.
#[derive(Debug)]
pub struct Serving(RwLock<Arc<Lease>>);

/// A snapshot in use. Whoever has it goes on with it to the end, whatever is put in its place.
#[derive(Debug)]
pub struct Lease {
    snapshot: Snapshot,
    /// Dropped with the last of those who use it.
    in_use: watch::Sender<()>,
}

/// A snapshot that was replaced.
#[derive(Debug)]
#[must_use]
pub struct Replaced(watch::Receiver<()>);

impl Deref for Lease {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Lease {
    fn of(snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self { snapshot, in_use: watch::Sender::default() })
    }
}

impl Serving {
    /// Begins with this snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(RwLock::new(Lease::of(snapshot)))
    }

    /// What is served by now.
    pub fn current(&self) -> Arc<Lease> {
        // Held for the copy of a pointer. Nothing panics meanwhile.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another snapshot in its place: whoever asks from now on gets that one.
    pub fn replace(&self, snapshot: Snapshot) -> Replaced {
        let next = Lease::of(snapshot);
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, next);
        drop(current);
        Replaced(before.in_use.subscribe())
    }
}

impl Replaced {
    /// Waits until nobody uses it any more.
    pub async fn unused(mut self) {
        // Nothing is ever sent: this ends with the sender.
        while self.0.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::keystore::Keystores;
    use crate::wire::limits::Limits;

    fn snapshot(fleet_size: u32) -> Snapshot {
        Snapshot {
            keystores: Keystores::default(),
            groups: Default::default(),
            counts: None,
            fleet_size: NonZeroU32::new(fleet_size).unwrap(),
            limits: Limits::default(),
            deadline: Duration::from_millis(100),
        }
    }

    #[tokio::test]
    async fn a_request_keeps_what_it_began_with() {
        let serving = Serving::new(snapshot(1));
        let (one, other) = (serving.current(), serving.current());
        let unused = serving.replace(snapshot(2)).unused();
        tokio::pin!(unused);
        assert_eq!((one.fleet_size.get(), serving.current().fleet_size.get()), (1, 2));
        drop(one);
        assert!(tokio::time::timeout(Duration::ZERO, &mut unused).await.is_err());
        drop(other);
        unused.await;
    }

    #[tokio::test]
    async fn what_nobody_uses_is_let_go_at_once() {
        let serving = Serving::new(snapshot(1));
        serving.replace(snapshot(2)).unused().await;
        assert_eq!(serving.current().fleet_size.get(), 2);
    }
}
