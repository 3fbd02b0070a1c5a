//! The configuration changes again and again under load: credentials, certificates, key stores, tokens.

use std::sync::Arc;

use support::caller::{Caller, assert_refused};
use support::certificates::{Identity, KeyKind};
use support::daemon::Daemon;
use support::load::Report;
use support::request::encrypt_body;
use support::site::{Configuration, Credential, Site, Tenant, text};

use crate::figures::Row;
use crate::world::{Isolation, Scale, World, XKSD, demo};

/// A key store that comes and goes.
fn passing() -> Tenant {
    Tenant { name: "passing", prefix: "passing", ..Tenant::new("", "", &["demo-*"], 'P') }
}

/// A site whose configuration changes.
struct Changing {
    site: Arc<Site>,
    configuration: Configuration,
    certificates: [Identity; 2],
}

impl Changing {
    fn new(scale: Scale, isolation: Isolation) -> Self {
        let mut configuration = Configuration::new(vec![demo()]);
        configuration.server.insert("deadline", text(scale.deadline()));
        configuration.log.insert("level", text("warn,xksd::daemon=info"));
        configuration.ops.insert("control_socket", text("control.sock"));
        configuration.token.insert("isolation", text(isolation.name()));
        let site = Site::new(XKSD);
        site.configure(&configuration);
        site.create_key("demo-key", "encrypt,decrypt");
        site.create_key("demo-second", "encrypt,decrypt");
        let issue = |name| site.authority.issue(name, "/CN=localhost", KeyKind::Ec);
        let certificates = ["odd", "even"].map(issue);
        Self { site: Arc::new(site), configuration, certificates }
    }

    /// Changes the configuration; when this returns it is in force.
    fn reload(&mut self, change: impl FnOnce(&mut Configuration)) {
        change(&mut self.configuration);
        self.site.configure(&self.configuration);
        self.site.run(&["reload"]);
    }

    /// Adds a credential, and has certificate, key store and, each fifth time, token change.
    fn add(&mut self, round: usize, credential: &Credential) {
        let Identity { certificate, key } = self.certificates[round % 2].clone();
        self.reload(|configuration| {
            configuration.tenants[0].credentials.push(credential.clone());
            let tls = configuration.tls.as_mut().expect("it is TLS");
            tls.insert("certificate", text(certificate.display()));
            tls.insert("private_key", text(key.display()));
            match round % 2 {
                0 => configuration.tenants.push(passing()),
                _ => drop(configuration.tenants.pop()),
            }
            if round.is_multiple_of(5) {
                configuration.token.insert("sessions", (4 + round % 2).to_string());
            }
        });
    }

    /// Takes the older of two credentials out.
    fn revoke(&mut self) {
        self.reload(|configuration| drop(configuration.tenants[0].credentials.remove(0)));
    }
}

/// Why requests failed, but for the time they took: the machine has other tests to run.
fn not_late(report: &Report) -> Vec<&str> {
    let late = ["DependencyTimeoutException", "ThrottlingException"];
    report.failed().into_keys().filter(|why| !late.contains(why)).collect()
}

/// Two reloads a round: a credential is added, used, and the one before it revoked. What is in force
/// counts from the moment at which the command says so.
pub(crate) fn reloaded(scale: Scale, isolation: Isolation) -> Row {
    let rounds = scale.pick(10, 100);
    let mut changing = Changing::new(scale, isolation);
    let mut world = World::of(scale, Daemon::start(changing.site.clone()));
    let running = world.load().start(&world.vault);
    let body = encrypt_body(b"who may ask", None);
    let ask = |kms: &Caller| kms.call("keys/demo-key/encrypt", &body);
    for round in 0..rounds {
        running.wait_served(scale.pick(20, 50));
        let before = world.kms.clone();
        let letter = char::from(b'A' + (round as u8 + 1) % 15);
        let next = Caller { credential: Credential::of(letter), ..before.clone() };
        assert_refused(&ask(&next), 401, "AuthenticationFailedException");
        changing.add(round, &next.credential);
        for kms in [&before, &next] {
            let answer = ask(kms);
            assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        }
        let passing = Caller::new(&world.daemon, &passing());
        match round % 2 {
            0 => assert_eq!(ask(&passing).status, 200, "round {round}"),
            _ => assert_refused(&ask(&passing), 404, "InvalidUriPathException"),
        }
        running.sign_with(&next.credential);
        changing.revoke();
        assert_refused(&ask(&before), 401, "AuthenticationFailedException");
        world.kms = next;
    }
    running.wait_served(scale.pick(20, 50));
    let report = running.finish();
    assert_eq!(not_late(&report), [""; 0], "{}", world.said());
    assert_eq!(report.retried, 0, "a connection was lost");
    let what = format!("the configuration is reloaded ({})", isolation.name());
    world.finish(&what, &report).remark(format!("{} times", 2 * rounds))
}

#[test]
fn no_request_fails_while_the_configuration_changes() {
    reloaded(Scale::Short, Isolation::Process);
}

#[test]
fn no_request_fails_while_the_configuration_changes_on_threads() {
    reloaded(Scale::Short, Isolation::Thread);
}
