//! The configuration that the chart writes, read by xksd itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use support::caller::Caller;
use support::certificates::{Authority, KeyKind};
use support::daemon::Daemon;
use support::request::{decrypt_body, encrypt_body};
use support::site::{Credential, Site, Tenant};
use support::token::{PIN, SO_PIN};
use support::volume::Volume;

use super::{Set, list};

const XKSD: &str = env!("CARGO_BIN_EXE_xksd");

/// A pod's file system below a directory: what manifests mount, at its place.
struct Root<'a> {
    set: &'a Set,
    path: &'a Path,
}

impl Root<'_> {
    /// The places of the pod are places below this directory, in a text.
    fn translate(&self, text: &str) -> String {
        let mounts = list(&self.set.xksd()["volumeMounts"]).iter();
        let mut places: BTreeSet<&str> =
            mounts.map(|mount| mount["mountPath"].as_str().unwrap()).collect();
        places.retain(|place| place.starts_with('/'));
        let mut text = text.to_owned();
        // The longest first: one may begin as another does.
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|place| std::cmp::Reverse(place.len()));
        for place in places {
            for end in ["/", "\"", "\n"] {
                let here = format!("{}{place}{end}", self.path.display());
                text = text.replace(&format!("\"{place}{end}"), &format!("\"{here}"));
                text = text.replace(&format!("={place}{end}"), &format!("={here}"));
                text = text.replace(&format!(" {place}{end}"), &format!(" {here}"));
            }
        }
        text
    }

    /// Makes what is mounted: ConfigMap and Secrets as Kubernetes does, and directories.
    fn mount(&self, secret: impl Fn(&str) -> Vec<(String, String)>) {
        let volumes = list(&self.set.pod()["spec"]["volumes"]);
        for mount in list(&self.set.xksd()["volumeMounts"]) {
            let place = self.place(mount["mountPath"].as_str().unwrap());
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
            let mut mounted = Volume::new(place);
            let files: Vec<(String, String)> = match volume {
                Some(volume) if !volume["secret"].is_null() => {
                    let name = mount["mountPath"].as_str().unwrap().strip_prefix("/secrets/");
                    name.map(&secret).unwrap_or_default()
                }
                Some(volume) if volume["name"] == "config" => {
                    let data = self.set.only("ConfigMap")["data"].as_object().unwrap();
                    let files = data
                        .iter()
                        .map(|(name, text)| (name.clone(), self.translate(text.as_str().unwrap())));
                    files.collect()
                }
                _ => continue,
            };
            let files: Vec<_> =
                files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            mounted.hold(&files);
            for (name, _) in files {
                let mode = fs::Permissions::from_mode(0o440);
                fs::set_permissions(mounted.path().join(name), mode).unwrap();
            }
        }
    }

    fn place(&self, path: &str) -> std::path::PathBuf {
        self.path.join(path.strip_prefix('/').unwrap())
    }
}

/// The files of a Secret, for whatever it is used.
fn secret(name: &str, tls: &[(String, String)]) -> Vec<(String, String)> {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let [a, b] = ['A', 'B'].map(Credential::of);
    match name {
        "tls" => tls.to_vec(),
        "demo" => vec![(a.id, a.secret)],
        "orders" => vec![(b.id, b.secret)],
        "invoices" => vec![file("first", &a.secret), file("second", &b.secret)],
        "softhsm" => vec![file("pin", PIN), file("so-pin", SO_PIN)],
        _ => vec![file("pin", PIN)],
    }
}

fn tls(authority: &Authority) -> Vec<(String, String)> {
    let server = authority.issue("mounted", "/CN=localhost", KeyKind::Ec);
    [("tls.crt", &server.certificate), ("tls.key", &server.key)]
        .map(|(name, path)| (name.to_owned(), fs::read_to_string(path).unwrap()))
        .to_vec()
}

/// With every file that it names where the pod has it, xksd finds no fault in what the chart writes; and
/// warns of nothing but what the values ask for.
#[test]
fn xksd_takes_the_configuration() {
    let place = tempfile::tempdir().unwrap();
    let tls = tls(&Authority::new(place.path(), "ca"));
    for set in Set::all() {
        let root = Root { set, path: &place.path().join(&set.name) };
        root.mount(|name| secret(name, &tls));
        fs::create_dir_all(root.place("/var/lib/xksd")).unwrap();
        let audit = root.place("/var/lib/xksd/audit");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(audit).unwrap();
        // Modules are the vendor's: any file in their place, where the values have it.
        let config = root.place("/etc/xksd/xksd.toml");
        let mut toml = fs::read_to_string(&config).unwrap();
        for token in set.configuration()["tokens"].as_table().unwrap().values() {
            let module = root.translate(&format!("\"{}\"", token["module"].as_str().unwrap()));
            toml = toml.replace(&module, &format!("\"{XKSD}\""));
        }
        fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(&config, toml).unwrap();
        let mut check = Command::new(XKSD);
        check.args(["config", "check", "--json", "--config"]).arg(&config);
        for (name, value) in set.overrides() {
            check.env(name, root.translate(&format!("\"{value}\"")).trim_matches('"'));
        }
        let output = check.output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["valid"], true, "{}: {said:#}", set.name);
        let asked_for = |warning: &&serde_json::Value| {
            let warning = warning.as_str().unwrap();
            // Where root runs the tests, Secrets of root's are not for a group of xksd's.
            warning.contains("others than its owner can read")
                || (set.name == "everything" && warning.contains("audit"))
                || warning.contains("authorization")
        };
        let warnings: Vec<_> = list(&said["warnings"]).iter().filter(|w| !asked_for(w)).collect();
        assert!(warnings.is_empty(), "{}: {warnings:#?}", set.name);
    }
}

/// Nothing of YAML is lost on the way: the map is the same as TOML, beside what the chart adds.
#[test]
fn the_toml_is_what_the_values_say() {
    for set in Set::all() {
        let file = super::chart().join("ci").join(format!("{}.yaml", set.name));
        let Some(values) = super::parsed(&[&file]) else { return };
        let values = &values[file.to_str().unwrap()]["documents"][0];
        if values["configToml"].is_string() {
            continue;
        }
        let written = set.only("ConfigMap")["data"]["xksd.toml"].as_str().unwrap();
        let written: toml::Table = written.parse().unwrap();
        fn holds(written: &toml::Value, wanted: &serde_json::Value) -> bool {
            use serde_json::Value::{Array, Bool, Null, Number, Object, String};
            match wanted {
                Null => false,
                Bool(wanted) => written.as_bool() == Some(*wanted),
                Number(wanted) => match wanted.as_i64() {
                    Some(wanted) => written.as_integer() == Some(wanted),
                    None => written.as_float() == wanted.as_f64(),
                },
                String(wanted) => written.as_str() == Some(wanted),
                Array(wanted) => written.as_array().is_some_and(|written| {
                    written.len() == wanted.len()
                        && written
                            .iter()
                            .zip(wanted)
                            .all(|(written, wanted)| holds(written, wanted))
                }),
                Object(wanted) => written.as_table().is_some_and(|written| {
                    let is_there = |(key, value): (&std::string::String, _)| {
                        written.get(key).is_some_and(|written| holds(written, value))
                    };
                    wanted.iter().all(is_there)
                }),
            }
        }
        assert!(holds(&written.into(), &values["config"]), "{}", set.name);
    }
}

/// The try-out: what the init container runs makes the token and its key, once, and xksd serves it.
#[test]
fn the_try_out_encrypts_and_decrypts() {
    let Some(set) = Set::named("softhsm") else { return };
    let site = Site::new(XKSD);
    let root = Root { set, path: site.path() };
    let server = [("tls.crt", &site.server.certificate), ("tls.key", &site.server.key)];
    let server = server.map(|(name, path)| (name.to_owned(), fs::read_to_string(path).unwrap()));
    root.mount(|name| secret(name, &server));
    for directory in ["/var/lib/softhsm", "/run/xksd"] {
        fs::create_dir_all(root.place(directory)).unwrap();
    }
    let config = root.place("/etc/xksd/xksd.toml");
    let module = format!("\"{}\"", site.token.module.display());
    let toml = fs::read_to_string(&config).unwrap();
    let toml = toml.replace("\"/usr/lib/softhsm/libsofthsm2.so\"", &module);
    let ports = ["8443", "9443", "9444"];
    let toml = ports
        .iter()
        .fold(toml, |toml, port| toml.replace(&format!("\"0.0.0.0:{port}\""), "\"127.0.0.1:0\""));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(&config, &toml).unwrap();

    let inits = list(&set.pod()["spec"]["initContainers"]);
    let command: Vec<&str> =
        list(&inits[0]["command"]).iter().map(|word| word.as_str().unwrap()).collect();
    let [shell, options, script] = command[..] else { panic!("{command:?}") };
    let script = root.translate(&format!("{script}\n"));
    let programs = Path::new(XKSD).parent().unwrap().display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let init = || {
        let output = Command::new(shell).args([options, &script]).env("PATH", &path).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", super::text(&output));
    };
    init();
    let objects = || {
        let tokens = fs::read_dir(root.place("/var/lib/softhsm")).unwrap();
        let tokens: Vec<_> = tokens.map(|token| token.unwrap().path()).collect();
        assert_eq!(tokens.len(), 1, "{tokens:?}");
        fs::read_dir(&tokens[0]).unwrap().count()
    };
    let made = objects();
    // A pod that is started again on the same volume.
    init();
    assert_eq!(objects(), made);

    // The daemon reads it where the harness looks for it.
    let files = format!("{}/etc/xksd/", site.path().display());
    assert!(toml.contains(&files), "{toml}");
    fs::write(site.path().join("xksd.toml"), &toml).unwrap();
    let daemon = Daemon::start(site);
    let kms = Caller::new(&daemon, &Tenant::new("demo", "demo", &["demo-*"], 'A'));
    let encrypted = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"a data key", None));
    let decrypted = kms.accepted("keys/demo-key/decrypt", &decrypt_body(&encrypted, None));
    assert_eq!(decrypted["plaintext"], "YSBkYXRhIGtleQ==");
}
