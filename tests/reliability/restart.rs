//! The daemon is restarted under load.

use support::daemon::Daemon;
use support::load::{Outcome, Report};

use crate::figures::Row;
use crate::world::{Isolation, Scale, World};

/// No connection ended within an answer, or before the answer to a request that it had taken.
fn assert_nothing_cut(report: &Report) {
    let cut = |outcome: &Outcome| matches!(outcome, Outcome::Unanswered(why) if *why != NOT_THERE);
    let cut: Vec<_> = report.records.iter().filter(|record| cut(&record.outcome)).collect();
    assert!(cut.is_empty(), "{cut:?}");
}

/// What is no failure of the one that leaves.
const NOT_THERE: &str = "no connection";

/// Another daemon takes over before the first one leaves, as behind a load balancer.
pub(crate) fn taken_over(scale: Scale, isolation: Isolation) -> Row {
    let rounds = scale.pick(2, 10);
    let mut world = World::new(scale, isolation, &[]);
    let running = world.load().start(&world.vault);
    for _ in 0..rounds {
        running.wait_served(scale.pick(20, 400));
        let next = Daemon::start(world.daemon.site.clone());
        running.turn_to(next.address);
        let leaving = std::mem::replace(&mut world.daemon, next);
        leaving.signal("TERM");
        let (status, log) = leaving.wait_exit();
        assert_eq!(status.code(), Some(0), "{log}");
        world.kms.address = world.daemon.address;
    }
    running.wait_served(scale.pick(20, 400));
    let report = running.finish();
    assert_nothing_cut(&report);
    assert_eq!(report.refused(NOT_THERE), 0);
    let what = format!("SIGTERM, another xksd takes over ({})", isolation.name());
    world.finish(&what, &report).remark(format!("{rounds} times"))
}

/// Nobody takes over: the same address is served again when the process is.
pub(crate) fn restarted(scale: Scale, isolation: Isolation) -> Row {
    let rounds = scale.pick(2, 10);
    let world = World::new(scale, isolation, &[]);
    let address = world.daemon.address.to_string();
    let running = world.load().start(&world.vault);
    let World { mut daemon, kms, vault, .. } = world;
    for _ in 0..rounds {
        running.wait_served(scale.pick(20, 400));
        let site = daemon.site.clone();
        daemon.signal("TERM");
        let (status, log) = daemon.wait_exit();
        assert_eq!(status.code(), Some(0), "{log}");
        daemon = Daemon::start_with(site, &[("XKSD_SERVER__LISTEN", &address)]);
    }
    running.wait_served(scale.pick(20, 400));
    let report = running.finish();
    assert_nothing_cut(&report);
    let mut world = World { daemon, kms, vault, scale };
    let what = format!("SIGTERM, xksd started again ({})", isolation.name());
    world.finish(&what, &report).remark(format!("{rounds} times"))
}

#[test]
fn nothing_is_lost_when_another_takes_over() {
    for isolation in Isolation::BOTH {
        taken_over(Scale::Short, isolation);
    }
}

#[test]
fn nothing_in_flight_is_lost_in_a_restart() {
    for isolation in Isolation::BOTH {
        restarted(Scale::Short, isolation);
    }
}
