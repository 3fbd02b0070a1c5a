//! Where jobs wait for a session: between the asynchronous side, which puts them in and never waits
//! for room, and the workers, which wait for them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::lanes::{Lane, Lanes, Place, Pushed};
use super::token::{Job, TokenError};
use crate::metrics::{JobRefused, TokenMetrics};

/// How often a worker looks for a job, and lets other threads run, before it sleeps. Under load the
/// next job comes meanwhile, and nobody has to be woken for it: with SoftHSM2 and 32 requests at once
/// there were 1.2 changes of context for each request without this, and are 0.5 with it.
const LOOKS: usize = 12;

/// See the module.
pub(super) struct Queue {
    /// Held for as long as it takes to move a job, never while one is answered or dropped.
    state: Mutex<State>,
    /// A job has come.
    came: Condvar,
    metrics: Arc<TokenMetrics>,
}

struct State {
    lanes: Lanes<Job>,
    /// Whether jobs are taken in: while the token is connected.
    is_open: bool,
}

/// Held by whoever waits for a job's answer. Once it is dropped, the job is in nobody's way: if it
/// still waits, it leaves the queue. So the queue holds no work that has expired, since whoever
/// waits for it does so until its deadline and no longer, and none that was abandoned.
#[must_use]
pub(super) struct Ticket<'a> {
    queue: &'a Queue,
    lane: &'a Lane,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let withdrawn = self.queue.state().lanes.withdraw(self.lane, self.number);
        if let Some(job) = withdrawn {
            job.discard(&self.queue.metrics);
        }
    }
}

impl Queue {
    /// Room for so many jobs, one at least; closed.
    pub(super) fn new(bound: usize, metrics: Arc<TokenMetrics>) -> Self {
        let state = State { lanes: Lanes::new(bound), is_open: false };
        Self { state: Mutex::new(state), came: Condvar::new(), metrics }
    }

    /// Takes jobs in from now on.
    pub(super) fn open(&self) {
        self.state().is_open = true;
    }

    /// Takes no jobs in any more. Those that wait are answered at once: another token may do them.
    pub(super) fn close(&self) {
        let jobs: Vec<Job> = {
            let mut state = self.state();
            state.is_open = false;
            std::iter::from_fn(|| state.lanes.take()).collect()
        };
        for job in jobs {
            self.metrics.refused(JobRefused::Down);
            job.refuse(TokenError::Down);
        }
    }

    /// Has a job done, unless too much is before it, by this judgement, or there is no room. What
    /// has to leave for it is answered at once.
    pub(super) fn push<'a>(
        &'a self,
        lane: &'a Lane,
        job: Job,
        is_too_much: impl FnOnce(Place) -> bool,
    ) -> Result<Ticket<'a>, TokenError> {
        let pushed = {
            let State { lanes, is_open } = &mut *self.state();
            if !*is_open {
                self.metrics.refused(JobRefused::Down);
                return Err(TokenError::Down);
            }
            if is_too_much(lanes.place(lane)) { None } else { Some(lanes.push(lane, job)) }
        };
        match pushed {
            Some(Ok(Pushed { number, displaced })) => {
                self.came.notify_one();
                if let Some(displaced) = displaced {
                    self.metrics.refused(JobRefused::QueueFull);
                    displaced.refuse(TokenError::QueueFull);
                }
                Ok(Ticket { queue: self, lane, number })
            }
            Some(Err(_job)) => {
                self.metrics.refused(JobRefused::QueueFull);
                Err(TokenError::QueueFull)
            }
            // Refused now rather than answered too late.
            None => {
                self.metrics.refused(JobRefused::Overloaded);
                Err(TokenError::Overloaded)
            }
        }
    }

    /// The job whose turn it is; `None` if there is none for so long.
    pub(super) fn take(&self, patience: Duration) -> Option<Job> {
        for _ in 0..LOOKS {
            let job = self.state().lanes.take();
            if job.is_some() {
                return job;
            }
            thread::yield_now();
        }
        let (mut state, _timeout) = self
            .came
            .wait_timeout_while(self.state(), patience, |state| state.lanes.is_empty())
            .expect("nothing panics while holding this lock");
        state.lanes.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding this lock")
    }
}
