//! An HSM across a network that stands still, or is gone for a while.

use support::daemon::Daemon;
use support::network_hsm::NetworkHsm;
use support::site::{Configuration, Site, text};

use crate::figures::Row;
use crate::world::{Isolation, Scale, World, XKSD, demo};

/// A daemon whose HSM is SoftHSM2 behind `p11-kit server`; `None` where that is not at hand.
fn world(scale: Scale, isolation: Isolation) -> Option<(World, NetworkHsm)> {
    let place = NetworkHsm::place()?;
    let mut site = Site::new(XKSD);
    let xksd = site.path().join("xksd");
    NetworkHsm::copy_program(&place, &site.xksd, &xksd);
    site.xksd = xksd;
    let hsm = NetworkHsm::serve(place.clone(), &site.token, site.path());
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.server.insert("deadline", text(scale.deadline()));
    configuration.log.insert("level", text("warn,xksd::daemon=info"));
    configuration.module = Some(NetworkHsm::module(&place));
    for (key, value) in [("isolation", isolation.name()), ("call_limit", "1s")] {
        configuration.token.insert(key, text(value));
    }
    let address = NetworkHsm::address(site.path());
    let environment = format!("{{ P11_KIT_SERVER_ADDRESS = \"{address}\" }}");
    configuration.token.insert("environment", environment);
    site.configure(&configuration);
    for key in ["demo-key", "demo-second"] {
        site.create_key(key, "encrypt,decrypt");
    }
    Some((World::of(scale, Daemon::start(site)), hsm))
}

/// The server stands still for a while: nothing answers, and nothing says so.
pub(crate) fn stopped(scale: Scale, isolation: Isolation) -> Option<Row> {
    let (mut world, hsm) = world(scale, isolation)?;
    let rounds = scale.pick(1, 5);
    let running = world.load().start(&world.vault);
    running.wait_served(scale.pick(20, 400));
    for _ in 0..rounds {
        hsm.signal("STOP");
        // Three seconds.
        running.wait(3 * scale.rate() as usize);
        hsm.signal("CONT");
        running.wait_served(scale.pick(20, 400));
    }
    let report = running.finish();
    let what = format!("p11-kit server, SIGSTOP for 3 s ({})", isolation.name());
    Some(world.finish(&what, &report).remark(format!("{rounds} times")))
}

/// The server is gone for a while, and comes back as another process.
///
/// Not on threads: p11-kit's client answers everything with CKR_DEVICE_ERROR from then on, until the
/// module is finalised, which nobody can do while calls may be in it.
pub(crate) fn killed(scale: Scale) -> Option<Row> {
    let (mut world, mut hsm) = world(scale, Isolation::Process)?;
    let rounds = scale.pick(1, 5);
    let running = world.load().start(&world.vault);
    running.wait_served(scale.pick(20, 400));
    for _ in 0..rounds {
        hsm.kill();
        // One second.
        running.wait(scale.rate() as usize);
        hsm.start();
        running.wait_served(scale.pick(20, 400));
    }
    let report = running.finish();
    let what = "p11-kit server, killed and back after 1 s (process)";
    Some(world.finish(what, &report).remark(format!("{rounds} times")))
}

#[test]
fn a_network_hsm_that_stands_still_is_waited_for() {
    for isolation in Isolation::BOTH {
        stopped(Scale::Short, isolation);
    }
}

#[test]
fn a_network_hsm_that_was_gone_is_found_again() {
    killed(Scale::Short);
}
