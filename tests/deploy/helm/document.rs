//! What `docs/kubernetes.md` shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::certificates::{Authority, KeyKind};

use super::{Set, helms, run, text};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubernetes.md");
    fs::read_to_string(path).unwrap()
}

/// The blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let document = document();
    let begins = format!("```{language}\n");
    let blocks = document.split(&begins).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The values are those of `ci/minimal.yaml`, and with the others of the document they still are a chart's.
#[test]
fn its_values_are_values() {
    let place = tempfile::tempdir().unwrap();
    let values = blocks("yaml");
    let [first, others @ ..] = &values[..] else { panic!("there are no values") };
    let minimal = super::read("ci/minimal.yaml");
    assert_eq!(*first, minimal.split_once('\n').unwrap().1, "the first line says what it is for");
    assert!(!others.is_empty());
    for helm in helms() {
        for (index, more) in others.iter().enumerate() {
            let file = place.path().join(index.to_string());
            fs::write(&file, more).unwrap();
            let file = file.to_str().unwrap();
            let arguments = ["template", "x", ".", "-f", "ci/minimal.yaml", "-f", file];
            let output = run(helm, &arguments);
            assert!(output.status.success(), "{more}: {}", text(&output));
        }
    }
}

/// What it makes by openssl is a credential to xksd.
#[test]
fn its_credential_is_one() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { place.path().join(name) };
    let blocks = blocks("sh");
    let script = blocks.iter().find(|block| block.contains("openssl rand")).expect("it makes one");
    let made =
        Command::new("sh").args(["-euc", script.as_str()]).current_dir(place.path()).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let authority = Authority::new(place.path(), "ca");
    let server = authority.issue("server", "/CN=localhost", KeyKind::Ec);
    fs::write(path("pin"), "1234").unwrap();
    let toml = format!(
        "version = 1\n[server]\nlisten = \"127.0.0.1:0\"\n[server.tls]\ncertificate = {:?}\n\
         private_key = {:?}\n[ops]\nlisten = \"127.0.0.1:0\"\n[tokens.hsm]\nmodule = {:?}\n\
         label = \"kms\"\npin = {{ file = \"pin\" }}\n[keystores.demo]\nprefix = \"demo\"\n\
         regions = [\"us-east-1\"]\ntokens = [\"hsm\"]\nkeys = [\"*\"]\n\
         credentials_directory = \"credentials\"\n",
        server.certificate,
        server.key,
        env!("CARGO_BIN_EXE_xksd"),
    );
    fs::write(path("xksd.toml"), toml).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_xksd"));
    let output =
        check.args(["config", "check", "--config"]).arg(path("xksd.toml")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read_dir(path("credentials")).unwrap().count(), 1);
}

/// Files and values that it names are there.
#[test]
fn what_it_names_is_there() {
    let document = document();
    let words = document.split('`').skip(1).step_by(2);
    let files = words.filter(|word| word.ends_with(".yaml") && !word.contains(' '));
    let mut found = 0;
    for file in files {
        let name = file.rsplit('/').next().unwrap();
        assert!(super::chart().join("ci").join(name).is_file(), "{file}");
        found += 1;
    }
    assert!(found >= 4);
    // Every set of values is for somebody, who finds it by its name.
    let readers = ["minimal", "toml"];
    for set in Set::all().iter().filter(|set| !readers.contains(&set.name.as_str())) {
        assert!(document.contains(&format!("{}.yaml", set.name)), "{}", set.name);
    }
}
