//! `xksd audit search` and `xksd audit head`. Neither verifies anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde_json::{Value, json};

use super::super::failure::print;
use super::super::startup::configuration;
use super::super::{ConfigFile, Exit, Failure};
use super::logs;
use crate::audit::chain::{self, ChainId, Hash};
use crate::audit::line::Line;

/// A time in a record, as far as one may write it out.
const TIME: &str = "0000-00-00T00:00:00.000000Z";

#[derive(Debug, Args)]
pub(in crate::cli) struct Search {
    /// Files of audit logs, or directories with them; without any, the configuration's
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Records of this kmsRequestId, the requestID of CloudTrail
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Records about this external key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Not before this time (UTC): 2026-11-22, 2026-11-22T05:17 or as exact as records are
    #[arg(long, value_name = "TIME")]
    since: Option<Time>,
    /// Not after this time, which is meant to its end: 2026-11-22 is the whole day
    #[arg(long, value_name = "TIME")]
    until: Option<Time>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print the records themselves, one a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Head {
    /// Files of audit logs, or directories with them; without any, the configuration's
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

/// The beginning of a time.
#[derive(Debug, Clone)]
struct Time(String);

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits =
            |(is, like): (char, char)| if like == '0' { is.is_ascii_digit() } else { is == like };
        let is_time =
            text.len() >= 4 && text.len() <= TIME.len() && text.chars().zip(TIME.chars()).all(fits);
        if is_time {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be a time like 2026-11-22T05:17")
        }
    }
}

impl Time {
    /// As much of a record's time as this says.
    fn cut<'a>(&self, time: &'a str) -> &'a str {
        time.get(..self.0.len()).unwrap_or(time)
    }
}

impl Search {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let files = logs::files(&self.files, || Ok(configuration(&self.config)?))?;
        let mut found = false;
        for path in files {
            let mut text = String::new();
            logs::each_line(&path, |line| {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                if let Ok(line) = Line::parse(line)
                    && let Some(record) = self.takes(line)
                {
                    text += &if self.json {
                        format!("{}\n", line.text)
                    } else {
                        in_text(line, &record)
                    };
                }
            })?;
            found |= !text.is_empty();
            print(&text)?;
        }
        if found { Ok(()) } else { Err(Failure::new(Exit::Difference, "there is no such record")) }
    }

    fn takes(&self, line: Line<'_>) -> Option<Value> {
        let is_late = self.since.as_ref().is_none_or(|since| since.cut(line.time) >= &*since.0);
        let is_early = self.until.as_ref().is_none_or(|until| until.cut(line.time) <= &*until.0);
        let record: Value = serde_json::from_str(line.text).ok()?;
        let is = |member: &str, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| record[member] == wanted.as_str())
        };
        let is_it = is("kms_request_id", &self.request_id) && is("key", &self.key);
        (is_late && is_early && is_it).then_some(record)
    }
}

/// Time and type, and what most ask for.
fn in_text(line: Line<'_>, record: &Value) -> String {
    let shown =
        ["operation", "action", "step", "outcome", "keystore", "key", "version", "principal"];
    let shown = shown.iter().chain(&["sudo_user", "kms_request_id", "reason", "count"]);
    let mut text = format!("{} {}", line.time, line.kind);
    for member in shown {
        match &record[member] {
            Value::Null => {}
            Value::String(value) => text += &format!(" {member}={value}"),
            other => text += &format!(" {member}={other}"),
        }
    }
    text + "\n"
}

impl Head {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let files = logs::files(&self.files, || Ok(configuration(&self.config)?))?;
        let mut heads: BTreeMap<ChainId, (chain::Head, String)> = BTreeMap::new();
        for path in files {
            logs::each_line(&path, |line| {
                // A line that is being written has no end yet.
                let line = line.strip_suffix(b"\n").and_then(|line| Line::parse(line).ok());
                if let Some(line) = line {
                    let head = chain::Head { seq: line.seq, hash: Hash::of(line.text.as_bytes()) };
                    heads.insert(line.chain, (head, line.time.to_owned()));
                }
            })?;
        }
        if heads.is_empty() {
            return Err(Failure::new(Exit::Difference, "there are no records"));
        }
        let text = if self.json {
            let head = |(chain, (head, time)): (&ChainId, &(chain::Head, String))| {
                let (chain, hash) = (chain.to_string(), head.hash.to_string());
                json!({ "chain": chain, "seq": head.seq, "hash": hash, "time": time })
            };
            format!("{:#}\n", Value::Array(heads.iter().map(head).collect()))
        } else {
            heads.values().map(|(head, _)| format!("{head}\n")).collect()
        };
        print(&text)
    }
}
