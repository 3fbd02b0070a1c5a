//! `xksd policy` by transcript, and the policies of docs/policies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// A configuration with a key store `demo`; its authorization is the test's.
struct Place(TempDir);

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new(authorization: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let place = Self(tempfile::tempdir().unwrap());
        for (name, content) in [("pin", "1234"), ("secret", &"s".repeat(43)), ("module.so", "")] {
            place.write(name, content);
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(place.0.path().join(name), mode).unwrap();
        }
        place.write(
            "xksd.toml",
            &format!(
                r#"version = 1
[server]
listen = "127.0.0.1:0"
insecure_plain_http_on_loopback = true
[ops]
listen = "127.0.0.1:0"
[tokens.hsm]
module = "module.so"
label = "xksd"
pin = {{ file = "pin" }}
[keystores.demo]
prefix = "demo"
regions = ["us-east-1"]
tokens = ["hsm"]
keys = ["demo-*", "cards"]
authorization = {{ {authorization} }}
[[keystores.demo.credentials]]
access_key_id = "ABCDEFGHIJKLMNOPQRST"
secret = {{ file = "secret" }}
"#
            ),
        );
        place
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn run(&self, arguments: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xksd"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        let output = command.env_clear().env("XKSD_CONFIG", "xksd.toml").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().expect("no signal ends it");
        Said { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

fn cookbook() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies")
}

/// The names of all files there that end so, without the end.
fn recipes(end: &str) -> Vec<String> {
    let entries = fs::read_dir(cookbook()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(end)?.to_owned())).collect();
    names.sort();
    names
}

/// Every recipe of the cookbook does what its cases say, key creation among them.
#[test]
fn the_cookbook_passes_its_cases_p_80() {
    let place = Place::new("mode = \"off\"");
    let policies = recipes(".cedar");
    assert!(policies.len() >= 12, "{policies:?}");
    assert_eq!(policies, recipes(".test.toml"));
    let page = fs::read_to_string(cookbook().join("../policies.md")).unwrap();
    let mut files = String::new();
    let mut count = 0;
    for name in &policies {
        assert!(page.contains(&format!("policies/{name}.cedar")), "{name} is not in policies.md");
        let path = cookbook().join(format!("{name}.test.toml"));
        let cases = fs::read_to_string(&path).unwrap();
        assert!(cases.contains("kmsOperation = \"CreateKey\""), "{name} does not create a key");
        assert!(cases.contains("expect = \"deny\""), "{name} denies nothing");
        count += cases.matches("[[case]]").count();
        files += &format!(" {}", path.display());
    }
    let said = place.run(&format!("policy test{files}"));
    assert_eq!(said.stdout, "");
    assert_eq!((said.code, said.stderr), (0, format!("{count} cases passed, 0 failed\n")));
}

/// What docs/policies.md shows of a file with cases is one.
#[test]
fn the_example_of_the_page_passes() {
    let page = fs::read_to_string(cookbook().join("../policies.md")).unwrap();
    let (_, block) = page.split_once("```toml policy-test\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let place = Place::new("mode = \"off\"");
    place.write("p.cedar", "@id(\"payments\") permit (principal, action, resource);");
    place.write("cases.toml", block);
    let said = place.run("policy test cases.toml");
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (0, "1 cases passed, 0 failed\n"),
        "{}",
        said.stdout
    );
}

#[test]
fn a_case_that_fails_is_named() {
    let place = Place::new("accounts = [\"111122223333\"]");
    let request = "[request]\nkeystore = \"demo\"\nkey = \"demo-1\"\n[request.metadata]\n\
        awsPrincipalArn = \"AWS Internal\"\n\
        kmsKeyArn = \"arn:aws:kms:us-east-1:111122223333:key/1\"\n";
    let cases = "[[case]]\nname = \"right\"\nexpect = \"allow\"\npolicies = [\"xksd:accounts-alone\"]\n\
        [[case]]\nname = \"wrong\"\nexpect = \"deny\"\n\
        [[case]]\nname = \"by another\"\nexpect = \"allow\"\npolicies = []\n";
    place.write("cases.toml", &format!("{request}{cases}"));
    let said = place.run("policy test cases.toml");
    assert_eq!(
        said.stdout,
        "FAILED cases.toml: wrong: expected deny, but it is allowed by xksd:accounts-alone\n\
         FAILED cases.toml: by another: expected to be decided by [], but it was by \
         [\"xksd:accounts-alone\"]\n"
    );
    assert_eq!((said.code, said.stderr.as_str()), (1, "1 cases passed, 2 failed\n"));
    for (case, problem) in [
        ("[[case]]\nname = \"x\"\nexpect = \"maybe\"\n", "case 1: unknown variant `maybe`"),
        ("[[case]]\nname = \"x\"\nexpect = \"deny\"\nkye = \"k\"\n", "case 1: unknown field `kye`"),
        ("[[case]]\nname = \"x\"\nexpect = \"deny\"\nkey = \"a b\"\n", "x: `key`: "),
        ("[[case]]\nname = \"x\"\nexpect = \"deny\"\ntime = \"noon\"\n", "x: `time`: must be like"),
        ("[[case]\n", "line 7: "),
    ] {
        place.write("cases.toml", &format!("{request}{case}"));
        let said = place.run("policy test cases.toml");
        assert_eq!(said.code, 78, "{case}");
        let expected = format!("error: cases.toml: {problem}");
        assert!(said.stderr.starts_with(&expected), "{}", said.stderr);
    }
}

/// All faults at once, each with its line and column and the line itself.
#[test]
fn check_names_every_fault_with_its_place_p_80() {
    let place = Place::new("policies = [\"*.cedar\"], entities = \"entities.json\"");
    place.write(
        "entities.json",
        "[\n  {\"uid\": {\"type\": \"xks::Account\", \"id\": \"12\"}}\n]\n",
    );
    place.write("a.cedar", "@id(\"a\") permit (principal, action);\n");
    place.write(
        "b.cedar",
        "@id(\"b\") permit (principal, action, resource)\n  when { principal.nothing == 1 };\n\
         permit (principal, action, resource);\n",
    );
    for command in ["policy check", "config check"] {
        let said = place.run(command);
        assert_eq!(said.code, 78);
        for words in [
            "entities.json:2:42: `12` is no id of xks::Account\n  2 |   {\"uid\"",
            "hint: 12 digits\n",
            "a.cedar:1:35: ",
            "b.cedar:2:10: ",
            "\n  2 |   when { principal.nothing == 1 };\n    |          ^^^^^^^^^^^^^^^^^\n",
            "b.cedar:3:1: a policy has no @id",
        ] {
            assert!(said.stderr.contains(words), "{words}\n--- not in\n{}", said.stderr);
        }
    }
    place.write("a.cedar", "@id(\"a\") permit (principal, action, resource);\n");
    place.write("b.cedar", "@id(\"b\") forbid (principal, action, resource) when { false };\n");
    place.write("entities.json", "[]");
    let said = place.run("policy check");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("b.cedar:1:1: "), "{}", said.stderr);
    assert!(said.stderr.ends_with("demo: enforce, policies: 2\n"), "{}", said.stderr);
    let json: Value = serde_json::from_str(&place.run("policy check --json").stdout).unwrap();
    assert_eq!(json[0]["policies"], serde_json::json!(["a", "b"]));
}

#[test]
fn without_policies_there_is_a_warning_p_80() {
    let place = Place::new("accounts = []");
    let said = place.run("config check");
    assert_eq!(said.code, 0);
    let words = "warning: xksd.toml: keystores.demo.authorization: is empty";
    assert!(said.stderr.starts_with(words), "{}", said.stderr);
    let place = Place::new("mode = \"off\"");
    assert!(!place.run("config check").stderr.contains("warning"));
}

#[test]
fn a_request_is_explained() {
    let place = Place::new("accounts = [\"111122223333\"], policies = [\"p.cedar\"]");
    place.write(
        "p.cedar",
        "@id(\"bob\") permit (principal == xks::User::\"arn:aws:iam::111122223333:user/Bob\",\n\
         action, resource);\n\
         @id(\"frozen\") @reason(\"all is frozen\") forbid (principal, action, resource);\n",
    );
    place.write(
        "request.toml",
        "[request]\nkeystore = \"demo\"\nkey = \"demo-1\"\noperation = \"decrypt\"\n\
         [request.metadata]\nawsPrincipalArn = \"arn:aws:iam::111122223333:user/Alice\"\n\
         kmsKeyArn = \"arn:aws:kms:us-east-1:111122223333:key/1\"\n",
    );
    let said = place.run("policy explain --request request.toml");
    assert_eq!(said.code, 0, "{}", said.stderr);
    for line in [
        "denied",
        "  reason     all is frozen",
        "  principal  xks::User::\"arn:aws:iam::111122223333:user/Alice\"",
        "  action     xks::Action::\"decrypt/kms:Decrypt\"",
        "  resource   xks::ExternalKey::\"demo/demo-1\"",
        "  permit     bob: does not apply",
        "  forbid     frozen: applies",
        "  forbid     xksd:account-of-the-kms-key: does not apply",
        "No policy permits it, and what none permits is denied.",
    ] {
        assert!(
            said.stdout.lines().any(|said| said == line),
            "{line}\n--- not in\n{}",
            said.stdout
        );
    }
    // As the audit log has it, between records of other kinds.
    place.write(
        "audit.jsonl",
        "{\"seq\":1,\"type\":\"opened\"}\n\
         {\"seq\":2,\"time\":\"2026-03-02T10:30:00.000000Z\",\"type\":\"request\",\
         \"kms_request_id\":\"r-1\",\"kms_operation\":\"GenerateDataKey\",\"operation\":\"Encrypt\",\
         \"keystore\":\"demo\",\"key\":\"cards\",\
         \"principal\":\"arn:aws:iam::111122223333:user/Bob\",\
         \"kms_key_arn\":\"arn:aws:kms:us-east-1:111122223333:key/1\",\
         \"access_key_id\":\"ABCDEFGHIJKLMNOPQRST\",\"region\":\"us-east-1\"}\n",
    );
    let said = place.run("policy explain --from-audit r-1 --audit-file audit.jsonl --json");
    assert_eq!(said.code, 0, "{}", said.stderr);
    let json: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["policies"], serde_json::json!(["frozen"]));
    assert_eq!(json["action"], "xks::Action::\"encrypt/kms:GenerateDataKey\"");
    assert_eq!(json["each_policy"][0]["fit"], "applies");
    let said = place.run("policy explain --from-audit r-2 --audit-file audit.jsonl");
    assert_eq!(said.code, 78);
    assert_eq!(place.run("policy explain --from-audit r-1").code, 64);
}

#[test]
fn what_nobody_can_do_is_found() {
    let place = Place::new("policies = [\"p.cedar\"]");
    place.write(
        "p.cedar",
        "@id(\"bob\") permit (principal in xks::Account::\"111122223333\", action, resource)\n\
         when { resource.id like \"demo-*\" };\n\
         @id(\"describe\") permit (principal, action in xks::Action::\"describe\", resource);\n\
         @id(\"unused\") forbid (principal is xks::AwsInternal, action, resource);\n",
    );
    place.write(
        "callers.toml",
        "[[caller]]\n[caller.metadata]\nawsPrincipalArn = \"arn:aws:iam::111122223333:user/Bob\"\n\
         kmsKeyArn = \"arn:aws:kms:us-east-1:111122223333:key/1\"\n",
    );
    let said = place.run("policy analyze --callers callers.toml");
    assert_eq!(
        said.stdout,
        "demo: 16 requests, 10 allowed\n  nobody can encrypt with key cards\n  \
         nobody can decrypt with key cards\n  policy unused never decided\n"
    );
    assert_eq!(said.code, 1, "{}", said.stderr);
    let json = place.run("policy analyze --callers callers.toml --json").stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["never_decided"], serde_json::json!(["unused"]));
}

#[test]
fn decisions_are_measured() {
    let place = Place::new("mode = \"off\"");
    let file = cookbook().join("encrypt-only.test.toml");
    let said = place.run(&format!("policy test --measure 10 {}", file.display()));
    assert_eq!(said.code, 0);
    let count = fs::read_to_string(file).unwrap().matches("[[case]]").count();
    let words = format!("{} decisions; microseconds; made: p50 ", count * 10);
    assert!(said.stderr.starts_with(&words), "{}", said.stderr);
    assert!(!said.stderr.contains("p50 0.0,"), "a decision takes longer: {}", said.stderr);
}

#[test]
fn the_schema_is_printed() {
    let said = Place::new("mode = \"off\"").run("policy schema");
    assert_eq!(said.code, 0);
    assert!(said.stdout.contains("namespace xks {"));
}
