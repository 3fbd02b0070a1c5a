//! Holds the documents to the code: rules, tests and metrics that they name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust sources below a folder, as (path, text).
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// Every `P-<number>` in a text.
fn rules(text: &str) -> BTreeSet<u32> {
    let number = |rest: &str| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    text.split("P-").skip(1).filter_map(number).collect()
}

/// The same in the name of a test: `..._p_42`.
fn rules_in_names(text: &str) -> BTreeSet<u32> {
    let names = text.lines().filter_map(|line| {
        line.trim().strip_prefix("fn ").or_else(|| line.trim().strip_prefix("async fn "))
    });
    names.flat_map(|name| rules(&name.replace("_p_", " P-"))).collect()
}

/// A row of the table in `docs/conformance.md`: rule, places, tests, cases of `xksd conformance`.
struct Row {
    rule: u32,
    places: Vec<String>,
    tests: Vec<String>,
    cases: Vec<String>,
}

fn table() -> Vec<Row> {
    let code =
        |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let text = read("docs/conformance.md");
    let rows = text.lines().filter(|line| line.starts_with("| P-"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{line}");
        let rule = *rules(cells[0]).first().unwrap();
        let (places, tests, cases) = (code(cells[2]), code(cells[3]), code(cells[4]));
        Row { rule, places, tests, cases }
    })
    .collect()
}

/// The rules of the protocol that this release has to hold.
const RULES: &[u32] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 30, 40, 41, 42, 43, 44,
    45, 46, 50, 51, 60, 61, 62, 63, 70, 71, 80, 81,
];

#[test]
fn every_rule_has_one_row() {
    let rules: Vec<u32> = table().iter().map(|row| row.rule).collect();
    assert_eq!(rules, RULES);
}

#[test]
fn every_place_names_its_rule() {
    for row in table() {
        for place in &row.places {
            let text = read(place);
            assert!(rules(&text).contains(&row.rule), "{place} does not name P-{}", row.rule);
        }
    }
}

#[test]
fn every_test_exists_and_names_its_rule() {
    let sources: Vec<_> = [sources(&root().join("src")), sources(&root().join("tests"))].concat();
    for row in table() {
        for test in &row.tests {
            let declared = format!("fn {test}(");
            let holders: Vec<_> =
                sources.iter().filter(|(_, text)| text.contains(&declared)).collect();
            assert!(!holders.is_empty(), "P-{}: there is no test `{test}`", row.rule);
            let named = holders.iter().any(|(_, text)| {
                rules(text).contains(&row.rule) || rules_in_names(text).contains(&row.rule)
            });
            assert!(named, "P-{}: `{test}` does not name it", row.rule);
        }
    }
}

/// In their order; and where there is none, it is said why.
#[test]
fn every_rule_has_its_cases() {
    for row in table() {
        let of_rule = xksd::conformance::all().filter(|case| case.rules.contains(&row.rule));
        let cases: Vec<&str> = of_rule.map(|case| case.name).collect();
        assert_eq!(row.cases, cases, "P-{}", row.rule);
        let is_unseen = xksd::conformance::UNSEEN.iter().any(|(rule, _)| *rule == row.rule);
        assert_eq!(cases.is_empty(), is_unseen, "P-{}", row.rule);
    }
}

#[test]
fn a_rule_without_a_test_is_said_to_be_open() {
    let text = read("docs/conformance.md");
    for row in table().iter().filter(|row| row.tests.is_empty()) {
        let line =
            text.lines().find(|line| line.starts_with(&format!("| P-{} ", row.rule))).unwrap();
        let said = line.contains("not held yet") || line.contains("the operator's");
        assert!(said, "P-{} has neither a test nor a reason", row.rule);
    }
}

#[test]
fn the_documented_metrics_are_those_that_exist() {
    let names = |text: &str| -> BTreeSet<String> {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        text.split(|c| !is_name(c)).filter(|w| w.starts_with("xksd_")).map(str::to_owned).collect()
    };
    let code = ["src/metrics.rs", "src/metrics/token.rs"].map(read);
    let code = code.map(|code| code.split("mod tests").next().unwrap().to_owned()).concat();
    let documented = read("docs/operations.md");
    let (_, documented) = documented.split_once("## Metrics").unwrap();
    assert_eq!(names(&code), names(documented));
}

/// What `docs/reliability.md` says to be held by a test is, and what it says to run can be.
#[test]
fn the_tests_of_reliability_are_those_that_exist() {
    let document = read("docs/reliability.md");
    let sources = sources(&root().join("tests/reliability"));
    let all: String = sources.iter().map(|(_, text)| text.as_str()).collect();
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    let named: BTreeSet<&str> = rows
        .filter_map(|row| row.rsplit('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let declared: BTreeSet<&str> =
        all.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next()).collect();
    assert_eq!(named, declared);
    let scenarios = read("tests/reliability/soak.rs");
    let scenarios =
        scenarios.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next());
    for scenario in scenarios {
        assert!(
            document.contains(&format!("`{scenario}`")),
            "docs/reliability.md lacks {scenario}"
        );
    }
}
