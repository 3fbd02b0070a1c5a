//! Leaving without cutting anybody off, in three steps that only go forward.

use tokio::sync::watch;

/// How far the daemon is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Serving,
    /// Serving still, while `/readyz` says no, so that load balancers look elsewhere.
    Leaving,
    /// No new connections; those that are open end with the answer they owe.
    Closing,
}

/// Moves the phase on.
#[derive(Debug)]
pub struct Drain(watch::Sender<Phase>);

/// Sees the phase.
#[derive(Debug, Clone)]
pub struct Draining(watch::Receiver<Phase>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }
}

impl Drain {
    /// Goes on to this phase; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let further = phase > *now;
            *now = phase.max(*now);
            further
        });
    }

    /// For those who must see it.
    pub fn watch(&self) -> Draining {
        Draining(self.0.subscribe())
    }
}

impl Draining {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits for [`Phase::Closing`].
    pub async fn closing(&mut self) {
        // An error means that the daemon has let go of its end: it is closing, too.
        let _ = self.0.wait_for(|phase| *phase == Phase::Closing).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let drain = Drain::default();
        let draining = drain.watch();
        assert_eq!(draining.phase(), Phase::Serving);
        drain.advance(Phase::Closing);
        drain.advance(Phase::Leaving);
        assert_eq!(draining.phase(), Phase::Closing);
    }
}
