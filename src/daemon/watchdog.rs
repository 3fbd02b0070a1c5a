//! The service manager's watchdog: a sign of life at half its interval, and none from a daemon that
//! does not live. `WatchdogSec=` kills and restarts what gives none.
//!
//! That this task runs shows that the runtime turns. Before each sign every accept loop must have
//! come round as well. HSMs are none of its business: a restart mends none of them.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::notify::Notifier;
use crate::server::pulse::Monitor;

/// How often a sign is due, by `WATCHDOG_USEC` and `WATCHDOG_PID` (sd_watchdog_enabled(3)); `None`:
/// none is wanted of this process.
pub(super) fn due(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let limit = usec.and_then(|usec| usec.parse().ok()).map(Duration::from_micros);
    limit.filter(|limit| is_ours && !limit.is_zero()).map(|limit| limit / 2)
}

/// Gives signs of life for as long as these loops turn.
pub(super) async fn watch(notifier: Notifier, due: Duration, loops: Vec<Monitor>) {
    let mut interval = interval(due);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        sign(&notifier, &loops).await;
    }
}

/// One sign of life, once every loop has come round.
async fn sign(notifier: &Notifier, loops: &[Monitor]) {
    for monitor in loops {
        monitor.turns().await;
    }
    notifier.alive().await;
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::server::pulse::pulse;

    #[test]
    fn signs_are_due_at_half_the_interval() {
        let own = std::process::id().to_string();
        let half = Some(Duration::from_secs(15));
        assert_eq!(due(Some("30000000"), Some(&own)), half);
        assert_eq!(due(Some("30000000"), None), half);
        assert_eq!(due(Some("30000000"), Some("1")), None, "it is wanted of another process");
        assert_eq!(due(None, Some(&own)), None);
        for no_interval in ["0", "", "soon", "-1"] {
            assert_eq!(due(Some(no_interval), Some(&own)), None, "{no_interval}");
        }
    }

    /// One loop that hangs is enough; one that has ended is none.
    #[tokio::test]
    async fn a_loop_that_hangs_ends_the_signs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let notifier = Notifier::connect(Some(path.as_os_str())).unwrap();
        let signs = || {
            let mut message = [0; 64];
            let received = socket.recv(&mut message).map_err(|error| error.kind());
            received.map(|length| message[..length].to_vec())
        };

        let (mut turning, first) = pulse();
        let turns = tokio::spawn(async move {
            loop {
                turning.answer().await;
            }
        });
        let (hanging, second) = pulse();
        let (ended, third) = pulse();
        drop(ended);
        let loops = [first, second, third];
        let mut sign = Box::pin(sign(&notifier, &loops));
        for _ in 0..100 {
            tokio::select! {
                biased;
                () = &mut sign => panic!("a loop has not come round"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(signs(), Err(ErrorKind::WouldBlock));
        drop(hanging);
        sign.await;
        assert_eq!(signs().unwrap(), b"WATCHDOG=1\n");
        turns.abort();
    }
}
