//! A token whose module runs in a process of its own, and what becomes of calls that do not return.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use support::child::{TokenAtHand, Way, with_token};
use support::contract::{self, Keys};
use support::daemon::poll;
use support::foreign::{ForeignTool, Material};
use support::gate::PATIENCE;
use support::process::Process;
use support::shim::set_script;
use xksd::hsm::backend::{Backend, Session};
use xksd::hsm::fault::{Fault, FaultKind};
use xksd::hsm::pkcs11::TokenSelector;
use xksd::hsm::process::{Launch, ProcessBackend, Settings};
use xksd::hsm::profile::Profile;
use xksd::hsm::token::{self, Token, TokenState};
use xksd::metrics::Metrics;
use xksd::names::TokenName;
use xksd::secret::Secret;

/// The directory that was made for this test.
fn directory() -> PathBuf {
    let conf = ["SOFTHSM2_CONF", "KRYOPTIC_CONF"].into_iter().find_map(std::env::var_os);
    let conf = conf.expect("it is set in the child");
    Path::new(&conf).parent().expect("it is in a directory").to_owned()
}

/// What the shim is to do.
fn script(text: &str) {
    set_script(&directory().join("script"), text);
}

fn name() -> TokenName {
    "test".parse().expect("it is a token name")
}

fn settings(token: &TokenAtHand) -> Settings {
    let arguments =
        ["hsm-worker", "--token", "test", "--log-format", "text", "--log-level", "debug"];
    let wanted = ["SOFTHSM2_CONF", "KRYOPTIC_CONF", "PKCS11_SHIM_MODULE", "PKCS11_SHIM_COUNTS"];
    let environment = wanted.iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some((OsString::from(name), value))
    });
    let script = ("PKCS11_SHIM_SCRIPT".into(), directory().join("script").into());
    let launch = Launch {
        program: env!("CARGO_BIN_EXE_xksd").into(),
        arguments: arguments.map(OsString::from).into(),
        environment: environment.chain([script]).collect(),
    };
    Settings {
        token: name(),
        module: token.module.clone(),
        selector: TokenSelector::Label(token.label.clone()),
        profile: None,
        initialization: token.initialization.clone(),
        hidden: Vec::new(),
        launch,
        call_limit: PATIENCE,
    }
}

fn backend(settings: Settings, pin: &'static str, metrics: &Metrics) -> ProcessBackend {
    let pin = move || Some(Secret::new(pin.to_owned()));
    ProcessBackend::new(settings, Box::new(pin), metrics.token(&name()))
}

/// The backend that leads to this token.
pub(crate) fn isolated_backend(token: &TokenAtHand) -> ProcessBackend {
    backend(settings(token), token.pin, &Metrics::new())
}

/// The processes that this test has started and not ended.
fn children() -> Vec<Process> {
    Process(std::process::id()).children()
}

fn add_key(token: &TokenAtHand) {
    let tool = ForeignTool::login(&token.module, &token.label, token.pin);
    Keys::add(&tool, b"key", b"", Material::Aes(contract::VALUE), contract::BOTH);
}

fn encrypt(session: &mut dyn Session) -> Result<(), Fault> {
    let key = session.objects()?[0];
    session.encrypt(key, &[1; 12], b"aad", b"text").map(drop)
}

fn assert_lost<T>(result: Result<T, Fault>) {
    let fault = result.err().expect("its process is gone");
    assert_eq!(fault.kind, FaultKind::LibraryLost, "{fault}");
}

#[test]
fn a_call_past_its_limit_costs_the_process_and_nothing_else() {
    let test = "isolation::a_call_past_its_limit_costs_the_process_and_nothing_else";
    with_token(test, Way::Shim, |token| {
        add_key(token);
        let call_limit = Duration::from_millis(500);
        let metrics = Metrics::new();
        let settings = Settings { call_limit, ..settings(token) };
        let backend = backend(settings, token.pin, &metrics);
        let mut first = backend.connect().expect("the token is there");
        let mut other = backend.open_session().expect("the token has room");
        let key = first.objects().expect("the token can be searched")[0];
        let [child] = children()[..] else { panic!("{:?}", children()) };

        script("C_Encrypt hang\n");
        let hung = other.encrypt(key, &[1; 12], b"aad", b"text").expect_err("it does not return");
        assert_eq!((hung.kind, hung.function), (FaultKind::LibraryLost, "C_Encrypt"));
        assert_lost(first.random(&mut [0; 12]));
        assert_lost(other.random(&mut [0; 12]));
        assert_lost(backend.open_session());
        poll(|| !child.exists(), || "the process that hangs is there".into());

        script("");
        let mut new = backend.connect().expect("another process can be started");
        assert_eq!(encrypt(new.as_mut()), Ok(()));
        let stale = new.encrypt(key, &[1; 12], b"aad", b"text").expect_err("it is an old handle");
        assert_eq!(stale.kind, FaultKind::HandleStale);
        assert_lost(first.random(&mut [0; 12]));
        let text = metrics.render();
        assert!(text.contains("xksd_hsm_process_starts_total{token=\"test\"} 2"), "{text}");
    });
}

#[test]
fn a_library_that_crashes_costs_the_process_and_nothing_else() {
    let test = "isolation::a_library_that_crashes_costs_the_process_and_nothing_else";
    with_token(test, Way::Shim, |token| {
        add_key(token);
        let backend = isolated_backend(token);
        for function in ["C_Encrypt", "C_FindObjects", "C_OpenSession"] {
            let mut session = backend.connect().expect("a process can be started");
            let [child] = children()[..] else { panic!("{:?}", children()) };
            assert_eq!(encrypt(session.as_mut()), Ok(()));
            script(&format!("{function} crash\n"));
            assert_lost(match function {
                "C_OpenSession" => backend.open_session().map(drop),
                _ => encrypt(session.as_mut()),
            });
            assert!(!child.exists(), "it was not waited for");
            script("");
        }
        backend.connect().expect("a process can be started");
    });
}

#[test]
fn a_connection_that_hangs_or_fails_costs_the_process() {
    let test = "isolation::a_connection_that_hangs_or_fails_costs_the_process";
    with_token(test, Way::Shim, |token| {
        script("C_OpenSession hang\n");
        let call_limit = Duration::from_millis(500);
        let hanging =
            backend(Settings { call_limit, ..settings(token) }, token.pin, &Metrics::new());
        assert_lost(hanging.connect());
        script("");
        let elsewhere = TokenSelector::Label("nowhere".to_owned());
        let settings = Settings { selector: elsewhere, ..settings(token) };
        let away = backend(settings, token.pin, &Metrics::new());
        let fault = away.connect().err().expect("there is no such token");
        assert_eq!(fault.kind, FaultKind::TokenLost);
        assert_eq!(
            fault.to_string(),
            "C_GetSlotList: no slot of the module holds the configured token"
        );
        poll(|| children().is_empty(), || format!("{:?}", children()));
        hanging.connect().expect("the token is there");
        assert_eq!(children().len(), 1);
        assert!(hanging.end());
        assert_eq!(children(), []);
        assert!(hanging.connect().is_err(), "it was ended for good");
    });
}

#[test]
fn a_process_that_is_stopped_or_killed_is_replaced() {
    let test = "isolation::a_process_that_is_stopped_or_killed_is_replaced";
    with_token(test, Way::Direct, |token| {
        add_key(token);
        let call_limit = Duration::from_millis(500);
        let settings = Settings { call_limit, ..settings(token) };
        let backend = backend(settings, token.pin, &Metrics::new());
        for signal in ["KILL", "STOP", "ABRT"] {
            let mut session = backend.connect().expect("a process can be started");
            assert_eq!(encrypt(session.as_mut()), Ok(()));
            let [child] = children()[..] else { panic!("{:?}", children()) };
            // What asks the daemon to leave is not for this process.
            child.signal("TERM");
            child.signal("INT");
            assert_eq!(encrypt(session.as_mut()), Ok(()));
            child.signal(signal);
            // It arrives a little later.
            let mut last = Ok(());
            let mut is_lost = || {
                last = encrypt(session.as_mut());
                last.is_err()
            };
            poll(&mut is_lost, || format!("{signal}: it goes on"));
            assert_lost(last);
            poll(|| !child.exists(), || format!("{signal}: it is there"));
        }
    });
}

/// Nobody has to ask anything of it: its end is seen when it comes.
#[test]
fn a_process_that_dies_while_idle_is_replaced_at_once() {
    let test = "isolation::a_process_that_dies_while_idle_is_replaced_at_once";
    with_token(test, Way::Direct, |at_hand| {
        let metrics = Metrics::new();
        let backend = Arc::new(backend(settings(at_hand), at_hand.pin, &metrics));
        // Neither a reading nor a probe would find it out.
        let never = Duration::from_secs(3600);
        let settings = token::Settings {
            catalogue_interval: never,
            probe_interval: never,
            ..token::Settings::default()
        };
        let token = Token::start(name(), settings, backend.clone(), metrics.token(&name()));
        let is_up = |token: &Token| token.state() == TokenState::Up;
        poll(|| is_up(&token), || format!("{:?}", token.state()));
        for _again in 0..3 {
            let [old] = children()[..] else { panic!("{:?}", children()) };
            old.signal("KILL");
            let is_replaced = || !children().contains(&old) && is_up(&token);
            poll(|| is_replaced() && children().len() == 1, || format!("{:?}", token.state()));
        }
        // An end that is meant is no loss.
        assert!(token.stop(PATIENCE));
        assert!(backend.end());
        assert_eq!(children(), []);
    });
}

#[test]
fn a_wrong_pin_reaches_the_token_once() {
    with_token("isolation::a_wrong_pin_reaches_the_token_once", Way::Shim, |at_hand| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the operating system gives a runtime");
        runtime.block_on(async {
            let metrics = Metrics::new();
            let backend = Arc::new(backend(settings(at_hand), "0000", &metrics));
            let settings = token::Settings::default();
            let token = Token::start(name(), settings, backend, metrics.token(&name()));
            let mut states = token.watch_state();
            let refused = states.wait_for(|state| *state == TokenState::PinRefused);
            tokio::time::timeout(PATIENCE, refused).await.expect("it comes").expect("it is there");
            assert!(token.stop(PATIENCE));
        });
        assert_eq!(at_hand.counts().of("C_Login"), 1);
        poll(|| children().is_empty(), || format!("{:?}", children()));
    });
}

#[test]
fn calls_are_counted_where_the_metrics_are() {
    let test = "isolation::calls_are_counted_where_the_metrics_are";
    with_token(test, Way::Shim, |token| {
        add_key(token);
        let metrics = Metrics::new();
        let backend = backend(settings(token), token.pin, &metrics);
        let before = token.counts();
        let mut session = backend.connect().expect("the token is there");
        assert_eq!(encrypt(session.as_mut()), Ok(()));
        let key = session.objects().expect("the token can be searched")[0];
        let refused = session.decrypt(key, &[1; 12], b"", b"garbage", &[0; 16]);
        assert!(refused.is_err());
        drop(session);
        let text = metrics.render();
        let counts = token.counts().since(&before);
        // What the shim counts and we do not call comes with loading it.
        for (function, calls) in counts.called() {
            if function == "C_GetFunctionList" {
                continue;
            }
            let sample = format!(
                "xksd_hsm_call_duration_seconds_count{{function=\"{function}\",token=\"test\"}} {calls}\n"
            );
            assert!(text.contains(&sample), "no {sample} in {text}");
        }
        let failure = "xksd_hsm_call_failures_total{code=\"CKR_GENERAL_ERROR\",\
                       function=\"C_Decrypt\",token=\"test\"} 1\n";
        assert!(text.contains(failure), "{text}");
    });
}

/// What somebody left open for the daemon is closed before the library is loaded.
#[test]
fn nothing_is_inherited() {
    with_token("isolation::nothing_is_inherited", Way::Direct, |token| {
        let program = directory().join("leaky");
        let xksd = env!("CARGO_BIN_EXE_xksd");
        let text = format!("#!/bin/sh\nexec 7</dev/zero\nexec '{xksd}' \"$@\"\n");
        fs::write(&program, text).expect("the directory can be written");
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&program, mode).expect("it is ours");
        let mut settings = settings(token);
        settings.launch.program = program;
        let backend = backend(settings, token.pin, &Metrics::new());
        let _session = backend.connect().expect("the token is there");
        let [child] = children()[..] else { panic!("{:?}", children()) };
        let open = child.descriptors();
        assert!(!open.values().any(|link| link == "/dev/zero"), "{open:?}");
        assert_eq!(open[&0], "/dev/null");
        assert_eq!(open[&1], "/dev/null");
    });
}

#[test]
fn no_process_without_a_pin_or_a_program() {
    with_token("isolation::no_process_without_a_pin_or_a_program", Way::Direct, |token| {
        let no_pin = Box::new(|| None);
        let metrics = Metrics::new().token(&name());
        let backend = ProcessBackend::new(settings(token), no_pin, metrics);
        let fault = backend.connect().err().expect("there is no PIN");
        assert_eq!(fault.kind, FaultKind::TokenLost);
        assert!(fault.to_string().contains("PIN"), "{fault}");
        let mut settings = settings(token);
        settings.launch.program = "/nowhere".into();
        let backend = self::backend(settings, token.pin, &Metrics::new());
        assert_eq!(backend.connect().err().map(|fault| fault.kind), Some(FaultKind::TokenLost));
        assert_eq!(children(), []);
        let fault = backend.open_session().err().expect("it was never connected to");
        assert_eq!(fault.kind, FaultKind::TokenLost);
    });
}

/// A token that took the question for the IV is never used again, by no other process either.
#[test]
fn distrust_outlives_the_process() {
    with_token("isolation::distrust_outlives_the_process", Way::Direct, |token| {
        // SoftHSM2 encrypts under the zeros that it is given.
        let profile = Profile::named("cloudhsm");
        assert!(profile.is_some());
        let metrics = Metrics::new();
        let backend = backend(Settings { profile, ..settings(token) }, token.pin, &metrics);
        for _again in 0..3 {
            let fault = backend.connect().err().expect("its IVs are no IVs");
            assert!(fault.to_string().contains("correct its profile"), "{fault}");
        }
        let text = metrics.render();
        assert!(text.contains("xksd_hsm_process_starts_total{token=\"test\"} 1"), "{text}");
        poll(|| children().is_empty(), || format!("{:?}", children()));
    });
}
