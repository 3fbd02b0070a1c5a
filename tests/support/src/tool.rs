//! Other people's tools, which judge what is ours.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Prometheus's own checker.
#[derive(Debug)]
pub struct Promtool(PathBuf);

impl Promtool {
    /// The one that `PROMTOOL` names, or that of the path; notes what is not run without it.
    pub fn find(what: &str) -> Option<Self> {
        let found = named("PROMTOOL", "promtool").find(|program| runs(program, &["--version"]));
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
        let said = ask(Command::new(&self.0).args(arguments), input);
        said.unwrap_or_else(|said| panic!("promtool {arguments:?}: {said}\n{input}"));
    }

    /// Whether it takes a text as a file of rules.
    ///
    /// # Errors
    /// What it says is wrong.
    ///
    /// # Panics
    /// Where it cannot be run.
    pub fn check_rules(&self, rules: &str) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), rules).expect("it was made just now");
        ask(Command::new(&self.0).args(["check", "rules"]).arg(file.path()), "").map(drop)
    }
}

/// The Python that `TEST_PYTHON` names, or that of the path, if it has these modules, which are divided by
/// commas; notes what is not run without it.
pub fn python(modules: &str, what: &str) -> Option<PathBuf> {
    let import = format!("import {modules}");
    let found = named("TEST_PYTHON", "python3").find(|python| runs(python, &["-c", &import]));
    if found.is_none() {
        crate::not_run(&format!("{what}: TEST_PYTHON names no Python that has {modules}"));
    }
    found
}

/// Terraform, or who took its place; notes what is not run without it.
pub fn terraform(what: &str) -> Option<PathBuf> {
    let found = ["terraform", "tofu"].into_iter().find(|name| runs(Path::new(name), &["version"]));
    if found.is_none() {
        crate::not_run(&format!("{what}: there is neither terraform nor tofu"));
    }
    found.map(PathBuf::from)
}

/// What a variable of the environment names, and then what is in the path.
fn named(variable: &str, program: &str) -> impl Iterator<Item = PathBuf> {
    std::env::var_os(variable).into_iter().chain([program.into()]).map(PathBuf::from)
}

/// Whether a program is there, and does this.
fn runs(program: &Path, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs a tool with this input; what it wrote.
///
/// # Errors
/// What it said if it failed, on standard output and then on standard error.
///
/// # Panics
/// Where it cannot be run.
pub fn ask(command: &mut Command, input: &str) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let read = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it is our child");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(text(&[output.stdout, output.stderr].concat()));
    }
    // Who fails says why, and need not read to the end.
    read.expect("it reads what it is given");
    Ok(text(&output.stdout))
}
