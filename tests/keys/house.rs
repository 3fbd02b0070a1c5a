//! SoftHSM2 tokens of one key store, each behind a shim of its own, and the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use support::request::hex;
use support::shim::{self, Counts, set_script};
use support::token::{PIN, SoftHsmToken};
use tempfile::TempDir;

/// What a key is made of that several tokens are to hold.
pub(crate) const VALUE: &[u8; 32] = b"one key, the same in every token";

/// A configuration in a directory of its own.
pub(crate) struct House {
    directory: TempDir,
    token: SoftHsmToken,
}

impl House {
    /// A key store with these tokens. Names that begin alike up to a `-` are ways to one and the same
    /// token: what is made through one is there for the other, as in HSMs that replicate.
    pub(crate) fn new(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut tokens: Vec<&str> = names.iter().map(|name| label(name)).collect();
        tokens.dedup();
        let made = |label: &&str| SoftHsmToken::create(directory.path(), label);
        // They share everything but their labels.
        let token = tokens.iter().map(made).collect::<Vec<_>>().remove(0);
        let house = Self { directory, token };
        house.write("pin", PIN);
        house.write("secret", "CANARYcanary0123456789012345678901234567890");
        let mut toml = "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n\
                        insecure_plain_http_on_loopback = true\n[ops]\nlisten = \"127.0.0.1:0\"\n"
            .to_owned();
        for name in names {
            let settings = format!(
                "PKCS11_SHIM_MODULE={}\nPKCS11_SHIM_SCRIPT={}\nPKCS11_SHIM_COUNTS={}\n",
                house.token.module.display(),
                house.path(&format!("{name}.script")).display(),
                house.path(&format!("{name}.counts")).display(),
            );
            let module = shim::copy(house.directory.path(), &format!("{name}.so"), &settings);
            toml.push_str(&format!(
                "[tokens.{name}]\nmodule = \"{}\"\nlabel = \"{}\"\npin = {{ file = \"pin\" }}\n\
                 environment.SOFTHSM2_CONF = \"{}\"\n",
                module.display(),
                label(name),
                house.token.conf.display(),
            ));
        }
        toml.push_str(&format!(
            "[keystores.demo]\nprefix = \"demo\"\nregions = [\"us-east-1\"]\nkeys = [\"*\"]\n\
             tokens = {names:?}\nauthorization.mode = \"off\"\n[[keystores.demo.credentials]]\n\
             access_key_id = \"ABCDEFGHIJKLMNOPQRST\"\nsecret = {{ file = \"secret\" }}\n"
        ));
        house.write("xksd.toml", &toml);
        house
    }

    /// Adds lines to a section of the configuration.
    pub(crate) fn configure(&self, section: &str, lines: &str) {
        let toml = fs::read_to_string(self.path("xksd.toml")).expect("it was written");
        assert!(toml.contains(section), "there is no {section}");
        self.write("xksd.toml", &toml.replace(section, &format!("{section}{lines}")));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::write(&path, content).expect("a test's directory can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    }

    /// Has a token's module obey.
    pub(crate) fn script(&self, token: &str, script: &str) {
        set_script(&self.path(&format!("{token}.script")), script);
    }

    /// The calls of a token's module so far.
    pub(crate) fn counts(&self, token: &str) -> Counts {
        Counts::read(&self.path(&format!("{token}.counts")))
    }

    /// Runs `xksd keys` with these words, in an environment that says nothing of the tokens.
    pub(crate) fn run(&self, line: &str) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_xksd"))
            .arg("keys")
            .args(line.split_whitespace())
            .current_dir(self.directory.path())
            .env_clear()
            .env("XKSD_CONFIG", "xksd.toml")
            .output()
            .expect("xksd can be started");
        Said::new(&output)
    }

    /// The same, and it goes well.
    #[track_caller]
    pub(crate) fn good(&self, line: &str) -> Said {
        let said = self.run(line);
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        said
    }

    /// What `describe` says of a key.
    #[track_caller]
    pub(crate) fn describe(&self, id: &str) -> Value {
        self.good(&format!("describe {id} --json")).json()
    }

    /// Puts one and the same key into these tokens, with this `CKA_ID`.
    pub(crate) fn import(&self, labels: &[&str], id: &str, cka_id: &str) {
        self.import_value(labels, id, cka_id, VALUE);
    }

    pub(crate) fn import_value(&self, labels: &[&str], id: &str, cka_id: &str, value: &[u8; 32]) {
        let file = self.path("value");
        fs::write(&file, value).expect("a test's directory can be written");
        for label in labels {
            let file = file.to_str().expect("temporary files have names in UTF-8");
            let (name, conf) = self.token.env();
            let output = Command::new("pkcs11-tool")
                .arg("--module")
                .arg(&self.token.module)
                .args(["--token-label", label, "--login", "--pin", PIN, "--private"])
                .args(["--label", id, "--id", &hex(cka_id.as_bytes())])
                .args(["--write-object", file, "--type", "secrkey", "--key-type", "AES:32"])
                .args(["--usage-decrypt", "--sensitive"])
                .env(name, conf)
                .output()
                .expect("pkcs11-tool (package opensc) is there");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Label of the token that is meant by this name.
fn label(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

/// What the command said, and how it ended; `None`: by a signal.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("xksd writes UTF-8");
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(!stdout.contains(PIN) && !stderr.contains(PIN), "the PIN was said");
        Self { code: output.status.code(), stdout, stderr }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It failed with this code, and all of these words on stderr.
    #[track_caller]
    pub(crate) fn bad(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
        self
    }
}
