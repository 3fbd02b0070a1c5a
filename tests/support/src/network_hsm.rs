//! SoftHSM2 behind `p11-kit server`, as a stand-in for an HSM across a network.
//!
//! All of it is Debian 13's, made by `tests/p11-kit/build.sh`, and so are the libraries of every
//! program that loads the client's module: [`NetworkHsm::copy_program`].

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::daemon::poll;
use crate::not_run;
use crate::token::SoftHsmToken;

/// Where the script has put it.
const PLACE: &str = "NETWORK_HSM_DIRECTORY";

/// The server and its token.
#[derive(Debug)]
pub struct NetworkHsm {
    place: PathBuf,
    socket: PathBuf,
    token: SoftHsmToken,
    /// Leads a process group of its own, to which the helpers belong that serve a connection each.
    server: Option<Child>,
}

impl NetworkHsm {
    /// The directory of the script's making; `None`, which is counted, where there is none.
    pub fn place() -> Option<PathBuf> {
        let place = std::env::var_os(PLACE).map(PathBuf::from);
        let place = place.filter(|place| place.join("done").exists());
        if place.is_none() {
            not_run(&format!("tests with p11-kit server: {PLACE} names nothing"));
        }
        place
    }

    /// Copies a program so that it can load [`NetworkHsm::module`].
    ///
    /// # Panics
    /// Where that fails.
    pub fn copy_program(place: &Path, program: &Path, copy: &Path) {
        let output = Command::new(place.join("with-its-libraries")).args([program, copy]).output();
        let output = output.expect("the script of the network HSM can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Begins to serve a token of SoftHSM2's, with a socket in this directory.
    pub fn serve(place: PathBuf, token: &SoftHsmToken, directory: &Path) -> Self {
        let socket = directory.join("p11-kit.socket");
        let mut hsm = Self { place, socket, token: token.clone(), server: None };
        hsm.start();
        hsm
    }

    /// The module to configure.
    pub fn module(place: &Path) -> PathBuf {
        place.join("client.so")
    }

    /// What the module wants to have in `P11_KIT_SERVER_ADDRESS`.
    pub fn address(directory: &Path) -> String {
        format!("unix:path={}", directory.join("p11-kit.socket").display())
    }

    /// Starts the server again after [`NetworkHsm::kill`].
    ///
    /// # Panics
    /// Where it does not begin to listen.
    pub fn start(&mut self) {
        // It would not take the place of one that was killed.
        let _ = std::fs::remove_file(&self.socket);
        let (name, conf) = self.token.env();
        let server = Command::new(self.place.join("bin/p11-kit-server"))
            .args(["--foreground", "--name"])
            .arg(&self.socket)
            .arg("--provider")
            .arg(self.place.join("softhsm.so"))
            .arg(format!("pkcs11:token={}", self.token.label))
            .env(name, conf)
            // Where its helper is.
            .env("P11_KIT_PRIVATEDIR", self.place.join("bin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("p11-kit server can be started");
        self.server = Some(server);
        poll(|| self.socket.exists(), || "p11-kit server does not listen".into());
    }

    /// Sends a signal to the server and to all that serves connections.
    ///
    /// # Panics
    /// Where there is no server.
    pub fn signal(&self, signal: &str) {
        let server = self.server.as_ref().expect("the server runs");
        let group = format!("-{}", server.id());
        let status = Command::new("kill").args([&format!("-{signal}"), "--", &group]).status();
        assert!(status.expect("kill is part of every system").success(), "kill -{signal}");
    }

    /// Ends it at once, connections and all.
    ///
    /// # Panics
    /// Where there is no server.
    pub fn kill(&mut self) {
        self.signal("KILL");
        let mut server = self.server.take().expect("it was sent a signal");
        server.wait().expect("it is our child");
    }
}

impl Drop for NetworkHsm {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
    }
}
