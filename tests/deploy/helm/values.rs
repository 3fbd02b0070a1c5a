//! The chart's values: what must be set, what cannot be, and that they are documented.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{chart, helms, parsed, read, run, text};

/// Values of a set, changed; and what Helm says then.
const REFUSED: &[(&str, &[&str], &str)] = &[
    ("minimal", &["image.repository="], "  image.repository: the image"),
    ("minimal", &["tls.existingSecret="], "  tls.existingSecret: a Secret"),
    ("minimal", &["config.tokens=null"], "  config.tokens: an HSM token"),
    ("minimal", &["config.keystores=null"], "  config.keystores: a key store"),
    (
        "minimal",
        &["config.server.listen=x", "config.fleet.size=3"],
        "config.fleet.size config.server.listen",
    ),
    (
        "minimal",
        &["config.server.drain.delay=1s"],
        "other values, see its README: config.server.drain.delay",
    ),
    ("minimal", &["configToml=version = 1"], "configToml is all of the configuration"),
    ("toml", &["softhsm.enabled=true"], "configToml is all of the configuration"),
    (
        "minimal",
        &["config.tokens.hsm.pin.file=/secrets/other/pin"],
        "config names /secrets/other, and secrets has no \"other\"",
    ),
    (
        "minimal",
        &["secrets.hsm.existingSecret="],
        "secrets.hsm has neither existingSecret nor stringData",
    ),
    (
        "minimal",
        &["secrets.hsm.stringData.pin=a"],
        "secrets.hsm has both existingSecret and stringData",
    ),
    ("minimal", &["secrets.tls.existingSecret=x"], "tls"),
    ("minimal", &["fleetSize=2"], "fleetSize is smaller than the number of xksd"),
    ("everything", &["fleetSize=5"], "fleetSize is smaller than the number of xksd"),
    (
        "everything",
        &["autoscaling.minReplicas=7"],
        "maxReplicas is smaller than autoscaling.minReplicas",
    ),
    ("softhsm", &["replicaCount=2"], "softhsm.enabled makes a token for one pod"),
    ("softhsm", &["autoscaling.enabled=true"], "softhsm.enabled makes a token for one pod"),
    ("softhsm", &["softhsm.secret=other"], "config names /secrets/other"),
    ("softhsm", &["softhsm.keys={a b}"], "/softhsm/keys/0"),
    ("minimal", &["nlb.enabled=true"], "networkPolicy.healthFrom is not set"),
    ("minimal", &["replicas=3"], "replicas"),
    ("minimal", &["runAsUser=0"], "/runAsUser"),
    ("minimal", &["ports.xks=443"], "/ports/xks"),
    ("minimal", &["listenAddress=localhost"], "/listenAddress"),
    ("minimal", &["topologySpread.zone=Always"], "/topologySpread/zone"),
    ("minimal", &["configFiles.xksd\\.toml=x"], "/configFiles"),
    ("minimal", &["image.digest=latest"], "/image/digest"),
    ("minimal", &["persistence.accessModes={ReadWriteMany}"], "/persistence/accessModes/0"),
];

#[test]
fn without_values_it_says_what_must_be_set() {
    for helm in helms() {
        let output = run(helm, &["template", "test", "."]);
        assert!(!output.status.success());
        let said = text(&output);
        for wanted in
            ["image.repository", "tls.existingSecret", "config.tokens", "config.keystores"]
        {
            assert!(said.contains(&format!("\n  {wanted}: ")), "{wanted} is not in:\n{said}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for helm in helms() {
        for (set, changes, words) in REFUSED {
            let values = format!("ci/{set}.yaml");
            let changes = changes.iter().flat_map(|change| ["--set", *change]);
            let all = ["template", "test", ".", "--values", &values].into_iter().chain(changes);
            let output = run(helm, &all.collect::<Vec<_>>());
            let said = text(&output);
            assert!(!output.status.success(), "{words}: it was taken");
            // Helm 3 writes places in values with dots.
            let dotted = words.trim_start_matches('/').replace('/', ".");
            assert!(said.contains(words) || said.contains(&dotted), "`{words}` is not in:\n{said}");
        }
    }
}

/// `path.of.value` of each value that has none below it; an empty map or list is one.
fn leaves(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value.as_object() {
        Some(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                leaves(&path, value, into);
            }
        }
        _ => drop(into.insert(prefix.to_owned(), value.clone())),
    }
}

#[test]
fn the_readme_has_every_value_and_its_default() {
    let file = chart().join("values.yaml");
    let Some(read_values) = parsed(&[&file]) else { return };
    let mut defaults = BTreeMap::new();
    leaves("", &read_values[file.to_str().unwrap()]["documents"][0], &mut defaults);
    let readme = read("README.md");
    let (_, table) = readme.split_once("## Values").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeMap<String, Value> = rows
        .map(|row| {
            let mut cells = row.split(" | ");
            let key = cells.next().unwrap().trim_end_matches('`').to_owned();
            let default = cells.next().unwrap().trim_matches('`');
            let meaning = cells.next().unwrap_or_default();
            assert!(meaning.len() > 5, "{key}: it is not said what it means");
            let default = serde_json::from_str(default);
            (key.clone(), default.unwrap_or_else(|error| panic!("{key}: {error}")))
        })
        .collect();
    assert_eq!(documented, defaults);
}

/// The schema knows every value, and refuses others; so each that it knows must be there.
#[test]
fn the_schema_has_no_value_that_is_not_there() {
    let file = chart().join("values.yaml");
    let Some(read_values) = parsed(&[&file]) else { return };
    let values = &read_values[file.to_str().unwrap()]["documents"][0];
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    // Helm's own, and members of Kubernetes' types.
    let others = ["global", "resources.claims", "probes."];
    fn compare(path: &str, schema: &Value, value: &Value, others: &[&str]) {
        let Some(properties) = schema["properties"].as_object() else { return };
        assert_eq!(schema["additionalProperties"], false, "{path}");
        for (key, schema) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if others.iter().any(|other| path.starts_with(other)) {
                continue;
            }
            assert!(
                value.get(key).is_some(),
                "{path} is in values.schema.json, not in values.yaml"
            );
            compare(&path, schema, &value[key], others);
        }
    }
    compare("", &schema, values, &others);
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = read("Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    for line in [format!("version: {version}"), format!("appVersion: \"{version}\"")] {
        assert!(chart.lines().any(|found| found == line), "`{line}` is not in Chart.yaml");
    }
}
