//! A test that needs an environment of its own runs itself again as a child process.
//!
//! SoftHSM2 and the shim take their orders from the environment, which belongs to a whole process
//! and may not be changed while threads run. [`with_token`] therefore runs a test twice: in the
//! test process it makes a token and starts the same test again with the environment that shows
//! this token; in the child it runs the body.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::shim;
use crate::token::{PIN, SoftHsmToken};

/// Set in children: the label of the token.
const LABEL: &str = "CHILD_TEST_TOKEN";
/// Set in children: the module to load.
const MODULE: &str = "CHILD_TEST_MODULE";

/// Which way leads to SoftHSM2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The module itself.
    Direct,
    /// Through the shim, which counts.
    Shim,
}

/// A token made for this test alone, in a process that was made for it.
#[derive(Debug, Clone)]
pub struct TokenAtHand {
    /// `CKA_LABEL` of the token.
    pub label: String,
    /// PIN of its user.
    pub pin: &'static str,
    /// The module to load.
    pub module: PathBuf,
    counts: PathBuf,
}

impl TokenAtHand {
    /// How often each C function has been called up to now. Only through [`Way::Shim`].
    pub fn counts(&self) -> shim::Counts {
        shim::Counts::read(&self.counts)
    }
}

/// Runs the body in a child process that sees a new SoftHSM2 token.
///
/// `test` is the full name of the calling test as libtest shows it, without the crate.
///
/// # Panics
/// Where the child fails, with what it wrote; where SoftHSM2 is not installed.
pub fn with_token(test: &str, way: Way, body: impl FnOnce(&TokenAtHand)) {
    if let (Ok(label), Some(module)) = (env::var(LABEL), env::var_os(MODULE)) {
        let counts = env::var_os("PKCS11_SHIM_COUNTS").map(PathBuf::from).unwrap_or_default();
        return body(&TokenAtHand { label, pin: PIN, module: module.into(), counts });
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let token = SoftHsmToken::create(directory.path(), "child");
    let module = match way {
        Way::Direct => token.module.clone(),
        Way::Shim => shim::library(),
    };
    let (name, conf) = token.env();
    let output = Command::new(env::current_exe().expect("a test knows its executable"))
        .args(["--exact", test, "--nocapture"])
        .env(name, conf)
        .env(LABEL, &token.label)
        .env(MODULE, module)
        .env("PKCS11_SHIM_MODULE", &token.module)
        .env("PKCS11_SHIM_COUNTS", directory.path().join("counts"))
        .env_remove("PKCS11_SHIM_SCRIPT")
        .output()
        .expect("a test can start itself");
    let Output { status, stdout, stderr } = output;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(
        status.success() && stdout.contains("1 passed"),
        "the child failed, or no test is called `{test}` ({status}):\n{stdout}\n{stderr}"
    );
}
