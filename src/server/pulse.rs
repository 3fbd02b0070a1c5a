//! Whether a loop still turns: it is asked, and answers when it comes round.

use std::future::pending;

use tokio::sync::{mpsc, oneshot};

/// The loop's side.
#[derive(Debug)]
pub struct Pulse(mpsc::Receiver<oneshot::Sender<()>>);

/// The side of who wants to know.
#[derive(Debug)]
pub struct Monitor(mpsc::Sender<oneshot::Sender<()>>);

/// The two sides for one loop.
pub fn pulse() -> (Pulse, Monitor) {
    let (monitor, pulse) = mpsc::channel(1);
    (Pulse(pulse), Monitor(monitor))
}

impl Pulse {
    /// Answers the next question; waits for ever where nobody asks any more. One branch of the
    /// loop's `select!`: nothing is lost where another one is taken.
    pub async fn answer(&mut self) {
        match self.0.recv().await {
            // Who has asked may have left.
            Some(question) => drop(question.send(())),
            None => pending().await,
        }
    }
}

impl Monitor {
    /// Waits until the loop has come round. One that has ended is not waited for: whether it may
    /// have is for others to say.
    pub async fn turns(&self) {
        let (question, answer) = oneshot::channel();
        if self.0.send(question).await.is_ok() {
            // The loop may end with the question in its hands.
            let _ = answer.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_loop_that_does_not_come_round_does_not_answer() {
        let (mut pulse, monitor) = pulse();
        let mut turns = pin!(monitor.turns());
        for _ in 0..3 {
            assert_eq!(poll(turns.as_mut()), Poll::Pending);
        }
        assert_eq!(poll(pin!(pulse.answer())), Poll::Ready(()));
        assert_eq!(poll(turns.as_mut()), Poll::Ready(()));
    }

    #[test]
    fn a_loop_that_has_ended_is_not_waited_for() {
        let (pulse, monitor) = pulse();
        let mut turns = pin!(monitor.turns());
        assert_eq!(poll(turns.as_mut()), Poll::Pending);
        drop(pulse);
        assert_eq!(poll(turns.as_mut()), Poll::Ready(()));
        assert_eq!(poll(pin!(monitor.turns())), Poll::Ready(()));
    }

    #[test]
    fn a_loop_that_nobody_asks_waits() {
        let (mut pulse, monitor) = pulse();
        drop(monitor);
        assert_eq!(poll(pin!(pulse.answer())), Poll::Pending);
    }
}
