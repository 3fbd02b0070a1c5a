//! Other people's tools, which judge what is ours.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Prometheus's own checker.
#[derive(Debug)]
pub struct Promtool(PathBuf);

impl Promtool {
    /// The one that `PROMTOOL` names, or that of the path; notes what is not run without it.
    pub fn find(what: &str) -> Option<Self> {
        let named = std::env::var_os("PROMTOOL").map(PathBuf::from);
        let found = [named, Some("promtool".into())].into_iter().flatten().find(|program| {
            let version = Command::new(program).arg("--version").output();
            version.is_ok_and(|output| output.status.success())
        });
        if found.is_none() {
            crate::not_run(&format!("{what}: there is no promtool (package prometheus)"));
        }
        found.map(Self)
    }

    /// Runs it with this input.
    ///
    /// # Panics
    /// Where it finds a fault: what it says is shown.
    pub fn check(&self, arguments: &[&str], input: &str) {
        let (passed, said) = self.run(arguments, input);
        assert!(passed, "promtool {arguments:?}: {said}\n{input}");
    }

    /// The same; whether it found nothing, and what it said.
    ///
    /// # Panics
    /// Where it cannot be run.
    pub fn run(&self, arguments: &[&str], input: &str) -> (bool, String) {
        ask(Command::new(&self.0).args(arguments), input)
    }
}

/// Runs a tool with this input; whether it ended well, and what it said, errors last.
///
/// # Panics
/// Where it cannot be run.
pub fn ask(command: &mut Command, input: &str) -> (bool, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads what it is given");
    drop(stdin);
    let output = child.wait_with_output().expect("it is our child");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
