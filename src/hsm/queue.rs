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
    lanes: Mutex<Lanes<Job>>,
    /// A job has come.
    came: Condvar,
    metrics: Arc<TokenMetrics>,
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
        let withdrawn = self.queue.lanes().withdraw(self.lane, self.number);
        if let Some(job) = withdrawn {
            job.discard(&self.queue.metrics);
        }
    }
}

impl Queue {
    /// Room for so many jobs, one at least.
    pub(super) fn new(bound: usize, metrics: Arc<TokenMetrics>) -> Self {
        Self { lanes: Mutex::new(Lanes::new(bound)), came: Condvar::new(), metrics }
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
            let mut lanes = self.lanes();
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
            let job = self.lanes().take();
            if job.is_some() {
                return job;
            }
            thread::yield_now();
        }
        let (mut lanes, _timeout) = self
            .came
            .wait_timeout_while(self.lanes(), patience, |lanes| lanes.is_empty())
            .expect("nothing panics while holding this lock");
        lanes.take()
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<Job>> {
        self.lanes.lock().expect("nothing panics while holding this lock")
    }
}
