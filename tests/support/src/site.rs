//! Everything a daemon is started from: a token with keys, certificates, a configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::certificates::{Authority, Identity, KeyKind};
use crate::request::hex;
use crate::token::{PIN, SoftHsmToken};

/// Label of the token of every site.
pub const TOKEN: &str = "xksd";

/// The Region that test requests are signed for.
pub const REGION: &str = "us-east-1";

/// A SigV4 credential, in clear: it is a test's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
}

impl Credential {
    /// Made up from one letter, so that each letter gives another one.
    pub fn of(letter: char) -> Self {
        Self {
            id: format!("TESTACCESSKEY2345{}", String::from(letter).repeat(5)),
            secret: format!("canary+{letter}+secret/of+a+test/with+256+bits+of+entropy"),
        }
    }
}

/// One key store of a site's configuration.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name.
    pub name: &'static str,
    /// Its path prefix.
    pub prefix: &'static str,
    /// Its key rules.
    pub keys: Vec<&'static str>,
    /// Its credentials.
    pub credentials: Vec<Credential>,
    /// Whether it serves.
    pub enabled: bool,
    /// More lines of its section.
    pub lines: Vec<&'static str>,
}

impl Tenant {
    /// One with a single credential, that of `letter`.
    pub fn new(
        name: &'static str,
        prefix: &'static str,
        keys: &[&'static str],
        letter: char,
    ) -> Self {
        let credentials = vec![Credential::of(letter)];
        Self { name, prefix, keys: keys.to_vec(), credentials, enabled: true, lines: vec![] }
    }
}

/// What a test changes about the configuration. The default serves TLS.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The key stores.
    pub tenants: Vec<Tenant>,
    /// Lines of `[server]`.
    pub server: BTreeMap<&'static str, String>,
    /// Lines of `[server.tls]`; certificate and key are there already. `None`: plain HTTP.
    pub tls: Option<BTreeMap<&'static str, String>>,
    /// Lines of `[server.drain]`.
    pub drain: BTreeMap<&'static str, String>,
    /// Lines of `[log]`.
    pub log: BTreeMap<&'static str, String>,
    /// Lines of `[audit]`, whose directory is [`Site::audit`]; `None`: there is no audit log.
    pub audit: Option<BTreeMap<&'static str, String>>,
    /// Lines of `[reload]`.
    pub reload: BTreeMap<&'static str, String>,
    /// Lines of the token's table.
    pub token: BTreeMap<&'static str, String>,
    /// Lines of `[ops]`.
    pub ops: BTreeMap<&'static str, String>,
    /// Lines of other tables, by their names: `state`, `fleet`.
    pub others: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    /// The PKCS#11 module; SoftHSM2's own unless something is put in its place.
    pub module: Option<PathBuf>,
    /// Lines of the table of a second token, `twin`, with the same module, label and PIN; key stores
    /// then have both. [`Site::make_twin`] makes it.
    pub twin: Option<BTreeMap<&'static str, String>>,
}

impl Configuration {
    /// These tenants, ports of the system's choice, and no waiting when it leaves.
    pub fn new(tenants: Vec<Tenant>) -> Self {
        let port_0 = || BTreeMap::from([("listen", text("127.0.0.1:0"))]);
        // A whole test run keeps the machine busy: as much time as KMS itself would give.
        let mut server = port_0();
        server.insert("deadline", text("250ms"));
        Self {
            tenants,
            server,
            tls: Some(BTreeMap::new()),
            drain: BTreeMap::from([("delay", text("0s"))]),
            log: BTreeMap::from([("level", text("debug"))]),
            audit: None,
            reload: BTreeMap::new(),
            token: BTreeMap::new(),
            ops: port_0(),
            others: BTreeMap::new(),
            module: None,
            twin: None,
        }
    }
}

/// A string in TOML; nothing that a test configures needs escapes.
pub fn text(value: impl std::fmt::Display) -> String {
    format!("\"{value}\"")
}

/// A directory with all that a daemon needs. It vanishes when dropped.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
    /// The executable `xksd`.
    pub xksd: PathBuf,
    /// Its token.
    pub token: SoftHsmToken,
    /// The CA of its server certificate.
    pub authority: Authority,
    /// Its server certificate.
    pub server: Identity,
}

impl Site {
    /// Makes token and certificates. `xksd` is `env!("CARGO_BIN_EXE_xksd")` of the test, which
    /// only the package under test knows.
    ///
    /// # Panics
    /// Where SoftHSM2 or openssl are missing.
    pub fn new(xksd: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let token = SoftHsmToken::create(directory.path(), TOKEN);
        let authority = Authority::new(directory.path(), "ca");
        let server = authority.issue("server", "/CN=localhost", KeyKind::Ec);
        Self { directory, xksd: xksd.into(), token, authority, server }
    }

    /// Where everything is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file for the token's module. In a directory of their own such files can be made at any time;
    /// beside the daemon's secrets the module would not see what came later.
    ///
    /// # Panics
    /// Where the directory cannot be made.
    pub fn for_module(&self, name: &str) -> PathBuf {
        let directory = self.path().join("module");
        fs::create_dir_all(&directory).expect("a test's directory can be written");
        directory.join(name)
    }

    /// The directory of the audit log, if the configuration has one.
    pub fn audit(&self) -> PathBuf {
        self.path().join("audit")
    }

    /// Writes the configuration, in place of the one that may be there.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn configure(&self, configuration: &Configuration) {
        let file = self.path().join("xksd.toml");
        fs::write(&file, self.toml(configuration)).expect("a test's directory can be written");
    }

    /// Runs `xksd` with this site's configuration and token, to its end.
    ///
    /// # Panics
    /// Where it fails; its standard error is shown.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("xksd can be started");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "xksd {arguments:?}: {}: {stderr}", output.status);
        String::from_utf8(output.stdout).expect("xksd writes UTF-8")
    }

    /// Makes a key with `xksd keys create`; `usage` as its option of that name takes it.
    pub fn create_key(&self, id: &str, usage: &str) {
        self.run(&["keys", "create", id, "--token", "softhsm", "--usage", usage]);
    }

    /// Makes another token with the keys that this one has now: a copy, as an HSM's vendor makes them.
    /// Whoever has [`Site::twin_conf`] in `SOFTHSM2_CONF` sees it, and nobody sees both.
    ///
    /// # Panics
    /// Where files cannot be copied.
    pub fn make_twin(&self) {
        let directory = self.path().join("twin");
        let mut copy = Command::new("cp");
        let copied = copy.arg("-R").arg(self.path().join("tokens")).arg(&directory).status();
        assert!(copied.is_ok_and(|status| status.success()), "cp is part of every system");
        let lines = format!("directories.tokendir = {}\n", directory.display());
        fs::write(self.twin_conf(), lines).expect("a test's directory can be written");
    }

    /// Where [`Site::make_twin`] puts what shows the twin.
    pub fn twin_conf(&self) -> PathBuf {
        self.path().join("twin.conf")
    }

    /// Puts an AES key of 16, 24 or 32 bytes into the token by another program, `pkcs11-tool`.
    ///
    /// # Panics
    /// Where the program refuses.
    pub fn import_aes(&self, label: &str, cka_id: &[u8], key: &[u8]) {
        let file = tempfile::NamedTempFile::new_in(self.path()).expect("a file can be made");
        fs::write(file.path(), key).expect("a file can be written");
        let file = file.path().to_str().expect("temporary files have names in UTF-8");
        let kind = format!("AES:{}", key.len());
        let what = ["--write-object", file, "--type", "secrkey", "--key-type", &kind];
        self.pkcs11_tool(label, cka_id, &[&what[..], &["--usage-decrypt", "--sensitive"]].concat());
    }

    /// Has `pkcs11-tool` make an RSA key pair in the token.
    ///
    /// # Panics
    /// Where the program refuses.
    pub fn make_rsa(&self, label: &str, cka_id: &[u8]) {
        self.pkcs11_tool(label, cka_id, &["--keypairgen", "--key-type", "rsa:2048"]);
    }

    fn pkcs11_tool(&self, label: &str, cka_id: &[u8], what: &[&str]) {
        let (name, value) = self.token.env();
        let output = Command::new("pkcs11-tool")
            .arg("--module")
            .arg(&self.token.module)
            .args(["--token-label", TOKEN, "--login", "--pin", PIN, "--private"])
            .args(["--label", label, "--id", &hex(cka_id)])
            .args(what)
            .env(name, value)
            .output()
            .unwrap_or_else(|error| panic!("pkcs11-tool (package opensc): {error}"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pkcs11-tool {what:?}: {stderr}");
    }

    /// `xksd` with arguments, configuration and token.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let (name, value) = self.token.env();
        let mut command = Command::new(&self.xksd);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path().join("xksd.toml"))
            .env(name, value)
            .env_remove("RUST_LOG");
        command
    }

    fn toml(&self, configuration: &Configuration) -> String {
        let Configuration {
            tenants,
            server,
            tls,
            drain,
            log,
            audit,
            reload,
            token,
            ops,
            others,
            module,
            twin,
        } = configuration;
        self.write_secret("token.pin", PIN);
        let mut toml = String::from("version = 1\n");
        let mut table = |name: &str, lines: &BTreeMap<&'static str, String>| {
            writeln!(toml, "\n[{name}]").expect("strings grow");
            for (key, value) in lines {
                writeln!(toml, "{key} = {value}").expect("strings grow");
            }
        };
        let mut server = server.clone();
        if tls.is_none() {
            server.insert("insecure_plain_http_on_loopback", "true".into());
        }
        table("server", &server);
        if let Some(lines) = tls {
            let mut lines = lines.clone();
            let Identity { certificate, key } = &self.server;
            lines.entry("certificate").or_insert_with(|| text(certificate.display()));
            lines.entry("private_key").or_insert_with(|| text(key.display()));
            table("server.tls", &lines);
        }
        table("server.drain", drain);
        table("ops", ops);
        table("log", log);
        if let Some(lines) = audit {
            let directory = self.audit();
            xksd::audit::store::make_directory(&directory)
                .expect("a test's directory can be written");
            let mut lines = lines.clone();
            lines.insert("directory", text(directory.display()));
            table("audit", &lines);
        }
        table("reload", reload);
        others.iter().for_each(|(name, lines)| table(name, lines));
        let module = module.as_ref().unwrap_or(&self.token.module);
        let tokens = [Some(("softhsm", token)), twin.as_ref().map(|twin| ("twin", twin))];
        let tokens: Vec<_> = tokens.into_iter().flatten().collect();
        for (name, lines) in &tokens {
            let mut lines = (*lines).clone();
            lines.insert("module", text(module.display()));
            lines.entry("label").or_insert_with(|| text(TOKEN));
            lines.insert("pin", "{ file = \"token.pin\" }".into());
            table(&format!("tokens.{name}"), &lines);
        }
        let names: Vec<&str> = tokens.iter().map(|(name, _)| *name).collect();
        for tenant in tenants {
            toml.push_str(&self.tenant(tenant, &names));
        }
        toml
    }

    fn write_secret(&self, name: &str, secret: &str) {
        let mut options = fs::File::options();
        let file = options.create(true).truncate(true).write(true).mode(0o600);
        let file = file.open(self.path().join(name));
        file.and_then(|mut file| file.write_all(secret.as_bytes()))
            .expect("a test's directory can be written");
    }

    fn tenant(&self, tenant: &Tenant, tokens: &[&str]) -> String {
        let Tenant { name, prefix, keys, credentials, enabled, lines } = tenant;
        let mut toml = format!(
            "\n[keystores.{name}]\nprefix = \"{prefix}\"\nregions = [\"{REGION}\"]\n\
             tokens = {tokens:?}\nkeys = {keys:?}\nenabled = {enabled}\n"
        );
        if !lines.iter().any(|line| line.starts_with("authorization")) {
            toml.push_str("authorization = { mode = \"off\" }\n");
        }
        for line in lines {
            writeln!(toml, "{line}").expect("strings grow");
        }
        for Credential { id, secret } in credentials {
            let file = format!("{id}.secret");
            self.write_secret(&file, secret);
            write!(
                toml,
                "\n[[keystores.{name}.credentials]]\naccess_key_id = \"{id}\"\n\
                 secret = {{ file = \"{file}\" }}\n"
            )
            .expect("strings grow");
        }
        toml
    }
}
