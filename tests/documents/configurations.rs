//! Blocks of configuration are read by the reader of configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::certificates::{Authority, KeyKind};
use tempfile::TempDir;

use crate::blocks::blocks;
use crate::markdown::Block;
use crate::none;

/// What a block leaves out is that of this.
const BASE: &str = include_str!("../../src/config/tests/good.toml");

const SECRET: &str = "0123456789012345678901234567890123456789012";
const POLICY: &str = "@id(\"payments\") permit (principal, action, resource);";

/// A certificate with its key, and its CA: the same for all blocks.
fn certificate() -> &'static (String, String) {
    static MADE: OnceLock<(String, String)> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path(), "ca");
        let server = authority.issue("server", "/CN=localhost", KeyKind::Ec);
        (fs::read_to_string(server.certificate).unwrap(), fs::read_to_string(server.key).unwrap())
    })
}

/// A directory in which everything lies that a configuration names, absolute paths as well.
struct Place {
    directory: TempDir,
    variables: BTreeMap<String, String>,
}

impl Place {
    fn write(&self, path: &str, content: &str) {
        let path = self.within(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn within(&self, path: &str) -> PathBuf {
        let below = path.trim_start_matches('/');
        let below = below.strip_prefix(self.path().trim_start_matches('/')).unwrap_or(below);
        self.directory.path().join(below.trim_start_matches('/'))
    }

    fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// Makes what a value names, by the key that it stands under.
    fn provide(&mut self, keys: &[&str], value: &toml::Value) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    self.provide(&[keys, &[key.as_str()]].concat(), value);
                }
            }
            toml::Value::Array(values) => values.iter().for_each(|value| self.provide(keys, value)),
            toml::Value::String(text) => self.provide_text(keys, text),
            _ => {}
        }
    }

    fn provide_text(&mut self, keys: &[&str], text: &str) {
        let (certificate, key) = certificate();
        let secret = if keys.contains(&"pin") { "1234" } else { SECRET };
        match *keys.last().unwrap() {
            "module" => self.write(text, ""),
            "certificate" | "client_ca" | "otlp_ca" => self.write(text, certificate),
            "private_key" => self.write(text, key),
            "file" => self.write(text, secret),
            "credential" => self.write(&format!("systemd/{text}"), secret),
            "env" => drop(self.variables.insert(text.to_owned(), secret.to_owned())),
            "policies" => self.write(&text.replace('*', "all"), POLICY),
            "entities" => self.write(text, "[]"),
            "credentials_directory" => self.write(&format!("{text}/BCDEFGHIJKLMNOPQRSTU"), SECRET),
            "directory" => {
                let path = self.within(text);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                xksd::audit::store::make_directory(&path).unwrap();
            }
            _ => {}
        }
    }
}

/// Loads a block as a whole configuration, or in the place of sections of [`BASE`].
fn load(block: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let systemd = directory.path().join("systemd").display().to_string();
    let variables = BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), systemd)]);
    let mut place = Place { directory, variables };
    let sections: BTreeSet<&str> =
        block.lines().map(str::trim).filter(|line| line.starts_with('[')).collect();
    let header = |section: &&str| section.trim_start().lines().next().unwrap().to_owned();
    // Sections within the block's own are of the reader's making, not of the base.
    let is_of_base = |section: &&str| !sections.contains(header(section).as_str());
    let rest: String = BASE.split_inclusive("\n\n").filter(is_of_base).collect();
    let is_whole = block.contains("version = 1\n");
    let text = if is_whole { block.to_owned() } else { format!("{rest}\n{block}") };
    let value: toml::Value = toml::from_str(&text).map_err(|error| error.to_string())?;
    place.provide(&["root"], &value);
    // Where the block is of a machine's own paths, they lie in the directory.
    let text = text.replace("= \"/", &format!("= \"{}/", place.path()));
    let text = text.replace("[\"/", &format!("[\"{}/", place.path()));
    place.write("xksd.toml", &text);
    let file = Path::new(place.path()).join("xksd.toml");
    let loaded = xksd::config::load(&file, std::mem::take(&mut place.variables).into_iter());
    loaded.map(drop).map_err(|errors| format!("{errors}\n{text}"))
}

#[test]
fn every_configuration_is_good() {
    let is_configuration = |block: &Block| block.tags.is_empty();
    let blocks: Vec<Block> = blocks(&["toml"]).into_iter().filter(is_configuration).collect();
    assert!(blocks.len() > 15, "{}", blocks.len());
    let check = |block: &Block| Some(format!("{}: {}", block.place, load(&block.text).err()?));
    none(&blocks.iter().filter_map(check).collect::<Vec<_>>());
    for bad in ["[server]\nlisten = \"[::1]:1\"\nbacklog = 1", "[state]\ndirectory = 1", "x = 1"] {
        assert!(load(bad).is_err(), "{bad}");
    }
}

/// With one policy, by which all that is in the documents is allowed.
#[test]
fn cases_of_policies_are_decided_as_they_say() {
    let blocks = blocks(&["toml"]).into_iter().filter(|block| block.tag("policy-test").is_some());
    let mut count = 0;
    for block in blocks {
        count += 1;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("all.cedar"), POLICY).unwrap();
        fs::write(directory.path().join("cases.toml"), &block.text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_xksd"))
            .args(["policy", "test", "cases.toml"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", block.place);
    }
    assert_eq!(count, 1);
}
