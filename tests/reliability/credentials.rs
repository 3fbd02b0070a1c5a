//! Credentials are rotated under load, step by step as `docs/operations.md` says.

use std::fs;
use std::sync::Arc;

use serde_json::Value;
use support::caller::{Caller, assert_refused};
use support::daemon::{Daemon, poll};
use support::request::encrypt_body;
use support::site::{Configuration, Credential, Site, Tenant, text};

use crate::figures::Row;
use crate::world::{Scale, World, XKSD};

const OPERATIONS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md"));

/// The commands of the guide, without those of other programs.
fn commands() -> Vec<Vec<&'static str>> {
    let (_, guide) = OPERATIONS.split_once("## Rotating credentials").expect("it is there");
    let (guide, _) = guide.split_once("\n## ").expect("another section follows");
    let commands = guide.lines().filter_map(|line| line.trim().strip_prefix("xksd "));
    commands.map(|command| command.split_whitespace().collect()).collect()
}

/// A site whose credentials are in a directory.
struct Rotating {
    site: Arc<Site>,
    commands: Vec<Vec<&'static str>>,
}

impl Rotating {
    fn new(scale: Scale) -> Self {
        let mut tenant = Tenant::new("demo", "demo", &["demo-*"], 'A');
        tenant.credentials.clear();
        tenant.lines =
            vec!["verify_writes = \"when_asked\"", "credentials_directory = \"credentials/demo\""];
        let mut configuration = Configuration::new(vec![tenant]);
        configuration.server.insert("deadline", text(scale.deadline()));
        configuration.log.insert("level", text("warn,xksd::daemon=info"));
        configuration.ops.insert("control_socket", text("control.sock"));
        let site = Site::new(XKSD);
        site.configure(&configuration);
        Self { site: Arc::new(site), commands: commands() }
    }

    /// Runs a command of the guide; `ID`, `OLD-ID` and the file stand for what they are.
    fn step(&self, verb: &str, id: &str, old: &str) -> String {
        let command = self.commands.iter().find(|words| words[..2] == ["credentials", verb]);
        let command = command.unwrap_or_else(|| panic!("the guide has no `credentials {verb}`"));
        let file = self.site.path().join("kms.json").display().to_string();
        let filled = command.iter().map(|word| match *word {
            "ID" => id,
            "OLD-ID" => old,
            "kms.json" => &file,
            word => word,
        });
        self.site.run(&filled.collect::<Vec<_>>())
    }

    fn create(&self) -> String {
        self.step("create", "", "").trim().to_owned()
    }

    /// What KMS is given.
    fn given(&self, id: &str) -> Credential {
        self.step("export", id, "");
        let file = self.site.path().join("kms.json");
        let json: Value =
            serde_json::from_slice(&fs::read(&file).expect("it was written")).expect("it is JSON");
        fs::remove_file(file).expect("it was written");
        let credential = &json["XksProxyAuthenticationCredential"];
        let text = |member: &str| credential[member].as_str().expect("it is text").to_owned();
        Credential { id: text("AccessKeyId"), secret: text("RawSecretAccessKey") }
    }

    /// When the daemon says that it was last used; `None`: never.
    fn last_used(&self, id: &str) -> Option<String> {
        let listed = self.step("list", "", "");
        let line = listed.lines().find(|line| line.contains(id)).expect("it is listed");
        let used = line.split("last used ").nth(1)?.split(',').next()?;
        used.strip_suffix(" ago").map(str::to_owned)
    }
}

/// Each round makes a credential, gives it to who signs, waits until it is in use, and revokes the one
/// before.
pub(crate) fn rotated(scale: Scale) -> Row {
    let rounds = scale.pick(3, 30);
    let rotating = Rotating::new(scale);
    let mut id = rotating.create();
    for key in ["demo-key", "demo-second"] {
        rotating.site.create_key(key, "encrypt,decrypt");
    }
    let daemon = Daemon::start(rotating.site.clone());
    let anybody = Tenant::new("demo", "demo", &[], 'A');
    let kms = Caller { credential: rotating.given(&id), ..Caller::new(&daemon, &anybody) };
    let mut world = World::with_caller(scale, daemon, kms);
    let running = world.load().start(&world.vault);
    for _ in 0..rounds {
        running.wait_served(scale.pick(20, 100));
        let next = rotating.create();
        assert_eq!(rotating.last_used(&next), None);
        let given = rotating.given(&next);
        running.sign_with(&given);
        poll(|| rotating.last_used(&next).is_some(), || world.daemon.logged());
        rotating.step("revoke", "", &id);
        let revoked = world.kms.call("keys/demo-key/encrypt", &encrypt_body(b"text", None));
        assert_refused(&revoked, 401, "AuthenticationFailedException");
        (id, world.kms.credential) = (next, given);
    }
    running.wait_served(scale.pick(20, 100));
    let report = running.finish();
    let late = ["DependencyTimeoutException", "ThrottlingException"];
    let failed: Vec<&str> = report.failed().into_keys().filter(|why| !late.contains(why)).collect();
    assert_eq!(failed, [""; 0], "{}", world.said());
    assert_eq!(report.retried, 0, "a connection was lost");
    world
        .finish("a credential is rotated as in the guide", &report)
        .remark(format!("{rounds} times"))
}

#[test]
fn no_request_fails_while_credentials_are_rotated() {
    rotated(Scale::Short);
}

/// The guide leaves no step out.
#[test]
fn the_guide_has_every_step() {
    let verbs: Vec<&str> = commands().iter().map(|words| words[1]).collect();
    assert_eq!(verbs, ["create", "export", "list", "revoke"]);
}
