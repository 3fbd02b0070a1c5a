//! `/metrics` as Prometheus reads it: its own checker has nothing to say, strangers add nothing, and
//! the times of a request are in its steps.

use std::collections::BTreeSet;

use support::caller::Caller;
use support::daemon::Daemon;
use support::request::{Request, bare_body, decrypt_body, encrypt_body};
use support::shim::{library, set_script};
use support::site::{Configuration, Credential, Tenant, text};
use support::tool::Promtool;

use crate::world::{closed, demo, small_site};

/// A daemon on SoftHSM2 behind the shim, with a key store that has quotas.
struct World {
    daemon: Daemon,
    kms: Caller,
}

impl World {
    fn start() -> Self {
        let mut configuration = Configuration::new(vec![demo(), closed(), limited()]);
        configuration.token.insert("catalogue_interval", text("10m"));
        configuration.module = Some(library());
        let site = small_site(&configuration);
        for (id, usage) in [("demo-decrypt-only", "decrypt"), ("limited-key", "encrypt,decrypt")] {
            site.create_key(id, usage);
        }
        let script = site.for_module("script");
        let environment = format!("{{ PKCS11_SHIM_SCRIPT = {} }}", text(script.display()));
        configuration.token.insert("environment", environment);
        site.configure(&configuration);
        let daemon = Daemon::start(site);
        let kms = Caller::new(&daemon, &demo());
        Self { daemon, kms }
    }

    fn caller(&self, tenant: &Tenant) -> Caller {
        Caller::new(&self.daemon, tenant)
    }

    fn script(&self, script: &str) {
        set_script(&self.daemon.site.for_module("script"), script);
    }

    /// Calls every operation, and has every error answered that this daemon has; gives the names of
    /// the errors.
    fn everything(&self) -> BTreeSet<String> {
        let Self { kms, .. } = self;
        let encrypt = encrypt_body(b"x", Some(b"aad"));
        let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt);
        let decrypt = decrypt_body(&sealed, Some(b"aad"));
        kms.accepted("keys/demo-key/decrypt", &decrypt);
        let metadata = bare_body("DescribeKey");
        kms.accepted("keys/demo-key/metadata", &metadata);
        kms.accepted("health", &bare_body("KmsHealthCheck"));
        let mut other_aad = decrypt.clone();
        other_aad["additionalAuthenticatedData"] = "b3RoZXI=".into();
        let too_long = encrypt_body(&[0; 9000], None);
        let stranger = Caller { credential: Credential::of('Z'), ..kms.clone() };
        let nowhere = Caller { prefix: "nowhere".into(), ..kms.clone() };
        let limited = self.caller(&limited());
        let mut answers = vec![
            kms.call("keys/demo-key/encrypt", &metadata),
            kms.call("keys/demo-key/encrypt", &too_long),
            kms.call("keys/demo-none/metadata", &metadata),
            kms.call("keys/demo-decrypt-only/encrypt", &encrypt),
            kms.call("keys/demo-key/decrypt", &other_aad),
            stranger.call("keys/demo-key/metadata", &metadata),
            nowhere.call("health", &bare_body("KmsHealthCheck")),
            self.caller(&closed()).call("keys/demo-key/metadata", &metadata),
        ];
        let mut asked = (0..1000).map(|_| limited.call("keys/limited-key/metadata", &metadata));
        answers.push(asked.find(|answer| answer.status != 200).expect("it is over its quota"));
        self.script("C_Encrypt delay 2s\n");
        answers.push(kms.call("keys/demo-key/encrypt", &encrypt));
        self.script("C_Encrypt return CKR_GENERAL_ERROR\n");
        // On a busy machine one may be late instead.
        let mut failing = (0..100).map(|_| kms.call("keys/demo-key/encrypt", &encrypt));
        answers.push(failing.find(|answer| answer.status == 500).expect("the HSM fails"));
        self.script("");
        let mut connection = kms.connect();
        connection.send(b"POST / HTTP/9.9\r\n\r\n");
        connection.receive();
        let refused = answers.iter().filter(|answer| answer.status != 200);
        refused.map(|answer| answer.json()["errorName"].as_str().unwrap().to_owned()).collect()
    }
}

fn limited() -> Tenant {
    let mut limited = Tenant::new("limited", "limited", &["limited-key"], 'F');
    limited.lines.push("quota = { requests_per_second = 1, burst = 1 }");
    limited
}

/// All series, without their values.
fn series(metrics: &str) -> BTreeSet<&str> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect()
}

#[test]
fn promtool_finds_nothing_after_every_operation_and_error() {
    let world = World::start();
    let errors = world.everything();
    let expected = [
        "AuthenticationFailedException",
        "DependencyTimeoutException",
        "InternalException",
        "InvalidCiphertextException",
        "InvalidKeyUsageException",
        "InvalidStateException",
        "InvalidUriPathException",
        "KeyNotFoundException",
        "ThrottlingException",
        "UnsupportedOperationException",
        "ValidationException",
    ];
    assert_eq!(errors, expected.map(str::to_owned).into());
    let metrics = world.daemon.metrics();
    for error in expected {
        assert!(metrics.contains(&format!("outcome=\"{error}\"")), "{error}: {metrics}");
    }
    let Some(promtool) = Promtool::find("promtool check metrics") else { return };
    promtool.check(&["check", "metrics"], &metrics);
}

#[test]
fn the_documented_promql_names_series_that_exist() {
    let world = World::start();
    world.everything();
    let metrics = world.daemon.metrics();
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
    let document = std::fs::read_to_string(document).unwrap();
    let (_, promql) = document.split_once("In PromQL:\n").unwrap();
    let (promql, _) = promql.split_once("\n###").unwrap();
    let names: BTreeSet<&str> =
        series(&metrics).into_iter().filter_map(|series| series.split(['{', ' ']).next()).collect();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = promql.split(|c| !is_name(c)).filter(|word| word.starts_with("xksd_"));
    for word in words {
        assert!(names.contains(word), "there is no {word}");
    }
}

/// Whoever has no credential makes no series, whatever he invents: after one request of each kind
/// there are all that such requests ever make.
#[test]
fn strangers_add_no_series() {
    let world = World::start();
    let stranger = Credential { secret: "x".repeat(43), ..Credential::of('A') };
    let round = |number: usize| {
        let invented = format!("invented-{number}");
        let prefixes = [format!("p{number}/kms"), demo().prefix.to_owned()];
        for prefix in prefixes {
            for rest in [
                format!("keys/{invented}/encrypt"),
                format!("keys/{invented}/decrypt"),
                format!("keys/{invented}/metadata"),
                format!("keys/{invented}/{invented}"),
                "health".to_owned(),
                invented.clone(),
            ] {
                let kms = Caller {
                    prefix: prefix.clone(),
                    credential: stranger.clone(),
                    ..world.kms.clone()
                };
                let mut body = encrypt_body(b"x", None);
                body["requestMetadata"]["kmsOperation"] = invented.clone().into();
                body["requestMetadata"]["kmsRequestId"] = invented.clone().into();
                let mut request = kms.request(&rest, &body);
                request.headers.push(("X-Forwarded-For".into(), invented.clone()));
                request.headers.push((format!("X-{invented}"), invented.clone()));
                request.headers.push(("Traceparent".into(), invented.clone()));
                assert_ne!(kms.send(&request).status, 200);
                // No credential that there is, no date that is near, no signature at all.
                let unknown = Credential {
                    id: format!("INVENTED{:0>12}", letters(number)),
                    ..stranger.clone()
                };
                assert_ne!(kms.send(&Request::post(&kms.path(&rest), &body, &unknown)).status, 200);
                let mut unsigned = kms.request(&rest, &body);
                unsigned.signing.credential = None;
                assert_ne!(kms.send(&unsigned).status, 200);
                let mut connection = kms.connect();
                connection.send(
                    format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", invented.to_uppercase()).as_bytes(),
                );
                connection.receive();
            }
        }
    };
    round(0);
    let before = world.daemon.metrics();
    for number in 1..4 {
        round(number);
    }
    let after = world.daemon.metrics();
    let before = series(&before);
    let mut new = series(&after);
    // What is called in the background meanwhile is not their doing.
    new.retain(|series| !before.contains(series) && !series.starts_with("xksd_hsm_call_"));
    assert!(new.is_empty(), "{new:?}");
    assert!(!after.contains("invented"), "{after}");
}

/// A number in the alphabet of access key ids.
fn letters(number: usize) -> String {
    number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'A')).collect()
}

/// Nobody without a credential spoils the times of a key store.
#[test]
fn the_times_of_strangers_are_nobodys() {
    let daemon = Daemon::start(small_site(&Configuration::new(vec![demo()])));
    let stranger = Caller { credential: Credential::of('Z'), ..Caller::new(&daemon, &demo()) };
    stranger.call("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    let metrics = daemon.metrics();
    assert!(metrics.contains(
        "xksd_request_duration_seconds_count{keystore=\"none\",operation=\"Encrypt\"} 1\n"
    ));
    assert!(
        !metrics.contains("xksd_request_duration_seconds_count{keystore=\"demo\""),
        "{metrics}"
    );
}

/// Every step of each operation has its time, once for each request.
#[test]
fn each_request_counts_once_in_each_of_its_steps() {
    let daemon = Daemon::start(small_site(&Configuration::new(vec![demo()])));
    let kms = Caller::new(&daemon, &demo());
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    kms.accepted("keys/demo-key/metadata", &bare_body("DescribeKey"));
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    let metrics = daemon.metrics();
    let steps = |operation: &str| -> Vec<&str> {
        let head = "xksd_request_step_duration_seconds_count{keystore=\"demo\",operation=\"";
        let lines = metrics.lines().filter_map(|line| {
            line.strip_prefix(head)?.strip_prefix(operation)?.strip_prefix("\",step=\"")
        });
        lines.collect()
    };
    let head = ["authenticate\"} 1", "authorize\"} 1", "body\"} 1"];
    let all = |more: &[&'static str]| {
        let mut all: Vec<&str> = head.iter().chain(more).copied().collect();
        all.sort_unstable();
        all
    };
    // Encrypt has two jobs, since what it made is decrypted to check it.
    let worked = all(&["catalogue\"} 1", "hsm\"} 1", "queue\"} 1", "respond\"} 1"]);
    assert_eq!(steps("Encrypt"), worked);
    assert_eq!(steps("Decrypt"), worked);
    assert_eq!(steps("GetKeyMetadata"), all(&["catalogue\"} 1", "respond\"} 1"]));
    assert_eq!(steps("GetHealthStatus"), all(&["respond\"} 1"]));
}
