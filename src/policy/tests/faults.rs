use super::{OURS, authorization, guard, policies, source};
use crate::policy::{Authorization, Settings};

/// Line, column and words of each fault.
fn faults(settings: Settings) -> Vec<(String, usize, usize, String)> {
    let faults = Authorization::new(settings).unwrap_err();
    let seen = faults.into_iter().map(|fault| {
        let place = fault.place.clone().unwrap_or_else(|| panic!("{fault} has no place"));
        (fault.file.display().to_string(), place.line, place.column, fault.problem)
    });
    seen.collect()
}

/// Each error of a policy set that is broken in every way is said, with line and column.
#[test]
fn every_error_is_said_with_its_place_p_80() {
    let broken = r#"@id("one") permit (principal, action, resource) when { principal.name == "x" };
@id("two") permit (principal, action == xks::Action::"delete", resource);
@id("three") permit (principal == xks::Person::"x", action, resource);
permit (principal, action, resource);
@id("one") permit (principal, action, resource);
@id("xksd:four") permit (principal, action, resource);
@id("fi ve") permit (principal, action, resource);
@id("six") permit (principal, action, resource) when { context.kmsKey.id == "x" };
@id("seven") permit (principal, action, resource) when { resource.id == 7 };
@id("eight") permit (principal in xks::Account::"1111", action, resource);
@id("nine") permit (principal in xks::Role::"arn:aws:iam::111122223333:user/x", action, resource);
@id("ten") permit (principal in xks::Group::"nobody", action, resource);
@id("eleven") permit (principal in ?principal, action, resource);
@id("twelve") permit (principal, action, resource) when { context.metadata.getTag("x") == "x" };
@id("thirteen") permit (principal, action, resource) when { principal.account == xks::Account::"111122223333" };
"#;
    let faults = faults(policies(broken));
    // One mistake is one fault, in however many kinds of requests it is one. A policy for an action or
    // a type that is none applies to nothing, which is said as well.
    let lines: Vec<_> = faults.iter().map(|fault| fault.1).collect();
    let expected = [1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    assert_eq!(lines, expected, "{faults:#?}");
    let position = |line| faults.iter().find(|fault| fault.1 == line).unwrap().2;
    assert_eq!(position(1), 56, "{faults:#?}");
    assert_eq!(position(9), 58, "{faults:#?}");
}

/// Of a file that is no Cedar, every error that Cedar's parser finds; other files are read all the
/// same.
#[test]
fn syntax_errors_are_all_said_p_80() {
    let first = "@id(\"a\") permit (principal, action);\n\npermit (x, action, resource);\n";
    let second = "@id(\"b\") forbid (principal, action, resource) when { resource.nothing };";
    let sources = vec![source("one.cedar", first), source("two.cedar", second)];
    let faults = faults(Settings { policies: sources, ..guard() });
    let places: Vec<_> = faults.iter().map(|(file, line, ..)| (file.as_str(), *line)).collect();
    assert_eq!(places, [("one.cedar", 1), ("one.cedar", 3), ("two.cedar", 1)], "{faults:#?}");
}

#[test]
fn a_policy_of_the_same_id_in_another_file_is_named_p_80() {
    let text = "@id(\"a\") permit (principal, action, resource);";
    let sources = vec![source("one.cedar", text), source("two.cedar", text)];
    let found = Authorization::new(Settings { policies: sources, ..Settings::default() });
    let found = found.unwrap_err().remove(0);
    assert_eq!(found.file.display().to_string(), "two.cedar");
    assert_eq!(found.hint.unwrap(), "it is in one.cedar");
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let text = "@id(\"never\") permit (principal, action, resource) when { false };";
    let (_, warnings) = Authorization::new(policies(text)).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].problem.contains("impossible"), "{}", warnings[0]);
}

#[test]
fn faults_of_entities_and_of_policies_are_said_together() {
    let settings = Settings {
        entities: Some(source("entities.json", "[{\"uid\": {\"type\": \"x\", \"id\": \"y\"}}]")),
        ..policies("@id(\"a\") permit (principal, action, resource) when { 1 };")
    };
    let files: Vec<_> = faults(settings).into_iter().map(|fault| fault.0).collect();
    assert_eq!(files, ["entities.json", "p.cedar"]);
}

#[test]
fn our_own_policies_are_valid() {
    let both = authorization(guard());
    let ids = both.authorizer().unwrap().policies();
    let expected =
        ["xksd:account-of-the-caller", "xksd:account-of-the-kms-key", "xksd:accounts-alone"];
    assert_eq!(ids, expected);
    let account =
        format!("@id(\"a\") permit (principal in xks::Account::\"{OURS}\", action, resource);");
    let ids = authorization(Settings { accounts: guard().accounts, ..policies(&account) });
    assert_eq!(ids.authorizer().unwrap().policies().len(), 3);
}
