//! Holds the layers: every module uses those below it and none above, and only the modules that
//! are named here touch C, HTTP or the runtime.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Modules by layer, lowest first. The longest name that fits counts.
const LAYERS: [&[&str]; 6] = [
    &["names", "secret", "clock"],
    &["wire", "sigv4"],
    &[
        "keystore",
        "audit::record",
        "audit::chain",
        "audit::checkpoint",
        "audit::json",
        "audit::line",
        "audit::verify",
        "policy",
        "hsm::backend",
        "hsm::fault",
        "hsm::key",
        "hsm::state",
        "limits",
        "hsm::freeze",
        "hsm::codes",
        "hsm::profile",
        "hsm::transport",
        "counts::book",
        "counts::ledger",
        "counts::limit",
        "counts::store",
    ],
    &[
        "operations",
        "audit",
        "lifecycle",
        "client",
        "hsm",
        "catalogue",
        "counts",
        "conformance",
        "tls",
        "metrics",
        "traces",
    ],
    &["server"],
    &["main", "daemon", "cli", "config", "doctor", "telemetry"],
];

/// Uses that go up or have to be settled otherwise, each with its reason.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// Who may name what: a word that stands in a path, and the modules in which it may.
const ONLY: [(&str, &[&str]); 16] = [
    ("cryptoki", &[]),
    ("cryptoki_sys", &["hsm::pkcs11"]),
    ("libloading", &["hsm::pkcs11"]),
    ("landlock", &["hsm::process"]),
    ("listenfd", &["daemon"]),
    ("hyper", &["server", "client"]),
    ("hyper_util", &["server", "client"]),
    ("axum", &["server"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli::shell"]),
    ("clap_mangen", &["cli::shell"]),
    ("config", &["config", "daemon", "cli", "doctor"]),
    ("aws_sigv4", &["sigv4"]),
    ("cedar_policy", &["policy"]),
    ("miette", &["policy"]),
    ("tokio_rustls", &["server", "client"]),
];

/// Longest file that is written by hand, in lines.
const LONGEST: usize = 600;

struct Source {
    module: String,
    text: String,
}

/// All of `src`, comments left out.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    walk(&root, &mut |path| {
        let relative = path.strip_prefix(&root).expect("it is in there").with_extension("");
        let mut parts: Vec<&str> = relative.iter().filter_map(|part| part.to_str()).collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        let text = fs::read_to_string(path).expect("sources are UTF-8");
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let text = text.lines().filter(code).map(|line| line.to_owned() + "\n").collect();
        sources.push(Source { module: parts.join("::"), text });
    });
    assert!(sources.len() > 50, "only {} sources", sources.len());
    sources
}

fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            walk(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path);
        }
    }
}

fn is_in(module: &str, parent: &str) -> bool {
    module.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The layer of a module, by the longest entry that it is in.
fn layer(module: &str) -> Option<usize> {
    let all =
        LAYERS.iter().enumerate().flat_map(|(n, names)| names.iter().map(move |name| (n, name)));
    all.filter(|(_, name)| is_in(module, name)).max_by_key(|(_, name)| name.len()).map(|(n, _)| n)
}

/// Paths from the root of the crate that a source names: `crate::a::b` and the branches of
/// `crate::{a, b::c}`.
fn uses(text: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        // Not a part of another word, `other_crate::`.
        let before = text[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_') {
            branches("", &text[at + "crate::".len()..], &mut paths);
        }
    }
    paths
}

/// Reads one path, and the branches between braces; gives what follows it.
fn branches<'a>(prefix: &str, text: &'a str, paths: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = branches(prefix, rest, paths).trim_start();
            match rest.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => rest = more,
                Some(more) => return more.trim_start().strip_prefix('}').unwrap_or(more),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let path = if prefix.is_empty() { word.to_owned() } else { format!("{prefix}::{word}") };
    match rest.strip_prefix("::") {
        Some(rest) => branches(&path, rest, paths),
        None => {
            paths.insert(path);
            rest
        }
    }
}

#[test]
fn the_reader_of_uses_reads() {
    let text = "use crate::a::{self, b::C, d::{e, F}}; fn f() { crate::g::h(); mycrate::x(); }\n\
                pub(crate) fn i() {} use crate::{j, k::L};";
    let expected = ["a::b::C", "a::d::F", "a::d::e", "a::self", "g::h", "j", "k::L"];
    assert_eq!(uses(text).into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(layer("hsm::fault"), Some(2));
    assert_eq!(layer("hsm::token"), Some(3));
    assert_eq!(layer("hsmx"), None);
}

#[test]
fn arrows_point_down() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.module == "lib" {
            continue;
        }
        let Some(own) = layer(&source.module) else {
            faults.push(format!("{} is in no layer", source.module));
            continue;
        };
        for path in uses(&source.text) {
            let target = path.trim_end_matches("::self");
            match layer(target) {
                Some(other) if other <= own => {}
                _ if EXCEPTIONS.contains(&(&source.module, target)) => {}
                Some(_) => {
                    faults.push(format!("{} uses {target}, which is above it", source.module))
                }
                None => {
                    faults.push(format!("{} uses {target}, which is in no layer", source.module))
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_these_modules_name_these_things() {
    let mut faults = Vec::new();
    for source in sources() {
        for (word, modules) in ONLY {
            let named = source.text.match_indices(&format!("{word}::")).any(|(at, _)| {
                let before = &source.text[..at];
                let is_whole =
                    before.chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
                // `crate::config::` is ours, `config::` is the crate.
                is_whole && (!before.ends_with("::") || before.ends_with("::{"))
            });
            if named && !modules.iter().any(|module| is_in(&source.module, module)) {
                faults.push(format!("{} names {word}", source.module));
            }
        }
        let lifts = source.text.contains("allow(unsafe_code)");
        if lifts && source.module != "hsm::pkcs11" {
            faults.push(format!("{} allows unsafe code", source.module));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The lint that makes unsafe code an error holds for all but the C boundary.
#[test]
fn unsafe_code_is_denied() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    assert!(manifest.contains("unsafe_code = \"deny\""));
}

#[test]
fn no_file_is_too_long() {
    let mut lengths = Vec::new();
    for directory in ["src", "tests"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut |path| {
            if path.components().any(|part| part.as_os_str() == "target") {
                return;
            }
            let lines = fs::read_to_string(path).expect("sources are UTF-8").lines().count();
            lengths.push((lines, path.to_owned()));
        });
    }
    lengths.sort();
    let long: Vec<_> = lengths.iter().filter(|(lines, _)| *lines > LONGEST).collect();
    assert!(long.is_empty(), "{long:?}");
    let median = lengths[lengths.len() / 2].0;
    assert!(median <= 200, "half of the files have more than {median} lines");
}
