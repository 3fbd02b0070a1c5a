//! A test that needs an environment of its own runs itself again as a child process.
//!
//! Software tokens and the shim take their orders from the environment, which belongs to a whole
//! process and may not be changed while threads run. [`with_token`] therefore runs a test twice: in
//! the test process it makes a token and starts the same test again with the environment that shows
//! this token; in the child it runs the body.

use std::env;
use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::shim;
use crate::soft_tokens::{KryopticToken, NssToken};
use crate::token::{PIN, SoftHsmToken};

/// Set in children: the label of the token.
const LABEL: &str = "CHILD_TEST_TOKEN";
/// Set in children: the module to load.
const MODULE: &str = "CHILD_TEST_MODULE";
/// Set in children whose module wants it: what C_Initialize is given.
const INITIALIZATION: &str = "CHILD_TEST_INITIALIZATION";

/// Which token, and which way leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// SoftHSM2, by the module itself.
    Direct,
    /// SoftHSM2 through the shim, which counts.
    Shim,
    /// kryoptic.
    Kryoptic,
    /// kryoptic through the shim, which counts and obeys [`TokenAtHand::script`].
    ShimKryoptic,
    /// NSS softokn.
    Nss,
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
    /// What C_Initialize is given in its reserved argument.
    pub initialization: Option<CString>,
    counts: PathBuf,
}

impl TokenAtHand {
    /// How often each C function has been called up to now. Only through the shim.
    pub fn counts(&self) -> shim::Counts {
        shim::Counts::read(&self.counts)
    }

    /// What the shim is to do from now on. Only through [`Way::ShimKryoptic`].
    pub fn script(&self, text: &str) {
        shim::set_script(&self.counts.with_file_name("script"), text);
    }
}

/// What a child is told.
struct Orders {
    label: String,
    module: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

/// Runs the body in a child process that sees a new token.
///
/// `test` is the full name of the calling test as libtest shows it, without the crate. Where a
/// module other than SoftHSM2 is not at hand, nothing is run, and that is counted.
///
/// # Panics
/// Where the child fails, with what it wrote; where SoftHSM2 is not installed.
pub fn with_token(test: &str, way: Way, body: impl FnOnce(&TokenAtHand)) {
    if let (Ok(label), Some(module)) = (env::var(LABEL), env::var_os(MODULE)) {
        let counts = env::var_os("PKCS11_SHIM_COUNTS").map(PathBuf::from).unwrap_or_default();
        let text = env::var(INITIALIZATION).ok();
        let initialization = text.map(|text| CString::new(text).expect("it holds no NUL"));
        let module = module.into();
        return body(&TokenAtHand { label, pin: PIN, module, initialization, counts });
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let Some(orders) = orders(way, directory.path()) else { return };
    let output = Command::new(env::current_exe().expect("a test knows its executable"))
        .args(["--exact", test, "--nocapture"])
        .env(LABEL, &orders.label)
        .env(MODULE, orders.module)
        .env_remove(INITIALIZATION)
        .env_remove("PKCS11_SHIM_SCRIPT")
        .envs(orders.environment)
        .output()
        .expect("a test can start itself");
    let Output { status, stdout, stderr } = output;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(
        status.success() && stdout.contains("1 passed"),
        "the child failed, or no test is called `{test}` ({status}):\n{stdout}\n{stderr}"
    );
}

/// Makes the token; `None` where its module is not at hand.
fn orders(way: Way, directory: &Path) -> Option<Orders> {
    let orders = match way {
        Way::Direct | Way::Shim => {
            let token = SoftHsmToken::create(directory, "child");
            let (name, conf) = token.env();
            let environment = vec![
                (name, conf.to_owned()),
                ("PKCS11_SHIM_MODULE", token.module.clone().into()),
                ("PKCS11_SHIM_COUNTS", directory.join("counts").into()),
            ];
            let module = if way == Way::Shim { shim::library() } else { token.module };
            Orders { label: token.label, module, environment }
        }
        Way::Kryoptic => {
            let token = KryopticToken::create(directory, "child")?;
            let environment = vec![("KRYOPTIC_CONF", token.conf.into())];
            Orders { label: token.label, module: token.module, environment }
        }
        Way::ShimKryoptic => {
            let token = KryopticToken::create(directory, "child")?;
            let environment = vec![
                ("KRYOPTIC_CONF", token.conf.into()),
                ("PKCS11_SHIM_MODULE", token.module.into()),
                ("PKCS11_SHIM_COUNTS", directory.join("counts").into()),
                ("PKCS11_SHIM_SCRIPT", directory.join("script").into()),
            ];
            Orders { label: token.label, module: shim::library(), environment }
        }
        Way::Nss => {
            let token = NssToken::create(directory)?;
            let environment = vec![(INITIALIZATION, token.initialization.into())];
            Orders { label: token.label, module: token.module, environment }
        }
    };
    Some(orders)
}
