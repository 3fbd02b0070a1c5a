//! `softhsm-setup/setup.sh`: what it makes, what it keeps, and what it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The names that public XKS test scripts read.
const CLIENT_NAMES: [&str; 12] = [
    "SCHEME",
    "XKS_PROXY_HOST",
    "URI_PREFIX",
    "REGION",
    "SIGV4_ACCESS_KEY_ID",
    "SIGV4_SECRET_ACCESS_KEY",
    "KEY_ID",
    "ENCRYPT_ONLY_KEY_ID",
    "DECRYPT_ONLY_KEY_ID",
    "IMPOTENT_KEY_ID",
    "SECURE",
    "SOFTHSM2_CONF",
];

/// A directory that setup.sh makes, inside one that vanishes with the test.
struct Setup {
    parent: TempDir,
    dir: PathBuf,
}

impl Setup {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("dev");
        Self { parent, dir }
    }

    fn try_run(&self, options: &[&str]) -> Output {
        run_script(&[&[self.dir.to_str().unwrap()], options].concat())
    }

    fn run(&self, options: &[&str]) {
        let output = self.try_run(options);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{options:?}: {}: {stderr}", output.status);
        assert!(output.stdout.is_empty(), "stdout is for data");
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap()
    }

    /// What a shell knows after reading client.env, and nothing else.
    fn client_env(&self) -> BTreeMap<String, String> {
        let script = format!(". '{}' && env -0", self.dir.join("client.env").display());
        let output = Command::new("bash").env_clear().args(["-euc", &script]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0')
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Runs the daemon's binary on the configuration, which says where SoftHSM2's token is.
    fn xksd(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_xksd"))
            .args(arguments)
            .args(["--config".as_ref(), self.dir.join("xksd.toml").as_os_str()])
            .env_remove("SOFTHSM2_CONF")
            .output()
            .unwrap()
    }

    fn key_list(&self) -> String {
        let output = self.xksd(&["keys", "list", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Every file with its content and time of change, but for the token's own housekeeping: there
    /// only the objects are listed, which is to say the keys.
    fn files(&self) -> BTreeMap<PathBuf, (Vec<u8>, i64)> {
        let mut files = BTreeMap::new();
        walk(&self.dir, &mut |path, metadata| {
            let in_token = path.starts_with(self.dir.join("tokens"));
            if metadata.is_dir() || in_token && path.extension().is_none_or(|e| e != "object") {
                return;
            }
            let content = if in_token { Vec::new() } else { fs::read(path).unwrap() };
            let changed = if in_token { 0 } else { metadata.mtime_nsec() };
            files.insert(path.to_owned(), (content, changed));
        });
        files
    }
}

fn run_script(arguments: &[&str]) -> Output {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/softhsm-setup/setup.sh"))
        .args(arguments)
        .env("XKSD", env!("CARGO_BIN_EXE_xksd"))
        .output()
        .unwrap()
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata)) {
    visit(dir, &fs::metadata(dir).unwrap());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            walk(&path, visit);
        } else {
            visit(&path, &metadata);
        }
    }
}

/// Whether the server certificate is for that address, as openssl sees it.
fn certificate_is_for(setup: &Setup, address: &str) -> bool {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-checkip", address, "-in"])
        .arg(setup.dir.join("tls/server.pem"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains("does match")
}

#[test]
fn a_second_run_changes_nothing() {
    let setup = Setup::new();
    setup.run(&[]);
    let first = setup.files();
    let keys = first.keys().filter(|path| path.extension().is_some_and(|e| e == "object")).count();
    assert!(keys > 4, "the token's own object and four keys, not {keys}");

    setup.run(&[]);
    let second = setup.files();
    assert!(first.keys().eq(second.keys()), "{:?}\n{:?}", first.keys(), second.keys());
    for (path, before) in &first {
        assert!(before == &second[path], "{} was written again", path.display());
    }
}

#[test]
fn nobody_else_can_read_any_of_it() {
    let setup = Setup::new();
    setup.run(&[]);
    assert_eq!(fs::metadata(&setup.dir).unwrap().permissions().mode() & 0o7777, 0o700);
    walk(&setup.dir, &mut |path, metadata| {
        let mode = metadata.permissions().mode() & 0o7777;
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    });
}

#[test]
fn client_env_exports_what_test_scripts_read() {
    let setup = Setup::new();
    setup.run(&[]);
    let env = setup.client_env();
    for name in CLIENT_NAMES {
        assert!(env.contains_key(name), "{name} is not exported");
    }
    assert_eq!(env["SCHEME"], "https://");
    assert_eq!(env["XKS_PROXY_HOST"], "localhost:8443");
    assert_eq!(env["URI_PREFIX"], "demo");
    assert_eq!(env["REGION"], "us-east-1");
    assert_eq!(env["KEY_ID"], "demo-key");
    assert_eq!(env["ENCRYPT_ONLY_KEY_ID"], "encrypt-only-key");
    assert_eq!(env["DECRYPT_ONLY_KEY_ID"], "decrypt-only-key");
    assert_eq!(env["IMPOTENT_KEY_ID"], "impotent-key");
    assert_eq!(env["SECURE"], format!("--cacert {}/tls/ca.pem", setup.dir.display()));
    assert_eq!(env["SOFTHSM2_CONF"], format!("{}/softhsm2.conf", setup.dir.display()));

    // P-14: what AWS KMS accepts as a credential.
    let id = &env["SIGV4_ACCESS_KEY_ID"];
    assert!(id.parse::<xksd::names::AccessKeyId>().is_ok(), "{id}");
    let secret = &env["SIGV4_SECRET_ACCESS_KEY"];
    assert_eq!(secret.len(), 44, "32 random bytes in Base64");
    assert!(secret.bytes().all(|b| b.is_ascii_alphanumeric() || b"/+=".contains(&b)));
    assert_eq!(*secret, setup.read("credentials/demo.secret"));

    let console: serde_json::Value = serde_json::from_str(&setup.read("kms-console.json")).unwrap();
    let credential: serde_json::Value =
        serde_json::from_str(&setup.read("aws-credential.json")).unwrap();
    assert_eq!(console["XksProxyUriPath"], "/demo/kms/xks/v1");
    assert_eq!(console["XksProxyAuthenticationCredential"], credential);
    assert_eq!(credential["AccessKeyId"], **id);
    assert_eq!(credential["RawSecretAccessKey"], **secret);
}

#[test]
fn the_configuration_passes_its_own_check() {
    let setup = Setup::new();
    setup.run(&[]);
    let output = setup.xksd(&["config", "check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn counts_of_encryptions_begin_at_zero_with_the_first_keys_and_never_again() {
    let setup = Setup::new();
    setup.run(&[]);
    assert_eq!(setup.read("state/encryption-counts"), "xksd-counts 1\nend\n");
    fs::remove_file(setup.dir.join("state/encryption-counts")).unwrap();
    setup.run(&[]);
    assert!(!setup.dir.join("state/encryption-counts").exists(), "its keys may have been used");
}

#[test]
fn another_run_follows_its_options_and_keeps_the_secrets() {
    let setup = Setup::new();
    setup.run(&[]);
    let former = setup.read("xksd.toml");
    let kept = [
        "token.pin",
        "token.so-pin",
        "credentials/demo.access-key-id",
        "credentials/demo.secret",
        "tls/ca.key",
        "tls/ca.pem",
        "tls/server.key",
    ];
    let before = kept.map(|file| setup.read(file));
    assert!(!certificate_is_for(&setup, "127.0.0.2"));

    setup.run(&[
        "--listen",
        "127.0.0.2:18443",
        "--prefix",
        "/a/b/",
        "--region",
        "eu-west-1",
        "--keys",
        "second,demo-key",
    ]);
    assert_eq!(kept.map(|file| setup.read(file)), before);
    assert_eq!(setup.read("xksd.toml.old"), former);
    assert!(setup.read("xksd.toml").contains("listen = \"127.0.0.2:18443\""));
    assert!(certificate_is_for(&setup, "127.0.0.2"));
    assert!(certificate_is_for(&setup, "127.0.0.1"));
    assert!(setup.key_list().contains("\"second\""));

    let env = setup.client_env();
    assert_eq!(env["XKS_PROXY_HOST"], "127.0.0.2:18443");
    assert_eq!(env["URI_PREFIX"], "a/b");
    assert_eq!(env["REGION"], "eu-west-1");
    assert_eq!(env["KEY_ID"], "second");
    assert!(setup.read("kms-console.json").contains("\"/a/b/kms/xks/v1\""));
}

#[test]
fn plain_http_is_for_loopback_and_says_so_in_the_configuration() {
    let setup = Setup::new();
    setup.run(&["--plain-http", "--listen", "[::1]:18080", "--prefix", ""]);
    let toml = setup.read("xksd.toml");
    assert!(toml.contains("insecure_plain_http_on_loopback = true"));
    assert!(!toml.contains("[server.tls]"));
    let env = setup.client_env();
    assert_eq!(env["SCHEME"], "");
    assert_eq!(env["XKS_PROXY_HOST"], "[::1]:18080");
    assert_eq!(env["URI_PREFIX"], "");
    assert!(setup.read("kms-console.json").contains("\"/kms/xks/v1\""));
}

#[test]
fn keys_are_made_through_softhsm_whatever_the_module() {
    let setup = Setup::new();
    let module = setup.parent.path().join("no-module.so");
    fs::write(&module, "").unwrap();
    setup.run(&["--module", module.to_str().unwrap()]);
    assert!(setup.read("xksd.toml").contains(&format!("module = \"{}\"", module.display())));
    let objects = setup.files();
    let objects = objects.keys().filter(|path| path.extension().is_some_and(|e| e == "object"));
    assert!(objects.count() > 4);
}

#[test]
fn a_wrong_command_line_is_refused_and_leaves_nothing() {
    let usage: [(&[&str], &str); 17] = [
        (&["--frobnicate"], "unknown option `--frobnicate`"),
        (&["--listen"], "`--listen` needs a value"),
        (&["elsewhere"], "one directory is enough"),
        (&["--listen", "8443"], "is not HOST:PORT"),
        (&["--listen", "example.com:8443"], "is not HOST:PORT"),
        (&["--listen", "127.0.0.1:0"], "must be 1 to 65535"),
        (&["--listen", "127.0.0.1:65536"], "must be 1 to 65535"),
        (&["--ops-listen", "127.0.0.256:9443"], "is not an IP address"),
        (&["--plain-http", "--listen", "0.0.0.0:8443"], "without TLS"),
        (&["--prefix", "a b"], "at most 116 characters"),
        (&["--prefix", "a//b"], "no empty segment"),
        (&["--region", "US_EAST"], "is not a Region"),
        (&["--keys", "good,bad/id"], "`bad/id` is not an external key id"),
        (&["--keys", ""], "at least one"),
        (&["--keys", "a,,b"], "at least one"),
        (&["--keys", "a", "--no-use", "a"], "`a` is named twice"),
        (&["--module", "/nonexistent/module.so"], "no such file"),
    ];
    for (options, error) in usage {
        let setup = Setup::new();
        let output = setup.try_run(options);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{options:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(error), "{options:?}: {stderr}");
        assert!(stderr.contains("\nhint: "), "{options:?}: {stderr}");
        assert!(!setup.dir.exists(), "{options:?} left something behind");
    }
    assert_eq!(run_script(&[]).status.code(), Some(64));
    assert_eq!(run_script(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_directory_that_client_env_cannot_carry_is_refused() {
    for name in ["with space", "quo'te", "dol$lar", "as*terisk", "schlüssel"] {
        let mut setup = Setup::new();
        setup.dir = setup.parent.path().join(name);
        let output = setup.try_run(&[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{name}: {stderr}");
        assert!(stderr.contains("client.env cannot carry"), "{stderr}");
        assert!(!setup.dir.exists());
    }
}

#[test]
fn root_leaves_no_files_in_somebody_elses_tree() {
    let setup = Setup::new();
    if fs::metadata(setup.parent.path()).unwrap().uid() != 0 {
        not_run("setup.sh as root in somebody else's tree: this is not root");
        return;
    }
    chown(setup.parent.path(), Some(54321), None).unwrap();
    let output = setup.try_run(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("running as root, but"), "{stderr}");
    assert!(!setup.dir.exists());
}

/// `make test` prints and counts these lines at its end.
fn not_run(what: &str) {
    if let Some(path) = std::env::var_os("NOT_RUN_FILE") {
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{what}").unwrap();
    }
}
