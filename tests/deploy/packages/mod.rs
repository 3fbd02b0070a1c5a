//! `deploy/packages` and `deploy/release`: packages that install, start, upgrade and go in a clean root,
//! and what they say of themselves.

mod contents;
mod lifecycle;
mod policy;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The last commit's time may change while tests run; this one does not.
const MOMENT: &str = "1700000000";

/// A file of the repository.
fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs it to its end, which must be a good one.
fn run(command: &mut Command) -> String {
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A package of this build, fast rather than small, and its path.
fn build(format: &str, directory: &Path, version: &str) -> PathBuf {
    let mut command = Command::new(source("deploy/packages/build.sh"));
    command.args([format, env!("CARGO_BIN_EXE_xksd")]).arg(directory).arg(version);
    command.env("SOURCE_DATE_EPOCH", MOMENT).env("CARGO_NET_OFFLINE", "true");
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip").env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    command.env("RPM_PAYLOAD", "w1.gzdio");
    PathBuf::from(run(&mut command).trim_end())
}

/// What `inventory.py` says of this kind.
fn inventory(kind: &str) -> String {
    let mut command = Command::new("python3");
    command.arg(source("deploy/release/inventory.py")).arg(kind);
    run(command.env("SOURCE_DATE_EPOCH", MOMENT).env("CARGO_NET_OFFLINE", "true"))
}

/// Whether all of these programs are here; if not, what cannot be tried is noted.
fn has(programs: &[&str], what: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    let Some(missing) = programs.iter().find(|program| !is_there(program)) else { return true };
    support::not_run(&format!("{what}: there is no {missing}"));
    false
}
