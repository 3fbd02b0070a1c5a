//! Policies of another text: all of them are in force at once, or none.

use std::fs;

use support::daemon::poll;
use support::request::encrypt_body;
use support::site::{Tenant, text};

use super::World;
use crate::world::demo;

const ACCESS_DENIED: &str = "AccessDeniedException";
const ANYBODY: &str = "@id(\"anybody\")\npermit (principal, action, resource);\n";
const NOBODY: &str = "@id(\"nobody\")\nforbid (principal, action, resource);\n";

/// The files count as the configuration does, those that appear under a name with a `*` too. A set
/// that is broken in one file changes nothing, not even by its other file.
#[test]
fn policies_are_reloaded_as_a_whole_p_80() {
    let mut world = World::with(|site, configuration| {
        let lines = vec!["authorization = { policies = [\"*.cedar\"] }"];
        configuration.tenants = vec![Tenant { lines, ..demo() }];
        fs::write(site.path().join("a.cedar"), ANYBODY).expect("it can be written");
    });
    let (kms, body) = (world.kms(&demo()), encrypt_body(b"text", None));
    let target = "keys/demo-key/encrypt";
    let file = |name: &str| world.site.path().join(name);
    let (first, second) = (file("a.cedar"), file("b.cedar"));
    kms.accepted(target, &body);
    fs::write(&first, NOBODY).expect("it can be written");
    fs::write(&second, "permit (principal").expect("it can be written");
    world.refused(|_configuration| {}, 78, "b.cedar");
    kms.accepted(target, &body);
    fs::remove_file(&second).expect("it is there");
    let said = world.applied(|_configuration| {});
    assert!(said.contains("key store demo: changed"), "{said}");
    kms.refused(target, &body, 403, ACCESS_DENIED);
    fs::write(&first, ANYBODY).expect("it can be written");
    world.applied(|configuration| {
        configuration.reload.insert("on_change", text("1s"));
    });
    kms.accepted(target, &body);
    fs::write(&second, NOBODY).expect("it can be written");
    poll(|| kms.call(target, &body).status == 403, || world.daemon.logged());
}
