//! The module crashes, hangs or is killed, under load.

use support::daemon::poll;
use support::process::Process;

use crate::figures::Row;
use crate::world::{Isolation, Scale, World};

/// How long a call may take before its process is killed.
const CALL_LIMIT: (&str, &str) = ("call_limit", "1s");

/// The process with the module dies, again and again.
pub(crate) fn killed(scale: Scale) -> Row {
    let rounds = scale.pick(2, 10);
    let mut world = World::new(scale, Isolation::Process, &[CALL_LIMIT]);
    let running = world.load().start(&world.vault);
    running.wait_served(scale.pick(20, 400));
    for _ in 0..rounds {
        let old = world.child();
        old.signal("KILL");
        poll(|| !old.exists(), || "it was not waited for".into());
        running.wait_served(scale.pick(20, 400));
    }
    let report = running.finish();
    world.finish("the module's process, SIGKILL", &report).remark(format!("{rounds} times"))
}

/// The process with the module stands still, again and again.
pub(crate) fn stopped(scale: Scale) -> Row {
    let rounds = scale.pick(1, 10);
    let mut world = World::new(scale, Isolation::Process, &[CALL_LIMIT]);
    let running = world.load().start(&world.vault);
    running.wait_served(scale.pick(20, 400));
    for _ in 0..rounds {
        let old = world.child();
        old.signal("STOP");
        poll(|| !old.exists(), || world.said());
        running.wait_served(scale.pick(20, 400));
    }
    let report = running.finish();
    let remark = format!("{rounds} times; call_limit = 1s");
    world.finish("the module's process, SIGSTOP", &report).remark(remark)
}

/// A call does not return until the process is killed for it.
pub(crate) fn hung(scale: Scale) -> Row {
    let rounds = scale.pick(1, 10);
    let mut world = World::new(scale, Isolation::Process, &[CALL_LIMIT]);
    let running = world.load().start(&world.vault);
    running.wait_served(scale.pick(20, 400));
    for _ in 0..rounds {
        let old = world.child();
        world.script("C_Encrypt nth 3 hang\n");
        poll(|| !old.exists(), || world.said());
        world.script("");
        running.wait_served(scale.pick(20, 400));
    }
    let report = running.finish();
    let remark = format!("{rounds} times; call_limit = 1s");
    world.finish("one C_Encrypt that never returns (process)", &report).remark(remark)
}

/// On threads nobody can end a call that hangs: its worker is gone until it returns.
pub(crate) fn hung_on_a_thread(scale: Scale) -> Row {
    let rounds = scale.pick(1, 10);
    let mut world = World::new(scale, Isolation::Thread, &[]);
    let running = world.load().start(&world.vault);
    running.wait_served(scale.pick(20, 400));
    for _ in 0..rounds {
        world.script("C_Encrypt nth 3 hang\n");
        running.wait_served(scale.pick(30, 400));
        world.script("");
        running.wait_served(scale.pick(20, 400));
    }
    let report = running.finish();
    let remark = format!("{rounds} times, 1 of 4 sessions; the other three serve");
    world.finish("one C_Encrypt that hangs for a while (thread)", &report).remark(remark)
}

/// The module crashes in a call.
pub(crate) fn crashed(scale: Scale) -> Row {
    let rounds = scale.pick(2, 10);
    let mut world = World::new(scale, Isolation::Process, &[CALL_LIMIT]);
    let running = world.load().start(&world.vault);
    running.wait_served(scale.pick(20, 400));
    for round in 0..rounds {
        let old = world.child();
        let how = ["C_Decrypt nth 3 crash\n", "C_EncryptInit nth 3 exit 3\n"][round % 2];
        world.script(how);
        poll(|| !old.exists(), || world.said());
        world.script("");
        running.wait_served(scale.pick(20, 400));
    }
    let report = running.finish();
    world
        .finish("the module crashes in a call (process)", &report)
        .remark(format!("{rounds} times"))
}

/// On threads a crash of the module is one of the daemon: that is what processes are for.
fn crashed_on_a_thread() {
    let world = World::new(Scale::Short, Isolation::Thread, &[]);
    let pid = Process(world.daemon.pid());
    let mut daemon = world.daemon;
    support::shim::set_script(&daemon.site.for_module("script"), "C_Encrypt crash\n");
    let running = support::load::Load::new(&world.kms, 50.0).start(&world.vault);
    poll(|| !daemon.is_running(), || "it goes on".into());
    drop(running);
    assert!(!pid.exists());
}

#[test]
fn a_module_that_is_killed_is_replaced() {
    killed(Scale::Short);
}

#[test]
fn a_module_that_stands_still_is_replaced() {
    stopped(Scale::Short);
}

#[test]
fn a_call_that_never_returns_costs_its_process() {
    hung(Scale::Short);
}

#[test]
fn a_call_that_hangs_on_a_thread_costs_a_session() {
    hung_on_a_thread(Scale::Short);
}

#[test]
fn a_module_that_crashes_is_replaced() {
    crashed(Scale::Short);
}

#[test]
fn a_module_that_crashes_on_a_thread_ends_the_daemon() {
    crashed_on_a_thread();
}
