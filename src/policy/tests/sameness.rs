//! What is left out, and what is remembered, changes no answer.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{Asked, MONDAY, OURS, THEIRS, policies, source};
use crate::policy::{Authorization, Authorizer, Decision, Facts, Outcome, Settings};
use crate::wire::route::KeyOperation::{self, Decrypt, Encrypt, Metadata};

const PRINCIPALS: [&str; 9] = [
    "arn:aws:iam::111122223333:user/Alice",
    "arn:aws:iam::111122223333:user/Bob",
    "arn:aws:iam::444455556666:user/Alice",
    "arn:aws:iam::111122223333:role/nightly/Backup",
    "arn:aws:sts::111122223333:assumed-role/Backup/job",
    "arn:aws:sts::444455556666:assumed-role/Backup/job",
    "ec2.amazonaws.com",
    "AWS Internal",
    "arn:aws:iam::111122223333:nobody",
];

const SCOPES_OF_PRINCIPALS: [&str; 10] = [
    "principal",
    "principal == xks::User::\"arn:aws:iam::111122223333:user/Alice\"",
    "principal in xks::Role::\"arn:aws:iam::111122223333:role/Backup\"",
    "principal in xks::Account::\"111122223333\"",
    "principal in xks::Group::\"people\"",
    "principal in xks::Group::\"ours\"",
    "principal is xks::AssumedRole",
    "principal is xks::User in xks::Group::\"both\"",
    "principal == xks::AwsInternal::\"AWS Internal\"",
    "principal is xks::Unrecognized",
];

const SCOPES_OF_ACTIONS: [&str; 7] = [
    "action",
    "action == xks::Action::\"encrypt/kms:Encrypt\"",
    "action in xks::Action::\"decrypt\"",
    "action in xks::Action::\"kms:ReEncrypt\"",
    "action in [xks::Action::\"encrypt\", xks::Action::\"kms:CreateKey\"]",
    "action in [xks::Action::\"describe\", xks::Action::\"decrypt/other\"]",
    "action in xks::Action::\"encrypt/other\"",
];

const SCOPES_OF_RESOURCES: [&str; 6] = [
    "resource",
    "resource == xks::ExternalKey::\"demo/payments-1\"",
    "resource in xks::Keystore::\"demo\"",
    "resource in xks::Group::\"keys\"",
    "resource is xks::ExternalKey in xks::Group::\"both\"",
    "resource is xks::ExternalKey",
];

const CONDITIONS: [&str; 27] = [
    "true",
    "context.kmsOperation == \"GenerateDataKey\"",
    "context has kmsViaService && context.kmsViaService like \"s3.*\"",
    "context has sourceVpc",
    "context has sourceVpce && context.sourceVpce == \"vpce-1\"",
    "context has clientSubject && context.clientSubject == \"CN=kms\"",
    "context has kmsKey && context.kmsKey.account == xks::Account::\"111122223333\"",
    "context has kmsKey && context.kmsKey.account in xks::Group::\"ours\"",
    "context.kmsKeyUnreadable",
    "context.weekday <= 5",
    "context.time.toTime() <= duration(\"10h30m\")",
    "context has time",
    "context.metadata.hasTag(\"a\") && context.metadata.getTag(\"a\") == \"1\"",
    "context == context",
    // These fail: always, on some days, with some members.
    "9223372036854775807 + context.weekday > 0",
    "9223372036854775807 + (if context.weekday == 6 then 1 else 0) > 0",
    "9223372036854775807 + (if context.metadata.hasTag(\"a\") then 1 else 0) > 0",
    "9223372036854775807 + (if resource.id like \"pay*\" then 1 else 0) > 0",
    "xks::Account::\"111122223333\" in xks::Group::\"ours\"",
    "xks::Group::\"keys\" in xks::Group::\"all-keys\"",
    "xks::Role::\"arn:aws:iam::111122223333:role/Backup\" in xks::Account::\"111122223333\"",
    "resource in xks::Group::\"both\" && principal in xks::Group::\"both\"",
    "(if context.kmsKeyUnreadable then xks::Account::\"444455556666\" else xks::Account::\"111122223333\") in xks::Group::\"ours\"",
    "resource.hasTag(\"team\") && resource.getTag(\"team\") == \"payments\"",
    "xks::ExternalKey::\"demo/payments-1\".hasTag(\"team\")",
    "principal has account && principal.account in resource.keystore.accounts",
    "xks::Action::\"encrypt/kms:Encrypt\" in xks::Action::\"encrypt\" && action in xks::Action::\"encrypt\"",
];

/// Who and what is in the groups that are named above.
fn entities() -> Value {
    let of = |kind: &str, id: &str, groups: &[&str]| {
        let group = |group: &&str| json!({"type": "xks::Group", "id": group});
        let parents: Vec<Value> = groups.iter().map(group).collect();
        json!({"uid": {"type": format!("xks::{kind}"), "id": id}, "parents": parents})
    };
    let mut key = of("ExternalKey", "demo/payments-1", &["keys", "both"]);
    key["tags"] = json!({"team": "payments"});
    json!([
        key,
        of("User", PRINCIPALS[0], &["people", "both"]),
        of("Account", OURS, &["ours"]),
        of("Role", "arn:aws:iam::111122223333:role/Backup", &["people"]),
        of("Group", "keys", &["all-keys"]),
    ])
}

/// Whatever can be said with these scopes and conditions.
fn written() -> impl Strategy<Value = Settings> {
    let scope = (
        select(SCOPES_OF_PRINCIPALS.to_vec()),
        select(SCOPES_OF_ACTIONS.to_vec()),
        select(SCOPES_OF_RESOURCES.to_vec()),
    );
    // Some of them are about everything, so that conditions are what decides.
    let scope = prop_oneof![Just(("principal", "action", "resource")), scope];
    let policy = (prop::bool::weighted(0.7), scope, select(CONDITIONS.to_vec()), any::<bool>());
    (prop::collection::vec(policy, 1..12), any::<bool>()).prop_map(|(written, guarded)| {
        let policy = |(number, (permits, scope, condition, holds))| {
            let (effect, (principal, action, resource)) =
                (if permits { "permit" } else { "forbid" }, scope);
            let when = if holds { "when" } else { "unless" };
            format!(
                "@id(\"p{number}\") @reason(\"because of {number}\")
                 {effect} ({principal}, {action}, {resource}) {when} {{ {condition} }};\n"
            )
        };
        let text: String = written.into_iter().enumerate().map(policy).collect();
        let accounts = if guarded { vec![OURS.parse().unwrap()] } else { vec![] };
        let entities = Some(source("entities.json", &entities().to_string()));
        Settings { accounts, entities, ..policies(&text) }
    })
}

/// Requests that differ in little, so that one might be taken for another.
fn asked() -> impl Strategy<Value = Asked> {
    let operations = select(vec![
        (Metadata, "CreateKey"),
        (Metadata, "DescribeKey"),
        (Encrypt, "Encrypt"),
        (Encrypt, "GenerateDataKey"),
        (Encrypt, "ReEncrypt"),
        (Encrypt, "Decrypt"),
        (Decrypt, "Decrypt"),
        (Decrypt, "ReEncrypt"),
        (Decrypt, "Encrypt"),
    ]);
    let keys = [OURS, THEIRS].map(|account| format!("arn:aws:kms:us-east-1:{account}:key/1"));
    let key_arns = select(vec![keys[0].clone(), keys[1].clone(), "key".to_owned()]);
    let members = select(vec![
        json!({}),
        json!({"a": "1"}),
        json!({"a": "2"}),
        json!({"b": "1"}),
        json!({"kmsViaService": "s3.us-east-1.amazonaws.com"}),
        json!({"kmsViaService": "ec2.us-east-1.amazonaws.com"}),
        json!({"awsSourceVpc": "vpce-1"}),
        json!({"awsSourceVpce": "vpce-1"}),
        json!({"awsSourceVpce": "vpce-2"}),
    ]);
    // Milliseconds after Monday, 10:30: within a second, the next, and Saturday.
    let times = select(vec![0, 999, 1000, 5 * 24 * 3600 * 1000]);
    let subjects = select(vec![None, Some("CN=kms".to_owned()), Some("CN=other".to_owned())]);
    let rest = (select(vec!["payments-1", "payments-2"]), key_arns, members, times, subjects);
    (operations, select(PRINCIPALS.to_vec()), any::<u8>(), rest).prop_map(
        |((operation, kms), principal, id, (key, key_arn, members, time, client_subject))| {
            let asked = Asked::new(operation)
                .by(principal)
                .with("kmsOperation", kms)
                .with("kmsKeyArn", if kms == "CreateKey" { Value::Null } else { key_arn.into() })
                .with("kmsRequestId", id.to_string());
            let members = members.as_object().unwrap().clone();
            let asked =
                members.into_iter().fold(asked, |asked, (name, value)| asked.with(&name, value));
            let time = std::time::SystemTime::UNIX_EPOCH + MONDAY + Duration::from_millis(time);
            Asked { key: key.parse().unwrap(), client_subject, time, ..asked }
        },
    )
}

type Said = (Outcome, Vec<String>, Vec<String>, Vec<String>);

fn said(decision: &Decision) -> Said {
    let mut errors = decision.errors().to_vec();
    errors.sort();
    (decision.outcome(), decision.policies().into(), decision.reasons().into(), errors)
}

/// All policies are asked, with all entities, and nothing is remembered.
fn said_plainly(authorizer: &Authorizer, facts: &Facts<'_>) -> Said {
    let question = authorizer.question(facts).unwrap();
    let (policies, cedar) = (&authorizer.policies, &authorizer.cedar);
    let response = cedar.is_authorized(&question.request, policies, &question.entities);
    let failed = response.diagnostics().errors().map(|error| match error {
        cedar_policy::AuthorizationError::PolicyEvaluationError(error) => {
            (error.inner().to_string(), error.policy_id().to_string())
        }
    });
    let (mut errors, mut failed): (Vec<_>, Vec<_>) = failed.unzip();
    errors.sort();
    failed.sort();
    if !failed.is_empty() {
        return (Outcome::Error, failed, vec![], errors);
    }
    let mut decided: Vec<_> = response.diagnostics().reason().collect();
    decided.sort();
    let reasons = decided.iter().filter_map(|id| policies.annotation(id, "reason"));
    let reasons = reasons.map(str::to_owned).collect();
    let outcome = match response.decision() {
        cedar_policy::Decision::Allow => Outcome::Allowed,
        cedar_policy::Decision::Deny => Outcome::Denied,
    };
    (outcome, decided.iter().map(ToString::to_string).collect(), reasons, vec![])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_out_or_remembered_changes_no_answer_p_80(
        settings in written(), asked in prop::collection::vec(asked(), 1..40)
    ) {
        let (authorization, _) = Authorization::new(settings.clone()).unwrap();
        let authorizer = authorization.authorizer().unwrap();
        // What is remembered from the first time is asked for the second time.
        for asked in asked.iter().chain(&asked) {
            let answers = asked.facts(|facts| {
                let anew = said(&authorizer.decide_anew(facts));
                (said_plainly(authorizer, facts), anew, said(&authorizer.decide(facts)))
            });
            let (plainly, anew, remembered) = answers;
            prop_assert_eq!(&plainly, &anew, "{:?}\n{}", asked, settings.policies[0].text);
            prop_assert_eq!(&plainly, &remembered, "{:?}\n{}", asked, settings.policies[0].text);
        }
    }
}

/// Whether a decision is remembered for this request.
fn is_remembered(authorization: &Authorization, asked: &Asked) -> bool {
    asked.facts(|facts| authorization.authorizer().unwrap().remembers(facts))
}

#[test]
fn another_id_is_the_same_question_and_another_caller_is_not() {
    let authorization = super::authorization(super::guard());
    let asked = |operation: KeyOperation| Asked::new(operation);
    assert!(!is_remembered(&authorization, &asked(Encrypt)));
    asked(Encrypt).put_to(&authorization);
    assert!(is_remembered(&authorization, &asked(Encrypt)));
    assert!(is_remembered(&authorization, &asked(Encrypt).with("kmsRequestId", "another")));
    // No policy looks at it.
    assert!(is_remembered(&authorization, &asked(Encrypt).with("sourceIdentity", "Bob")));
    for other in [
        asked(Decrypt),
        asked(Encrypt).by("AWS Internal"),
        asked(Encrypt).with("kmsOperation", "ReEncrypt"),
        asked(Encrypt).with("kmsKeyArn", "key"),
        asked(Encrypt).with("kmsViaService", ""),
        Asked { key: "other".parse().unwrap(), ..asked(Encrypt) },
        Asked { client_subject: Some(String::new()), ..asked(Encrypt) },
    ] {
        assert!(!is_remembered(&authorization, &other), "{other:?}");
    }
}

#[test]
fn what_time_decides_is_remembered_for_a_second() {
    let text = "@id(\"p\") permit (principal, action in xks::Action::\"encrypt\", resource)
        when { context.weekday == 1 };";
    let authorization = super::authorization(policies(text));
    let later = |asked: Asked, milliseconds| Asked {
        time: asked.time + Duration::from_millis(milliseconds),
        ..asked
    };
    Asked::new(Encrypt).put_to(&authorization);
    Asked::new(Decrypt).put_to(&authorization);
    assert!(is_remembered(&authorization, &later(Asked::new(Encrypt), 999)));
    assert!(!is_remembered(&authorization, &later(Asked::new(Encrypt), 1000)));
    // Of decryptions no policy asks the time.
    assert!(is_remembered(&authorization, &later(Asked::new(Decrypt), 1000)));
}

#[test]
fn errors_are_not_remembered() {
    let text = "@id(\"p\") permit (principal, action, resource)
        when { 9223372036854775807 + (if resource.id like \"pay*\" then 1 else 0) > 0 };";
    let authorization = super::authorization(policies(text));
    let asked = Asked::new(Encrypt);
    assert_eq!(asked.put_to(&authorization).outcome(), Outcome::Error);
    assert!(!is_remembered(&authorization, &asked));
}
