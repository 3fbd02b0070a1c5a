//! Under a service manager: what it is told, and memory that stays where it is.

use std::fs;
use std::sync::Arc;

use support::daemon::{Daemon, poll};
use support::manager::Notifications;
use support::process::Process;
use support::site::{Configuration, text};

use crate::world::{demo, small_site};

/// A daemon that would take ten minutes to leave, and what it says.
fn supervised(environment: &[(&str, &str)]) -> (Daemon, Notifications) {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.drain.insert("delay", text("10m"));
    configuration.drain.insert("timeout", text("1m"));
    let manager = Notifications::new();
    let address = manager.address();
    let environment = [environment, &[("NOTIFY_SOCKET", &address)]].concat();
    (Daemon::launch(Arc::new(small_site(&configuration)), &environment), manager)
}

fn microseconds(message: &[String], name: &str) -> u64 {
    let value = message.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {message:?}")).parse().unwrap()
}

/// From READY=1, which comes with the listeners and not with the HSM, to the end.
#[test]
fn the_manager_is_told_what_happens() {
    let (daemon, manager) = supervised(&[]);
    let ready = manager.next();
    assert_eq!(ready[0], "READY=1", "nothing comes before");
    assert!(ready[1].starts_with("STATUS=serving; tokens: softhsm "), "{ready:?}");
    if !ready[1].ends_with(" up") {
        manager.wait_for("STATUS=serving; tokens: softhsm up");
    }

    // The module has lost its way to the token for good.
    fs::remove_file(&daemon.site.token.conf).unwrap();
    let [child] = Process(daemon.pid()).children()[..] else { panic!("one token, one process") };
    child.signal("KILL");
    let down = manager.wait_for("STATUS=serving; tokens: softhsm down (");
    assert_eq!(down.len(), 1, "{down:?}");

    daemon.signal("TERM");
    let leaving = manager.wait_for("STOPPING=1");
    assert!(leaving.iter().any(|line| line.starts_with("STATUS=leaving, serving")), "{leaving:?}");
    // As long as it may take until the next word, and more.
    assert!(microseconds(&leaving, "EXTEND_TIMEOUT_USEC") > 10 * 60 * 1_000_000);
    daemon.signal("TERM");
    let closing = manager.wait_for("STATUS=leaving, answering");
    assert!(microseconds(&closing, "EXTEND_TIMEOUT_USEC") > 60 * 1_000_000);
    let (status, log) = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// Around every reload, and also around one that is refused.
#[test]
fn the_manager_is_told_of_reloads() {
    let (daemon, manager) = supervised(&[]);
    manager.wait_for("READY=1");
    for _ in 0..2 {
        daemon.signal("HUP");
        let reloading = manager.wait_for("RELOADING=1");
        assert!(microseconds(&reloading, "MONOTONIC_USEC") > 0);
        let done = manager.wait_for("READY=1");
        assert!(done[1].starts_with("STATUS=serving; tokens: softhsm "), "{done:?}");
        fs::write(daemon.site.path().join("xksd.toml"), "nonsense").unwrap();
    }
    daemon.wait_for_metric("xksd_reload_refused", 1.0);
}

/// Signs of life come again and again, before the end as well: the manager must not kill what is
/// answering its last requests.
#[test]
fn the_watchdog_is_fed_to_the_end() {
    let (daemon, manager) = supervised(&[("WATCHDOG_USEC", "20000")]);
    manager.wait_for("READY=1");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    daemon.signal("TERM");
    manager.wait_for("STOPPING=1");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit().0.code(), Some(0));
}

/// A manager's watchdog is that of the process that it names.
#[test]
fn the_watchdog_of_another_process_is_left_alone() {
    let (daemon, manager) = supervised(&[("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")]);
    let mut told = vec![manager.next()];
    daemon.signal("TERM");
    while !told.last().unwrap().contains(&"STOPPING=1".to_owned()) {
        told.push(manager.next());
    }
    assert!(!told.concat().contains(&"WATCHDOG=1".to_owned()), "{told:?}");
}

/// The vendor's library can neither speak for the daemon nor find its sockets.
#[test]
fn the_process_of_a_module_knows_no_manager() {
    let (daemon, _manager) = supervised(&[("WATCHDOG_USEC", "20000")]);
    daemon.wait_ready();
    let [child] = Process(daemon.pid()).children()[..] else { panic!("one token, one process") };
    let names: Vec<String> = child.environment().into_keys().collect();
    assert_eq!(names, ["SOFTHSM2_CONF"]);
}

/// Secrets are not written to swap: neither the daemon's nor the PIN in the process of its module.
/// Locked is what is used, and not every byte of every stack.
#[test]
fn memory_is_locked_where_that_is_allowed() {
    let daemon = Daemon::start(small_site(&Configuration::new(vec![demo()])));
    let refused = "cannot lock memory";
    if daemon.logged().contains(refused) {
        support::not_run("that memory is locked: this user may not (RLIMIT_MEMLOCK)");
        return;
    }
    let [child] = Process(daemon.pid()).children()[..] else { panic!("one token, one process") };
    for Process(pid) in [Process(daemon.pid()), child] {
        let kilobytes = |name: &str| -> u64 {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
        };
        // Everything that is mapped, but for a page or two of the kernel's own.
        poll(
            || kilobytes("VmLck") * 10 > kilobytes("VmSize") * 9,
            || format!("{} of {} kB locked", kilobytes("VmLck"), kilobytes("VmSize")),
        );
        assert!(kilobytes("VmRSS") * 2 < kilobytes("VmLck"), "stacks are not made resident");
    }
}
