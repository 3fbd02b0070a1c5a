//! What takes a restart is named, and the rest is in force.

use support::daemon::poll;
use support::request::bare_body;
use support::site::{Credential, text};

use super::{World, stderr};
use crate::world::{AUTHENTICATION_FAILED, demo};

#[test]
fn what_takes_a_restart_is_named() {
    let mut world = World::new();
    let kms = world.kms(&demo());
    let output = world.reload(|configuration| {
        configuration.server.insert("listen", text("127.0.0.2:0"));
        configuration.ops.insert("metrics_listen", text("127.0.0.1:0"));
        configuration.log.insert("format", text("text"));
        configuration.tenants[0].credentials[0] = Credential::of('N');
    });
    assert!(output.status.success(), "{}", stderr(&output));
    let settings = ["server.listen", "ops.metrics_listen", "log.format"];
    for setting in settings {
        let said = format!("warning: {setting} counts once xksd is started anew");
        assert!(stderr(&output).contains(&said), "{}", stderr(&output));
        let logged = format!("\"setting\":\"{setting}\"");
        assert!(world.daemon.logged().contains(&logged), "{}", world.daemon.logged());
    }
    kms.refused("health", &bare_body("KmsHealthCheck"), 401, AUTHENTICATION_FAILED);
    assert_eq!(world.metric("xksd_restart_pending"), 3.0);
    let shown = world.site.run(&["status"]);
    let pending = format!("RESTART PENDING for {}", settings.join(", "));
    assert!(shown.contains(&pending), "{shown}");
    // Nothing is pending any more once it is taken back.
    world.applied(|configuration| {
        configuration.server.insert("listen", text("127.0.0.1:0"));
        configuration.ops.remove("metrics_listen");
        configuration.log.remove("format");
    });
    assert_eq!(world.metric("xksd_restart_pending"), 0.0);
    assert!(!world.site.run(&["status"]).contains("RESTART"));
}

/// How the daemon leaves is looked up when it does.
#[test]
fn the_daemon_leaves_as_it_was_told_last() {
    let mut world = World::new();
    world.applied(|configuration| drop(configuration.drain.insert("delay", text("10m"))));
    let (kms, health) = (world.kms(&demo()), bare_body("KmsHealthCheck"));
    world.daemon.signal("TERM");
    let ready = || world.daemon.ask(world.daemon.ops, "/readyz");
    poll(|| ready() == (503, "leaving\n".into()), || "ready".into());
    kms.accepted("health", &health);
    // A second one cuts the wait short.
    world.daemon.signal("TERM");
    let (status, log) = world.daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
}
