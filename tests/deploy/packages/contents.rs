//! What is in the packages: manual pages, completions, the crates' list and their licences.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{build, has, inventory, output, run, source};

fn xksd(arguments: &[&str]) -> String {
    run(Command::new(env!("CARGO_BIN_EXE_xksd")).args(arguments))
}

/// All subcommands, as `--help` lists them: `["keys", "list"]`.
fn subcommands(of: &[String]) -> Vec<Vec<String>> {
    let mut arguments: Vec<&str> = of.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = xksd(&arguments);
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let listed = listed.lines().take_while(|line| !line.is_empty());
    // A line that goes on with the description of the one before is indented further.
    let names = listed.filter_map(|line| {
        line.strip_prefix("  ")?.split_whitespace().next().filter(|_| !line.starts_with("   "))
    });
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    let paths = names.into_iter().map(|name| [of, &[name.to_owned()]].concat());
    paths.flat_map(|path| [vec![path.clone()], subcommands(&path)].concat()).collect()
}

fn all_subcommands() -> Vec<Vec<String>> {
    let all = subcommands(&[]);
    assert!(all.len() > 30, "{all:?}");
    all
}

#[test]
fn every_subcommand_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    // It is made, and no setting of whoever builds packages gets into a page.
    let pages = directory.path().join("man1");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xksd"));
    run(command.arg("man").arg(&pages).env("XKSD_CONFIG", "/of/the/builder"));

    let mut expected: BTreeSet<String> =
        all_subcommands().iter().map(|path| format!("xksd-{}.1", path.join("-"))).collect();
    expected.insert("xksd.1".to_owned());
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(&pages).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for part in
            [".SH NAME", ".SH SYNOPSIS", concat!("\"xksd ", env!("CARGO_PKG_VERSION"), "\"")]
        {
            assert!(text.contains(part), "{}: {part}", path.display());
        }
        assert!(!text.contains("/of/the/builder"), "{}", path.display());
        found.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(found, expected);
}

#[test]
fn the_manual_pages_are_what_man_understands() {
    if !has(&["man"], "the manual pages, as man reads them") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    xksd(&["man", directory.path().to_str().unwrap()]);
    for entry in fs::read_dir(directory.path()).unwrap() {
        let page = entry.unwrap().path();
        let mut man = Command::new("man");
        man.args(["--warnings", "--encoding=UTF-8", "--local-file"]).arg(&page);
        let output =
            output(man.env("MANROFFSEQ", "").env("LC_ALL", "C.UTF-8").env("MANWIDTH", "100"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
    }
}

/// bash itself is asked: what it would offer after each command is each of its subcommands.
#[test]
fn bash_completes_every_subcommand_and_nothing_hidden() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("xksd");
    fs::write(&script, xksd(&["completions", "bash"])).unwrap();
    let offered = |words: &[String]| -> BTreeSet<String> {
        let line = "source \"$1\" && shift && COMP_WORDS=(xksd \"$@\" '') COMP_CWORD=$(($# + 1)) \
            && _xksd xksd '' \"${COMP_WORDS[COMP_CWORD - 1]}\" && printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = Command::new("bash");
        let said = run(bash.args(["-c", line, "bash"]).arg(&script).args(words));
        said.lines().filter(|word| !word.starts_with('-')).map(str::to_owned).collect()
    };
    let all = all_subcommands();
    let children = |of: &[String]| -> BTreeSet<String> {
        let below = all.iter().filter(|path| path.split_last().is_some_and(|(_, rest)| rest == of));
        below.filter_map(|path| path.last().cloned()).collect()
    };
    for path in all.iter().map(Vec::as_slice).chain([&[][..]]) {
        let children = children(path);
        if children.is_empty() {
            continue;
        }
        let mut offered = offered(path);
        offered.remove("help");
        assert_eq!(offered, children, "after {path:?}");
    }
}

#[test]
fn the_other_shells_know_every_subcommand() {
    for shell in ["zsh", "fish"] {
        let script = xksd(&["completions", shell]);
        for path in all_subcommands() {
            let name = path.last().unwrap();
            assert!(script.contains(name), "{shell}: {path:?}");
        }
        assert!(!script.contains("hsm-worker"), "{shell}");
    }
}

#[test]
fn a_shell_that_is_not_known_is_refused() {
    let output =
        output(Command::new(env!("CARGO_BIN_EXE_xksd")).args(["completions", "command.com"]));
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("error: ") && said.contains("bash"), "{said}");
}

#[test]
fn lintian_finds_nothing_in_the_debian_package() {
    if !has(&["lintian", "dpkg-deb", "dpkg-shlibdeps"], "lintian on the Debian package") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let package = build("deb", directory.path(), "0.1.0");
    let said = run(Command::new("lintian")
        .args(["--allow-root", "--fail-on=error,warning"])
        .arg(&package));
    assert_eq!(said, "");
    // From the same program, the same bytes.
    let again = tempfile::tempdir().unwrap();
    let same = build("deb", again.path(), "0.1.0");
    assert!(fs::read(package).unwrap() == fs::read(same).unwrap(), "two builds differ");
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}"))
}

/// The names of a table of Cargo.toml.
fn direct(table: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(source("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    manifest[table].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn the_sbom_has_what_the_program_is_made_of() {
    let document: Value = serde_json::from_str(&inventory("sbom")).unwrap();
    assert_eq!(text(&document, "bomFormat"), "CycloneDX");
    assert_eq!(text(&document["metadata"], "timestamp"), "2023-11-14T22:13:20Z");

    let lock = fs::read_to_string(source("Cargo.lock")).unwrap();
    let components = document["components"].as_array().unwrap();
    let mut linked = BTreeSet::new();
    for component in components {
        let (name, version) = (text(component, "name"), text(component, "version"));
        let hash = text(&component["hashes"][0], "content");
        let entry = format!(
            "name = \"{name}\"\nversion = \"{version}\"\nsource = \
             \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{hash}\"\n"
        );
        assert!(lock.contains(&entry), "{entry}");
        assert_eq!(text(component, "purl"), format!("pkg:cargo/{name}@{version}"));
        if text(component, "scope") == "required" {
            linked.insert(name.to_owned());
        }
    }
    assert!(linked.is_superset(&direct("dependencies")), "{linked:?}");
    assert!(linked.contains("aws-lc-sys"), "what is linked in by others");
    let names: BTreeSet<&str> = components.iter().map(|c| text(c, "name")).collect();
    for tests_only in ["cryptoki", "tempfile", "proptest", "support"] {
        assert!(!names.contains(tests_only), "{tests_only}");
    }

    // Every edge leads to something that is described.
    let purls: BTreeSet<&str> = components.iter().map(|c| text(c, "purl")).collect();
    let edges = document["dependencies"].as_array().unwrap();
    assert_eq!(edges.len(), components.len() + 1);
    for edge in edges {
        for to in edge["dependsOn"].as_array().unwrap() {
            assert!(purls.contains(to.as_str().unwrap()), "{edge}");
        }
    }
    assert_eq!(inventory("sbom"), inventory("sbom"));
}

#[test]
fn the_licences_of_all_that_is_linked_in_are_there() {
    let document: Value = serde_json::from_str(&inventory("sbom")).unwrap();
    let licences = inventory("licenses");
    for component in document["components"].as_array().unwrap() {
        let is_linked = text(component, "scope") == "required";
        let title = format!("\n{} {} ", text(component, "name"), text(component, "version"));
        // Procedural macros are a scope of their own: in the build, not in the program.
        assert_eq!(licences.contains(&title), is_linked, "{title}");
    }
    for words in
        ["Apache License", "Permission is hereby granted, free of charge", "UNICODE LICENSE V3"]
    {
        assert!(licences.contains(words), "{words}");
    }
    let builder = Path::new(env!("CARGO_MANIFEST_DIR")).to_str().unwrap();
    assert!(!licences.contains(builder), "a directory of this machine");
}
