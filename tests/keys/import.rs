//! `import-parameters` and `import`

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use support::shim::wait_for_calls;

use crate::house::{House, MATERIAL, Said, Succeed};

const PENDING: &str = "xksd1:00000000000000aa:1:pending:1:20260102:-:i";

fn missing(house: &House, id: &str) {
    house.run(&format!("describe {id}")).bad(73, &["there is no such key"]);
}

/// Number, status and origin of each version.
fn versions(house: &House, id: &str) -> Vec<(u64, String, String)> {
    let text = |value: &Value| value.as_str().expect("it is a word").to_owned();
    let version = |version: &Value| {
        let number = version["version"].as_u64().expect("it is a number");
        assert_eq!(version["missing"], json!([]), "{version}");
        (number, text(&version["status"]), text(&version["origin"]))
    };
    let key = house.describe(id);
    key["versions"].as_array().expect("there are some").iter().map(version).collect()
}

fn imported(number: u64) -> (u64, String, String) {
    (number, "enabled".to_owned(), "imported".to_owned())
}

#[test]
fn material_comes_into_every_token() {
    let house = House::new(&["a", "b"]);
    house.file("material", MATERIAL);
    let planned = house.good("import key --material material --dry-run --json").json();
    assert_eq!((&planned["origin"], &planned["tokens"]), (&json!("imported"), &json!(["a", "b"])));
    missing(&house, "key");
    let made = house.good("import key --material material --json").json();
    assert_eq!((&made["status"], &made["origin"]), (&json!("enabled"), &json!("imported")));
    assert_eq!(versions(&house, "key"), [imported(1)]);
    let key = house.describe("key");
    let objects = key["versions"][0]["objects"].as_array().expect("there are some");
    for object in objects {
        let kept = &object["protection"];
        for (attribute, value) in
            [("sensitive", true), ("extractable", false), ("never_extractable", false)]
        {
            assert_eq!(kept[attribute], value, "{attribute}");
        }
    }
    assert!(house.good("list").stdout.contains("encrypt,decrypt imported"));
    let said = house.run("import key --material material");
    said.bad(73, &["exists already", "--next-version"]);
    let second = house.run_with("import key --material - --next-version --json", &[7; 32]);
    assert_eq!(second.code, Some(0), "{second:?}");
    assert_eq!(versions(&house, "key"), [imported(2), imported(1)]);
    let found = house.good("verify --json").json();
    assert!(found.as_array().expect("rows").iter().all(|row| row["result"] == "decrypts"));
    house.run("import nothing --material material --next-version").bad(73, &["no such key"]);
    // The next one may be generated, and shared.
    house.good("rotate key --replicable");
    assert_eq!(versions(&house, "key")[0].2, "replicable");
}

#[test]
fn narrow_keys_are_compared_with_the_material() {
    let house = House::new(&["a", "b"]);
    house.file("material", MATERIAL);
    for usage in ["encrypt", "decrypt"] {
        house.good(&format!("import {usage} --material material --usage {usage}"));
        assert_eq!(versions(&house, usage), [imported(1)]);
    }
}

#[test]
fn only_32_bytes_are_a_key() {
    let house = House::new(&["a"]);
    for length in [0, 1, 16, 31, 33, 64, 100_000] {
        house.file("material", &vec![b'x'; length]);
        let said = house.run("import key --material material");
        said.bad(64, &["`material` has", "32", "neither hexadecimal nor Base64"]);
        house.run_with("import key --material -", &vec![b'x'; length]).bad(64, &["standard input"]);
    }
    house.file("x", MATERIAL);
    house.run("import key --material none").bad(74, &["cannot read `none`"]);
    house.run("import key").bad(64, &["--material"]);
    house.run("import key --wrapped none").bad(64, &["--algorithm"]);
    house.run("import key --material x --algorithm RSAES_OAEP_SHA_1").bad(64, &["--algorithm"]);
    missing(&house, "key");
}

#[test]
fn a_file_that_others_may_read_is_warned_of() {
    let house = House::new(&["a"]);
    house.file("material", MATERIAL);
    assert!(!house.good("import first --material material").stderr.contains("warning"));
    let others = fs::Permissions::from_mode(0o640);
    fs::set_permissions(house.path("material"), others).expect("it is ours");
    let said = house.good("import second --material material");
    assert!(said.stderr.contains("warning: group or others may read `material`"), "{said:?}");
}

/// Runs commands of docs/keys.md, after the algorithm that they are for.
fn wrap(house: &House, algorithm: &str, public: &str, material: &str, to: &str) {
    let document = include_str!("../../docs/keys.md");
    let (name, digest) = algorithm.split_once("_SHA_").expect("it has a hash");
    let title = format!("`{name}_...`:\n\n```sh\n");
    let (_, rest) = document.split_once(&title).expect("it is there");
    let (block, _) = rest.split_once("```").expect("it ends");
    // The first line says what is to be filled in.
    let (variables, commands) = block.split_once('\n').expect("there are several");
    let mut command = Command::new("sh");
    for variable in variables.split(' ') {
        let (name, _) = variable.split_once('=').expect("it is an assignment");
        let value = match name {
            "PUBLIC" => public.to_owned(),
            "DIGEST" => format!("sha{digest}"),
            "MATERIAL" => material.to_owned(),
            "WRAPPED" => to.to_owned(),
            other => panic!("{other}"),
        };
        command.env(name, value);
    }
    command.args(["-e", "-c", commands]).current_dir(house.path("")).succeed();
}

#[test]
fn what_openssl_wrapped_is_unwrapped_in_each_token() {
    let house = House::new(&["a", "b"]);
    house.file("material", MATERIAL);
    let parameters = house.good("import-parameters --out . --json").json();
    // All that SoftHSM2 has.
    let algorithms = json!(["RSA_AES_KEY_WRAP_SHA_1", "RSAES_OAEP_SHA_1"]);
    for (token, row) in ["a", "b"].iter().zip(parameters.as_array().expect("rows")) {
        assert_eq!((&row["token"], &row["algorithms"]), (&json!(token), &algorithms));
        let (public, file) = (format!("{token}.pem"), format!("{token}.bin"));
        wrap(&house, "RSA_AES_KEY_WRAP_SHA_1", &public, "material", &file);
    }
    // The same pair every time.
    assert_eq!(house.good("import-parameters --out . --json").json(), parameters);
    let command = "import key --algorithm RSA_AES_KEY_WRAP_SHA_1 --wrapped a=a.bin";
    house.run(command).bad(64, &["no --wrapped for token `b`"]);
    house
        .run("import key --algorithm RSA_AES_KEY_WRAP_SHA_1 --wrapped a.bin")
        .bad(64, &["`a.bin` does not say for which token"]);
    house.run(&format!("{command} --wrapped a=b.bin")).bad(64, &["token `a` is given two files"]);
    // Each other's: nothing is left of it.
    let swapped =
        "import key --algorithm RSA_AES_KEY_WRAP_SHA_1 --wrapped a=b.bin --wrapped b=a.bin";
    house.run(swapped).bad(73, &["token `a` cannot unwrap it", "import-parameters"]);
    let half = "import key --algorithm RSA_AES_KEY_WRAP_SHA_1 --wrapped a=a.bin --wrapped b=a.bin";
    house.run(half).bad(73, &["token `b` cannot unwrap it"]);
    missing(&house, "key");
    // Another key for the other token.
    house.file("other", &[7; 32]);
    wrap(&house, "RSA_AES_KEY_WRAP_SHA_1", "b.pem", "other", "other.bin");
    house
        .run(&format!("{command} --wrapped b=other.bin"))
        .bad(73, &["token `b` does not decrypt what was encrypted"]);
    missing(&house, "key");
    house.good(&format!("{command} --wrapped b=b.bin"));
    assert_eq!(versions(&house, "key"), [imported(1)]);
}

#[test]
fn a_wrapped_key_of_another_size_is_no_key() {
    let house = House::new(&["a"]);
    house.good("import-parameters --out .");
    for length in [16, 24, 31, 33] {
        house.file("material", &vec![9; length]);
        wrap(&house, "RSA_AES_KEY_WRAP_SHA_1", "a.pem", "material", "wrapped");
        let said = house.run("import key --wrapped wrapped --algorithm RSA_AES_KEY_WRAP_SHA_1");
        // 31 bytes have the length of 32: it is no AES key, which shows when it is to encrypt.
        let why = if length == 31 { "token `a` does not decrypt" } else { "has 424 bytes, not" };
        said.bad(73, &[why]);
        missing(&house, "key");
    }
    house.file("wrapped", &[1; 17]);
    house
        .run("import key --wrapped wrapped --algorithm RSAES_OAEP_SHA_1")
        .bad(73, &["under RSAES_OAEP_SHA_1 has 384 bytes, not 17"]);
    house.file("wrapped", &[1; 384]);
    house
        .run("import key --wrapped wrapped --algorithm RSAES_OAEP_SHA_1")
        .bad(73, &["token `a` cannot unwrap it"]);
    house
        .run("import key --wrapped wrapped --algorithm RSAES_OAEP_SHA_256")
        .bad(73, &["token `a` cannot unwrap it"]);
    // SoftHSM2 does not tell how long what it unwrapped is.
    house.file("material", MATERIAL);
    wrap(&house, "RSAES_OAEP_SHA_1", "a.pem", "material", "wrapped");
    house
        .run("import key --wrapped wrapped --algorithm RSAES_OAEP_SHA_1")
        .bad(73, &["another length", "RSA_AES_KEY_WRAP_*"]);
    missing(&house, "key");
}

/// As in FIPS mode: the value goes under the token's own public key.
#[test]
fn a_token_that_takes_no_values_unwraps_them() {
    let house = House::new(&["a", "b"]);
    house.file("material", MATERIAL);
    house.script("b", "C_CreateObject return CKR_TEMPLATE_INCONSISTENT");
    house.good("import key --material material");
    assert_eq!(versions(&house, "key"), [imported(1)]);
    assert_eq!(house.counts("b").of("C_GenerateKeyPair"), 1);
    assert_eq!(house.counts("a").of("C_GenerateKeyPair"), 0);
}

#[test]
fn what_another_run_left_is_never_enabled() {
    let house = House::new(&["a", "b"]);
    // Of other material.
    house.import(&["a", "b"], "key", PENDING);
    house.file("material", MATERIAL);
    house.good("import key --material material");
    assert_eq!(versions(&house, "key"), [imported(1)]);
    assert_ne!(house.describe("key")["versions"][0]["object_id"], "00000000000000aa");
    // Nor by a command that was to make one.
    house.import(&["a"], "other", PENDING);
    house.good("create other --token a");
    let other = house.good("describe other --token a --json").json();
    assert_eq!(other["versions"][0]["origin"], "generated");
}

#[test]
fn tokens_that_refuse_are_left_as_they_were() {
    let house = House::new(&["a", "b"]);
    house.file("material", MATERIAL);
    let refusals = [
        ("C_OpenSession return CKR_TOKEN_WRITE_PROTECTED", 73, "write-protected"),
        ("C_CreateObject return CKR_TOKEN_WRITE_PROTECTED", 73, "write-protected"),
        ("C_CreateObject return CKR_DEVICE_MEMORY", 73, "full"),
        ("C_CreateObject return CKR_DEVICE_REMOVED", 69, "CKR_DEVICE_REMOVED"),
        ("C_Encrypt flip", 73, "does not decrypt"),
        ("C_SetAttributeValue return CKR_ATTRIBUTE_READ_ONLY", 73, "forbids an attribute"),
    ];
    for (script, code, hint) in refusals {
        house.script("b", script);
        house.run("import key --material material").bad(code, &["token `b`", hint]);
        house.script("b", "");
        let left = house.run("describe key --json");
        if script.starts_with("C_SetAttributeValue") {
            // The first token has enabled it, which is in force: the next command tells the second.
            assert_eq!(left.json()["status"], "enabled");
        } else {
            left.bad(73, &["there is no such key"]);
        }
    }
    house.good("disable key");
    house.good("verify key");
}

/// While a token has the material, neither a core dump nor the command line would show it.
#[test]
fn the_process_keeps_the_material_to_itself() {
    let house = House::new(&["a"]);
    house.good("list");
    house.script("a", "C_CreateObject hang");
    let running = house.start("import key --material -", MATERIAL);
    wait_for_calls(&house.path("a.counts"), "C_CreateObject", 1);
    let process = std::path::Path::new("/proc").join(running.id().to_string());
    let read = |file: &str| fs::read(process.join(file)).expect("it is running");
    let limits = String::from_utf8(read("limits")).expect("it is text");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
    let core: Vec<_> = core.expect("there is one").split_whitespace().take(2).collect();
    assert_eq!(core, ["0", "0"]);
    let arguments = read("cmdline");
    assert!(!arguments.is_empty());
    assert!(!arguments.windows(8).any(|part| MATERIAL.windows(8).any(|bytes| bytes == part)));
    house.script("a", "");
    let said = Said::new(&running.wait_with_output().expect("it ends"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(versions(&house, "key"), [imported(1)]);
}
