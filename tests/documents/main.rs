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

/// Fails with all of what is wrong.
#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
