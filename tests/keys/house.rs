//! Tokens of one key store, of SoftHSM2 for the most part, each behind a shim of its own, and the command
//! line.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use support::request::hex;
use support::shim::{self, Counts, set_script};
use support::soft_tokens::{KryopticToken, NssToken};
use support::token::{PIN, SoftHsmToken};
use tempfile::TempDir;

/// What a key is made of that several tokens are to hold.
pub(crate) const VALUE: &[u8; 32] = b"one key, the same in every token";

/// What is imported.
pub(crate) const MATERIAL: &[u8; 32] = b"canary: 32 bytes that none shows";

/// A configuration in a directory of its own.
pub(crate) struct House {
    directory: TempDir,
    /// One of its tokens, where they are of SoftHSM2.
    soft: Option<SoftHsmToken>,
}

/// A token as the configuration names it.
struct Named<'a> {
    name: &'a str,
    module: &'a Path,
    label: &'a str,
    /// What its module needs to find it.
    line: String,
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
        let line = format!("environment.SOFTHSM2_CONF = \"{}\"", token.conf.display());
        let named = |name| {
            let (label, line) = (label(name), line.clone());
            Named { name, module: &token.module, label, line }
        };
        Self::build(&directory, &names.iter().copied().map(named).collect::<Vec<_>>());
        Self { directory, soft: Some(token) }
    }

    /// A key store with a token of kryoptic, `a`; `None`, which is counted, where there is none.
    pub(crate) fn of_kryoptic() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let place = directory.path().join("tokens");
        fs::create_dir(&place).expect("a test's directory can be written");
        let KryopticToken { conf, label, module } = KryopticToken::create(&place, "a")?;
        let line = format!("environment.KRYOPTIC_CONF = \"{}\"", conf.display());
        Self::build(&directory, &[Named { name: "a", module: &module, label: &label, line }]);
        Some(Self { directory, soft: None })
    }

    /// The same of NSS softokn.
    pub(crate) fn of_nss() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let place = directory.path().join("tokens");
        fs::create_dir(&place).expect("a test's directory can be written");
        let NssToken { initialization, label, module } = NssToken::create(&place)?;
        let line = format!("initialization = \"{initialization}\"");
        Self::build(&directory, &[Named { name: "a", module: &module, label: &label, line }]);
        Some(Self { directory, soft: None })
    }

    /// Writes the configuration, each token behind a shim of its own.
    fn build(directory: &TempDir, tokens: &[Named<'_>]) {
        let directory = directory.path();
        write(&directory.join("pin"), PIN.as_bytes());
        write(&directory.join("secret"), b"CANARYcanary0123456789012345678901234567890");
        let mut toml = "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n\
                        insecure_plain_http_on_loopback = true\n[ops]\nlisten = \"127.0.0.1:0\"\n"
            .to_owned();
        for Named { name, module, label, line } in tokens {
            let settings = format!(
                "PKCS11_SHIM_MODULE={}\nPKCS11_SHIM_SCRIPT={}\nPKCS11_SHIM_COUNTS={}\n",
                module.display(),
                directory.join(format!("{name}.script")).display(),
                directory.join(format!("{name}.counts")).display(),
            );
            let module = shim::copy(directory, &format!("{name}.so"), &settings);
            toml.push_str(&format!(
                "[tokens.{name}]\nmodule = \"{}\"\nlabel = \"{label}\"\n\
                 pin = {{ file = \"pin\" }}\n{line}\n",
                module.display(),
            ));
        }
        let names: Vec<_> = tokens.iter().map(|token| token.name).collect();
        toml.push_str(&format!(
            "[keystores.demo]\nprefix = \"demo\"\nregions = [\"us-east-1\"]\nkeys = [\"*\"]\n\
             tokens = {names:?}\nauthorization.mode = \"off\"\n[[keystores.demo.credentials]]\n\
             access_key_id = \"ABCDEFGHIJKLMNOPQRST\"\nsecret = {{ file = \"secret\" }}\n"
        ));
        write(&directory.join("xksd.toml"), toml.as_bytes());
    }

    /// Adds lines to a section of the configuration.
    pub(crate) fn configure(&self, section: &str, lines: &str) {
        let file = self.path("xksd.toml");
        let toml = fs::read_to_string(&file).expect("it was written");
        assert!(toml.contains(section), "there is no {section}");
        write(&file, toml.replace(section, &format!("{section}{lines}")).as_bytes());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// How many tokens its key store has.
    pub(crate) fn tokens(&self) -> usize {
        let listed = fs::read_dir(self.directory.path()).expect("it is ours");
        let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".so")).count()
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
        Said::new(&self.command(line).output().expect("xksd can be started"))
    }

    /// The same, with this on standard input.
    pub(crate) fn run_with(&self, line: &str, input: &[u8]) -> Said {
        Said::new(&self.start(line, input).wait_with_output().expect("it ends"))
    }

    /// Starts it, with this on standard input.
    pub(crate) fn start(&self, line: &str, input: &[u8]) -> Child {
        let mut command = self.command(line);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("xksd can be started");
        let mut stdin = child.stdin.take().expect("it is piped");
        // One that refuses does not read it all.
        let _ = stdin.write_all(input);
        child
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xksd"));
        command.arg("keys").args(line.split_whitespace()).current_dir(self.directory.path());
        command.env_clear().env("XKSD_CONFIG", "xksd.toml");
        command
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn file(&self, name: &str, content: &[u8]) {
        write(&self.path(name), content);
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

    /// Keeps the tokens as they are now, for [`House::restore`].
    pub(crate) fn keep(&self) {
        copy_tree(&self.path("tokens"), &self.path("kept"));
    }

    /// Puts the tokens back as they were kept.
    pub(crate) fn restore(&self) {
        fs::remove_dir_all(self.path("tokens")).expect("it is ours");
        copy_tree(&self.path("kept"), &self.path("tokens"));
    }

    /// Puts a private key that was made elsewhere into a token.
    pub(crate) fn plant_pair(&self, label: &str, name: &str) {
        let key = self.path("planted.der");
        Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"])
            .args(["-outform", "DER", "-out"])
            .arg(&key)
            .succeed();
        let key = key.to_str().expect("temporary files have names in UTF-8");
        self.pkcs11_tool(label, &["--label", name, "--id", "aa", "--write-object", key, "--type"])
            .args(["privkey", "--usage-wrap"])
            .succeed();
    }

    pub(crate) fn import_value(&self, labels: &[&str], id: &str, cka_id: &str, value: &[u8; 32]) {
        let file = self.path("value");
        fs::write(&file, value).expect("a test's directory can be written");
        for label in labels {
            let file = file.to_str().expect("temporary files have names in UTF-8");
            self.pkcs11_tool(label, &["--private", "--label", id, "--id", &hex(cka_id.as_bytes())])
                .args(["--write-object", file, "--type", "secrkey", "--key-type", "AES:32"])
                .args(["--usage-decrypt", "--sensitive"])
                .succeed();
        }
    }

    fn pkcs11_tool(&self, token: &str, arguments: &[&str]) -> Command {
        let mut tool = Command::new("pkcs11-tool");
        let soft = self.soft.as_ref().expect("its tokens are of SoftHSM2");
        let (name, conf) = soft.env();
        tool.arg("--module").arg(&soft.module);
        tool.args(["--token-label", token, "--login", "--pin", PIN]).args(arguments);
        tool.env(name, conf);
        tool
    }
}

/// A command that has to go well.
pub(crate) trait Succeed {
    /// Runs it.
    fn succeed(&mut self);
}

impl Succeed for Command {
    #[track_caller]
    fn succeed(&mut self) {
        let output = self.output().expect("it is installed: opensc has pkcs11-tool");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("a test's directory can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a test's directory can be written");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a test's directory can be written");
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
    pub(crate) fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("xksd writes UTF-8");
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(!stdout.contains(PIN) && !stderr.contains(PIN), "the PIN was said");
        for material in [&VALUE[..], MATERIAL] {
            let forms = [String::from_utf8_lossy(material).into_owned(), hex(material)];
            for form in forms {
                assert!(!stdout.contains(&form) && !stderr.contains(&form), "{form} was said");
            }
        }
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
