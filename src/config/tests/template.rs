//! The template tells of every key, and nothing else.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::super::report::Report;
use super::super::{TEMPLATE, read, source};
use super::{Dir, SECRET};

/// The files that the template names.
fn dir() -> Dir {
    let dir = Dir::new();
    dir.write("tls/x", "");
    dir.audit_directory();
    dir.certificate("tls/server");
    dir.certificate("tls/client-ca");
    dir.write("credentials/demo.secret", SECRET);
    let permit = "@id(\"p\") permit (principal, action, resource);";
    dir.write("policies/permit.cedar", permit);
    dir.write("policies/entities.json", "[]");
    dir
}

/// A line that is a key commented out: no blank follows the `#`.
fn uncommented(toml: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic()) => key.to_owned(),
        _ => line.to_owned(),
    };
    toml.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Every key of the file, with its value if that is no section.
fn keys(path: &str, value: &Value, keys: &mut BTreeMap<String, Option<Value>>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match &value.kind {
        ValueKind::Table(table) => {
            keys.insert(path.to_owned(), None);
            for (key, value) in table {
                self::keys(&below(key), value, keys);
            }
        }
        ValueKind::Array(items)
            if matches!(items.first(), Some(Value { kind: ValueKind::Table(_), .. })) =>
        {
            keys.insert(path.to_owned(), None);
            self::keys(&format!("{path}[0]"), &items[0], keys);
        }
        _ => drop(keys.insert(path.to_owned(), Some(value.clone()))),
    }
}

#[test]
fn the_template_is_a_good_configuration() {
    let dir = dir();
    let module = [("XKSD_TOKENS__HSM__MODULE", "module.so")];
    let config = dir.load(TEMPLATE, &module).unwrap();
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn every_key_stands_in_the_template_with_its_default() {
    let dir = dir();
    dir.write("xksd.toml", &uncommented(TEMPLATE));
    let path = dir.path("xksd.toml");
    let tree = source::read(&path, &BTreeMap::new()).unwrap();
    let mut written = BTreeMap::new();
    for (key, value) in &tree.values {
        keys(key, value, &mut written);
    }
    let report = Report::new(&path, tree.variables, BTreeMap::new());
    let _ = read(&report, tree.values);
    let asked = report.asked();

    for (key, default) in &asked {
        let value = written.get(key);
        let value = value.unwrap_or_else(|| panic!("`{key}` is not in the template"));
        if let Some(default) = default {
            let value = value.as_ref().expect("no section has a default").to_string();
            assert_eq!(value, *default, "{key}");
        }
    }
    let names_of_the_operator = |key: &str| {
        let is_part = ["tokens.hsm", "keystores.demo", "keystores.demo.credentials[0]"];
        let is_below = ["tokens.hsm.pin.", "tokens.hsm.environment.", "credentials[0].secret."];
        is_part.contains(&key) || is_below.iter().any(|below| key.contains(below))
    };
    let unknown: Vec<_> = written
        .keys()
        .filter(|key| !asked.contains_key(*key) && !names_of_the_operator(key))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
