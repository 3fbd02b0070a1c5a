mod authorization;
mod credentials;
mod faults;
mod reference;
mod secrets;
mod template;
mod values;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{Config, ConfigErrors, Fault, load};

/// 43 characters, as P-14 asks for; none of them may appear in any fault.
const SECRET: &str = "CANARYcanary0123456789012345678901234567890";

/// A configuration without fault, and the files that it names.
const GOOD: &str = include_str!("good.toml");

/// A directory for a configuration.
struct Dir(TempDir);

impl Dir {
    /// With every file that [`GOOD`] names.
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        dir.write("module.so", "");
        dir.write("token.pin", "1234\n");
        dir.write("demo.secret", &format!("{SECRET}\n"));
        dir.certificate("server");
        dir
    }

    /// Makes the directory `audit`, with a mode that is good for an audit log.
    fn audit_directory(&self) -> PathBuf {
        crate::audit::store::make_directory(&self.path("audit")).unwrap();
        self.path("audit")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a file that only its owner can read.
    fn write(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Makes `name.pem` and `name.key`.
    fn certificate(&self, name: &str) {
        let options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        let output = Command::new("openssl")
            .args(options.split(' '))
            .args(["-subj", "/CN=localhost", "-keyout"])
            .arg(self.path(&format!("{name}.key")))
            .arg("-out")
            .arg(self.path(&format!("{name}.pem")))
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn load(&self, toml: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        self.write("xksd.toml", toml);
        let variables = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let loaded = load(&self.path("xksd.toml"), variables);
        let said = match &loaded {
            Ok(config) => format!("{config:?}"),
            Err(errors) => format!("{errors:?} {errors}"),
        };
        assert!(!said.contains("CANARY"), "a secret was said: {said}");
        loaded
    }

    fn faults(&self, toml: &str) -> Vec<Fault> {
        self.faults_with(toml, &[])
    }

    fn faults_with(&self, toml: &str, variables: &[(&str, &str)]) -> Vec<Fault> {
        match self.load(toml, variables) {
            Ok(config) => panic!("no fault in {toml}\n{variables:?}: {config:?}"),
            Err(errors) => errors.faults,
        }
    }

    /// The faults without their origin: what is said of each key.
    fn said(&self, toml: &str) -> Vec<String> {
        let file = format!("{}: ", self.path("xksd.toml").display());
        let directory = format!("{}/", self.0.path().display());
        let said = |fault: Fault| {
            let text = fault.to_string();
            text.strip_prefix(&file).unwrap_or(&text).replace(&directory, "")
        };
        self.faults(toml).into_iter().map(said).collect()
    }
}

/// [`GOOD`] with one text replaced.
fn with(old: &str, new: &str) -> String {
    assert_eq!(GOOD.matches(old).count(), 1, "{old}");
    GOOD.replace(old, new)
}

/// [`GOOD`] with lines at the end of a section that begins with this line.
fn and(section: &str, lines: &str) -> String {
    with(&format!("{section}\n"), &format!("{section}\n{lines}\n"))
}
