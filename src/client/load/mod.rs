//! Load on a proxy, and how long its answers take: closed loop or open loop.
//!
//! - Closed loop: each worker sends when its last answer has come. It finds what a proxy can do,
//!   and hides its stalls: while the proxy stands still, nothing is asked.
//! - Open loop: requests are due at a fixed rate, whatever the answers do, and each latency counts
//!   from when its request was due. Who waits for a free connection because an earlier answer was
//!   late has waited for the proxy: no coordinated omission.
//!
//! The generator knows nothing of HTTP: it drives [`Target`]s. [`target`] has that of XKS.

pub mod capacity;
mod pace;
pub mod plot;
pub mod ratios;
pub mod recorder;
pub mod report;
pub mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

pub use pace::Pacer;
use pace::{Schedule, Slots};
pub use recorder::Recorder;

/// Something that can be asked again and again by one worker.
pub trait Target: Send + 'static {
    /// Asks once; an error is what to count it by.
    fn call(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// What decides when a request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loop {
    /// The answer to the one before.
    Closed,
    /// The clock.
    Open {
        /// Requests per second, over all workers. More than zero.
        rate: f64,
        /// How long after the last one was due requests may still be sent; those that had no free
        /// worker by then are counted as [`NOT_SENT`].
        grace: Duration,
        /// Who watches the clock.
        pacer: Pacer,
    },
}

/// What is counted for a request that was due and had no free worker to the end.
pub const NOT_SENT: &str = "(not sent)";

/// How much load, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// When requests are sent.
    pub kind: Loop,
    /// Time before anything counts.
    pub warmup: Duration,
    /// Time in which requests are sent that count.
    pub duration: Duration,
    /// Most requests that count; the run ends earlier when they are through.
    pub requests: Option<u64>,
}

/// What goes on between a run and those who watch it.
#[derive(Debug, Default)]
pub struct Control {
    /// Ends the run early.
    pub stop: AtomicBool,
    /// Good answers so far, those of the warm-up among them.
    pub answered: AtomicU64,
    /// Failures so far.
    pub failed: AtomicU64,
}

impl Control {
    fn count<E>(&self, outcome: &Result<(), E>) {
        let counter = if outcome.is_ok() { &self.answered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Puts load on targets, one worker each, until the plan is through or is stopped.
///
/// # Panics
/// Where a target does.
pub async fn run<T: Target>(plan: Plan, targets: Vec<T>, control: Arc<Control>) -> Recorder {
    let start = Instant::now();
    let (from, to) = (start + plan.warmup, start + plan.warmup + plan.duration);
    let clock = Clock { from, to, control };
    let mut workers = JoinSet::new();
    match plan.kind {
        Loop::Closed => {
            let left = Arc::new(AtomicU64::new(plan.requests.unwrap_or(u64::MAX)));
            for target in targets {
                workers.spawn(closed(target, clock.clone(), left.clone()));
            }
        }
        Loop::Open { rate, grace, pacer } => {
            let schedule = Schedule::new(start, rate);
            let warmup = schedule.slots_within(plan.warmup);
            let all = schedule.slots_within(plan.warmup + plan.duration);
            let total = plan.requests.map_or(all, |most| all.min(warmup.saturating_add(most)));
            let slots = Arc::new(Slots::new(schedule, total));
            pacer.start(slots.clone(), targets.len(), clock.control.clone());
            let cutoff = schedule.due(total) + grace;
            for target in targets {
                workers.spawn(open(target, clock.clone(), slots.clone(), cutoff));
            }
        }
    }
    let mut sum = Recorder::new(clock.from);
    while let Some(worker) = workers.join_next().await {
        sum.add(worker.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
    }
    sum
}

/// When requests count, and whether to go on at all.
#[derive(Clone)]
struct Clock {
    from: Instant,
    to: Instant,
    control: Arc<Control>,
}

impl Clock {
    fn is_stopped(&self) -> bool {
        self.control.stop.load(Ordering::Relaxed)
    }
}

async fn closed<T: Target>(mut target: T, clock: Clock, left: Arc<AtomicU64>) -> Recorder {
    let mut recorder = Recorder::new(clock.from);
    loop {
        let sent = Instant::now();
        if sent >= clock.to || clock.is_stopped() {
            return recorder;
        }
        let counts = sent >= clock.from;
        let take_one = |left: u64| left.checked_sub(1);
        if counts && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one).is_err() {
            return recorder;
        }
        let outcome = target.call().await;
        clock.control.count(&outcome);
        recorder.record(sent, Instant::now(), outcome);
    }
}

async fn open<T: Target>(
    mut target: T,
    clock: Clock,
    slots: Arc<Slots>,
    cutoff: Instant,
) -> Recorder {
    let mut recorder = Recorder::new(clock.from);
    while let Some(due) = slots.take().await {
        if clock.is_stopped() {
            break;
        }
        let outcome = if Instant::now() > cutoff {
            // What it has waited so far is a lower bound of what it would have waited.
            Err(NOT_SENT.to_owned())
        } else {
            target.call().await
        };
        clock.control.count(&outcome);
        recorder.record(due, Instant::now(), outcome);
    }
    recorder
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that takes a while, and now and then longer. Under tokio's paused clock all of
    /// this is exact.
    struct Server {
        takes: Duration,
        stall: Option<(u64, Duration)>,
        asked: u64,
    }

    impl Server {
        fn new(takes: u64) -> Self {
            Self { takes: Duration::from_millis(takes), stall: None, asked: 0 }
        }
    }

    impl Target for Server {
        async fn call(&mut self) -> Result<(), String> {
            self.asked += 1;
            match self.stall {
                Some((number, stall)) if number == self.asked => tokio::time::sleep(stall).await,
                _ => tokio::time::sleep(self.takes).await,
            }
            Ok(())
        }
    }

    fn plan(kind: Loop) -> Plan {
        let duration = Duration::from_secs(1);
        Plan { kind, warmup: Duration::ZERO, duration, requests: None }
    }

    fn at_rate(rate: f64) -> Loop {
        Loop::Open { rate, grace: Duration::from_secs(3600), pacer: Pacer::Timer }
    }

    async fn measure(plan: Plan, targets: Vec<Server>) -> Recorder {
        run(plan, targets, Arc::default()).await
    }

    /// Milliseconds, which the histogram keeps to three digits.
    fn millis(recorder: &Recorder, quantile: f64) -> u64 {
        (recorder.answered.value_at_quantile(quantile) + 500) / 1000
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_asks_when_it_has_its_answer() {
        let measured = measure(plan(Loop::Closed), vec![Server::new(10), Server::new(20)]).await;
        assert_eq!(measured.answered.len(), 100 + 50);
        assert_eq!((millis(&measured, 0.0), millis(&measured, 1.0)), (10, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_below_capacity_sees_the_servers_time() {
        let measured = measure(plan(at_rate(50.0)), vec![Server::new(10)]).await;
        assert_eq!(measured.answered.len(), 50);
        assert_eq!((millis(&measured, 0.0), millis(&measured, 1.0)), (10, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_counts_the_queueing_of_an_overloaded_server() {
        // 200 a second are asked of a server that can do 100: request i is due at 5 i ms and
        // answered at 10 (i + 1) ms.
        let measured = measure(plan(at_rate(200.0)), vec![Server::new(10)]).await;
        assert_eq!(measured.answered.len(), 200);
        assert_eq!(millis(&measured, 0.0), 10);
        assert_eq!(millis(&measured, 0.5), 10 + 5 * 99);
        assert_eq!(measured.answered.max().div_ceil(10_000), (10 + 5 * 199_u64).div_ceil(10));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_counts_all_who_waited_for_one_stall() {
        // 100 a second, 1 ms each, and one answer that takes half a second. A closed loop would
        // have seen one slow answer; 49 more were due while it lasted.
        let stalled = || {
            let mut server = Server::new(1);
            server.stall = Some((11, Duration::from_millis(500)));
            vec![server]
        };
        let measured = measure(plan(at_rate(100.0)), stalled()).await;
        let slow = |recorder: &Recorder| {
            let slow = recorder.answered.iter_recorded().filter(|v| v.value_iterated_to() > 10_000);
            slow.map(|value| value.count_at_value()).sum::<u64>()
        };
        assert_eq!(measured.answered.len(), 100);
        // The others wait 491, 482, ... ms: each catches up 9 ms on its predecessor.
        assert!(slow(&measured) > 49, "{}", slow(&measured));
        let closed = measure(plan(Loop::Closed), stalled()).await;
        assert_eq!(slow(&closed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_due_and_never_sent_is_counted() {
        let kind = Loop::Open { rate: 100.0, grace: Duration::from_secs(1), pacer: Pacer::Timer };
        let measured = measure(plan(kind), vec![Server::new(500)]).await;
        let not_sent = measured.errors[NOT_SENT];
        assert_eq!(measured.answered.len() + not_sent, 100);
        assert_eq!(not_sent, measured.failed.len());
        assert!(not_sent >= 95, "{not_sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_warm_up_does_not_count() {
        let slow_start = || {
            let mut server = Server::new(1);
            server.stall = Some((1, Duration::from_millis(900)));
            vec![server]
        };
        for kind in [Loop::Closed, at_rate(100.0)] {
            let warm = Plan { warmup: Duration::from_secs(2), ..plan(kind) };
            let measured = measure(warm, slow_start()).await;
            assert_eq!(millis(&measured, 1.0), 1, "{kind:?}");
            assert!((99..=1000).contains(&measured.answered.len()));
            assert!(measured.elapsed() <= Duration::from_millis(1001));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_of_requests_ends_the_run() {
        for kind in [Loop::Closed, at_rate(100.0)] {
            let few = Plan { requests: Some(7), warmup: Duration::from_millis(100), ..plan(kind) };
            let measured = measure(few, vec![Server::new(1), Server::new(1)]).await;
            assert_eq!(measured.answered.len(), 7, "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_run_ends_with_what_it_has() {
        for kind in [Loop::Closed, at_rate(100.0)] {
            let control = Arc::<Control>::default();
            let long = Plan { duration: Duration::from_secs(1_000_000), ..plan(kind) };
            let running = tokio::spawn(run(long, vec![Server::new(1)], control.clone()));
            tokio::time::sleep(Duration::from_millis(95)).await;
            assert!(control.answered.load(Ordering::Relaxed) >= 9, "{kind:?}");
            control.stop.store(true, Ordering::Relaxed);
            let measured = running.await.unwrap();
            let counted = control.answered.load(Ordering::Relaxed);
            assert_eq!(
                (counted, control.failed.load(Ordering::Relaxed)),
                (measured.answered.len(), 0)
            );
            assert!((9..=100).contains(&measured.answered.len()), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn the_thread_that_paces_releases_every_slot() {
        let kind =
            Loop::Open { rate: 100_000.0, grace: Duration::from_secs(3600), pacer: Pacer::Thread };
        let few = Plan { requests: Some(500), ..plan(kind) };
        let measured = measure(few, vec![Server::new(0), Server::new(0)]).await;
        assert_eq!(measured.answered.len(), 500);
    }
}
