//! `deploy/monitoring`: rules and dashboard name what `/metrics` has, each alert fires and is quiet
//! in a test of promtool's, and is explained.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::caller::Caller;
use support::daemon::Daemon;
use support::request::{bare_body, decrypt_body, encrypt_body};
use support::site::{Configuration, Credential, Site, Tenant, text};
use support::tool::Promtool;

use crate::promql::{self, Named};

/// The labels that Prometheus itself adds.
const ADDED: [&str; 2] = ["job", "instance"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rules() -> String {
    ["recording", "alerts"].map(|name| read(&format!("{PROMETHEUS}/xksd.{name}.yml"))).concat()
}

const PROMETHEUS: &str = "deploy/monitoring/prometheus";
const DASHBOARD: &str = "deploy/monitoring/grafana/xksd.json";

fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// A rule of ours: what it is called, and what it says.
struct Rule {
    /// `record` or `alert`.
    kind: String,
    name: String,
    expression: String,
    /// Its other lines, without their margin.
    lines: Vec<String>,
}

/// The rules, which are written in the plainest YAML: promtool reads them as YAML.
fn rule_list() -> Vec<Rule> {
    let mut found: Vec<Rule> = Vec::new();
    let mut in_expression = false;
    for line in rules().lines() {
        let margin = line.len() - line.trim_start().len();
        let line = line.trim();
        let begins = ["record", "alert"]
            .iter()
            .find_map(|kind| Some((*kind, line.strip_prefix(&format!("- {kind}: "))?)));
        let Some((kind, name)) = begins else {
            let Some(rule) = found.last_mut() else { continue };
            if margin <= 8 {
                in_expression = line.starts_with("expr:");
            }
            if in_expression {
                let words =
                    line.strip_prefix("expr:").map_or(line, |rest| rest.trim_matches([' ', '|']));
                rule.expression.push_str(words);
                rule.expression.push('\n');
            } else {
                rule.lines.push(line.to_owned());
            }
            continue;
        };
        in_expression = false;
        let (kind, name) = (kind.to_owned(), name.to_owned());
        found.push(Rule { kind, name, expression: String::new(), lines: vec![] });
    }
    found
}

impl Rule {
    fn value(&self, key: &str) -> &str {
        let values =
            self.lines.iter().filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let values: Vec<&str> = values.collect();
        assert_eq!(values.len(), 1, "{}: {key}", self.name);
        values[0]
    }
}

fn alerts() -> Vec<Rule> {
    rule_list().into_iter().filter(|rule| rule.kind == "alert").collect()
}

/// The dashboard's panels that show something, with their expressions.
fn panels() -> Vec<(Value, Vec<String>)> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels
        .filter(|panel| panel["type"] != "row")
        .map(|panel| {
            let targets = panel["targets"].as_array().unwrap().iter();
            let expressions = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
            (panel.clone(), expressions.collect())
        })
        .collect()
}

/// Metrics by the table of `docs/operations.md`, with their labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = read("docs/operations.md");
    let (_, table) = document.split_once("\n## Metrics\n").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `xksd_"));
    rows.map(|row| {
        let (name, rest) = row.split_once("` |").unwrap();
        let labels = rest.split('|').next().unwrap().split(',').map(str::trim);
        (format!("xksd_{name}"), set(labels.filter(|label| !label.is_empty())))
    })
    .collect()
}

/// The families of `/metrics`, with their types and labels; of a daemon that has an audit log, counts
/// encryptions, has quotas, and was asked for everything.
fn exported() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut demo = Tenant::new("demo", "demo", &["demo-key"], 'A');
    demo.lines.push("quota = { requests_per_second = 100, burst = 5 }");
    let mut configuration = Configuration::new(vec![demo.clone()]);
    configuration.audit = Some(BTreeMap::new());
    configuration.others.insert("state", BTreeMap::from([("directory", text("state"))]));
    let site = Site::new(env!("CARGO_BIN_EXE_xksd"));
    site.configure(&configuration);
    xksd::audit::store::make_directory(&site.audit()).unwrap();
    site.run(&["state", "init"]);
    site.create_key("demo-key", "encrypt,decrypt");
    let daemon = Daemon::start(site);
    let kms = Caller::new(&daemon, &demo);
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    let stranger = Caller { credential: Credential::of('Z'), ..kms.clone() };
    stranger.call("keys/demo-key/metadata", &bare_body("DescribeKey"));
    let mut asked =
        (0..1000).map(|_| kms.call("keys/demo-key/metadata", &bare_body("DescribeKey")));
    asked.find(|answer| answer.status == 429).expect("it is over its quota");
    let metrics = daemon.metrics();
    let mut families = BTreeMap::new();
    let mut current = String::new();
    for line in metrics.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            current = name.to_owned();
            families.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let (labels, _) = labels.rsplit_once('}').unwrap();
            // No value of ours has a comma or a quote in it.
            let names = labels.split(',').map(|label| label.split('=').next().unwrap());
            families.get_mut(&current).unwrap().1.extend(set(names.filter(|name| *name != "le")));
        }
    }
    families
}

/// What the rules and the dashboard may name: documents, a running daemon, and our own records.
struct Known {
    documented: BTreeMap<String, BTreeSet<String>>,
    exported: BTreeMap<String, (String, BTreeSet<String>)>,
    recorded: BTreeMap<String, BTreeSet<String>>,
}

impl Known {
    fn all() -> Self {
        let records = rule_list().into_iter().filter(|rule| rule.kind == "record");
        let recorded = records.map(|rule| (rule.name, promql::read(&rule.expression).grouping));
        Self { documented: documented(), exported: exported(), recorded: recorded.collect() }
    }

    /// The labels of a series; `None`: there is none of this name.
    fn labels(&self, series: &str) -> Option<BTreeSet<String>> {
        if series == "up" {
            return Some(BTreeSet::new());
        } else if series.contains(':') {
            return self.recorded.get(series).cloned();
        }
        let suffix = ["_bucket", "_sum", "_count"].into_iter().find(|suffix| {
            let base = series.strip_suffix(suffix);
            base.is_some_and(|base| match self.exported.get(base) {
                Some((kind, _)) => kind == "histogram",
                None => base.ends_with("_duration_seconds"),
            })
        });
        let base = series.strip_suffix(suffix.unwrap_or_default()).unwrap();
        if suffix.is_none() && self.exported.get(base).is_some_and(|(kind, _)| kind == "histogram")
        {
            return None;
        }
        let documented = self.documented.get(base).cloned();
        let process = || self.exported.get(base).map(|(_, labels)| labels.clone());
        let mut labels = documented.or_else(process)?;
        labels.extend((suffix == Some("_bucket")).then(|| "le".to_owned()));
        Some(labels)
    }

    fn hold(&self, place: &str, named: &Named) {
        let mut all = set(ADDED);
        assert!(!named.series.is_empty(), "{place} names nothing");
        for (series, matched) in &named.series {
            let labels = self.labels(series);
            let labels = labels.unwrap_or_else(|| panic!("{place}: there is no {series}"));
            for label in matched {
                let has = labels.contains(label) || ADDED.contains(&label.as_str());
                assert!(has, "{place}: {series} has no label {label}");
            }
            all.extend(labels);
        }
        let strange: Vec<_> = named.grouping.difference(&all).collect();
        assert!(strange.is_empty(), "{place}: {strange:?}");
    }
}

#[test]
fn rules_and_dashboard_name_what_there_is() {
    let known = Known::all();
    for (name, (_, labels)) in &known.exported {
        if let Some(documented) = known.documented.get(name) {
            assert!(labels.is_empty() || labels == documented, "{name}: {labels:?}");
        }
    }
    // That one is a number.
    for rule in rule_list().iter().filter(|rule| rule.name != "xksd:instances:expected") {
        known.hold(&rule.name, &promql::read(&rule.expression));
    }
    for (panel, expressions) in panels() {
        let title = panel["title"].as_str().unwrap();
        for (expression, target) in expressions.iter().zip(panel["targets"].as_array().unwrap()) {
            let named = promql::read(expression);
            known.hold(title, &named);
            // What a legend shows is left of the series, or it would be empty.
            let legend = target["legendFormat"].as_str().unwrap();
            let shown = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
            let aggregates = expression.contains(" by (");
            for label in shown {
                let mut has = named.grouping.contains(label) || ADDED.contains(&label);
                has |= !aggregates
                    && named
                        .series
                        .keys()
                        .any(|series| known.labels(series).unwrap().contains(label));
                assert!(has, "{title}: the legend shows {label}");
            }
        }
    }
}

/// The test before could not fail otherwise.
#[test]
fn what_there_is_not_is_noticed() {
    let known =
        Known { documented: documented(), exported: BTreeMap::new(), recorded: BTreeMap::new() };
    for expression in [
        "xksd_hsm_down",
        "xksd_hsm_up{keystore=\"demo\"}",
        "sum by (keystore) (xksd_hsm_up)",
        "xksd_hsm_up_bucket",
        "job:xksd_hsm_up:sum",
    ] {
        let named = promql::read(expression);
        let held = std::panic::catch_unwind(|| known.hold("here", &named));
        assert!(held.is_err(), "{expression}");
    }
    known.hold("here", &promql::read("sum by (job, token) (xksd_hsm_up{instance=\"a\"})"));
}

#[test]
fn promtool_understands_rules_configuration_and_dashboard() {
    let Some(promtool) = Promtool::find("promtool on the rules and the dashboard") else { return };
    let folder = root().join(PROMETHEUS);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    promtool.check(&["check", "config", &path("prometheus.yml")], "");
    let mut records = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, expression) in panels().into_iter().flat_map(|(_, all)| all).enumerate() {
        let expression = expression.replace("$__rate_interval", "5m");
        records
            .push_str(&format!("  - record: dashboard:number{number}\n    expr: '{expression}'\n"));
    }
    assert_eq!(promtool.check_rules(&records), Ok(()));
    assert!(promtool.check_rules(&records.replace("sum by", "sum bye")).is_err());
}

/// The files of promtool's cases.
fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(PROMETHEUS).join("tests")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_alert_fires_and_is_quiet() {
    // By name: whether there is a case in which it fires, and one in which it does not.
    let mut seen: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for path in cases() {
        let text = fs::read_to_string(&path).unwrap();
        for case in text.split("- alertname: ").skip(1) {
            let name = case.lines().next().unwrap().to_owned();
            // Up to the next case or the next group's series.
            let case = case.split("input_series:").next().unwrap();
            let (fires, quiet) = seen.entry(name).or_default();
            *(if case.contains("exp_alerts:") { fires } else { quiet }) = true;
        }
    }
    let expected = alerts().into_iter().map(|rule| (rule.name, (true, true))).collect();
    assert_eq!(seen, expected);
    let Some(promtool) = Promtool::find("promtool test rules") else { return };
    let files: Vec<String> = cases().iter().map(|path| path.display().to_string()).collect();
    let arguments = ["test", "rules"].into_iter().chain(files.iter().map(String::as_str));
    promtool.check(&arguments.collect::<Vec<_>>(), "");
}

#[test]
fn every_alert_says_what_it_is_and_leads_to_its_section() {
    let runbook = read("docs/runbook-alerts.md");
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    let names: Vec<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(sections, names);
    for alert in &alerts {
        let name = &alert.name;
        assert!(["critical", "warning"].contains(&alert.value("severity")), "{name}");
        assert!(alert.value("summary").len() > 10, "{name}");
        let description = alert.value("description");
        // Where nothing answers, there is no value.
        let has_none = ["XksdAbsent", "XksdInstanceDown"].contains(&name.as_str());
        assert_eq!(description.contains("$value"), !has_none, "{name}: {description}");
        let url = format!("docs/runbook-alerts.md#{}", name.to_lowercase());
        assert_eq!(alert.value("runbook_url"), url);
        // Labels that the texts show are left by the expression.
        let grouping = promql::read(&alert.expression).grouping;
        let texts = [alert.value("summary"), description].concat();
        if alert.expression.contains(" by (") {
            for label in texts.split("$labels.").skip(1) {
                let label = label.split([' ', '}']).next().unwrap();
                assert!(grouping.contains(label), "{name}: {label}");
            }
        }
        let section = runbook.split(&format!("\n## {name}\n")).nth(1).unwrap();
        let section = section.split("\n## ").next().unwrap();
        for part in ["**KMS and its callers**", "**Causes**", "**What to do**"] {
            assert!(section.contains(part), "{name}: {part}");
        }
        let row = format!("| [{name}](#{}) | {} |", name.to_lowercase(), alert.value("severity"));
        assert!(runbook.contains(&row), "{row}");
    }
}

#[test]
fn the_dashboards_panels_have_their_places() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken: BTreeMap<(u64, u64), &Value> = BTreeMap::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("w") > 0 && place("h") > 0 && place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                let other = taken.insert((x, y), &panel["title"]);
                assert_eq!(other, None, "{} has the place of another", panel["title"]);
            }
        }
        let targets = panel["targets"].as_array().into_iter().flatten();
        let references: Vec<&str> = targets.map(|t| t["refId"].as_str().unwrap()).collect();
        assert_eq!(set(references.iter().copied()).len(), references.len(), "{panel}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables: Vec<&str> =
        variables.map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "keystore", "instance"]);
    let rows = panels.iter().filter(|panel| panel["type"] == "row");
    let document = read("docs/monitoring.md");
    for row in rows {
        let title = row["title"].as_str().unwrap();
        assert!(document.contains(&format!("| {title} |")), "docs/monitoring.md lacks {title}");
    }
}
