//! `deploy/helm/xksd`: what the chart makes of the values in its directory `ci`, by Helm 3 and 4.
//! There is no cluster in it: manifests are held to the schemas of Kubernetes' API, and to each other.

mod configuration;
mod document;
mod manifests;
mod monitoring;
mod rendering;
mod values;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use support::tool::{ask, python};

/// Versions of Kubernetes to whose schemas manifests are held, the oldest that the chart is for first.
const VERSIONS: [&str; 4] = ["1.27", "1.30", "1.34", "1.37"];

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/xksd")
}

fn read(path: &str) -> String {
    let path = chart().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of the files in `ci`, without `.yaml`.
fn value_sets() -> Vec<String> {
    let entries = fs::read_dir(chart().join("ci")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.map(|name| name.strip_suffix(".yaml").expect("values are YAML").to_owned()).collect();
    names.sort();
    names
}

/// Helm, by what `make test-setup` has fetched and what is in PATH. None: noted as not run.
fn helms() -> &'static [PathBuf] {
    static FOUND: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let fetched = std::env::var_os("HELM_DIRECTORY").map(PathBuf::from);
        let fetched =
            fetched.iter().flat_map(|place| ["helm4", "helm3"].map(|name| place.join(name)));
        let runs = |helm: &PathBuf| Command::new(helm).arg("version").output().is_ok();
        fetched.chain(["helm".into()]).filter(runs).collect()
    });
    if found.is_empty() {
        support::not_run("the Helm chart: there is no helm");
    }
    found
}

/// Runs Helm where no setting of its user's is found.
fn run(helm: &Path, arguments: &[&str]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(helm);
    command.args(arguments).current_dir(chart());
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME"] {
        command.env(name, empty.path());
    }
    command.env("KUBECONFIG", empty.path().join("none")).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The manifests that a Helm makes of a file of `ci` and of more arguments.
fn render(helm: &Path, set: &str, arguments: &[&str]) -> String {
    let values = format!("ci/{set}.yaml");
    let template = ["template", "test", ".", "--namespace", "keys", "--values", &values];
    let output = run(helm, &[&template[..], arguments].concat());
    assert!(output.status.success(), "{set}: {}", text(&output));
    assert!(output.stderr.is_empty(), "{set}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Files of YAML, as JSON: of each the documents, what is wrong with them, and unknown kinds. `None` where
/// the Python of the tests can't; noted as not run.
fn parsed(files: &[&Path]) -> Option<BTreeMap<String, Value>> {
    let python = python("kubernetes_validate, yaml", "the Helm chart")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy/helm/manifests.py");
    let said = ask(Command::new(python).arg(script).arg(VERSIONS.join(",")).args(files), "");
    Some(serde_json::from_str(&said.unwrap()).unwrap())
}

/// What the chart makes of one file of `ci`.
struct Set {
    name: String,
    documents: Vec<Value>,
    faults: Vec<String>,
    unknown: Vec<String>,
}

impl Set {
    /// All of them, rendered once; none where this machine can't.
    fn all() -> &'static [Set] {
        static ALL: OnceLock<Vec<Set>> = OnceLock::new();
        ALL.get_or_init(|| {
            let Some(helm) = helms().first() else { return Vec::new() };
            let sets = value_sets().into_iter().map(|name| {
                let manifests = render(helm, &name, &[]);
                (name, manifests)
            });
            Set::of(&sets.collect::<Vec<_>>())
        })
    }

    /// One of them.
    fn named(name: &str) -> Option<&'static Set> {
        Set::all().iter().find(|set| set.name == name)
    }

    /// Manifests by name, as text.
    fn of(manifests: &[(String, String)]) -> Vec<Set> {
        let place = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> =
            (0..manifests.len()).map(|index| place.path().join(index.to_string())).collect();
        for (file, (_, manifests)) in files.iter().zip(manifests) {
            fs::write(file, manifests).unwrap();
        }
        let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let Some(mut parsed) = parsed(&paths) else { return Vec::new() };
        let sets = files.iter().zip(manifests).map(|(file, (name, _))| {
            let mut read = parsed.remove(file.to_str().unwrap()).expect("it was asked for");
            let mut take = |key: &str| read[key].take();
            Set {
                name: name.clone(),
                documents: serde_json::from_value(take("documents")).unwrap(),
                faults: serde_json::from_value(take("faults")).unwrap(),
                unknown: serde_json::from_value(take("unknown")).unwrap(),
            }
        });
        sets.collect()
    }

    /// The manifests of a kind.
    fn kind(&self, kind: &str) -> Vec<&Value> {
        self.documents.iter().filter(|document| document["kind"] == kind).collect()
    }

    /// The only manifest of a kind.
    fn only(&self, kind: &str) -> &Value {
        match self.kind(kind)[..] {
            [one] => one,
            ref found => panic!("{}: there are {} of {kind}", self.name, found.len()),
        }
    }

    /// The Deployment, or the StatefulSet in its place.
    fn workload(&self) -> &Value {
        let found = [self.kind("Deployment"), self.kind("StatefulSet")].concat();
        assert_eq!(found.len(), 1, "{}", self.name);
        found[0]
    }

    fn pod(&self) -> &Value {
        &self.workload()["spec"]["template"]
    }

    /// The container of xksd.
    fn xksd(&self) -> &Value {
        let containers = list(&self.pod()["spec"]["containers"]);
        assert_eq!(containers.len(), 1, "{}", self.name);
        &containers[0]
    }

    /// `xksd.toml`, with what variables put in the place of what it says.
    fn configuration(&self) -> toml::Table {
        let config = self.only("ConfigMap")["data"]["xksd.toml"].as_str().unwrap();
        let mut config: toml::Table = config.parse().unwrap();
        for (name, value) in self.overrides() {
            let path = name.strip_prefix("XKSD_").unwrap().to_lowercase();
            let mut path: Vec<&str> = path.split("__").collect();
            let last = path.pop().unwrap();
            let mut table = &mut config;
            for key in path {
                let entry = table.entry(key).or_insert_with(|| toml::Table::new().into());
                table = entry.as_table_mut().unwrap();
            }
            let value = value.parse::<i64>().map_or_else(|_| value.into(), toml::Value::from);
            table.insert(last.to_owned(), value);
        }
        config
    }

    /// Variables of the container that are settings of xksd's.
    fn overrides(&self) -> Vec<(String, String)> {
        let owned = |value: &Value| value.as_str().unwrap().to_owned();
        let variables = list(&self.xksd()["env"]).iter();
        let variables =
            variables.map(|variable| (owned(&variable["name"]), owned(&variable["value"])));
        variables.filter(|(name, _)| name.starts_with("XKSD_")).collect()
    }
}

/// The items of a list; none where there is no list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Whether labels are those that a selector asks for.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("a selector is a map");
    !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
}
