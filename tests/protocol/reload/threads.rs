//! Tokens on the daemon's own threads, for which some settings take a restart.

use std::fs;
use std::sync::Arc;

use support::caller::Caller;
use support::daemon::Daemon;
use support::request::encrypt_body;
use support::site::{Configuration, text};

use super::{World, stderr};
use crate::world::demo;

const ENCRYPT: &str = "keys/demo-key/encrypt";

fn on_threads() -> World {
    World::with(|_site, configuration| {
        configuration.token.insert("isolation", text("thread"));
    })
}

#[test]
fn a_token_is_replaced_on_threads() {
    let mut world = on_threads();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    let changes = world.applied(|configuration| {
        configuration.token.insert("sessions", "3".to_owned());
    });
    assert_eq!(changes, "token softhsm: started anew\n");
    // The old one's are closed once nobody needs them.
    world.daemon.wait_for_metric("xksd_hsm_sessions{token=\"softhsm\"}", 3.0);
    kms.accepted(ENCRYPT, &body);
    // Into a process of its own, and back.
    for isolation in ["process", "thread"] {
        world.applied(|c| drop(c.token.insert("isolation", text(isolation))));
        kms.accepted(ENCRYPT, &body);
    }
}

/// A library in this process is logged in, and knows its environment: both stay until a restart.
#[test]
fn what_the_process_has_takes_a_restart() {
    let mut world = on_threads();
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    fs::write(world.site.path().join("token.pin"), "canary-other-PIN").expect("it can be written");
    let output = world.reload_as_written();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = "warning: tokens.softhsm.pin counts once xksd is started anew";
    assert!(stderr(&output).contains(said), "{}", stderr(&output));
    let output = world.reload(|configuration| {
        configuration.token.insert("environment", "{ OTHER = \"value\" }".to_owned());
    });
    assert!(output.status.success(), "{}", stderr(&output));
    let said = "warning: tokens.softhsm.environment counts once xksd is started anew";
    assert!(stderr(&output).contains(said), "{}", stderr(&output));
    assert_eq!(world.metric("xksd_restart_pending"), 1.0);
    kms.accepted(ENCRYPT, &body);
    // One that is not there yet can't be had at all.
    let twin = [("isolation", text("thread")), ("environment", "{ OTHER = \"value\" }".to_owned())];
    let change = |configuration: &mut Configuration| {
        configuration.token.remove("environment");
        configuration.twin = Some(twin.into());
    };
    world.refused(change, 78, "tokens.twin.environment: a module on the daemon's threads");
    kms.accepted(ENCRYPT, &body);
}

/// A PIN that was wrong from the start can be corrected without a restart.
#[test]
fn a_refused_pin_is_corrected() {
    for isolation in ["thread", "process"] {
        let mut configuration = Configuration::new(vec![demo()]);
        configuration.ops.insert("control_socket", text("control.sock"));
        configuration.token.insert("isolation", text(isolation));
        let site = Arc::new(crate::world::small_site(&configuration));
        fs::write(site.path().join("token.pin"), "canary-wrong-PIN").expect("it can be written");
        let daemon = Daemon::launch(site.clone(), &[]);
        daemon.wait_for_line("the PIN was refused and is not tried again");
        site.configure(&configuration);
        let world = World { daemon, site, configuration };
        let output = world.reload_as_written();
        assert!(output.status.success(), "{isolation}: {}", stderr(&output));
        let kms = Caller::new(&world.daemon, &demo());
        kms.accepted(ENCRYPT, &encrypt_body(b"text", None));
    }
}
