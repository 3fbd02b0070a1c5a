//! The tables of `docs/configuration.md` are made from the reader of configurations: which keys there are,
//! what each takes, its default, and when a change of it is in force. By hand are only the last column and
//! defaults that the reader does not have. `UPDATE_REFERENCE=1` has this test write them.

use std::collections::BTreeMap;
use std::fs;

use config::{Map, Value, ValueKind};

use super::super::report::Report;
use super::super::{read, source};
use super::{Dir, GOOD};
use crate::daemon::fixed;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const TITLES: &str = "| key | takes | default | in force | meaning |";

/// The meaning of a key that the document does not have.
const UNSAID: &str = "what is it for?";

/// What the reader says of a key.
struct Known {
    takes: String,
    default: Option<&'static str>,
    is_required: bool,
}

/// Every key of every section, by the section's heading in the document.
type Keys = BTreeMap<String, BTreeMap<String, Known>>;

/// A reader that can be asked what it makes of a value.
struct Probe {
    dir: Dir,
    values: Map<String, Value>,
}

impl Probe {
    fn new() -> Self {
        let dir = Dir::new();
        dir.write("xksd.toml", GOOD);
        let tree = source::read(&dir.path("xksd.toml"), &BTreeMap::new()).unwrap();
        Self { dir, values: tree.values.into_iter().collect() }
    }

    fn report(&self, values: Map<String, Value>) -> Report {
        let report = Report::new(&self.dir.path("xksd.toml"), BTreeMap::new(), BTreeMap::new());
        let _ = read(&report, values.into_iter().collect());
        report
    }

    /// All that is wrong with a key, if it has this value, or none.
    fn problems(&self, key: &str, value: Option<Value>) -> Vec<String> {
        let mut values = self.values.clone();
        let path: Vec<String> =
            key.replace('[', ".").replace(']', "").split('.').map(str::to_owned).collect();
        put(&mut values, &path, value);
        let (faults, ..) = self.report(values).into_parts();
        let is_of_key = |path: &str| {
            path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
        };
        let of_key = faults.into_iter().filter(|fault| is_of_key(&fault.key));
        of_key.map(|fault| fault.problem).collect()
    }

    /// What a key takes, in the words in which the reader refuses what it does not; `None`: it is a section.
    fn takes(&self, key: &str) -> Option<String> {
        let text = |text: &str| Value::from(text);
        let must_be = |value| {
            let problems = self.problems(key, Some(value));
            problems.iter().find_map(|problem| problem.strip_prefix("must be ")).map(str::to_owned)
        };
        // A list in a list is nothing that any key takes.
        let nothing = Value::from(vec![Value::from(vec![text("?")])]);
        let shape = must_be(nothing).unwrap_or_else(|| panic!("{key} takes anything"));
        let empty = self.problems(key, Some(Value::from(Vec::<Value>::new())));
        let is_list = !empty.iter().any(|problem| problem.starts_with("must be "));
        Some(match shape.as_str() {
            "a section" => return None,
            "a list of sections" => return None,
            _ if shape.contains("{ file = ") => "a secret".to_owned(),
            "true or false, without quotes" => "true or false".to_owned(),
            "an integer" => must_be(Value::from(-1)).expect("no key takes -1"),
            "a number, without quotes" => {
                must_be(Value::from(1e9)).unwrap_or("a number".to_owned())
            }
            _ if is_list => "a list".to_owned(),
            _ => match must_be(text("?!")) {
                Some(said) if said.starts_with("a duration") => {
                    let bounds = must_be(text("99999d")).expect("that is longer than any");
                    format!("a duration, {bounds}")
                }
                Some(said) if said.starts_with("a size") => {
                    let bounds = must_be(text("9999999GiB")).expect("that is larger than any");
                    format!("a size, {bounds}")
                }
                Some(said) if said.starts_with('`') => said,
                _ => "text".to_owned(),
            },
        })
    }

    fn keys(&self) -> Keys {
        let mut keys = Keys::new();
        for (key, default) in self.report(self.values.clone()).asked() {
            let Some(takes) = self.takes(&key) else { continue };
            let (section, name) = key.rsplit_once('.').unwrap_or(("", &key));
            let is_required =
                self.problems(&key, None).iter().any(|it| it.starts_with("is missing"));
            let known = Known { takes, default, is_required };
            keys.entry(heading(section)).or_default().insert(name.to_owned(), known);
        }
        keys
    }
}

/// Puts a value, or none, in the place of another; sections on the way are made.
fn put(values: &mut Map<String, Value>, path: &[String], value: Option<Value>) {
    let (first, rest) = path.split_first().unwrap();
    if rest.is_empty() {
        match value {
            Some(value) => drop(values.insert(first.clone(), value)),
            None => drop(values.remove(first)),
        }
        return;
    }
    let below =
        values.entry(first.clone()).or_insert_with(|| Value::from(Map::<String, Value>::new()));
    match &mut below.kind {
        ValueKind::Table(table) => put(table, rest, value),
        ValueKind::Array(items) => match &mut items[rest[0].parse::<usize>().unwrap()].kind {
            ValueKind::Table(table) => put(table, &rest[1..], value),
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

/// `[tokens.NAME]` for `tokens.hsm`.
fn heading(section: &str) -> String {
    let section =
        section.replace("tokens.hsm", "tokens.NAME").replace("keystores.demo", "keystores.NAME");
    match section.strip_suffix("[0]") {
        Some(list) => format!("[[{list}]]"),
        None if section.is_empty() => "version".to_owned(),
        None => format!("[{section}]"),
    }
}

/// When a change of this key is in force.
fn in_force(section: &str, key: &str) -> &'static str {
    let section = section.trim_matches(['[', ']']);
    let path = format!("{section}.{key}");
    let is_fixed = |fixed: &str| path == fixed || path.starts_with(&format!("{fixed}."));
    if fixed::KEYS.into_iter().any(is_fixed) {
        "restart"
    } else if section.starts_with("tokens.") {
        "reload, anew"
    } else {
        "reload"
    }
}

/// The document with its tables made anew. What stands in the last column stays.
fn made_anew(document: &str, mut keys: Keys) -> String {
    let mut made = String::new();
    let mut section = String::new();
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## `") {
            section = title.trim_end_matches('`').to_owned();
        }
        if !line.starts_with("| key |") {
            made.push_str(&format!("{line}\n"));
            continue;
        }
        let mut known = keys.remove(&section).unwrap_or_else(|| panic!("no section {section}"));
        made.push_str(&format!("{TITLES}\n|---|---|---|---|---|\n"));
        lines.next();
        while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let name = cells[0].trim_matches('`');
            let known = known.remove(name).unwrap_or_else(|| panic!("{section} has no {name}"));
            let (by_hand, meaning) =
                (cells[cells.len() - if cells.len() > 3 { 3 } else { 2 }], cells[cells.len() - 1]);
            made.push_str(&row(&section, name, &known, by_hand, meaning));
        }
        for (name, known) in known {
            made.push_str(&row(&section, &name, &known, "", UNSAID));
        }
    }
    assert!(keys.is_empty(), "sections without a table: {:?}", keys.into_keys());
    made
}

fn row(section: &str, name: &str, known: &Known, by_hand: &str, meaning: &str) -> String {
    let Known { takes, default, is_required } = known;
    let default = match default {
        Some(default) => format!("`{default}`"),
        None if !["", "none", "required"].contains(&by_hand) => by_hand.to_owned(),
        None if *is_required => "required".to_owned(),
        None => "none".to_owned(),
    };
    let in_force = in_force(section, name);
    format!("| `{name}` | {takes} | {default} | {in_force} | {meaning} |\n")
}

#[test]
fn the_reference_is_made_from_the_reader() {
    let document = fs::read_to_string(REFERENCE).unwrap();
    let made = made_anew(&document, Probe::new().keys());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(REFERENCE, &made).unwrap();
    }
    let unsaid: Vec<&str> = made.lines().filter(|line| line.contains(UNSAID)).collect();
    assert!(
        unsaid.is_empty(),
        "UPDATE_REFERENCE=1 puts these there; what do they mean? {unsaid:#?}"
    );
    let document = fs::read_to_string(REFERENCE).unwrap();
    for (is, should) in document.lines().zip(made.lines()) {
        assert_eq!(is, should, "UPDATE_REFERENCE=1 has this test write it");
    }
    assert_eq!(document, made);
}
