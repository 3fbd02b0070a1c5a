//! Where secrets come from, and that no fault shows one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Dir, GOOD, SECRET, with};

const PIN: &str = "{ file = \"token.pin\" }";
const KEY: &str = "{ file = \"demo.secret\" }";

fn pin_of(toml: &str, variables: &[(&str, &str)]) -> String {
    let config = Dir::new().load(toml, variables).unwrap();
    config.tokens.first_key_value().unwrap().1.pin.expose().clone()
}

#[test]
fn a_secret_may_be_in_the_environment_or_a_credential() {
    assert_eq!(pin_of(&with(PIN, "{ env = \"HSM_PIN\" }"), &[("HSM_PIN", "77")]), "77");
    let dir = Dir::new();
    dir.write("credentials/hsm", "88\n\n");
    let directory = dir.path("credentials");
    let variables = [("CREDENTIALS_DIRECTORY", directory.to_str().unwrap())];
    let toml = with(PIN, "{ credential = \"hsm\" }");
    let config = dir.load(&toml, &variables).unwrap();
    let (_, token) = config.tokens.first_key_value().unwrap();
    assert_eq!(token.pin.expose(), "88\n", "one line end does not count, a second does");
}

#[test]
fn a_variable_may_name_another_place_than_the_file() {
    let variables = [("XKSD_TOKENS__HSM__PIN__ENV", "HSM_PIN"), ("HSM_PIN", "77")];
    assert_eq!(pin_of(GOOD, &variables), "77");
}

/// What is not known here is not hidden from HSM libraries.
#[test]
fn the_places_of_all_secrets_are_known() {
    let dir = Dir::new();
    let places = |toml: &str, variables: &[(&str, &str)]| {
        let places = dir.load(toml, variables).unwrap().secret_places;
        let name = |file: &PathBuf| file.strip_prefix(dir.path("")).unwrap().display().to_string();
        let files = places.files.iter().map(name);
        files.chain(places.variables.iter().map(|name| format!("${name}"))).collect::<Vec<_>>()
    };
    assert_eq!(places(GOOD, &[]), ["demo.secret", "server.key", "token.pin"]);
    let elsewhere = with(PIN, "{ env = \"HSM_PIN\" }");
    let pin = ("HSM_PIN", "77");
    assert_eq!(places(&elsewhere, &[pin]), ["demo.secret", "server.key", "$HSM_PIN"]);
    // The configuration itself, where it holds one.
    let inline = with(PIN, "\"1234\"");
    assert_eq!(places(&inline, &[]), ["demo.secret", "server.key", "xksd.toml"]);
    let variable = [("XKSD_TOKENS__HSM__PIN__INLINE", "1234")];
    assert_eq!(places(GOOD, &variable), ["demo.secret", "server.key"]);
}

#[test]
fn a_secret_in_plain_sight_is_warned_of() {
    for toml in [with(PIN, "\"1234\""), with(PIN, "{ inline = \"1234\" }")] {
        let config = Dir::new().load(&toml, &[]).unwrap();
        assert_eq!(config.warnings.len(), 1);
        assert!(config.warnings[0].contains("tokens.hsm.pin: a secret stands in plain sight"));
        assert!(!config.warnings[0].contains("1234"));
    }
}

#[test]
fn a_file_that_others_can_read_is_warned_of() {
    let dir = Dir::new();
    for name in ["token.pin", "demo.secret", "server.key"] {
        fs::set_permissions(dir.path(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    let config = dir.load(GOOD, &[]).unwrap();
    let keys = ["server.tls.private_key", "tokens.hsm.pin", "keystores.demo.credentials[0].secret"];
    assert_eq!(config.warnings.len(), keys.len());
    for (warning, key) in config.warnings.iter().zip(keys) {
        assert!(warning.contains(key) && warning.contains("(mode 640)"), "{warning}");
    }
}

/// Each puts [`SECRET`] where it can go wrong; `Dir::load` looks for it in all that is said.
#[test]
fn no_fault_shows_a_secret() {
    let dir = Dir::new();
    dir.write("short.secret", "CANARY");
    dir.write("not-utf8.secret", "");
    fs::write(dir.path("not-utf8.secret"), [SECRET.as_bytes(), &[0xff]].concat()).unwrap();
    let places = [
        format!("\"{SECRET} \""),
        format!("{{ inline = \"{SECRET} \" }}"),
        format!("{{ inline = \"{SECRET}\", file = \"demo.secret\" }}"),
        format!("{{ inlin = \"{SECRET}\" }}"),
        format!("{{ env = \"{SECRET}\" }}"),
        format!("{{ inline = [\"{SECRET}\"] }}"),
        format!("[\"{SECRET}\"]"),
        "{ file = \"short.secret\" }".to_owned(),
        "{ file = \"not-utf8.secret\" }".to_owned(),
        // Not TOML, each in its own way.
        SECRET.to_owned(),
        format!("\"{SECRET}"),
        format!("{{ inline = \"{SECRET}\" "),
        format!("{{ inline = \"{SECRET}\\q\" }}"),
        format!("'{SECRET}' '{SECRET}'"),
        format!("\"x\"\nsecret = \"{SECRET}\""),
    ];
    for place in places {
        assert_eq!(dir.faults(&with(KEY, &place)).len(), 1, "{place}");
    }
    let swapped = with("\"ABCDEFGHIJKLMNOPQRST\"", &format!("\"{SECRET}\""));
    assert_eq!(dir.faults(&swapped)[0].value, None);
    let misspelt = with("secret = ", &format!("sekret = \"{SECRET}\"\nsecret = "));
    assert_eq!(dir.faults(&misspelt)[0].key, "keystores.demo.credentials[0].sekret");
    let environment = format!("[tokens.hsm.environment]\nXKSD_X = \"{SECRET}\"\n[keystores.demo]");
    dir.faults(&with("[keystores.demo]", &environment));
    let variables = [
        ("XKSD_KEYSTORES__DEMO__SECRET", SECRET),
        ("XKSD_KEYSTORES__DEMO__CREDENTIALS", SECRET),
        ("XKSD_TOKENS__HSM__PIN__VALUE", SECRET),
        ("XKSD_TOKENS__HSM", SECRET),
    ];
    for variable in variables {
        dir.faults_with(GOOD, &[variable]);
    }
}

/// A process that is started later is given the PIN that is there then, and none that is not.
#[test]
fn a_secret_is_read_again_from_where_it_is() {
    let dir = Dir::new();
    let config = dir.load(GOOD, &[]).unwrap();
    let (_, token) = config.tokens.first_key_value().unwrap();
    let read = || token.pin_source.read().map(|secret| secret.expose().clone());
    assert_eq!(read().as_deref(), Some("1234"));
    dir.write("token.pin", "5678\n");
    assert_eq!(read().as_deref(), Some("5678"));
    dir.write("token.pin", "\n");
    assert_eq!(read(), None, "a PIN that is just being replaced costs no try at the token");
    fs::remove_file(dir.path("token.pin")).unwrap();
    assert_eq!(read(), None);
    let config = dir.load(&with(PIN, "{ inline = \"CANARY\" }"), &[]).unwrap();
    let (_, token) = config.tokens.first_key_value().unwrap();
    assert_eq!(token.pin_source.read().map(|pin| pin == token.pin), Some(true));
}
