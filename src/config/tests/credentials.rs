//! Credentials as files of a directory, and secrets that a command prints.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::super::{CredentialPlace, credentials_directories};
use super::{Dir, GOOD, SECRET, and, with};

const SECTION: &str = "[[keystores.demo.credentials]]
access_key_id = \"ABCDEFGHIJKLMNOPQRST\"
secret = { file = \"demo.secret\" }
";
const ONE: &str = "AAAAAAAAAAAAAAAAAAAA";
const TWO: &str = "BBBBBBBBBBBBBBBBBBBB";

/// [`GOOD`] with a directory of credentials and no section.
fn directory() -> String {
    let toml = and("[keystores.demo]", "credentials_directory = \"credentials\"");
    toml.replace(SECTION, "")
}

fn ids(dir: &Dir, toml: &str) -> Vec<String> {
    let config = dir.load(toml, &[]).unwrap();
    let ids = config.keystores[0].credentials.access_key_ids();
    ids.map(|id| id.as_str().to_owned()).collect()
}

#[test]
fn each_file_is_a_credential() {
    let dir = Dir::new();
    dir.write(&format!("credentials/{TWO}"), &format!("{SECRET}\n"));
    dir.write(&format!("credentials/{ONE}"), SECRET);
    // What Kubernetes has beside them, and what is being written.
    dir.write("credentials/.ONE.new", "half");
    fs::create_dir(dir.path("credentials/..data")).unwrap();
    assert_eq!(ids(&dir, &directory()), [ONE, TWO]);
    let both = and("[keystores.demo]", "credentials_directory = \"credentials\"");
    assert_eq!(ids(&dir, &both), ["ABCDEFGHIJKLMNOPQRST", ONE, TWO]);
    // A link, as Kubernetes makes them.
    fs::rename(dir.path(&format!("credentials/{ONE}")), dir.path("credentials/..data/one"))
        .unwrap();
    symlink("..data/one", dir.path(&format!("credentials/{ONE}"))).unwrap();
    assert_eq!(ids(&dir, &directory()), [ONE, TWO]);
}

#[test]
fn where_and_since_when_is_known() {
    let dir = Dir::new();
    dir.write(&format!("credentials/{ONE}"), SECRET);
    let toml = and("[keystores.demo]", "credentials_directory = \"credentials\"");
    let config = dir.load(&toml, &[]).unwrap();
    let [of_section, of_directory] = &config.credentials[..] else { panic!("{config:?}") };
    let CredentialPlace { keystore, id, place, file, since } = of_directory;
    assert_eq!((keystore.as_str(), id.as_str()), ("demo", ONE));
    let path = dir.path("credentials").join(ONE);
    assert_eq!((place, file), (&format!("`{}`", path.display()), &Some(path.clone())));
    assert_eq!(*since, Some(fs::metadata(path).unwrap().modified().unwrap()));
    assert_eq!((&of_section.file, of_section.since.is_some()), (&None, true));
    // All of it is looked at for changes, and hidden from HSM libraries.
    assert!(config.files.contains(&dir.path("credentials")));
    assert!(config.secret_places.files.contains(&dir.path("credentials")));
}

#[test]
fn what_is_no_credential_is_a_fault() {
    let file = |name: &str, content: &str| {
        let dir = Dir::new();
        dir.write(&format!("credentials/{name}"), content);
        dir.said(&directory()).concat()
    };
    for (name, content, problem) in [
        ("demo.secret", SECRET, "`credentials/demo.secret`: an access key id must have 20 to 30"),
        ("aaaaaaaaaaaaaaaaaaaa", SECRET, "an access key id may only contain A-Z 2-7"),
        (ONE, "short", "a secret access key must have 43 to 64 characters, not 5"),
        (ONE, "", "is empty"),
        ("AAAAAAAAAAAAAAAAAAAA/x", SECRET, "cannot read"),
    ] {
        let said = file(name, content);
        assert!(said.contains(problem), "{name}: {said}");
    }
    let dir = Dir::new();
    assert!(dir.said(&directory()).concat().contains("cannot read `credentials`"));
    fs::create_dir(dir.path("credentials")).unwrap();
    let said = dir.said(&directory()).concat();
    assert!(said.contains("holds no credential, and there is no other"), "{said}");
    // P-14: once in the whole configuration.
    dir.write("credentials/ABCDEFGHIJKLMNOPQRST", SECRET);
    let both = and("[keystores.demo]", "credentials_directory = \"credentials\"");
    assert!(dir.said(&both).concat().contains("is there twice, first in key store `demo`"));
    // What others can read is warned of, as of any secret.
    let file = dir.path("credentials/ABCDEFGHIJKLMNOPQRST");
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = dir.load(&directory(), &[]).unwrap().warnings;
    assert!(warnings.concat().contains("(mode 644)"), "{warnings:?}");
    let mode = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(dir.path("credentials"), mode(0o770)).unwrap();
    let warnings = dir.load(&directory(), &[]).unwrap().warnings.concat();
    assert!(warnings.contains("others can remove files from"), "{warnings}");
    fs::set_permissions(dir.path("credentials"), mode(0o1777)).unwrap();
    let warnings = dir.load(&directory(), &[]).unwrap().warnings.concat();
    assert!(!warnings.contains("others can remove"), "{warnings}");
}

/// Whoever can make a file in the directory would be let in.
#[test]
fn a_strangers_file_is_a_fault() {
    let dir = Dir::new();
    dir.write(&format!("credentials/{ONE}"), SECRET);
    let file = dir.path("credentials").join(ONE);
    if std::os::unix::fs::chown(&file, Some(65534), None).is_err() {
        support::not_run("credentials that belong to somebody else: giving a file away takes root");
        return;
    }
    let said = dir.said(&directory()).concat();
    assert!(said.contains("belongs to user 65534, who is neither root nor us"), "{said}");
}

#[test]
fn directories_are_known_whatever_else_is_wrong() {
    let dir = Dir::new();
    let toml = directory().replace("version = 1", "version = 7\nwhat = 1");
    dir.write("xksd.toml", &toml);
    let found = credentials_directories(&dir.path("xksd.toml"), std::iter::empty()).unwrap();
    let (name, path) = found.first_key_value().unwrap();
    assert_eq!((name.as_str(), path), ("demo", &Some(dir.path("credentials"))));
    dir.write("xksd.toml", "[keystores");
    assert!(credentials_directories(&dir.path("xksd.toml"), std::iter::empty()).is_err());
}

#[test]
fn a_command_may_print_a_secret() {
    let dir = Dir::new();
    let pin =
        |command: &str| with("{ file = \"token.pin\" }", &format!("{{ command = {command} }}"));
    let toml = pin("[\"/bin/sh\", \"-c\", \"echo 99\"]");
    let config = dir.load(&toml, &[]).unwrap();
    let token = config.tokens.first_key_value().unwrap().1;
    assert_eq!(token.pin.expose(), "99");
    assert_eq!(token.pin_source.read().unwrap().expose(), "99");
    assert!(!format!("{}", token.pin_source).contains("99"));
    for (command, problem) in [
        ("\"/bin/true\"", "must be a list: a program and its arguments"),
        ("[]", "must be a list: a program and its arguments"),
        ("[1]", "must be a list: a program and its arguments"),
        ("[\"/bin/true\"]", "is empty"),
        ("[\"/bin/false\"]", "has failed (exit status: 1)"),
        ("[\"nowhere\"]", "cannot be run"),
    ] {
        let said = dir.said(&pin(command)).concat();
        assert!(said.contains(problem), "{command}: {said}");
    }
    let variable = ("XKSD_TOKENS__HSM__PIN__COMMAND", "/bin/echo, 77");
    let config = dir.load(GOOD, &[variable]).unwrap();
    assert_eq!(config.tokens.first_key_value().unwrap().1.pin.expose(), "77");
}
