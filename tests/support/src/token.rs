//! SoftHSM2 tokens for tests.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// PIN of the user of every token made here; it occurs nowhere by chance, as digits alone might.
pub const PIN: &str = "canary-PIN-271828";
/// PIN of the security officer of every token made here.
pub const SO_PIN: &str = "canary-SO-PIN-31415926";

/// Where distributions put the module of SoftHSM2.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// An initialised SoftHSM2 token without objects, living in a directory of the test's.
#[derive(Debug, Clone)]
pub struct SoftHsmToken {
    /// The configuration that shows this token to whoever has it in `SOFTHSM2_CONF`.
    pub conf: PathBuf,
    /// CKA_LABEL of the token, without padding.
    pub label: String,
    /// PIN of the user.
    pub pin: &'static str,
    /// The PKCS#11 module of SoftHSM2.
    pub module: PathBuf,
}

impl SoftHsmToken {
    /// Makes a token with this label in `directory`, which must exist.
    ///
    /// A second token in the same directory becomes visible beside the first: they share
    /// `softhsm2.conf` and the directory `tokens`.
    ///
    /// The environment of this process is left alone, as it belongs to all of its threads. SoftHSM2
    /// reads `SOFTHSM2_CONF` in C_Initialize, so the process that uses the token must be started
    /// with [`SoftHsmToken::env`].
    ///
    /// # Panics
    /// Where SoftHSM2 is not installed, or the token cannot be made.
    pub fn create(directory: &Path, label: &str) -> Self {
        let module = module();
        let conf = configure(directory);
        let output = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN])
            .env("SOFTHSM2_CONF", &conf)
            .output()
            .unwrap_or_else(|error| match error.kind() {
                ErrorKind::NotFound => {
                    panic!("softhsm2-util is missing; install the Debian package softhsm2")
                }
                _ => panic!("softhsm2-util cannot be started: {error}"),
            });
        assert!(
            output.status.success(),
            "softhsm2-util --init-token failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        Self { conf, label: label.to_owned(), pin: PIN, module }
    }

    /// Name and value of the environment variable for [`Command::env`].
    pub fn env(&self) -> (&'static str, &OsStr) {
        ("SOFTHSM2_CONF", self.conf.as_os_str())
    }
}

/// The installed PKCS#11 module of SoftHSM2.
///
/// # Panics
/// Where there is none.
pub fn module() -> PathBuf {
    MODULES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no libsofthsm2.so; install the Debian package softhsm2"))
}

fn configure(directory: &Path) -> PathBuf {
    let directory = directory
        .canonicalize()
        .unwrap_or_else(|error| panic!("no directory `{}`: {error}", directory.display()));
    let tokens = directory.join("tokens");
    fs::create_dir_all(&tokens)
        .unwrap_or_else(|error| panic!("cannot make `{}`: {error}", tokens.display()));
    let conf = directory.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n\
         slots.removable = false\n",
        tokens.display()
    );
    fs::write(&conf, text)
        .unwrap_or_else(|error| panic!("cannot write `{}`: {error}", conf.display()));
    conf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tokens_of_a_directory_are_shown_by_one_configuration() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let first = SoftHsmToken::create(directory.path(), "first");
        let second = SoftHsmToken::create(directory.path(), "second");
        assert_eq!(first.conf, second.conf);
        let (name, value) = second.env();
        let output = Command::new("softhsm2-util")
            .arg("--show-slots")
            .env(name, value)
            .output()
            .expect("it ran a moment ago");
        let slots = String::from_utf8_lossy(&output.stdout);
        for label in ["first", "second"] {
            let shown = slots.lines().any(|line| {
                line.trim().strip_prefix("Label:").is_some_and(|shown| shown.trim() == label)
            });
            assert!(shown, "no token `{label}` among\n{slots}");
        }
    }
}
