//! Tokens of other modules than SoftHSM2, where they are at hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::not_run;
use crate::token::{PIN, SO_PIN};

/// Where distributions put NSS softokn.
const NSS_MODULES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/libsoftokn3.so",
    "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
    "/usr/lib64/libsoftokn3.so",
    "/usr/lib/libsoftokn3.so",
];

/// A token of kryoptic without objects.
#[derive(Debug)]
pub struct KryopticToken {
    /// For `KRYOPTIC_CONF`.
    pub conf: PathBuf,
    /// Label of the token.
    pub label: String,
    /// The module.
    pub module: PathBuf,
}

impl KryopticToken {
    /// Makes a token in this directory; `None`, which is counted, where `KRYOPTIC_MODULE` names no
    /// module (`tests/kryoptic/build.sh` builds one).
    ///
    /// # Panics
    /// Where the module is there and makes no token.
    pub fn create(directory: &Path, label: &str) -> Option<Self> {
        let module = std::env::var_os("KRYOPTIC_MODULE").map(PathBuf::from);
        let Some(module) = module.filter(|module| module.exists()) else {
            not_run("tests with kryoptic: KRYOPTIC_MODULE names no module");
            return None;
        };
        let conf = directory.join("kryoptic.conf");
        let database = directory.join("token.sql");
        let text = format!(
            "[[slots]]\nslot = 0\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n",
            database.display()
        );
        fs::write(&conf, text).expect("the directory can be written to");
        let tool = |arguments: &[&str]| {
            let mut command = Command::new("pkcs11-tool");
            run(command.arg("--module").arg(&module).args(arguments).env("KRYOPTIC_CONF", &conf));
        };
        tool(&["--init-token", "--slot", "0", "--label", label, "--so-pin", SO_PIN]);
        let as_officer = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
        tool(&[&as_officer[..], &["--init-pin", "--pin", PIN]].concat());
        Some(Self { conf, label: label.to_owned(), module })
    }
}

/// The token of NSS softokn's key database, without objects.
#[derive(Debug)]
pub struct NssToken {
    /// What C_Initialize is given in its reserved argument.
    pub initialization: String,
    /// Label of the token.
    pub label: String,
    /// The module.
    pub module: PathBuf,
}

impl NssToken {
    /// Makes a database in this directory; `None`, which is counted, where softokn or `certutil` is
    /// missing.
    ///
    /// # Panics
    /// Where they are there and make no database.
    pub fn create(directory: &Path) -> Option<Self> {
        let module = NSS_MODULES.iter().map(PathBuf::from).find(|path| path.exists());
        let Some(module) = module.filter(|_| Command::new("certutil").output().is_ok()) else {
            not_run("tests with NSS softokn: libsoftokn3.so or certutil is missing");
            return None;
        };
        let (database, pin) = (directory.join("nss"), directory.join("pin"));
        fs::create_dir(&database).expect("the directory can be written to");
        fs::write(&pin, PIN).expect("the directory can be written to");
        let database = format!("sql:{}", database.display());
        run(Command::new("certutil").args(["-N", "-d", &database, "-f"]).arg(pin));
        let initialization =
            format!("configdir='{database}' certPrefix='' keyPrefix='' secmod='' flags=noModDB");
        Some(Self { initialization, label: "NSS Certificate DB".to_owned(), module })
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
