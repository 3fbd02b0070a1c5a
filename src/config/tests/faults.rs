//! Each fault by itself, and many at once.

use super::super::Origin;
use super::{Dir, GOOD, and, with};

/// One fault: what is said of the key, and a part of the hint.
#[track_caller]
fn one(dir: &Dir, toml: &str, said: &str) {
    let faults = dir.said(toml);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    assert!(faults[0].contains(said), "{}\nshould say\n{said}", faults[0]);
}

#[test]
fn a_value_at_fault_is_named_with_what_is_allowed() {
    let dir = Dir::new();
    let server = [
        ("max_connections = 0", "server.max_connections = 0: must be a whole number, 1 to 1000000"),
        ("max_connections = \"9\"", "server.max_connections = 9: must be an integer"),
        ("max_connections = 1.5", "server.max_connections = 1.5: must be an integer"),
        ("handshake_timeout = 5", "server.handshake_timeout = 5: must be a string, in quotes"),
        ("handshake_timeout = \"5\"", "server.handshake_timeout = \"5\": must be a duration"),
        ("head_timeout = \"0s\"", "server.head_timeout = \"0s\": must be 100ms to 60s"),
        ("body_timeout = \"1h\"", "server.body_timeout = \"1h\": must be 100ms to 60s"),
        ("idle_timeout = \"9m\"", "server.idle_timeout = \"9m\": must be 10m to 24h"),
        ("deadline = \"251ms\"", "server.deadline = \"251ms\": must be 1ms to 250ms"),
        ("deadline = \"0ms\"", "server.deadline = \"0ms\": must be 1ms to 250ms"),
        ("proxy_protocol_from = [\"lb\"]", "server.proxy_protocol_from[0] = \"lb\": must be a net"),
        ("proxy_protocol_from = 1", "server.proxy_protocol_from = 1: must be a list of strings"),
        ("insecure_plain_http_on_loopback = 1", "loopback = 1: must be true or false"),
        ("insecure_plain_http_on_loopback = true", "cannot stand beside [server.tls]"),
        ("drain = 5", "server.drain: must be a section"),
        ("drain.delay = \"11m\"", "server.drain.delay = \"11m\": must be 0s to 10m"),
        ("drain.wait = \"1s\"", "server.drain.wait: is no known key"),
    ];
    let quota = [
        (
            "quota.requests_per_second = 0",
            "keystores.demo.quota.requests_per_second = 0: must be a",
        ),
        ("quota.concurrent = 1000001", "quota.concurrent = 1000001: must be a whole number, 1 to"),
        (
            "key_quota.burst = 5",
            "demo.key_quota.burst: means nothing without `requests_per_second`",
        ),
        ("key_quota.rate = 5", "keystores.demo.key_quota.rate: is no known key"),
        ("quota = 1800", "keystores.demo.quota: must be a section"),
    ];
    let traces = [
        ("sample_ratio = 1.5", "traces.sample_ratio = 1.5: must be a number from 0.0 to 1.0"),
        ("sample_ratio = \"1\"", "traces.sample_ratio = 1: must be a number, without quotes"),
        ("otlp_endpoint = \"http://10.0.0.1:4318\"", "plain http is for loopback addresses only"),
        ("otlp_endpoint = \"localhost:4318\"", "not of the form https://host[:port][/prefix]"),
        ("otlp_ca = \"no.pem\"", "traces.otlp_ca = \"no.pem\": cannot read the CA certificates"),
        ("endpoint = \"http://[::1]:4318\"", "traces.endpoint: is no known key"),
        (
            "otlp_endpoint = \"http://[::1]:4318\"\notlp_ca = \"server.pem\"",
            "traces.otlp_ca: is for https, and otlp_endpoint is plain http",
        ),
    ];
    for (line, said) in traces {
        one(&dir, &and("listen = \"127.0.0.1:9443\"", &format!("\n[traces]\n{line}")), said);
    }
    for (line, said) in quota {
        one(&dir, &and("[keystores.demo]", line), said);
    }
    for (line, said) in server {
        one(&dir, &and("[server]", line), said);
    }
    let token = [
        ("sessions = 0", "tokens.hsm.sessions = 0: must be a whole number, 1 to 1024"),
        ("sessions = 1025", "tokens.hsm.sessions = 1025: must be a whole number, 1 to 1024"),
        ("queue = -1", "tokens.hsm.queue = -1: must be a whole number, 1 to 100000"),
        ("serial = \"1\"", "tokens.hsm.serial: cannot stand beside `label`"),
        ("probe_interval = \"1m\"", "must be 100ms to 30s"),
        ("catalogue_interval = \"\"", "must be a duration"),
        ("isolation = \"none\"", "tokens.hsm.isolation = \"none\": must be `process` or `thread`"),
        ("call_limit = \"250ms\"", "tokens.hsm.call_limit = \"250ms\": must be 1s to 5m"),
        ("environment = { \"A=B\" = \"\" }", "tokens.hsm.environment.A=B: is no name"),
        ("environment = { XKSD_X = \"\" }", "is for xksd itself"),
        ("environment = { X = 1 }", "tokens.hsm.environment.X: must be a string, in quotes"),
    ];
    for (line, said) in token {
        one(&dir, &and("[tokens.hsm]", line), said);
    }
    let accept = "accept_ciphertexts_of = \"aws-sample\"\n";
    let keystore = [
        (
            "accept_ciphertexts_of = \"cosmian\"",
            "accept_ciphertexts_of = \"cosmian\": must be `aws-",
        ),
        ("encrypt_as = \"AWS\"", "encrypt_as = \"AWS\": must be `xksd` or `aws-sample`"),
        ("encrypt_as = \"aws-sample\"", "encrypt_as: what is written must be read as well"),
        ("aws_sample_metadata = \"\"", "keystores.demo.aws_sample_metadata: says what the sample"),
        ("aws_sample_metadata = \"djE\"", "metadata[0] = \"djE\": must be standard Base64"),
        ("aws_sample_metadata = 1", "aws_sample_metadata = 1: must be a list of strings"),
        (
            "aws_sample_metadata = [\"djE=\", \"djE=\"]",
            "metadata[1] = \"djE=\": `djE=` is there twice",
        ),
        (
            "aws_sample_metadata = \"CQkJCQkJCQkJCQkJCQkJCQkJCQkJ\"",
            "must be at most 20 bytes before Base64, not 21",
        ),
        (
            "aws_sample_metadata = \"AQAAAAAAAAAAAAAAAA==\"",
            "aws_sample_metadata[0] = \"AQAAAAAAAAAAAAAAAA==\": would be read as metadata of xksd's own",
        ),
        ("aws_sample_metadata = \"DQEAAAAAAAAAAAAAAAA=\"", "would be read as metadata of xksd's"),
    ];
    for (number, (line, said)) in keystore.into_iter().enumerate() {
        // The first four are at fault because the format is not accepted, or not known.
        let line = if number < 4 { line.to_owned() } else { format!("{accept}{line}") };
        one(&dir, &and("[keystores.demo]", &line), said);
    }
    let replaced = [
        ("version = 1", "version = 2", "version = 2: must be 1"),
        ("version = 1", "", "version: is missing"),
        ("\"127.0.0.1:8443\"", "\"localhost:8443\"", "must be an IP address and a port"),
        ("\"127.0.0.1:8443\"", "[]", "server.listen = []: must hold at least one"),
        ("\"127.0.0.1:9443\"", "\"127.0.0.1:8443\"", "is the address of server.listen as well"),
        ("\"module.so\"", "\"no.so\"", "tokens.hsm.module = \"no.so\": `no.so`: No such file"),
        ("\"module.so\"", "\".\"", "is not a file"),
        ("label = \"xksd\"", "", "tokens.hsm.label: is missing: `label` or `serial`"),
        ("label = \"xksd\"", "label = \"\"", "tokens.hsm.label = \"\": must not be empty"),
        ("\"token.pin\"", "\"no.pin\"", "tokens.hsm.pin: cannot read `no.pin`: No such file"),
        ("\"token.pin\"", "\"module.so\"", "tokens.hsm.pin: is empty"),
        ("file = \"token.pin\"", "env = \"HSM_PIN\"", "variable `HSM_PIN` is not set"),
        ("file = \"token.pin\"", "credential = \"x\"", "CREDENTIALS_DIRECTORY is not set"),
        ("pin = { file = \"token.pin\" }", "", "tokens.hsm.pin: is missing; it takes `{ file"),
        ("prefix = \"demo\"", "prefix = \"/demo\"", "without a slash at its ends"),
        ("prefix = \"demo\"", "", "keystores.demo.prefix: is missing"),
        ("[\"us-east-1\"]", "[]", "keystores.demo.regions = []: must hold at least one"),
        ("[\"us-east-1\"]", "[\"US\"]", "keystores.demo.regions[0] = \"US\": a Region may only"),
        ("[\"hsm\"]", "[\"hms\"]", "there is no [tokens.hms]"),
        (
            "[\"hsm\"]",
            "[\"hsm\", \"hsm\"]",
            "keystores.demo.tokens[1] = \"hsm\": `hsm` is there twice",
        ),
        ("[\"hsm\"]", "[]", "keystores.demo.tokens = []: must hold at least one"),
        ("[\"demo-*\", \"other\"]", "[]", "keystores.demo.keys = []: must hold at least one"),
        ("[\"demo-*\", \"other\"]", "[\"a*b\"]", "keys[0] = \"a*b\": a `*` may only stand at"),
        ("\"ABCDEFGHIJKLMNOPQRST\"", "\"short\"", "credentials[0].access_key_id: an access key id"),
        ("\"demo.secret\"", "\"token.pin\"", "a secret access key must have 43 to 64 characters"),
        ("[keystores.demo]\n", "[keystores.demo]\ncolour = 1\n", "keystores.demo.colour: is no"),
        ("\"server.pem\"", "\"token.pin\"", "server.tls.certificate: "),
        ("\"server.pem\"", "\"no.pem\"", "server.tls.certificate: cannot read"),
        ("\"server.key\"", "\"token.pin\"", "server.tls.private_key: "),
        ("\"server.key\"", "\"no.key\"", "server.tls.private_key: cannot read `no.key`"),
    ];
    for (old, new, said) in replaced {
        one(&dir, &with(old, new), said);
    }
}

#[test]
fn what_counts_encryptions_wants_a_place_for_them() {
    let dir = Dir::new();
    let without = "needs a directory where encryptions are counted";
    for (line, key) in [
        ("encryption_limit.at_limit = \"refuse\"", "encryption_limit.at_limit"),
        ("encryption_limit.warn_percent = 50", "encryption_limit.warn_percent"),
        ("rotation.before = 1000", "rotation.before"),
    ] {
        let toml = and("[keystores.demo]", line);
        one(&dir, &toml, &format!("keystores.demo.{key}: {without}"));
        assert!(dir.load(&toml, &[("STATE_DIRECTORY", "/var/lib/xksd")]).is_ok(), "{line}");
        assert!(dir.faults_with(&toml, &[("STATE_DIRECTORY", "")]).len() == 1, "{line}");
    }
    dir.load(&and("[keystores.demo]", "rotation.every = \"30d\""), &[]).unwrap();
    let with_state = |line: &str| {
        and("[keystores.demo]", line).replace("[ops]", "[state]\ndirectory = \"x\"\n\n[ops]")
    };
    for (line, said) in [
        ("encryption_limit.warn_percent = 0", "must be a whole number, 1 to 100"),
        ("encryption_limit.at_limit = \"stop\"", "must be `warn` or `refuse`"),
        ("encryption_limit.at = \"warn\"", "encryption_limit.at: is no known key"),
        ("rotation.every = \"23h\"", "rotation.every = \"23h\": must be 1d to 3650d"),
        ("rotation.before = 4294967297", "must be a whole number, 1 to 4294967296"),
        ("rotation = \"30d\"", "keystores.demo.rotation: must be a section"),
        (
            "rotation.every = \"30d\"\naccept_ciphertexts_of = \"aws-sample\"\n\
             encrypt_as = \"aws-sample\"",
            "keystores.demo.rotation: cannot stand beside encrypt_as",
        ),
    ] {
        one(&dir, &with_state(line), said);
    }
    let empty = and("[ops]", "").replace("[ops]", "[state]\ndirectory = \"\"\n\n[ops]");
    one(&dir, &empty, "state.directory = \"\": must not be empty");
}

#[test]
fn sections_that_must_be_there_are_named() {
    let dir = Dir::new();
    let said = dir.said("version = 1");
    let missing = ["server.listen", "server.tls", "ops.listen", "tokens", "keystores"];
    assert_eq!(said.len(), missing.len(), "{said:#?}");
    for (said, key) in said.iter().zip(missing) {
        assert!(said.starts_with(&format!("{key}: is missing")), "{said}");
    }
    let credentials = GOOD.find("[[keystores.demo.credentials]]").unwrap();
    one(&dir, &GOOD[..credentials], "keystores.demo.credentials: is missing");
}

#[test]
fn both_halves_of_mutual_tls_are_wanted() {
    // P-16
    let dir = Dir::new();
    one(
        &dir,
        &and("[server.tls]", "client_ca = \"server.pem\""),
        "server.tls.client_subject: is missing, and `client_ca` is set",
    );
    one(
        &dir,
        &and("[server.tls]", "client_subject = \"CN=kms\""),
        "server.tls.client_ca: is missing, and `client_subject` is set",
    );
    let both = |ca: &str, subject: &str| {
        and("[server.tls]", &format!("client_ca = \"{ca}\"\nclient_subject = \"{subject}\""))
    };
    one(&dir, &both("server.pem", "kms"), "server.tls.client_subject = \"kms\": not a disting");
    one(&dir, &both("no.pem", "CN=kms"), "server.tls.client_ca: cannot read");
    one(&dir, &both("token.pin", "CN=kms"), "server.tls.client_ca: ");
}

#[test]
fn a_key_that_fits_another_certificate_is_refused() {
    let dir = Dir::new();
    dir.certificate("other");
    one(&dir, &with("server.key", "other.key"), "certificate and private key do not fit");
}

/// Another key store beside the good one.
fn second(prefix: &str, access_key_id: &str) -> String {
    second_of(prefix, access_key_id, "tokens = [\"hsm\"]")
}

fn second_with(tokens: &str) -> String {
    second_of("second", "TSRQPONMLKJIHGFEDCBA", tokens)
}

fn second_of(prefix: &str, access_key_id: &str, tokens: &str) -> String {
    format!(
        "{GOOD}\n[keystores.second]\nprefix = \"{prefix}\"\nregions = [\"eu-west-1\"]\n\
         {tokens}\nkeys = [\"*\"]\n[[keystores.second.credentials]]\n\
         access_key_id = \"{access_key_id}\"\nsecret = {{ file = \"demo.secret\" }}\n"
    )
}

#[test]
fn key_stores_share_neither_prefix_nor_access_key_id() {
    // P-4, P-14
    let dir = Dir::new();
    assert!(dir.load(&second("second", "TSRQPONMLKJIHGFEDCBA"), &[]).is_ok());
    one(
        &dir,
        &second("demo", "TSRQPONMLKJIHGFEDCBA"),
        "keystores.second.prefix = \"demo\": is the prefix of key store `demo` as well",
    );
    one(
        &dir,
        &second("second", "ABCDEFGHIJKLMNOPQRST"),
        "ABCDEFGHIJKLMNOPQRST is there twice, first in key store `demo`",
    );
    let twice = "[[keystores.demo.credentials]]\naccess_key_id = \"ABCDEFGHIJKLMNOPQRST\"\n\
                 secret = { file = \"demo.secret\" }\n";
    one(&dir, &format!("{GOOD}{twice}"), "demo.credentials[1].access_key_id: ABCDEFGHIJKLM");
}

#[test]
fn modules_inside_the_daemon_share_one_environment() {
    let dir = Dir::new();
    let two = |isolation: &str, a: &str, b: &str| {
        let other = format!(
            "[tokens.other]\nmodule = \"module.so\"\nlabel = \"x\"\n\
             pin = {{ file = \"token.pin\" }}\nisolation = \"thread\"\n\
             environment.CONF = \"{b}\"\n"
        );
        let hsm = and("[tokens.hsm]", &format!("isolation = \"{isolation}\""));
        format!("{hsm}{other}[tokens.hsm.environment]\nCONF = \"{a}\"")
    };
    let config = dir.load(&two("thread", "/a", "/a"), &[]).unwrap();
    assert_eq!(config.tokens.len(), 2);
    one(
        &dir,
        &two("thread", "/a", "/b"),
        "tokens.other.environment.CONF: has another value in [tokens.hsm.environment]",
    );
    let config = dir.load(&two("process", "/a", "/b"), &[]).unwrap();
    let values = config.tokens.values().map(|token| &*token.environment["CONF"]);
    assert_eq!(values.collect::<Vec<_>>(), ["/a", "/b"]);
}

#[test]
fn the_closest_known_key_is_suggested() {
    let dir = Dir::new();
    let hint = |toml: &str| dir.faults(toml).remove(0).hint.unwrap();
    assert_eq!(hint(&and("[server]", "lissten = 1")), "did you mean `server.listen`?");
    assert_eq!(hint(&and("[ops]", "metric_listen = 1")), "did you mean `ops.metrics_listen`?");
    assert_eq!(hint(&format!("{GOOD}[keystore.x]")), "did you mean `keystores`?");
    let others = "known here: access_key_id, secret";
    assert_eq!(hint(&and("[[keystores.demo.credentials]]", "zzzzzz = 1")), others);
}

#[test]
fn a_fault_names_file_or_variable() {
    let dir = Dir::new();
    let fault = dir.faults(&and("[server]", "deadline = \"1s\"")).remove(0);
    assert_eq!(fault.origin, Origin::File(dir.path("xksd.toml")));
    assert!(fault.hint.unwrap().contains("250 ms")); // P-8
    for (name, value, key) in [
        ("XKSD_SERVER__DEADLINE", "1s", "server.deadline"),
        ("XKSD_SERVER__LISTEN", "a:1", "server.listen[0]"),
        ("XKSD_SERVER__TSL__CERTIFICATE", "a", "server.tsl"),
        ("XKSD_SERVERS__LISTEN", "a", "servers"),
        ("XKSD_TOKENS__HSM__SESSIONS", "many", "tokens.hsm.sessions"),
        ("XKSD_KEYSTORES__DEMO__ENABLED", "yes", "keystores.demo.enabled"),
    ] {
        let faults = dir.faults_with(GOOD, &[(name, value)]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].origin, Origin::Variable(name.to_owned()));
        assert_eq!(faults[0].key, key);
    }
}

#[test]
fn a_file_that_is_no_toml_is_located() {
    let dir = Dir::new();
    one(&dir, "version = 1\n[server\n", "is not TOML at line 2, column 8: unclosed table");
    one(&dir, &format!("{GOOD}\n[server]"), "duplicate key");
    one(&dir, "version = 99999999999999999999", "is not TOML: it holds a number");
}

#[test]
fn tokens_stand_together_in_one_way() {
    let dir = Dir::new();
    let more = |first: &str, second: &str| {
        second_with(&format!("tokens = [{second}]")).replacen(
            "tokens = [\"hsm\"]",
            &format!("tokens = [{first}]"),
            1,
        ) + "[tokens.other]\nmodule = \"module.so\"\nlabel = \"other\"\npin = { file = \"token.pin\" }\n"
    };
    let config = dir.load(&more(r#""hsm", "other""#, r#""hsm", "other""#), &[]).unwrap();
    let names = config.keystores[0].tokens.iter().map(|name| name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["hsm", "other"]);
    assert!(dir.load(&more(r#""hsm""#, r#""other""#), &[]).is_ok());
    let problem = "in another order, in key store `demo`";
    one(&dir, &more(r#""hsm", "other""#, r#""other", "hsm""#), problem);
    one(&dir, &more(r#""hsm", "other""#, r#""other""#), problem);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let errors = super::load(std::path::Path::new("/nonexistent/xksd.toml"), std::iter::empty());
    let error = errors.unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/xksd.toml: cannot be read: No such file"), "{error}");
}

#[test]
fn all_faults_come_at_once() {
    let toml = r#"
colour = "blue"
version = 3
[server]
listen = ["127.0.0.1:8443", "nowhere"]
deadline = "300ms"
idle_timeout = "5m"
max_connections = 0
[server.tls]
certificate = "no.pem"
private_key = "no.key"
client_ca = "no-ca.pem"
[server.drain]
delay = "soon"
[ops]
listen = "9443"
[log]
format = "xml"
level = "=="
[fleet]
size = 0
[tokens.HSM]
module = "no.so"
label = "a"
serial = "b"
pin = { file = "no.pin" }
sessions = 2000
[keystores.demo]
prefix = "demo/"
regions = []
tokens = ["other"]
keys = ["a/b"]
enabled = "yes"
[[keystores.demo.credentials]]
access_key_id = "x"
secret = "x"
"#;
    let faults = Dir::new().faults(toml);
    let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
    let expected = [
        "version",
        "server.listen[1]",
        "server.tls.client_subject",
        "server.tls.certificate",
        "server.tls.private_key",
        "server.max_connections",
        "server.idle_timeout",
        "server.deadline",
        "server.drain.delay",
        "ops.listen",
        "log.format",
        "log.level",
        "fleet.size",
        "tokens.HSM",
        "tokens.HSM.module",
        "tokens.HSM.serial",
        "tokens.HSM.pin",
        "tokens.HSM.sessions",
        "keystores.demo.prefix",
        "keystores.demo.regions",
        "keystores.demo.tokens[0]",
        "keystores.demo.keys[0]",
        "keystores.demo.enabled",
        "keystores.demo.credentials[0].access_key_id",
        "keystores.demo.credentials[0].secret",
        "colour",
    ];
    assert_eq!(keys, expected);
}
