//! Every block of code in the documents is parsed or run, every link leads somewhere, and what has to
//! be written about is.
//!
//! A fence names its language: `sh`, `console`, `toml`, `json`, `yaml`, `ini`, `promql`, `hcl`, or `text` for
//! what is none. A second word says more: `run:NAME` is run, with all other blocks of that name in the
//! document, by `procedures`; `example` is for the reader's own program; `policy-test` is what
//! `xksd policy test` takes.

mod blocks;
mod configurations;
mod coverage;
mod links;
mod markdown;
mod procedures;
mod shell;

/// Runs a program on a text, which goes to its standard input; what it says if it fails.
fn filter(command: &mut std::process::Command, text: &str) -> Result<String, String> {
    use std::io::Write as _;
    use std::process::Stdio;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    // A program that does not read to the end has said why.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => Err(format!("{}{}", said(&output.stdout), said(&output.stderr))),
    }
}

/// Fails with all of what is wrong.
#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
