//! A token, and clients of the shim that use it, each in a process of its own.
//!
//! The shim and SoftHSM2 take their orders from the environment, which belongs to a whole process.
//! So each test runs twice: in the test process it builds a [`House`] and starts itself again as a
//! child with the environment it needs; in the child [`Client::of_this_process`] is there, and the
//! test is the client.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use support::shim::{self, Counts, set_script};
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

    /// Where the files of the test are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
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
            .env_remove("PKCS11_SHIM_SEED")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The same with counts, the script, and a seed.
    pub(crate) fn scripted_client(&self, test: &str) -> Command {
        let mut command = self.client(test);
        command
            .env("PKCS11_SHIM_COUNTS", self.counts())
            .env("PKCS11_SHIM_SCRIPT", self.script())
            .env("PKCS11_SHIM_SEED", "1");
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

/// Runs `body` as a client of the shim whose script is this text at first, with counts, and a seed
/// that is always the same. `test` is the full name of the test; the shim must write nothing on
/// stderr.
pub(crate) fn with_script(test: &str, script: &str, body: impl FnOnce(&Client)) {
    if let Some(client) = Client::of_this_process() {
        return body(&client);
    }
    let house = House::build();
    set_script(&house.script(), script);
    assert_eq!(run(&mut house.scripted_client(test)), "");
}

/// Puts another script in force, in the client.
pub(crate) fn change_script(text: &str) {
    set_script(&path_in("PKCS11_SHIM_SCRIPT"), text);
}

/// The counts up to now, in the client.
pub(crate) fn counts() -> Counts {
    Counts::read(&path_in("PKCS11_SHIM_COUNTS"))
}

/// The code that a call was answered with.
pub(crate) fn answer<T>(result: cryptoki::error::Result<T>) -> RvError {
    match result {
        Err(Error::Pkcs11(answer, _function)) => answer,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it succeeded"),
    }
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

    /// C_Finalize, and then the client as if it had just started.
    pub(crate) fn again(&self) -> Self {
        self.pkcs11.clone().finalize().expect("it is initialised");
        Self::of_this_process().expect("this is the child")
    }

    /// C_Initialize.
    pub(crate) fn initialize(&self) -> cryptoki::error::Result<()> {
        self.pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
    }

    /// The slot with the token of this test.
    pub(crate) fn slot(&self) -> Slot {
        let label = env::var(LABEL).expect("it is there in children");
        let slots = self.pkcs11.get_slots_with_initialized_token().expect("there are slots");
        slots
            .into_iter()
            .find(|slot| {
                let token = self.pkcs11.get_token_info(*slot).expect("the slot has a token");
                token.label() == label
            })
            .expect("one of them has our token")
    }

    /// A session on the token of this test.
    pub(crate) fn open_session(&self) -> Session {
        self.pkcs11.open_rw_session(self.slot()).expect("a session can be opened")
    }

    /// C_Initialize, a session, and the user logged in to it.
    pub(crate) fn log_in(&self) -> Session {
        self.initialize().expect("the module behind the shim starts");
        let session = self.open_session();
        session.login(UserType::User, Some(&AuthPin::from(PIN))).expect("the PIN is right");
        session
    }
}

/// An AES-256 key that encrypts and decrypts.
pub(crate) fn generate_key(session: &Session, label: &str) -> ObjectHandle {
    let template = [
        Attribute::Token(true),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::ValueLen(32.into()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).expect("a key can be made")
}

/// A file that the environment of the child names.
pub(crate) fn path_in(variable: &str) -> PathBuf {
    env::var_os(variable).expect("the test process has set it").into()
}
