//! The command line by transcript: what each command says where, and its exit code.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use support::token::SoftHsmToken;
use tempfile::TempDir;

/// 43 characters, as P-14 asks for; none of them may appear in any output.
const SECRET: &str = "CANARYcanary0123456789012345678901234567890";

/// A configuration in a directory of its own, with a SoftHSM2 token.
struct Setup {
    dir: TempDir,
    token: SoftHsmToken,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = SoftHsmToken::create(dir.path(), "xksd");
        let setup = Self { dir, token };
        setup.write("token.pin", setup.token.pin);
        setup.write("demo.secret", SECRET);
        setup.configure(&setup.good());
        setup
    }

    fn good(&self) -> String {
        let (module, conf) = (self.token.module.display(), self.token.conf.display());
        format!(
            r#"version = 1
[server]
listen = "127.0.0.1:0"
insecure_plain_http_on_loopback = true
[server.drain]
delay = "0s"
[ops]
listen = "127.0.0.1:0"
[tokens.hsm]
module = "{module}"
label = "xksd"
pin = {{ file = "token.pin" }}
environment.SOFTHSM2_CONF = "{conf}"
[keystores.demo]
prefix = "demo"
regions = ["us-east-1"]
tokens = ["hsm"]
keys = ["*"]
authorization.mode = "off"
[[keystores.demo.credentials]]
access_key_id = "ABCDEFGHIJKLMNOPQRST"
secret = {{ file = "demo.secret" }}
"#
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn configure(&self, toml: &str) {
        self.write("xksd.toml", toml);
    }

    /// The command, in an environment that says nothing of the token.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xksd"));
        command.args(line.split_whitespace()).current_dir(self.dir.path());
        command.env_clear().env("XKSD_CONFIG", "xksd.toml");
        command
    }

    fn run(&self, line: &str) -> Said {
        self.run_with(line, &[])
    }

    fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Said {
        let output = self.command(line).envs(variables.iter().copied()).output().unwrap();
        Said::new(output)
    }
}

#[derive(Debug)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().expect("no signal ends it");
        let said = Self { code, stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!format!("{said:?}").contains("CANARY"), "a secret was said: {said:?}");
        said
    }

    /// All of it went well, and this was said on stderr.
    #[track_caller]
    fn good(&self, stderr: &str) -> &Self {
        assert_eq!((self.code, self.stderr.as_str()), (0, stderr), "{self:?}");
        self
    }

    /// It failed like this, and gave no data.
    #[track_caller]
    fn bad(&self, code: i32, stderr: &str) {
        assert_eq!(self.stderr, stderr);
        assert_eq!(self.code, code);
        assert_eq!(self.stdout, "");
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[test]
fn a_wrong_command_line_is_64() {
    let setup = Setup::new();
    let nothing = setup.run("");
    assert_eq!((nothing.code, nothing.stdout.as_str()), (64, ""));
    let error = "error: 'xksd' requires a subcommand but one was not provided [subcommands: serve,";
    assert!(nothing.stderr.starts_with(error), "{nothing:?}");
    assert!(nothing.stderr.ends_with("hint: `--help` tells more\n"), "{nothing:?}");
    setup.run("serv").bad(
        64,
        "error: unrecognized subcommand 'serv'\nhint: a similar subcommand exists: 'serve'\n\
         hint: usage: xksd <COMMAND>\nhint: `--help` tells more\n",
    );
    setup.run("keys create a/b").bad(
        64,
        "error: invalid value 'a/b' for '<ID>': an external key id may only contain A-Z a-z 0-9 \
         - . _\nhint: `--help` tells more\n",
    );
    setup.run("keys create a --usage sign").bad(
        64,
        "error: invalid value 'sign' for '--usage <USAGE>': must be `encrypt,decrypt`, \
         `encrypt`, `decrypt` or `none`\nhint: `--help` tells more\n",
    );
    setup
        .run("keys create a --token other")
        .bad(64, "error: there is no token `other`\nhint: tokens of the configuration: hsm\n");
    let second = setup.good().replace(
        "[keystores.demo]",
        "[tokens.second]\nmodule = \"xksd.toml\"\nlabel = \"b\"\npin = { file = \"token.pin\" }\n\
         [keystores.demo]",
    );
    setup.configure(&second);
    setup.run("keys create a").bad(
        64,
        "error: --token must name one of several tokens\n\
         hint: tokens of the configuration: hsm, second\n",
    );
}

#[test]
fn help_and_version_are_data() {
    let setup = Setup::new();
    let version = format!("xksd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(setup.run("--version").good("").stdout, version);
    for line in ["--help", "serve --help", "config check --help", "keys create --help"] {
        assert!(setup.run(line).good("").stdout.contains("Usage: xksd"), "{line}");
    }
}

#[test]
fn a_good_configuration_is_valid() {
    let setup = Setup::new();
    let said = setup.run("config check");
    said.good("xksd.toml is valid; key stores: 1, tokens: 1\n");
    assert_eq!(said.stdout, "");
    let findings = json!({ "valid": true, "faults": [], "warnings": [] });
    assert_eq!(setup.run("config check --json").good("").json(), findings);
    let warned = setup.run_with("config check", &[("XKSD_TOKENS__HSM__PIN__INLINE", "CANARY")]);
    assert_eq!(warned.code, 0);
    assert!(
        warned.stderr.starts_with(
            "warning: XKSD_TOKENS__HSM__PIN__INLINE: tokens.hsm.pin: a secret stands in plain"
        ),
        "{warned:?}"
    );
}

#[test]
fn every_fault_of_a_configuration_is_named_and_that_is_78() {
    let setup = Setup::new();
    setup.configure(&setup.good().replace("version = 1", "version = 1\ncolour = \"CANARY\""));
    let variables = [
        ("XKSD_SERVER__DEADLINE", "300ms"),
        ("XKSD_KEYSTORES__DEMO__TOKENS", "hms"),
        ("XKSD_TOKENS__HSM__PINN", SECRET),
    ];
    let faults = "\
error: XKSD_SERVER__DEADLINE: server.deadline = \"300ms\": must be 1ms to 250ms
hint: KMS gives up 250 ms after it began to connect
error: XKSD_TOKENS__HSM__PINN: tokens.hsm.pinn: is no known key
hint: did you mean `tokens.hsm.pin`?
error: XKSD_KEYSTORES__DEMO__TOKENS: keystores.demo.tokens[0] = \"hms\": there is no [tokens.hms]
hint: tokens: hsm
error: xksd.toml: colour: is no known key
hint: known here: audit, fleet, keystores, log, ops, reload, server, state, tokens, traces, version
";
    for line in ["config check", "serve", "keys list", "keys create a"] {
        setup.run_with(line, &variables).bad(78, faults);
    }
    let said = setup.run_with("config check --json", &variables);
    assert_eq!(said.code, 78);
    let findings = said.json();
    assert_eq!(findings["valid"], false);
    assert_eq!(findings["faults"].as_array().unwrap().len(), 4);
    assert_eq!(
        findings["faults"][0],
        json!({
            "file": null,
            "variable": "XKSD_SERVER__DEADLINE",
            "key": "server.deadline",
            "value": "\"300ms\"",
            "problem": "must be 1ms to 250ms",
            "hint": "KMS gives up 250 ms after it began to connect",
        })
    );
    setup.run("config check --config no.toml").bad(
        78,
        "error: no.toml: cannot be read: No such file or directory (os error 2)\n\
         hint: name the file by --config or XKSD_CONFIG; `xksd config template` prints one\n",
    );
}

#[test]
fn the_template_is_printed() {
    let setup = Setup::new();
    assert_eq!(setup.run("config template").good("").stdout, xksd::config::TEMPLATE);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = setup.command("config template").stdout(full).output().unwrap();
    Said::new(output)
        .bad(74, "error: cannot write to stdout: No space left on device (os error 28)\n");
}

#[test]
fn keys_are_made_and_listed() {
    let setup = Setup::new();
    assert_eq!(setup.run("keys list").good("").stdout, "");
    assert_eq!(setup.run("keys list --json").good("").json(), json!([]));
    let made = "made the AES-256 key `first` in token `hsm` (usage encrypt,decrypt)\n";
    assert_eq!(setup.run("keys create first").good(made).stdout, "");
    let second = setup.run("keys create second --token hsm --usage encrypt --json");
    let second = second.good("").json();
    assert_eq!(second["id"], "second");
    assert_eq!(second["usage"], json!(["encrypt"]));
    setup
        .run("keys create third --usage none")
        .good("made the AES-256 key `third` in token `hsm` (usage none)\n");
    setup.run("keys create first").bad(
        73,
        "error: key `first`: an object with the label of this key exists already\n\
         hint: `xksd keys list` shows it; a second one would make the key id ambiguous\n",
    );

    let listed = setup.run("keys list --json");
    let listed = listed.good("").json();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|key| &key["id"]).collect();
    assert_eq!(ids, ["first", "second", "third"]);
    let version = json!({
        "version": 1,
        "object_id": second["object_id"],
        "status": "enabled",
        "epoch": 2,
        "created": second["created"],
        "deletion": null,
        "origin": "generated",
        "replicable": false,
        "key_spec": "AES_256",
        "usage": ["encrypt"],
        "check_value": listed[1]["versions"][0]["check_value"],
    });
    assert_eq!(version["check_value"].as_str().map(str::len), Some(6));
    assert_eq!(
        listed[1],
        json!({
            "id": "second",
            "token": "hsm",
            "status": "enabled",
            "key_spec": "AES_256",
            "usage": ["encrypt"],
            "versions": [version],
        })
    );
    let table = setup.run("keys list --token hsm");
    let lines: Vec<Vec<&str>> =
        table.good("").stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["first", "hsm", "enabled", "v1", "AES_256", "encrypt,decrypt"]);
    assert_eq!(lines[2], ["third", "hsm", "enabled", "v1", "AES_256", "none"]);
}

#[test]
fn a_wrong_pin_is_77() {
    let setup = Setup::new();
    setup.write("token.pin", "CANARY");
    let hints = "hint: the PIN is the one that tokens.hsm.pin names\n\
                 hint: it was tried once; HSMs lock after three to ten wrong PINs\n";
    let error = "error: token `hsm`: C_Login returned CKR_PIN_INCORRECT (0xa0)\n";
    setup.run("keys list").bad(77, &format!("{error}{hints}"));
    setup.run("keys create a").bad(77, &format!("{error}{hints}"));
}

#[test]
fn a_token_that_cannot_be_reached_is_69() {
    let setup = Setup::new();
    let hints = "hint: tokens.hsm.module and its label or serial say which token is meant\n\
                 hint: `xksd doctor` looks at module, token and keys step by step\n";
    let other = [("XKSD_TOKENS__HSM__LABEL", "other")];
    let error = "error: token `hsm`: C_GetSlotList: no slot of the module holds the configured \
                 token\n";
    setup.run_with("keys list", &other).bad(69, &format!("{error}{hints}"));
    setup.run_with("keys create a", &other).bad(69, &format!("{error}{hints}"));
    let text = [("XKSD_TOKENS__HSM__MODULE", "xksd.toml")];
    let error = "error: token `hsm`: dlopen: the module cannot be loaded\n";
    setup.run_with("keys list", &text).bad(69, &format!("{error}{hints}"));
    assert_eq!(setup.run_with("keys create a", &text).code, 69);
}

#[test]
fn an_address_that_is_taken_is_71() {
    let setup = Setup::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (variable, key) in [
        ("XKSD_SERVER__LISTEN", "server.listen"),
        ("XKSD_OPS__METRICS_LISTEN", "ops.metrics_listen"),
    ] {
        let variables = [(variable, &*address), ("XKSD_LOG__LEVEL", "error")];
        setup.run_with("serve", &variables).bad(
            71,
            &format!(
                "error: cannot listen on {address}: Address already in use (os error 98)\n\
                 hint: another process listens there, another xksd perhaps, or systemd for a socket unit\n\
                 hint: the setting is {key}\n"
            ),
        );
    }
    drop(taken);
}

/// A daemon that is killed with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn keys_are_made_and_listed_while_the_daemon_runs() {
    let setup = Setup::new();
    let mut daemon = setup.command("serve").stderr(Stdio::piped()).spawn().map(Daemon).unwrap();
    // It starts itself anew with SOFTHSM2_CONF, in the same process.
    let stderr = BufReader::new(daemon.0.stderr.take().unwrap());
    let mut lines = stderr.lines().map(|line| line.unwrap());
    lines.find(|line| line.contains("token is up")).expect("the daemon did not come up");

    assert_eq!(setup.run("keys create beside").code, 0);
    let listed = setup.run("keys list --json").json();
    assert_eq!(listed[0]["id"], "beside");

    let id = daemon.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let log: Vec<String> = lines.collect();
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0), "{log:#?}");
    assert!(!log.concat().contains("CANARY"));
}

#[test]
fn warnings_are_logged_by_serve() {
    let setup = Setup::new();
    let variables = [("XKSD_TOKENS__HSM__PIN__INLINE", "CANARY")];
    let mut command = setup.command("serve");
    let mut daemon = command.envs(variables).stderr(Stdio::piped()).spawn().map(Daemon).unwrap();
    let stderr = BufReader::new(daemon.0.stderr.take().unwrap());
    let line = stderr.lines().next().unwrap().unwrap();
    assert!(line.contains("\"level\":\"WARN\"") && line.contains("in plain sight"), "{line}");
    assert!(!line.contains("CANARY"));
}
