//! A token's library runs in a process of its own: what is kept from it, what is kept from the
//! daemon, and what callers notice when it dies.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::caller::{Caller, assert_refused};
use support::daemon::{Daemon, poll};
use support::process::Process;
use support::request::{bare_body, decrypt_body, encrypt_body};
use support::shim::{library, set_script};
use support::site::{Configuration, Tenant, text};
use support::token::{PIN, SoftHsmToken};

use crate::world::{demo, small_site};

const ENCRYPT: &str = "keys/demo-key/encrypt";

/// These settings of the token, and nothing going on in the background for a while.
fn configuration(token: &[(&'static str, &str)]) -> Configuration {
    let mut configuration = Configuration::new(vec![demo()]);
    configuration.token.insert("catalogue_interval", text("10m"));
    configuration.token.insert("probe_interval", text("30s"));
    for (key, value) in token {
        configuration.token.insert(key, text(value));
    }
    configuration
}

/// A daemon whose module is the shim, with a script.
fn shimmed(token: &[(&'static str, &str)]) -> (Daemon, Caller) {
    let mut configuration = configuration(token);
    configuration.module = Some(library());
    let site = small_site(&configuration);
    let script = site.for_module("script");
    let environment = format!("{{ PKCS11_SHIM_SCRIPT = \"{}\" }}", script.display());
    configuration.token.insert("environment", environment);
    site.configure(&configuration);
    let daemon = Daemon::start(site);
    let kms = Caller::new(&daemon, &demo());
    (daemon, kms)
}

fn children(daemon: &Daemon) -> Vec<Process> {
    Process(daemon.pid()).children()
}

/// The only child.
fn child(daemon: &Daemon) -> Process {
    match children(daemon)[..] {
        [child] => child,
        ref others => panic!("{others:?}:\n{}", daemon.logged()),
    }
}

/// Ends the load, however its test ends.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until it is answered with 200.
fn wait_until_served(daemon: &Daemon, kms: &Caller) {
    let body = encrypt_body(b"x", None);
    poll(|| kms.call(ENCRYPT, &body).status == 200, || daemon.logged());
}

#[test]
fn each_side_has_only_what_it_needs() {
    let site = small_site(&configuration(&[]));
    let daemon = Daemon::start_with(site, &[("SECRET_OF_THE_DAEMONS", "canary-environment")]);
    let (parent, child) = (Process(daemon.pid()), child(&daemon));
    // Eight workers, the steward, and the control socket.
    poll(|| child.sockets().len() == 10, || format!("{:?}", child.descriptors()));
    // The module is where the PIN is, and only there.
    let module = daemon.site.token.module.display().to_string();
    let module = module.rsplit('/').next().expect("it has a name");
    assert!(child.maps(module));
    assert!(!parent.maps(module) && !parent.maps("pkcs11") && !parent.maps("softhsm"));
    // Nothing secret is where others can look, nor is anything handed down that may be.
    let environment = child.environment();
    assert_eq!(environment.keys().collect::<Vec<_>>(), ["SOFTHSM2_CONF"]);
    assert!(!child.arguments().contains(PIN) && child.arguments().contains("softhsm"));
    // Of all descriptors it shares standard error with the daemon, and the ends of its sockets
    // are not the daemon's.
    let (ours, theirs) = (parent.descriptors(), child.descriptors());
    assert_eq!(theirs[&0], "/dev/null");
    assert_eq!(theirs[&1], "/dev/null");
    assert_eq!(theirs[&2], ours[&2]);
    let shared: Vec<_> = parent.sockets().intersection(&child.sockets()).cloned().collect();
    assert!(shared.is_empty(), "{shared:?}");
    let foreign = |link: &&String| link.contains("server.") || link.contains(".secret");
    assert_eq!(theirs.values().find(foreign), None);
    // No core dump holds the PIN.
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.0)).expect("it is there");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.expect("it is a limit").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
}

/// What the daemon must keep to itself can't be read by the library, where the kernel has Landlock:
/// the shim is told to take each of these files for its script.
#[test]
fn files_with_secrets_are_hidden_from_the_library() {
    let tenant = demo();
    let site = small_site(&configuration(&[]));
    let credential = site.path().join(format!("{}.secret", tenant.credentials[1].id));
    let open = site.path().join("open");
    fs::write(&open, "no script at all").expect("the directory can be written");
    let secrets = [site.path().join("token.pin"), site.server.key.clone(), credential];
    let site = std::sync::Arc::new(site);
    for (script, is_hidden) in secrets.iter().map(|file| (file, true)).chain([(&open, false)]) {
        let mut configuration = configuration(&[]);
        configuration.module = Some(library());
        let script = script.display();
        let environment = format!("{{ PKCS11_SHIM_SCRIPT = \"{script}\" }}");
        configuration.token.insert("environment", environment);
        site.configure(&configuration);
        let daemon = Daemon::start(site.clone());
        let line = daemon.wait_for_line("the script before stays in force");
        if daemon.logged().contains("has no Landlock") {
            support::not_run("that files are hidden from the library: there is no Landlock here");
            return;
        }
        let is_denied = line.contains(&format!("{script}: Permission denied"));
        assert_eq!(is_denied, is_hidden, "{line}");
        Caller::new(&daemon, &tenant).accepted(ENCRYPT, &encrypt_body(b"x", None));
    }
}

/// A library that dies under load costs the requests of a moment, and no restart.
#[test]
fn a_library_that_dies_under_load_is_replaced() {
    let daemon = Daemon::start(small_site(&configuration(&[])));
    let kms = Caller::new(&daemon, &demo());
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for _ in 0..4 {
            scope.spawn(|| {
                let body = encrypt_body(b"under load", None);
                while !stop.load(Ordering::Relaxed) {
                    let answer = kms.call(ENCRYPT, &body);
                    // P-70: who can try again is told so.
                    assert!(matches!(answer.status, 200 | 429 | 500 | 503), "{}", answer.text());
                    if answer.status == 200 {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for round in 1..=3 {
            let more = |than: usize| {
                poll(|| served.load(Ordering::Relaxed) > than, || daemon.logged());
            };
            more(served.load(Ordering::Relaxed));
            let old = child(&daemon);
            old.signal("KILL");
            let sample = "xksd_hsm_process_starts_total{token=\"softhsm\"}";
            daemon.wait_for_metric(sample, f64::from(round) + 1.0);
            more(served.load(Ordering::Relaxed));
            assert!(!old.exists(), "it was not waited for");
        }
    });
    assert_eq!(children(&daemon).len(), 1);
    assert!(daemon.logged().contains("has ended by itself"), "{}", daemon.logged());
}

/// Not one request fails for a process that dies while nobody asks anything of it.
#[test]
fn a_library_that_dies_while_idle_costs_no_request() {
    let daemon = Daemon::start(small_site(&configuration(&[])));
    let kms = Caller::new(&daemon, &demo());
    kms.accepted(ENCRYPT, &encrypt_body(b"x", None));
    let old = child(&daemon);
    old.signal("KILL");
    // The token was down before, so that what is up then is up again.
    daemon.wait_for_metric("xksd_hsm_process_starts_total{token=\"softhsm\"}", 2.0);
    daemon.wait_for_metric("xksd_hsm_up{token=\"softhsm\"}", 1.0);
    kms.accepted(ENCRYPT, &encrypt_body(b"x", None));
    assert!(!old.exists(), "it was not waited for");
    assert_eq!(children(&daemon).len(), 1);
}

/// What a module lacks, its operator can find out.
#[test]
fn a_module_that_finds_nothing_names_its_environment() {
    let mut configuration = configuration(&[("label", "elsewhere")]);
    configuration.token.insert("environment", "{ VENDOR_HOME = \"/secret/place\" }".into());
    let site = small_site(&self::configuration(&[]));
    site.configure(&configuration);
    let daemon = Daemon::launch(site.into(), &[]);
    let line = daemon.wait_for_line("must be named in [tokens.NAME.environment]");
    assert!(line.contains("SOFTHSM2_CONF, VENDOR_HOME"), "{line}");
    assert!(!line.contains("/secret/place"), "{line}");
    // Once, however often it is tried.
    daemon.wait_for_metric("xksd_hsm_process_starts_total{token=\"softhsm\"}", 3.0);
    assert_eq!(daemon.logged().matches("[tokens.NAME.environment]").count(), 1);
}

/// P-8: nobody waits longer for a library that was stopped; it is killed and replaced.
#[test]
fn a_library_that_is_stopped_is_replaced() {
    let daemon = Daemon::start(small_site(&configuration(&[("call_limit", "1s")])));
    let kms = Caller::new(&daemon, &demo());
    let old = child(&daemon);
    old.signal("STOP");
    // It arrives a little later.
    let mut last = None;
    let mut is_stopped = || {
        let answer = kms.call(ENCRYPT, &encrypt_body(b"x", None));
        last.insert(answer).status != 200
    };
    poll(&mut is_stopped, || "it goes on".into());
    let last = last.expect("there was an answer");
    assert_refused(&last, 503, "DependencyTimeoutException");
    poll(|| !old.exists(), || daemon.logged());
    wait_until_served(&daemon, &kms);
    assert_eq!(children(&daemon).len(), 1);
}

/// A call that does not return is late for its own request, and costs one process; what needs no
/// HSM is answered throughout.
#[test]
fn a_call_that_hangs_costs_one_process() {
    let (daemon, kms) = shimmed(&[("call_limit", "1s")]);
    let old = child(&daemon);
    let sealed = kms.accepted(ENCRYPT, &encrypt_body(b"x", None));
    let script = daemon.site.for_module("script");
    set_script(&script, "C_Encrypt hang\n");
    kms.refused(ENCRYPT, &encrypt_body(b"x", None), 503, "DependencyTimeoutException");
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    // It hangs for as long as the script says so.
    poll(|| !old.exists(), || daemon.logged());
    set_script(&script, "");
    wait_until_served(&daemon, &kms);
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    assert_eq!(children(&daemon).len(), 1);
    assert!(daemon.logged().contains("a call has not returned within its limit"));
}

/// Whatever ends the daemon ends its children, and what asks it to leave does not end them first.
#[test]
fn no_process_outlives_the_daemon() {
    let daemon = Daemon::start(small_site(&configuration(&[])));
    let kms = Caller::new(&daemon, &demo());
    let killed = child(&daemon);
    killed.signal("TERM");
    killed.signal("INT");
    killed.signal("HUP");
    kms.accepted(ENCRYPT, &encrypt_body(b"x", None));
    assert_eq!(child(&daemon), killed);
    let site = daemon.site.clone();
    daemon.signal("KILL");
    poll(|| !killed.exists(), || "it outlives a daemon that was killed".into());

    // Not even one that was stopped and would notice nothing.
    let daemon = Daemon::start(site.clone());
    let stopped = child(&daemon);
    stopped.signal("STOP");
    daemon.signal("KILL");
    poll(|| !stopped.exists(), || "stopped, it outlives the daemon".into());

    let daemon = Daemon::start(site);
    let ended = child(&daemon);
    daemon.signal("TERM");
    let (status, log) = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!ended.exists(), "it outlives a daemon that has left");
    assert!(!log.contains("does not end"), "{log}");
}

/// Each library sees its own environment, so that two may want different values.
#[test]
fn two_tokens_have_two_environments() {
    let configuration = configuration(&[]);
    let site = small_site(&configuration);
    let elsewhere = site.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("the directory can be written");
    // The same label in another SoftHSM2.
    let other = SoftHsmToken::create(&elsewhere, &site.token.label);
    let second = Tenant::new("second", "second", &["other-key"], 'B');
    let mut both = configuration;
    both.tenants[0].credentials.truncate(1);
    both.tenants.push(second.clone());
    site.configure(&both);
    let file = site.path().join("xksd.toml");
    let toml = fs::read_to_string(&file).expect("it was just written");
    let (before, after) = toml.split_once("[keystores.second]").expect("it is there");
    let after = after.replacen("[\"softhsm\"]", "[\"second\"]", 1);
    let token = format!(
        "\n[tokens.second]\nmodule = \"{}\"\nlabel = \"{}\"\npin = {{ file = \"token.pin\" }}\n\
         environment.SOFTHSM2_CONF = \"{}\"\n",
        other.module.display(),
        other.label,
        other.conf.display(),
    );
    let mut out = fs::File::create(&file).expect("it can be written");
    write!(out, "{before}[keystores.second]{after}{token}").expect("it can be written");
    drop(out);
    site.run(&["keys", "create", "other-key", "--token", "second"]);

    let daemon = Daemon::start(site);
    daemon.wait_for_metric("xksd_hsm_up{token=\"second\"}", 1.0);
    daemon.wait_for_metric("xksd_hsm_up{token=\"softhsm\"}", 1.0);
    Caller::new(&daemon, &demo()).accepted(ENCRYPT, &encrypt_body(b"x", None));
    let kms = Caller::new(&daemon, &second);
    kms.accepted("keys/other-key/encrypt", &encrypt_body(b"x", None));
    assert_eq!(children(&daemon).len(), 2);
    // One that dies is no concern of the other's.
    let is_second = |child: &&Process| child.arguments().contains("second");
    let children = children(&daemon);
    children.iter().find(is_second).expect("it is there").signal("KILL");
    Caller::new(&daemon, &demo()).accepted(ENCRYPT, &encrypt_body(b"x", None));
}

/// The other way: everything in one process.
#[test]
fn a_library_may_run_on_threads() {
    let daemon = Daemon::start(small_site(&configuration(&[("isolation", "thread")])));
    let kms = Caller::new(&daemon, &demo());
    let sealed = kms.accepted(ENCRYPT, &encrypt_body(b"x", None));
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    kms.accepted("keys/demo-key/metadata", &bare_body("DescribeKey"));
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    assert_eq!(children(&daemon), []);
    assert!(Process(daemon.pid()).maps("softhsm"));
    daemon.signal("TERM");
    let (status, log) = daemon.wait_exit();
    assert_eq!(status.code(), Some(0), "{log}");
}
