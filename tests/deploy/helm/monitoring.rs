//! What the chart gives the Prometheus Operator. Its schemas are not at hand; its rules are Prometheus's.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::tool::Promtool;

use super::{Set, chart, list, parsed, selects};

fn rule_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(chart().join("rules")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The chart can read its own directory only.
#[test]
fn rules_are_those_of_deploy_monitoring() {
    let there = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring/prometheus");
    let entries = fs::read_dir(there).unwrap();
    // Beside rules there is a configuration of Prometheus.
    let is_rules = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"xksd."))
    };
    let entries = entries.map(|entry| entry.unwrap().path());
    let mut originals: Vec<_> = entries.filter(is_rules).collect();
    originals.sort();
    let names = |paths: &[PathBuf]| -> Vec<_> {
        paths.iter().map(|path| path.file_name().unwrap().to_owned()).collect()
    };
    let hint = "cp deploy/monitoring/prometheus/xksd.*.yml deploy/helm/xksd/rules/";
    assert_eq!(names(&rule_files()), names(&originals), "{hint}");
    for (copy, original) in rule_files().iter().zip(&originals) {
        assert!(fs::read(copy).unwrap() == fs::read(original).unwrap(), "{hint}");
    }
}

/// But for the one that says how many instances there are.
#[test]
fn the_operator_gets_all_rules() {
    let Some(set) = Set::named("everything") else { return };
    let files = rule_files();
    let Some(read) = parsed(&files.iter().map(|file| file.as_path()).collect::<Vec<_>>()) else {
        return;
    };
    let mut groups: Vec<Value> = Vec::new();
    for file in &files {
        let document = &read[file.to_str().unwrap()]["documents"][0];
        groups.extend(list(&document["groups"]).iter().cloned());
    }
    let mut changed = 0;
    for group in &mut groups {
        for rule in group["rules"].as_array_mut().unwrap() {
            if rule["record"] == "xksd:instances:expected" {
                rule["expr"] = json!("vector(2)");
                changed += 1;
            }
        }
    }
    assert_eq!(changed, 1);
    // To the Operator, groups are a map by their names.
    let names: BTreeSet<_> = groups.iter().map(|group| group["name"].as_str()).collect();
    assert_eq!(names.len(), groups.len());
    let rendered = &set.only("PrometheusRule")["spec"]["groups"];
    assert_eq!(*rendered, Value::from(groups));
    let Some(promtool) = Promtool::find("the rules of the Helm chart") else { return };
    // JSON is YAML.
    assert_eq!(promtool.check_rules(&json!({ "groups": rendered }).to_string()), Ok(()));
}

#[test]
fn the_operator_finds_the_metrics() {
    let Some(set) = Set::named("everything") else { return };
    let monitor = set.only("ServiceMonitor");
    let found: Vec<_> = set
        .kind("Service")
        .into_iter()
        .filter(|service| {
            selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"])
        })
        .collect();
    // One of the two: else each pod would be asked twice.
    let [service] = found[..] else { panic!("it finds {} services", found.len()) };
    let endpoint = &monitor["spec"]["endpoints"][0];
    let ports = list(&service["spec"]["ports"]);
    assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{endpoint}");
    assert_eq!(service["spec"]["publishNotReadyAddresses"], true);
    // Rules and dashboard know the job by this name.
    let label = monitor["spec"]["jobLabel"].as_str().unwrap();
    assert_eq!(service["metadata"]["labels"][label], "xksd");
    assert_eq!(monitor["spec"]["namespaceSelector"]["matchNames"], json!(["keys"]));
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        assert_eq!(set.only(kind)["metadata"]["labels"]["release"], "prometheus");
    }
}
