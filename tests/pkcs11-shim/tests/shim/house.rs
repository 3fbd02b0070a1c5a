//! A token, and clients of the shim that use it, each in a process of its own.
//!
//! The shim and SoftHSM2 take their orders from the environment, which belongs to a whole process.
//! So each test runs twice: in the test process it builds a [`House`] and starts itself again as a
//! child with the environment it needs; in the child [`Client::of_this_process`] is there, and the
//! test is the client.

use std::env;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use support::shim;
use support::token::{PIN, SoftHsmToken};
use tempfile::TempDir;

/// Set in children: the label of the token to use.
const LABEL: &str = "SHIM_TEST_TOKEN";

pub(crate) struct House {
    directory: TempDir,
    token: SoftHsmToken,
}

impl House {
    pub(crate) fn build() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let token = SoftHsmToken::create(directory.path(), "shim");
        Self { directory, token }
    }

    /// A file for counts, not made yet.
    pub(crate) fn counts(&self) -> PathBuf {
        self.directory.path().join("counts")
    }

    /// A file for a script, not made yet.
    pub(crate) fn script(&self) -> PathBuf {
        self.directory.path().join("script")
    }

    /// This test (its full name) as a client of the shim, with no counts and no script.
    pub(crate) fn client(&self, test: &str) -> Command {
        let mut command = Command::new(env::current_exe().expect("a test knows its executable"));
        let (conf, path) = self.token.env();
        command
            .args(["--exact", test, "--nocapture"])
            .env(LABEL, &self.token.label)
            .env(conf, path)
            .env("PKCS11_SHIM_MODULE", &self.token.module)
            .env_remove("PKCS11_SHIM_COUNTS")
            .env_remove("PKCS11_SHIM_SCRIPT")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Starts a client.
pub(crate) fn start(command: &mut Command) -> Child {
    command.spawn().expect("a test can start itself")
}

/// Waits for a client, and gives what it wrote on stderr. It must have run, and passed.
pub(crate) fn finish(child: Child) -> String {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("a child ends");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(
        status.success() && stdout.contains("1 passed"),
        "the client failed, or the test has another name ({status}):\n{stdout}\n{stderr}"
    );
    stderr.into_owned()
}

/// Runs a client to its end.
pub(crate) fn run(command: &mut Command) -> String {
    finish(start(command))
}

/// The client, in the child.
pub(crate) struct Client {
    pub(crate) pkcs11: Pkcs11,
}

impl Client {
    /// There in children only.
    pub(crate) fn of_this_process() -> Option<Self> {
        env::var_os(LABEL)?;
        let pkcs11 = Pkcs11::new(shim::library()).expect("the shim can be loaded");
        Some(Self { pkcs11 })
    }

    /// C_Initialize.
    pub(crate) fn initialize(&self) -> cryptoki::error::Result<()> {
        self.pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
    }

    /// A session on the token of this test.
    pub(crate) fn open_session(&self) -> Session {
        let label = env::var(LABEL).expect("it is there in children");
        let slots = self.pkcs11.get_slots_with_initialized_token().expect("there are slots");
        let slot = slots
            .into_iter()
            .find(|slot| {
                let token = self.pkcs11.get_token_info(*slot).expect("the slot has a token");
                token.label() == label
            })
            .expect("one of them has our token");
        self.pkcs11.open_rw_session(slot).expect("a session can be opened")
    }

    /// C_Initialize, a session, and the user logged in to it.
    pub(crate) fn log_in(&self) -> Session {
        self.initialize().expect("the module behind the shim starts");
        let session = self.open_session();
        session.login(UserType::User, Some(&AuthPin::from(PIN))).expect("the PIN is right");
        session
    }
}

/// A file that the environment of the child names.
pub(crate) fn path_in(variable: &str) -> PathBuf {
    env::var_os(variable).expect("the test process has set it").into()
}
