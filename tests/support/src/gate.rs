//! A gate at which a call hangs until the test lets it go on.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How long a test waits for something that is certain to come, before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Holds whoever passes it until it is opened; clones are the same gate.
#[derive(Clone)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    open: bool,
    arrived: usize,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// A gate that is closed.
    pub fn closed() -> Self {
        Self(Arc::default())
    }

    /// Lets everybody pass, from now on.
    pub fn open(&self) {
        let (state, changed) = &*self.0;
        state.lock().expect("nothing panics while holding this lock").open = true;
        changed.notify_all();
    }

    /// Waits until this many have come to the gate, whether or not they have passed it.
    ///
    /// # Panics
    /// Where they do not come within [`PATIENCE`].
    pub fn wait_for(&self, arrivals: usize) {
        let (state, changed) = &*self.0;
        let state = state.lock().expect("nothing panics while holding this lock");
        let (state, _timeout) = changed
            .wait_timeout_while(state, PATIENCE, |state| state.arrived < arrivals)
            .expect("nothing panics while holding this lock");
        let arrived = state.arrived;
        drop(state);
        assert!(arrived >= arrivals, "{arrived} instead of {arrivals} have come to the gate");
    }

    /// Comes to the gate, and waits until it is open.
    pub fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().expect("nothing panics while holding this lock");
        state.arrived += 1;
        changed.notify_all();
        while !state.open {
            state = changed.wait(state).expect("nothing panics while holding this lock");
        }
    }
}
