//! Two tokens with the same keys, one of them in trouble.

use support::daemon::{Daemon, poll};
use support::load::Running;
use support::process::Process;
use support::shim::{self, set_script};
use support::site::{Configuration, Site, text};

use crate::chaos::Chance;
use crate::figures::Row;
use crate::world::{Isolation, Scale, World, XKSD, demo};

const TOKENS: [&str; 2] = ["softhsm", "twin"];

/// A daemon whose key store has two tokens, each behind a shim of its own.
struct Pair(World);

impl Pair {
    fn new(scale: Scale, settings: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Self {
        let mut configuration = Configuration::new(vec![demo()]);
        configuration.server.insert("deadline", text(scale.deadline()));
        configuration.log.insert("level", text("warn,xksd::daemon=info"));
        configuration.module = Some(shim::library());
        for (key, value) in [&[("isolation", "process"), ("call_limit", "1s")], settings].concat() {
            configuration.token.insert(key, text(value));
        }
        let site = Site::new(XKSD);
        let mut twin = configuration.token.clone();
        let confs = [site.token.conf.clone(), site.twin_conf()];
        for ((lines, name), conf) in
            [&mut configuration.token, &mut twin].into_iter().zip(TOKENS).zip(confs)
        {
            let script = script(&site, name);
            let environment = format!(
                "{{ PKCS11_SHIM_SCRIPT = \"{}\", PKCS11_SHIM_SEED = \"1\", SOFTHSM2_CONF = \"{}\" }}",
                script.display(),
                conf.display()
            );
            lines.insert("environment", environment);
        }
        configuration.twin = Some(twin);
        site.configure(&configuration);
        for key in ["demo-key", "demo-second"] {
            site.create_key(key, "encrypt,decrypt");
        }
        site.make_twin();
        let pair = Self(World::of(scale, Daemon::start_with(site, environment)));
        pair.wait_for_both();
        pair
    }

    /// Waits until both serve, and the keys of both have proved to be the same.
    fn wait_for_both(&self) {
        for token in TOKENS {
            self.0.daemon.wait_for_metric(&format!("xksd_hsm_up{{token=\"{token}\"}}"), 1.0);
        }
        let sample = "xksd_hsm_key_versions{standing=\"proved\",token=\"twin\"}";
        self.0.daemon.wait_for_metric(sample, 2.0);
    }

    fn script(&self, token: &str, text: &str) {
        set_script(&script(&self.0.daemon.site, token), text);
    }

    /// The process with this token's module.
    fn child(&self, token: &str) -> Process {
        let is_it = |child: &Process| child.arguments_now().contains(&format!("--token {token} "));
        let find = || Process(self.0.daemon.pid()).children().into_iter().find(is_it);
        poll(|| find().is_some(), || self.0.said());
        find().expect("it was there a moment ago")
    }

    /// One of the two in trouble, then the other; each is brought back.
    fn trouble(
        mut self,
        what: &str,
        begin: impl Fn(&Self, &str),
        lasts: impl Fn(&Self, &Running),
        end: impl Fn(&Self, &str),
    ) -> Row {
        let scale = self.0.scale;
        let rounds = scale.pick(2, 6);
        let running = self.0.load().start(&self.0.vault);
        for round in 0..rounds {
            running.wait_served(scale.pick(20, 600));
            let token = TOKENS[round % 2];
            begin(&self, token);
            lasts(&self, &running);
            end(&self, token);
            self.wait_for_both();
        }
        running.wait_served(scale.pick(20, 600));
        let report = running.finish();
        self.0.finish(what, &report).remark(format!("{rounds} times, in turns"))
    }
}

fn script(site: &Site, token: &str) -> std::path::PathBuf {
    site.for_module(&format!("{token}.script"))
}

/// As long as the other one needs to serve for some three seconds: it does.
fn served_by_the_other(pair: &Pair, running: &Running) {
    let scale = pair.0.scale;
    running.wait_served(scale.pick(60, 600));
    assert_eq!(pair.0.daemon.ask(pair.0.daemon.ops, "/readyz").0, 200);
}

fn new(scale: Scale) -> Pair {
    Pair::new(scale, &[], &[])
}

/// The process of one token dies; it comes back by itself.
pub(crate) fn killed(scale: Scale) -> Row {
    let kill = |pair: &Pair, token: &str| {
        let old = pair.child(token);
        old.signal("KILL");
        poll(|| !old.exists(), || "it was not waited for".into());
    };
    new(scale).trouble("one of two tokens: process killed", kill, served_by_the_other, |_, _| {})
}

/// The calls of one token do not return, until they do.
pub(crate) fn hung(scale: Scale) -> Row {
    let hang =
        |pair: &Pair, token: &str| pair.script(token, "C_EncryptInit hang\nC_DecryptInit hang\n");
    let go_on = |pair: &Pair, token: &str| pair.script(token, "");
    new(scale).trouble("one of two tokens: calls hang for 3 s", hang, served_by_the_other, go_on)
}

/// Every operation of one token takes 300 ms, more than KMS waits.
pub(crate) fn slowed(scale: Scale) -> Row {
    let slow = |pair: &Pair, token: &str| {
        pair.script(token, "C_Encrypt delay 300ms\nC_Decrypt delay 300ms\n");
    };
    let go_on = |pair: &Pair, token: &str| pair.script(token, "");
    new(scale).trouble(
        "one of two tokens: 300 ms an operation for 3 s",
        slow,
        served_by_the_other,
        go_on,
    )
}

/// One token is taken out, and put back.
pub(crate) fn removed(scale: Scale) -> Row {
    let remove = |pair: &Pair, token: &str| {
        pair.script(token, "C_* return CKR_DEVICE_REMOVED\n");
    };
    let put_back = |pair: &Pair, token: &str| pair.script(token, "");
    new(scale).trouble("one of two tokens: removed for 3 s", remove, served_by_the_other, put_back)
}

/// Both tokens have faults by chance, each its own.
pub(crate) fn chaos(scale: Scale) -> Row {
    let settings = [("catalogue_interval", "300ms"), ("probe_interval", "500ms")];
    let checked = [("XKSD_KEYSTORES__DEMO__VERIFY_WRITES", "always")];
    let mut pair = Pair::new(scale, &settings, &checked);
    let scripts = scale.pick(10, 600);
    let mut chances = [Chance::new(43), Chance::new(44)];
    let running = pair.0.load().start(&pair.0.vault);
    for _ in 0..scripts {
        for (chance, token) in chances.iter_mut().zip(TOKENS) {
            pair.script(token, &chance.script(Isolation::Process));
        }
        running.wait(scale.rate() as usize);
    }
    for token in TOKENS {
        pair.script(token, "");
    }
    let report = running.finish();
    let what = format!("random faults on two tokens, {scripts} scripts each (process)");
    pair.0.finish(&what, &report).remark("verify_writes = \"always\"")
}

#[test]
fn one_of_two_tokens_may_die() {
    killed(Scale::Short);
}

#[test]
fn one_of_two_tokens_may_hang() {
    hung(Scale::Short);
}

#[test]
fn one_of_two_tokens_may_be_slow() {
    slowed(Scale::Short);
}

#[test]
fn one_of_two_tokens_may_be_removed() {
    removed(Scale::Short);
}

#[test]
fn nothing_is_lost_whatever_two_tokens_do() {
    chaos(Scale::Short);
}
