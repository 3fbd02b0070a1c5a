//! The section `keystores.NAME.authorization`.

use super::{Dir, GOOD, with};
use crate::policy::{Authorization, Mode};

const PERMIT: &str = "@id(\"p\") permit (principal, action, resource);";

/// The good configuration with this in the section.
fn toml(lines: &str) -> String {
    with("mode = \"off\"", lines)
}

fn read(dir: &Dir, lines: &str) -> (Authorization, Vec<String>) {
    let mut config = dir.load(&toml(lines), &[]).unwrap_or_else(|errors| panic!("{errors}"));
    (config.keystores.remove(0).authorization, config.warnings)
}

#[track_caller]
fn one(dir: &Dir, lines: &str, said: &str) {
    let faults = dir.said(&toml(lines));
    assert_eq!(faults.len(), 1, "{faults:#?}");
    assert!(faults[0].contains(said), "{}\nshould say\n{said}", faults[0]);
}

#[test]
fn without_accounts_and_policies_nothing_is_asked_and_that_is_warned_of_p_80() {
    let dir = Dir::new();
    for lines in ["", "accounts = []", "mode = \"shadow\""] {
        let (authorization, warnings) = read(&dir, lines);
        assert!(matches!(authorization, Authorization::Open), "{lines}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("keystores.demo.authorization: is empty"), "{warnings:?}");
    }
    let (authorization, warnings) = read(&dir, "mode = \"off\"");
    assert!(matches!(authorization, Authorization::Open));
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn accounts_and_policies_are_read_p_80() {
    let dir = Dir::new();
    dir.write("policies/b.cedar", PERMIT);
    dir.write("policies/a.cedar", &PERMIT.replace("\"p\"", "\"q\""));
    dir.write("entities.json", "[]");
    for (lines, mode, policies) in [
        ("accounts = [\"111122223333\"]", Mode::Enforce, 3),
        ("policies = [\"policies/*.cedar\"]\nmode = \"shadow\"", Mode::Shadow, 2),
        // Named twice, read once.
        ("policies = [\"policies/b.cedar\", \"policies/b.*\"]", Mode::Enforce, 1),
        (
            "accounts = [\"111122223333\"]\npolicies = \"policies/a.cedar\"\n\
             entities = \"entities.json\"",
            Mode::Enforce,
            3,
        ),
    ] {
        let (authorization, warnings) = read(&dir, lines);
        let authorizer = authorization.authorizer().unwrap_or_else(|| panic!("{lines}"));
        assert_eq!((authorizer.mode(), authorizer.policies().len()), (mode, policies), "{lines}");
        assert_eq!(warnings, [""; 0], "{lines}");
    }
    let never = "@id(\"n\") forbid (principal, action, resource) when { false };";
    dir.write("never.cedar", never);
    let (_, warnings) = read(&dir, "policies = [\"*.cedar\"]");
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("keystores.demo.authorization.policies: "), "{warnings:?}");
    assert!(warnings[0].contains("never.cedar:1:1: "), "{warnings:?}");
}

#[test]
fn each_fault_is_said_p_80() {
    let dir = Dir::new();
    dir.write("p.cedar", PERMIT);
    dir.write("bad.cedar", "@id(\"b\") permit (principal, action, resource) when { 1 };");
    dir.write("bad.json", "[{}]");
    for (lines, said) in [
        ("accounts = [\"1111\"]", "accounts[0] = \"1111\": an AWS account has 12 digits"),
        ("accounts = [111122223333]", "accounts[0] = 111122223333: must be a string, in quotes"),
        ("policies = [\"none.cedar\"]", "none.cedar\": cannot be read: "),
        ("policies = [\"x*.cedar\"]", "= \"x*.cedar\": no file has a name like this"),
        ("policies = [\"bad.cedar\"]", "bad.cedar:1:54: "),
        ("policies = [\"p.cedar\"]\nentities = \"bad.json\"", "authorization.entities: "),
        ("policies = [\"p.cedar\"]\nentities = \"no.json\"", "no.json\": cannot be read: "),
        ("accounts = [\"111122223333\"]\nentities = \"bad.json\"", "means nothing without"),
        ("mode = \"on\"", "mode = \"on\": must be"),
        // What is off is read all the same.
        ("policies = [\"bad.cedar\"]\nmode = \"off\"", "bad.cedar:1:54: "),
        ("policy = \"p.cedar\"", "authorization.policy: is no known key"),
    ] {
        one(&dir, lines, said);
    }
    assert!(GOOD.contains("mode = \"off\""));
}
