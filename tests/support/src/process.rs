//! What Linux tells of processes: whose children there are, what they have open, map and see.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A process, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub u32);

impl Process {
    /// The processes that this one has started, those that ended and were not waited for included.
    ///
    /// # Panics
    /// Where there is no /proc.
    pub fn children(self) -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("Linux has /proc").flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut children: Vec<Self> =
            numbers.map(Process).filter(|process| process.parent() == Some(self)).collect();
        children.sort();
        children
    }

    /// Who started it; `None` where it is gone.
    fn parent(self) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        // The name, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(1)?.parse().ok().map(Process)
    }

    /// Whether it is there, dead or alive.
    pub fn exists(self) -> bool {
        self.parent().is_some()
    }

    /// Its arguments.
    pub fn arguments(self) -> String {
        self.text("cmdline").replace('\0', " ")
    }

    /// Its arguments; none where it has ended.
    pub fn arguments_now(self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }

    /// The environment that it was started with.
    pub fn environment(self) -> BTreeMap<String, String> {
        let text = self.text("environ");
        let variables = text.split('\0').filter_map(|variable| variable.split_once('='));
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Whether a file whose path contains these words is mapped into its memory.
    pub fn maps(self, words: &str) -> bool {
        self.text("maps").contains(words)
    }

    /// What it has open, by descriptor.
    ///
    /// # Panics
    /// Where it is gone, or not ours to look at.
    pub fn descriptors(self) -> BTreeMap<u32, String> {
        let path = format!("/proc/{}/fd", self.0);
        let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let link = |path: PathBuf| {
            let number = path.file_name()?.to_str()?.parse().ok()?;
            // One that was closed meanwhile.
            Some((number, fs::read_link(&path).ok()?.display().to_string()))
        };
        entries.flatten().filter_map(|entry| link(entry.path())).collect()
    }

    /// The sockets that it has open.
    pub fn sockets(self) -> BTreeSet<String> {
        self.descriptors().into_values().filter(|link| link.starts_with("socket:")).collect()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Where that cannot be done.
    pub fn signal(self, signal: &str) {
        let status = Command::new("kill").args([format!("-{signal}"), self.0.to_string()]).status();
        assert!(status.expect("kill is part of every system").success(), "kill -{signal}");
    }

    fn text(self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.0);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
