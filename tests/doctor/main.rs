//! `xksd doctor` on healthy and on broken installations: each fault is found by its name, and no
//! PIN is spent on the way. `cases` has the table of faults; here is what it is about them.

mod balancer;
mod broken;
mod cases;
mod installation;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::not_run;
use support::shim::{self, Counts};
use support::token::SoftHsmToken;
use tempfile::TempDir;

/// A configuration with its token, in a directory that vanishes with the test.
struct Installation {
    directory: TempDir,
    token: SoftHsmToken,
}

/// What doctor said.
struct Diagnosis {
    findings: Vec<Value>,
    code: i32,
}

impl Installation {
    /// A healthy one over plain HTTP, whose module is the shim; its key `good` exists.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = SoftHsmToken::create(directory.path(), "doctors");
        let this = Self { directory, token };
        this.secret("pin", this.token.pin);
        this.secret("secret", &"s".repeat(43));
        this.configure("insecure_plain_http_on_loopback = true");
        let output = this.xksd(&["keys", "create", "good"], &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        this
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn secret(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
        fs::set_permissions(self.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Writes the configuration; `transport` ends its section `[server]`.
    fn configure(&self, transport: &str) {
        let module = shim::library();
        let text = format!(
            r#"
version = 1
[server]
listen = "127.0.0.1:0"
{transport}
[ops]
listen = "127.0.0.1:0"
[tokens.hsm]
module = "{}"
label = "doctors"
pin = {{ file = "pin" }}
[tokens.hsm.environment]
PKCS11_SHIM_MODULE = "{}"
PKCS11_SHIM_COUNTS = "{}"
[keystores.demo]
prefix = "demo"
regions = ["us-east-1"]
tokens = ["hsm"]
keys = ["good"]
authorization.mode = "off"
[[keystores.demo.credentials]]
access_key_id = "ABCDEFGHIJKLMNOPQRST"
secret = {{ file = "secret" }}
"#,
            module.display(),
            self.token.module.display(),
            self.path("counts").display(),
        );
        fs::write(self.path("xksd.toml"), text).unwrap();
    }

    fn xksd(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let (name, value) = self.token.env();
        Command::new(env!("CARGO_BIN_EXE_xksd"))
            .args(arguments)
            .arg("--config")
            .arg(self.path("xksd.toml"))
            .env(name, value)
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    fn examine(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Diagnosis {
        let output = self.xksd(&[&["doctor", "--json"], arguments].concat(), environment);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let findings = serde_json::from_slice(&output.stdout);
        let findings = findings.unwrap_or_else(|error| panic!("{error}: {stderr}"));
        Diagnosis { findings, code: output.status.code().expect("no signal ended it") }
    }

    fn logins(&self) -> u64 {
        Counts::read(&self.path("counts")).of("C_Login")
    }
}

impl Diagnosis {
    /// Checks and messages of this status, but for what is about the machine that runs the test.
    fn of(&self, status: &str) -> Vec<(&str, &str)> {
        let of_machine =
            |finding: &Value| broken::OF_THE_MACHINE.iter().any(|name| finding["check"] == *name);
        let with_status = self.findings.iter().filter(|finding| finding["status"] == status);
        with_status
            .filter(|finding| !of_machine(finding))
            .map(|f| (f["check"].as_str().unwrap(), f["message"].as_str().unwrap()))
            .collect()
    }

    /// That one check failed, and what its message and advice say.
    #[track_caller]
    fn expect_only(&self, check: &str, message: &str, advice: &str) {
        let failed = self.of("fail");
        assert_eq!(failed.len(), 1, "{:#?}", self.findings);
        assert_eq!(failed[0].0, check);
        assert!(failed[0].1.contains(message), "`{message}` is not in `{}`", failed[0].1);
        let finding = self.findings.iter().find(|finding| finding["status"] == "fail").unwrap();
        let given = finding["advice"].as_str().unwrap();
        assert!(given.contains(advice), "`{advice}` is not in `{given}`");
        assert_eq!(self.code, 1);
    }
}

#[test]
fn one_token_can_be_looked_at_alone() {
    let installation = Installation::new();
    let alone = installation.examine(&["--token", "hsm"], &[]);
    assert_eq!(alone.code, 0, "{:#?}", alone.findings);
    assert!(alone.of("ok").iter().any(|(check, _message)| *check == "token.login"));
    let output = installation.xksd(&["doctor", "--token", "hms"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no [tokens.hms]"));
}

#[test]
fn a_healthy_installation_passes_every_check() {
    let installation = Installation::new();
    let before = installation.logins();
    let diagnosis = installation.examine(&[], &[]);
    assert_eq!(diagnosis.of("fail"), []);
    assert_eq!(diagnosis.of("warn"), []);
    assert_eq!(diagnosis.code, 0);
    let passed: Vec<_> = diagnosis.of("ok").into_iter().map(|(check, _)| check).collect();
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
    let installation = Installation::new();
    let keys = || installation.xksd(&["keys", "list", "--json"], &[]).stdout;
    let before = keys();
    installation.examine(&[], &[]);
    assert_eq!(String::from_utf8(keys()), String::from_utf8(before));
}

#[test]
fn people_get_lines_with_advice() {
    let installation = Installation::new();
    let output = installation.xksd(&["doctor"], &[("XKSD_TOKENS__HSM__LABEL", "other")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("FAIL token.found"), "{text}");
    assert!(text.contains("-> there are: label `doctors`"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_configuration_is_told_all_its_faults() {
    let installation = Installation::new();
    let environment =
        [("XKSD_SERVER__DEADLINE", "forever"), ("XKSD_TOKENS__HSM__MODULE", "/nowhere.so")];
    let diagnosis = installation.examine(&[], &environment);
    let failed = diagnosis.of("fail");
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().all(|(check, _)| *check == "configuration"));
    let subjects: Vec<_> = diagnosis.findings.iter().map(|f| &f["subject"]).collect();
    assert!(subjects.contains(&&Value::from("tokens.hsm.module")), "{subjects:?}");
    assert_eq!(diagnosis.code, 1);
}

/// What a process of the module's own would not have, doctor does not give it either.
#[test]
fn a_module_sees_what_it_will_see_when_it_is_served() {
    let installation = Installation::new();
    let script = installation.path("script");
    shim::set_script(&script, "C_GetTokenInfo return CKR_DEVICE_ERROR\n");
    let environment = [("PKCS11_SHIM_SCRIPT", script.to_str().unwrap())];
    assert_eq!(installation.examine(&[], &environment).code, 0);
    let isolation = ("XKSD_TOKENS__HSM__ISOLATION", "thread");
    let inside = installation.examine(&[], &[environment[0], isolation]);
    inside.expect_only("token.found", "no token with the label", "[tokens.NAME.environment]");
    // Secrets of the configuration stay where it finds them.
    let pin = [("XKSD_TOKENS__HSM__PIN__ENV", "HSM_PIN"), ("HSM_PIN", installation.token.pin)];
    let diagnosis = installation.examine(&[], &[pin[0], pin[1], environment[0]]);
    assert_eq!(diagnosis.code, 0, "{:#?}", diagnosis.findings);
}

#[test]
fn a_label_that_is_not_there_is_found_and_those_that_are_get_listed() {
    let installation = Installation::new();
    let before = installation.logins();
    let diagnosis = installation.examine(&[], &[("XKSD_TOKENS__HSM__LABEL", "doctor")]);
    diagnosis.expect_only("token.found", "no token with the label `doctor`", "label `doctors`");
    assert_eq!(installation.logins(), before);
}

#[test]
fn two_tokens_of_one_label_are_found() {
    let installation = Installation::new();
    SoftHsmToken::create(installation.directory.path(), "doctors");
    let diagnosis = installation.examine(&[], &[]);
    diagnosis.expect_only("token.found", "several tokens", "by its serial");
}

#[test]
fn a_wrong_pin_is_tried_once_and_then_spared() {
    let installation = Installation::new();
    installation.secret("pin", "161803");
    let before = installation.logins();
    let diagnosis = installation.examine(&[], &[]);
    diagnosis.expect_only("token.login", "CKR_PIN_INCORRECT", "tokens.hsm.pin");
    assert_eq!(installation.logins() - before, 1);

    // The token says by its flags that a try was lost: doctor takes no second one unasked.
    let diagnosis = installation.examine(&[], &[]);
    assert_eq!(diagnosis.of("fail"), []);
    let warnings = diagnosis.of("warn");
    assert!(matches!(warnings[..], [("token.login", text)] if text.contains("not tried")));
    assert_eq!(installation.logins() - before, 1);

    installation.secret("pin", installation.token.pin);
    let diagnosis = installation.examine(&["--try-pin"], &[]);
    assert_eq!(diagnosis.code, 0, "{:?}", diagnosis.of("fail"));
    assert_eq!(installation.logins() - before, 2);
}

#[test]
fn a_key_that_is_named_and_missing_is_found() {
    let installation = Installation::new();
    let path = installation.path("xksd.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(r#"["good"]"#, r#"["good", "bad", "none-*", "goo*"]"#)).unwrap();
    let diagnosis = installation.examine(&[], &[]);
    let advice = "xksd keys create bad --token hsm";
    diagnosis.expect_only("keystore.keys", "no key `bad`", advice);
    let warnings = diagnosis.of("warn");
    assert_eq!(warnings, [("keystore.keys", "the token has no key that fits `none-*`")]);
}

#[test]
fn a_key_for_one_direction_is_warned_of() {
    let installation = Installation::new();
    let path = installation.path("xksd.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(r#"["good"]"#, r#"["good", "write-*"]"#)).unwrap();
    let created = installation.xksd(&["keys", "create", "write-1", "--usage", "encrypt"], &[]);
    assert!(created.status.success());
    let diagnosis = installation.examine(&[], &[]);
    assert_eq!(diagnosis.of("fail"), []);
    assert_eq!(diagnosis.of("warn"), [("keystore.keys", "`write-1` is without CKA_DECRYPT")]);
}

// --- certificates -------------------------------------------------------------------------------

const TLS: &str = "[server.tls]\ncertificate = \"cert.pem\"\nprivate_key = \"key.pem\"";

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("openssl is installed: package openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

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

fn with_certificate(days: i32, extensions: &str) -> (Installation, Diagnosis) {
    let installation = Installation::new();
    certificate(installation.directory.path(), days, extensions);
    installation.configure(TLS);
    let diagnosis = installation.examine(&[], &[]);
    (installation, diagnosis)
}

#[test]
fn a_good_certificate_passes_but_for_its_issuer() {
    let (_, diagnosis) = with_certificate(90, NAMES);
    assert_eq!(diagnosis.of("fail"), []);
    // P-7: KMS wants a CA that AWS trusts.
    let warned: Vec<_> = diagnosis.of("warn").into_iter().map(|(check, _)| check).collect();
    assert_eq!(warned, ["certificate.chain", "certificate.authority", "endpoint.form"]);
    let passed = diagnosis.of("ok");
    assert!(passed.contains(&("certificate.names", "it is for xks.example.com, 127.0.0.1")));
    assert!(passed.iter().any(|(check, _)| *check == "certificate.expiry"));
}

#[test]
fn a_key_of_another_certificate_is_found() {
    let (installation, _) = with_certificate(90, NAMES);
    let directory = installation.directory.path();
    openssl(directory, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem");
    let diagnosis = installation.examine(&[], &[]);
    let failed = diagnosis.of("fail");
    assert!(matches!(failed[..], [("configuration", text)] if text.contains("do not fit")));
    assert_eq!(diagnosis.code, 1);
}

/// Two sections for one token: what the first one's PIN has cost is not spent again by the second.
#[test]
fn a_pin_that_was_refused_is_not_tried_again_under_another_name() {
    let installation = Installation::new();
    let path = installation.path("xksd.toml");
    let text = fs::read_to_string(&path).unwrap();
    let section =
        text.split("[tokens.hsm]").nth(1).unwrap().split("[keystores.demo]").next().unwrap();
    let twin = format!("[tokens.twin]{}", section.replace("[tokens.hsm.", "[tokens.twin."));
    fs::write(&path, format!("{text}\n{twin}")).unwrap();
    // A token that does not tell by its flags that a try was lost.
    let script = installation.path("script");
    shim::set_script(&script, "C_Login return CKR_PIN_INCORRECT\n");
    let with_script = |text: String| {
        text.replace(
            "PKCS11_SHIM_COUNTS",
            &format!("PKCS11_SHIM_SCRIPT = {script:?}\nPKCS11_SHIM_COUNTS"),
        )
    };
    fs::write(&path, with_script(fs::read_to_string(&path).unwrap())).unwrap();
    let before = installation.logins();
    let diagnosis = installation.examine(&[], &[]);
    assert_eq!(installation.logins() - before, 1, "{:#?}", diagnosis.findings);
    let warnings = diagnosis.of("warn");
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
