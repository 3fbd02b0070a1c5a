//! `xksd doctor` on healthy and on broken installations: each fault is found by its name, and no
//! PIN is spent on the way. `cases` has the table of faults; here is what it is about them.

mod balancer;
mod broken;
mod cases;
mod diagnosis;
mod installation;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::not_run;
use support::shim::{self, Counts};
use support::site::{Configuration, Site, TOKEN, Tenant, text};
use support::token::{PIN, SoftHsmToken};

use crate::diagnosis::Diagnosis;
use crate::installation::openssl;

/// A healthy installation over plain HTTP, whose module is the shim; its key `good` exists.
struct Plain {
    site: Site,
    configuration: Configuration,
}

impl Plain {
    fn new() -> Self {
        let site = Site::new(env!("CARGO_BIN_EXE_xksd"));
        let tenant = Tenant::new("demo", "demo", &["good"], 'A');
        let mut configuration = Configuration::new(vec![tenant]);
        configuration.tls = None;
        configuration.module = Some(shim::library());
        let environment = format!(
            "{{ PKCS11_SHIM_MODULE = {:?}, PKCS11_SHIM_COUNTS = {:?} }}",
            site.token.module,
            site.for_module("counts"),
        );
        configuration.token.insert("environment", environment);
        site.configure(&configuration);
        site.run(&["keys", "create", "good"]);
        Self { site, configuration }
    }

    fn change(&mut self, change: impl FnOnce(&mut Configuration)) {
        change(&mut self.configuration);
        self.site.configure(&self.configuration);
    }

    fn set_pin(&self, pin: &str) {
        fs::write(self.site.path().join("token.pin"), pin).unwrap();
    }

    fn doctor(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = self.site.command(&[&["doctor"], arguments].concat());
        command.envs(environment.iter().copied()).output().unwrap()
    }

    fn examine(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Diagnosis {
        Diagnosis::read(&self.doctor(&[&["--json"], arguments].concat(), environment))
    }

    fn logins(&self) -> u64 {
        Counts::read(&self.site.for_module("counts")).of("C_Login")
    }
}

#[test]
fn one_token_can_be_looked_at_alone() {
    let installation = Plain::new();
    let alone = installation.examine(&["--token", "softhsm"], &[]);
    assert_eq!(alone.code, 0, "{:#?}", alone.findings);
    assert!(alone.messages("ok").iter().any(|(check, _message)| *check == "token.login"));
    let output = installation.doctor(&["--token", "hms"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no [tokens.hms]"));
}

#[test]
fn a_healthy_installation_passes_every_check() {
    let installation = Plain::new();
    let before = installation.logins();
    let diagnosis = installation.examine(&[], &[]);
    assert_eq!(diagnosis.messages("fail"), []);
    assert_eq!(diagnosis.messages("warn"), []);
    assert_eq!(diagnosis.code, 0);
    let passed: Vec<_> = diagnosis.messages("ok").into_iter().map(|(check, _)| check).collect();
    for check in [
        "configuration",
        "listen.address",
        "limits.open_files",
        "token.module",
        "token.found",
        "token.sessions",
        "token.mechanisms",
        "token.login",
        "token.random",
        "token.aes_gcm",
        "token.keys",
        "keystore.keys",
    ] {
        assert!(passed.contains(&check), "{check} is not among {passed:?}");
    }
    assert_eq!(installation.logins() - before, 1);
}

#[test]
fn doctor_leaves_no_key_behind() {
    let installation = Plain::new();
    let keys = || installation.site.run(&["keys", "list", "--json"]);
    let before = keys();
    installation.examine(&[], &[]);
    assert_eq!(keys(), before);
}

#[test]
fn people_get_lines_with_advice() {
    let installation = Plain::new();
    let output = installation.doctor(&[], &[("XKSD_TOKENS__SOFTHSM__LABEL", "other")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("FAIL token.found"), "{text}");
    assert!(text.contains("-> there are: label `xksd`"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_configuration_is_told_all_its_faults() {
    let installation = Plain::new();
    let environment =
        [("XKSD_SERVER__DEADLINE", "forever"), ("XKSD_TOKENS__SOFTHSM__MODULE", "/nowhere.so")];
    let diagnosis = installation.examine(&[], &environment);
    let failed = diagnosis.messages("fail");
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().all(|(check, _)| *check == "configuration"));
    let subjects: Vec<_> = diagnosis.findings.iter().map(|f| &f["subject"]).collect();
    assert!(subjects.contains(&&Value::from("tokens.softhsm.module")), "{subjects:?}");
    assert_eq!(diagnosis.code, 1);
}

/// What a process of the module's own would not have, doctor does not give it either.
#[test]
fn a_module_sees_what_it_will_see_when_it_is_served() {
    let installation = Plain::new();
    let script = installation.site.for_module("script");
    shim::set_script(&script, "C_GetTokenInfo return CKR_DEVICE_ERROR\n");
    let environment = [("PKCS11_SHIM_SCRIPT", script.to_str().unwrap())];
    assert_eq!(installation.examine(&[], &environment).code, 0);
    let isolation = ("XKSD_TOKENS__SOFTHSM__ISOLATION", "thread");
    let inside = installation.examine(&[], &[environment[0], isolation]);
    inside.expect_only("token.found", "no token with the label", "[tokens.NAME.environment]");
    // Secrets of the configuration stay where it finds them.
    let pin = [("XKSD_TOKENS__SOFTHSM__PIN__ENV", "HSM_PIN"), ("HSM_PIN", PIN)];
    let diagnosis = installation.examine(&[], &[pin[0], pin[1], environment[0]]);
    assert_eq!(diagnosis.code, 0, "{:#?}", diagnosis.findings);
}

#[test]
fn a_label_that_is_not_there_is_found_and_those_that_are_get_listed() {
    let installation = Plain::new();
    let before = installation.logins();
    let diagnosis = installation.examine(&[], &[("XKSD_TOKENS__SOFTHSM__LABEL", "xks")]);
    diagnosis.expect_only("token.found", "no token with the label `xks`", "label `xksd`");
    assert_eq!(installation.logins(), before);
}

#[test]
fn two_tokens_of_one_label_are_found() {
    let installation = Plain::new();
    SoftHsmToken::create(installation.site.path(), TOKEN);
    let diagnosis = installation.examine(&[], &[]);
    diagnosis.expect_only("token.found", "several tokens", "by its serial");
}

#[test]
fn a_wrong_pin_is_tried_once_and_then_spared() {
    let installation = Plain::new();
    installation.set_pin("161803");
    let before = installation.logins();
    let diagnosis = installation.examine(&[], &[]);
    diagnosis.expect_only("token.login", "CKR_PIN_INCORRECT", "tokens.softhsm.pin");
    assert_eq!(installation.logins() - before, 1);

    // The token says by its flags that a try was lost: doctor takes no second one unasked.
    let diagnosis = installation.examine(&[], &[]);
    assert_eq!(diagnosis.messages("fail"), []);
    let warnings = diagnosis.messages("warn");
    assert!(matches!(warnings[..], [("token.login", text)] if text.contains("not tried")));
    assert_eq!(installation.logins() - before, 1);

    installation.set_pin(PIN);
    let diagnosis = installation.examine(&["--try-pin"], &[]);
    assert_eq!(diagnosis.code, 0, "{:?}", diagnosis.messages("fail"));
    assert_eq!(installation.logins() - before, 2);
}

#[test]
fn a_key_that_is_named_and_missing_is_found() {
    let mut installation = Plain::new();
    installation.change(|it| it.tenants[0].keys = vec!["good", "bad", "none-*", "goo*"]);
    let diagnosis = installation.examine(&[], &[]);
    let advice = "xksd keys create bad --token softhsm";
    diagnosis.expect_only("keystore.keys", "no key `bad`", advice);
    let warnings = diagnosis.messages("warn");
    assert_eq!(warnings, [("keystore.keys", "the token has no key that fits `none-*`")]);
}

#[test]
fn a_key_for_one_direction_is_warned_of() {
    let mut installation = Plain::new();
    installation.change(|it| it.tenants[0].keys = vec!["good", "write-*"]);
    installation.site.create_key("write-1", "encrypt");
    let diagnosis = installation.examine(&[], &[]);
    assert_eq!(diagnosis.messages("fail"), []);
    assert_eq!(diagnosis.messages("warn"), [("keystore.keys", "`write-1` is without CKA_DECRYPT")]);
}

// --- certificates -------------------------------------------------------------------------------

/// A self-signed certificate, valid for so many days.
fn certificate(directory: &Path, days: i32, extensions: &str) {
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem";
    openssl(directory, &format!("{new} -out request.pem -subj /CN=localhost{extensions}"));
    let sign = "x509 -req -in request.pem -signkey key.pem -copy_extensions copy -out cert.pem";
    openssl(directory, &format!("{sign} -days {days}"));
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(directory.join("key.pem"), private).unwrap();
}

const NAMES: &str = " -addext subjectAltName=DNS:xks.example.com,IP:127.0.0.1";

fn with_certificate(days: i32, extensions: &str) -> (Plain, Diagnosis) {
    let mut installation = Plain::new();
    certificate(installation.site.path(), days, extensions);
    let files = [("certificate", text("cert.pem")), ("private_key", text("key.pem"))];
    installation.change(|it| it.tls = Some(BTreeMap::from(files)));
    let diagnosis = installation.examine(&[], &[]);
    (installation, diagnosis)
}

#[test]
fn a_good_certificate_passes_but_for_its_issuer() {
    let (_, diagnosis) = with_certificate(90, NAMES);
    assert_eq!(diagnosis.messages("fail"), []);
    // P-7: KMS wants a CA that AWS trusts.
    let warned: Vec<_> = diagnosis.messages("warn").into_iter().map(|(check, _)| check).collect();
    assert_eq!(warned, ["certificate.chain", "certificate.authority", "endpoint.form"]);
    let passed = diagnosis.messages("ok");
    assert!(passed.contains(&("certificate.names", "it is for xks.example.com, 127.0.0.1")));
    assert!(passed.iter().any(|(check, _)| *check == "certificate.expiry"));
}

#[test]
fn a_key_of_another_certificate_is_found() {
    let (installation, _) = with_certificate(90, NAMES);
    let directory = installation.site.path();
    openssl(directory, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem");
    let diagnosis = installation.examine(&[], &[]);
    let failed = diagnosis.messages("fail");
    assert!(matches!(failed[..], [("configuration", text)] if text.contains("do not fit")));
    assert_eq!(diagnosis.code, 1);
}

/// Two sections for one token: what the first one's PIN has cost is not spent again by the second.
#[test]
fn a_pin_that_was_refused_is_not_tried_again_under_another_name() {
    let mut installation = Plain::new();
    // A token that does not tell by its flags that a try was lost.
    let script = installation.site.for_module("script");
    shim::set_script(&script, "C_Login return CKR_PIN_INCORRECT\n");
    installation.change(|it| {
        let environment = it.token.get_mut("environment").unwrap();
        *environment = environment.replace('}', &format!(", PKCS11_SHIM_SCRIPT = {script:?} }}"));
        it.twin = Some(it.token.clone());
    });
    let before = installation.logins();
    let diagnosis = installation.examine(&[], &[]);
    assert_eq!(installation.logins() - before, 1, "{:#?}", diagnosis.findings);
    let warnings = diagnosis.messages("warn");
    assert!(
        matches!(warnings[..], [("token.login", text)] if text.contains("refused a moment ago")),
        "{warnings:?}"
    );
}

/// In a network without anything: no question leaves this machine.
#[test]
fn a_name_that_does_not_resolve_is_found() {
    let mut installation = installation::Installation::new();
    let alone = Command::new("unshare").args(["-rn", "true"]).status();
    if !alone.is_ok_and(|status| status.success()) {
        return not_run("doctor without a resolver: no network namespace can be made here");
    }
    installation.shell = "exec unshare -rn \"$@\"";
    installation.front_is_meant = false;
    let diagnosis = installation.examine();
    let found = diagnosis.of("fail").find(|finding| finding["check"] == "endpoint.dns");
    let found = found.unwrap_or_else(|| panic!("{}", diagnosis.text));
    assert!(found["message"].as_str().unwrap().contains("`xks.example.com` does not resolve"));
    assert!(found["advice"].as_str().unwrap().contains("public DNS"));
    assert_eq!(diagnosis.code, 1);
}
