//! How many connections there may be, and who must go when there are too many.
//!
//! A connection on which no request was authenticated yet belongs to a stranger. Strangers may
//! stay for as long as anybody, but the oldest of them makes room when the limit is reached, so
//! that idle strangers can't keep KMS out; authenticated connections are never pushed out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// The open connections of a listener.
#[derive(Debug)]
pub struct Connections {
    limit: AtomicUsize,
    numbers: AtomicU64,
    open: Mutex<Open>,
    all_closed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    /// By number, hence the oldest first.
    strangers: BTreeMap<u64, Arc<Notify>>,
}

/// The right to be open. Given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    number: u64,
    /// Told when this connection has to make room.
    evicted: Arc<Notify>,
}

impl Connections {
    /// At most `limit` connections at once.
    pub fn new(limit: usize) -> Arc<Self> {
        let (numbers, open) = (AtomicU64::new(0), Mutex::default());
        let limit = AtomicUsize::new(limit);
        Arc::new(Self { limit, numbers, open, all_closed: Notify::new() })
    }

    /// Another limit, for connections to come.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A place for a new connection. At the limit the oldest stranger is told to leave; `None`
    /// if there is no stranger left.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let evicted = Arc::new(Notify::new());
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open();
        if open.count >= self.limit.load(Ordering::Relaxed) {
            let (_, oldest) = open.strangers.pop_first()?;
            oldest.notify_one();
        }
        open.count += 1;
        open.strangers.insert(number, evicted.clone());
        Some(Place { connections: self.clone(), number, evicted })
    }

    /// Connections that are open.
    pub fn count(&self) -> usize {
        self.open().count
    }

    /// Waits until none is open.
    pub async fn closed(&self) {
        loop {
            let all_closed = self.all_closed.notified();
            if self.count() == 0 {
                return;
            }
            all_closed.await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics while holding this lock")
    }
}

impl Place {
    /// A request on this connection was authenticated: it is no stranger's any more.
    pub fn authenticated(&self) {
        self.connections.open().strangers.remove(&self.number);
    }

    /// Waits until this connection has to make room.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.count -= 1;
        open.strangers.remove(&self.number);
        if open.count == 0 {
            self.connections.all_closed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_evicted(place: &Place) -> bool {
        tokio::time::timeout(Duration::ZERO, place.evicted()).await.is_ok()
    }

    #[tokio::test]
    async fn the_oldest_stranger_makes_room() {
        let connections = Connections::new(2);
        let kms = connections.enter().unwrap();
        kms.authenticated();
        let stranger = connections.enter().unwrap();
        let newcomer = connections.enter().unwrap();
        assert!(is_evicted(&stranger).await);
        assert!(!is_evicted(&kms).await);
        assert!(!is_evicted(&newcomer).await);
    }

    #[tokio::test]
    async fn nobody_enters_when_all_are_authenticated() {
        let connections = Connections::new(1);
        let kms = connections.enter().unwrap();
        kms.authenticated();
        assert!(connections.enter().is_none());
        drop(kms);
        assert!(connections.enter().is_some());
    }

    #[tokio::test]
    async fn a_lower_limit_pushes_nobody_out_who_is_no_stranger() {
        let connections = Connections::new(2);
        let [kms, stranger] = [(); 2].map(|()| connections.enter().unwrap());
        kms.authenticated();
        connections.set_limit(1);
        let newcomer = connections.enter().unwrap();
        assert!(is_evicted(&stranger).await && !is_evicted(&newcomer).await);
        newcomer.authenticated();
        assert!(connections.enter().is_none());
        drop((stranger, newcomer, kms));
        assert!(connections.enter().is_some());
    }

    #[tokio::test]
    async fn closed_waits_for_the_last() {
        let connections = Connections::new(1);
        let place = connections.enter().unwrap();
        let closed = connections.closed();
        tokio::pin!(closed);
        assert!(tokio::time::timeout(Duration::ZERO, &mut closed).await.is_err());
        drop(place);
        closed.await;
    }
}
