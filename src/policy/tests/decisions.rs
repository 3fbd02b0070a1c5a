use serde_json::{Value, json};

use super::super::Outcome::{Allowed, Denied, Error, ShadowDenied, ShadowError};
use super::{Asked, OURS, THEIRS, authorization, guard, policies, shadow, source};
use crate::policy::{Authorization, Outcome, Settings};
use crate::wire::route::KeyOperation::{Decrypt, Encrypt, Metadata};

fn outcome(authorization: &Authorization, asked: &Asked) -> Outcome {
    asked.put_to(authorization).outcome()
}

/// Whether a policy with this condition permits.
fn holds(condition: &str, asked: &Asked) -> bool {
    let text = format!("@id(\"p\") permit (principal, action, resource) when {{ {condition} }};");
    outcome(&authorization(policies(&text)), asked) == Allowed
}

#[test]
fn without_policies_and_accounts_nothing_is_asked_p_80() {
    let open = authorization(Settings::default());
    assert!(open.authorizer().is_none());
    let asked = Asked::new(Encrypt).by("whoever");
    let (decision, passes) = Asked::of(&open, &asked);
    assert!(decision.is_none() && passes);
}

#[test]
fn the_guard_wants_keys_of_our_accounts_p_80() {
    let guard = authorization(guard());
    let their_key = format!("arn:aws:kms:us-east-1:{THEIRS}:key/1");
    let their_user = format!("arn:aws:iam::{THEIRS}:user/Alice");
    for operation in [Encrypt, Decrypt, Metadata] {
        let asked = Asked::new(operation);
        assert_eq!(outcome(&guard, &asked), Allowed);
        // Whose the key is counts, not who calls: that is for the key policy in AWS.
        assert_eq!(outcome(&guard, &asked.clone().by(&their_user)), Allowed);
        assert_eq!(outcome(&guard, &asked.clone().with("kmsKeyArn", &*their_key)), Denied);
        assert_eq!(outcome(&guard, &asked.with("kmsKeyArn", format!("key of {OURS}"))), Denied);
    }
    let decision = Asked::new(Decrypt).with("kmsKeyArn", &*their_key).put_to(&guard);
    assert_eq!(decision.policies(), ["xksd:account-of-the-kms-key"]);
    assert_eq!(decision.reasons(), ["the KMS key belongs to no AWS account of this key store"]);
}

/// CreateKey names no KMS key.
#[test]
fn the_guard_lets_keys_be_created_by_our_accounts_p_80() {
    let guard = authorization(guard());
    let create =
        Asked::new(Metadata).with("kmsKeyArn", Value::Null).with("kmsOperation", "CreateKey");
    for (principal, expected) in [
        (format!("arn:aws:iam::{OURS}:user/Alice"), Allowed),
        (format!("arn:aws:sts::{OURS}:assumed-role/Admin/me"), Allowed),
        ("ec2.amazonaws.com".to_owned(), Allowed),
        ("AWS Internal".to_owned(), Allowed),
        (format!("arn:aws:iam::{THEIRS}:user/Alice"), Denied),
        (format!("arn:aws:iam::{OURS}:user"), Denied),
        ("aws internal".to_owned(), Denied),
        ("*".to_owned(), Denied),
    ] {
        assert_eq!(outcome(&guard, &create.clone().by(&principal)), expected, "{principal}");
    }
    let decision = create.by("*").put_to(&guard);
    assert_eq!(decision.policies(), ["xksd:account-of-the-caller"]);
}

/// The guard forbids whatever else permits, and permits nothing where there are policies.
#[test]
fn the_guard_stands_before_policies_p_80() {
    let permit = r#"@id("all") permit (principal, action in xks::Action::"encrypt", resource);"#;
    let both = authorization(Settings { policies: policies(permit).policies, ..guard() });
    assert_eq!(outcome(&both, &Asked::new(Encrypt)), Allowed);
    assert_eq!(outcome(&both, &Asked::new(Decrypt)), Denied);
    let their_key = format!("arn:aws:kms:us-east-1:{THEIRS}:key/1");
    assert_eq!(outcome(&both, &Asked::new(Encrypt).with("kmsKeyArn", their_key)), Denied);
}

#[test]
fn what_no_policy_permits_is_denied_p_80() {
    let none = authorization(policies("// nothing\n"));
    let decision = Asked::new(Encrypt).put_to(&none);
    assert_eq!(decision.outcome(), Denied);
    assert_eq!(decision.policies(), [""; 0]);
    assert_eq!(decision.reasons(), [""; 0]);
}

#[test]
fn decisions_name_their_policies_p_80() {
    let text = r#"
        @id("team") permit (principal, action, resource);
        @id("b") @reason("second") forbid (principal, action in xks::Action::"kms:ReEncrypt", resource);
        @id("a") @reason("first") forbid (principal, action, resource)
            when { context.kmsOperation == "ReEncrypt" };
    "#;
    let authorization = authorization(policies(text));
    let decision = Asked::new(Encrypt).put_to(&authorization);
    assert_eq!((decision.outcome(), decision.policies()), (Allowed, &["team".to_owned()][..]));
    let decision = Asked::new(Decrypt).with("kmsOperation", "ReEncrypt").put_to(&authorization);
    assert_eq!(decision.outcome(), Denied);
    assert_eq!(decision.policies(), ["a", "b"]);
    assert_eq!(decision.reasons(), ["first", "second"]);
    assert_eq!(decision.denial().reason(), Some("first"));
}

#[test]
fn a_policy_that_fails_denies_p_80() {
    // What is too large is known only when it is counted.
    let text = r#"
        @id("all") permit (principal, action, resource);
        @id("broken") @reason("r") forbid (principal, action, resource)
            when { 9223372036854775807 + (if resource.id like "pay*" then 1 else 0) == 1 };
    "#;
    let authorization_ = authorization(policies(text));
    let decision = Asked::new(Encrypt).put_to(&authorization_);
    assert_eq!(decision.outcome(), Error);
    assert_eq!(decision.policies(), ["broken"]);
    assert_eq!(decision.errors().len(), 1);
    assert_eq!(decision.reasons(), [""; 0]);
    let mut other = Asked::new(Encrypt);
    other.key = "other".parse().unwrap();
    assert_eq!(outcome(&authorization_, &other), Allowed);
    let shadow = authorization(shadow(policies(text)));
    assert_eq!(outcome(&shadow, &Asked::new(Encrypt)), ShadowError);
}

#[test]
fn in_shadow_mode_everything_passes_p_80() {
    let shadow = authorization(shadow(policies("")));
    let (decision, passes) = Asked::of(&shadow, &Asked::new(Decrypt));
    assert_eq!(decision.unwrap().outcome(), ShadowDenied);
    assert!(passes);
}

#[test]
fn principals_are_what_they_are_in_p_80() {
    let role = format!("arn:aws:iam::{OURS}:role/Backup");
    let with_path = format!("arn:aws:iam::{OURS}:role/nightly/Backup");
    let session = format!("arn:aws:sts::{OURS}:assumed-role/Backup/job-1");
    let in_role = format!("principal in xks::Role::\"{role}\"");
    for principal in [&role, &with_path, &session] {
        let asked = Asked::new(Encrypt).by(principal);
        assert!(holds(&in_role, &asked), "{principal}");
        assert!(holds(&format!("principal in xks::Account::\"{OURS}\""), &asked));
        assert!(!holds(&format!("principal in xks::Account::\"{THEIRS}\""), &asked));
    }
    let other = format!("arn:aws:sts::{OURS}:assumed-role/backup/job-1");
    assert!(!holds(&in_role, &Asked::new(Encrypt).by(&other)));
    let named = "principal is xks::AssumedRole && principal.session like \"job-*\"";
    assert!(holds(named, &Asked::new(Encrypt).by(&session)));
    let service = Asked::new(Encrypt).by("ec2.amazonaws.com");
    assert!(holds("principal == xks::ServicePrincipal::\"ec2.amazonaws.com\"", &service));
    assert!(holds("!(principal has account)", &service));
    assert!(holds("principal is xks::AwsInternal", &Asked::new(Encrypt).by("AWS Internal")));
    assert!(holds("principal is xks::Unrecognized", &Asked::new(Encrypt).by("Alice")));
}

#[test]
fn the_context_has_what_kms_says_p_80() {
    let mut asked = Asked::new(Encrypt)
        .with("kmsViaService", "s3.us-east-1.amazonaws.com")
        .with("awsSourceVpc", "vpc-1")
        .with("awsSourceVpce", "vpce-1")
        .with("sourceIdentity", "Bob")
        .with("attempt", 2)
        .with("kmsOperation", "GenerateDataKey");
    asked.client_subject = Some("CN=kms".to_owned());
    for condition in [
        "context.kmsOperation == \"GenerateDataKey\"",
        "action in xks::Action::\"kms:GenerateDataKey\"",
        "action in [xks::Action::\"encrypt\"]",
        "context has kmsKey && context.kmsKey.region == \"us-east-1\"",
        "context has kmsKey && context.kmsKey.partition == \"aws\" && context.kmsKey.id == \"1234abcd\"",
        "context has kmsKey && context.kmsKey.account == xks::Account::\"111122223333\"",
        "context has kmsViaService && context.kmsViaService like \"s3.*\"",
        "context has sourceVpc && context.sourceVpc == \"vpc-1\"",
        "context has sourceVpce && context.sourceVpce == \"vpce-1\"",
        "context.accessKeyId == \"ABCDEFGHIJKLMNOPQRST\" && context.region == \"us-east-1\"",
        "context has clientSubject && context.clientSubject == \"CN=kms\"",
        "context.time.toTime() >= duration(\"10h\") && context.time < datetime(\"2026-03-03\")",
        "context.metadata.hasTag(\"sourceIdentity\") && context.metadata.getTag(\"sourceIdentity\") == \"Bob\"",
        "context.weekday == 1",
        "context.metadata.hasTag(\"attempt\") && context.metadata.getTag(\"attempt\") == \"2\"",
        "resource in xks::Keystore::\"demo\" && resource.id == \"payments-1\"",
        "resource == xks::ExternalKey::\"demo/payments-1\"",
        "resource.keystore == xks::Keystore::\"demo\"",
        "!context.kmsKeyUnreadable",
    ] {
        assert!(holds(condition, &asked), "{condition}");
    }
    let bare = Asked::new(Decrypt).with("kmsKeyArn", "what?").with("kmsOperation", "BulkDecrypt");
    for condition in [
        "!(context has kmsKey) && context.kmsKeyUnreadable",
        "!(context has kmsViaService) && !(context has sourceVpc) && !(context has sourceVpce)",
        "!(context has clientSubject) && !context.metadata.hasTag(\"sourceIdentity\")",
        "action == xks::Action::\"decrypt/other\" && action in xks::Action::\"decrypt\"",
    ] {
        assert!(holds(condition, &bare), "{condition}");
    }
}

#[test]
fn groups_and_tags_are_those_of_the_entities_file_p_80() {
    let entities = json!([
        {"uid": {"type": "xks::Account", "id": OURS}, "parents": [{"type": "xks::Group", "id": "ours"}]},
        {"uid": {"type": "xks::Role", "id": format!("arn:aws:iam::{OURS}:role/Backup")},
         "parents": [{"type": "xks::Group", "id": "backup"}]},
        {"uid": {"type": "xks::ExternalKey", "id": "demo/payments-1"},
         "parents": [{"type": "xks::Group", "id": "pci"}], "tags": {"team": "payments"}},
    ]);
    let session = format!("arn:aws:sts::{OURS}:assumed-role/Backup/job");
    let asked = Asked::new(Encrypt).by(&session);
    for (condition, expected) in [
        ("principal in xks::Group::\"backup\"", true),
        ("principal in xks::Group::\"ours\"", true),
        ("principal in xks::Group::\"pci\"", false),
        ("context has kmsKey && context.kmsKey.account in xks::Group::\"ours\"", true),
        ("principal has account && principal.account in xks::Group::\"ours\"", true),
        ("resource in xks::Group::\"pci\"", true),
        ("resource.hasTag(\"team\") && resource.getTag(\"team\") == \"payments\"", true),
        ("xks::Account::\"111122223333\" in xks::Group::\"ours\"", true),
        ("resource == xks::ExternalKey::\"demo/payments-1\" && resource.hasTag(\"team\")", true),
    ] {
        let text =
            format!("@id(\"p\") permit (principal, action, resource) when {{ {condition} }};");
        let entities = Some(source("entities.json", &entities.to_string()));
        let settings = Settings { entities, ..policies(&text) };
        let is_allowed = outcome(&authorization(settings), &asked) == Allowed;
        assert_eq!(is_allowed, expected, "{condition}");
    }
}
