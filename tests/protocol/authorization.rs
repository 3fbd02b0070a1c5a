//! Secondary authorization (P-80): policies decide before any key is looked at, and health is not
//! asked about.

use std::fs;

use serde_json::{Value, json};
use support::caller::Caller;
use support::daemon::Daemon;
use support::request::{bare_body, decrypt_body, encrypt_body};
use support::site::{Configuration, Tenant};

use crate::world::{AUTHENTICATION_FAILED, KEY_NOT_FOUND, demo, other, small_site};

const ACCESS_DENIED: &str = "AccessDeniedException";

/// Alice of the specification's examples may do all but ReEncrypt, and nobody else anything.
const POLICIES: &str = r#"
@id("alice")
permit (principal == xks::User::"arn:aws:iam::123456789012:user/Alice", action, resource);

@id("no-reencrypt")
@reason("ReEncrypt is not allowed: see \"the runbook\" \n (\u{e9})")
forbid (principal, action in xks::Action::"kms:ReEncrypt", resource);
"#;

/// A daemon whose key store is guarded like this.
fn daemon(authorization: &'static str) -> Daemon {
    let tenant = Tenant { lines: vec![authorization], ..demo() };
    let configuration = Configuration::new(vec![tenant]);
    let site = small_site(&Configuration::new(vec![demo()]));
    fs::write(site.path().join("alice.cedar"), POLICIES).unwrap();
    site.configure(&configuration);
    Daemon::start(site)
}

/// The body with another member of the metadata, or without it.
fn with(mut body: Value, member: &str, value: impl Into<Value>) -> Value {
    body["requestMetadata"][member] = value.into();
    body
}

#[test]
fn what_policies_deny_is_refused_p_80() {
    let daemon = daemon("authorization = { policies = [\"*.cedar\"] }");
    let kms = Caller::new(&daemon, &demo());
    let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    kms.accepted("keys/demo-key/metadata", &bare_body("DescribeKey"));
    for (target, body) in [
        ("keys/demo-key/encrypt", encrypt_body(b"x", None)),
        ("keys/demo-key/decrypt", decrypt_body(&sealed, None)),
        ("keys/demo-key/metadata", bare_body("DescribeKey")),
    ] {
        for principal in [
            "arn:aws:iam::123456789012:user/alice",
            "arn:aws:iam::123456789012:user/Alice ",
            "arn:aws:iam::123456789013:user/Alice",
            "AWS Internal",
        ] {
            let body = with(body.clone(), "awsPrincipalArn", principal);
            kms.refused(target, &body, 403, ACCESS_DENIED);
        }
    }
    let mut body = with(encrypt_body(b"x", None), "kmsOperation", "ReEncrypt");
    let answer = kms.call("keys/demo-key/encrypt", &body);
    assert_eq!(answer.status, 403);
    // The annotation, printable, and nothing else: neither who asked nor which policy it was.
    assert_eq!(
        answer.json()["errorMessage"],
        "the authorization policies of the external key store proxy do not allow this request: \
         ReEncrypt is not allowed: see \"the runbook\" \\n (\\u{e9})"
    );
    body["requestMetadata"]["kmsRequestId"] = "the-one-that-was-denied".into();
    kms.refused("keys/demo-key/encrypt", &body, 403, ACCESS_DENIED);
    let line = daemon.wait_for_line("the-one-that-was-denied");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["decision"], &line["policies"]), (&json!("denied"), &json!("no-reencrypt")));
    assert_eq!(line["error"], ACCESS_DENIED);
    let sample = |outcome| {
        format!("xksd_authorization_decisions_total{{keystore=\"demo\",outcome=\"{outcome}\"}}")
    };
    daemon.wait_for_metric(&sample("allowed"), 3.0);
    daemon.wait_for_metric(&sample("denied"), 14.0);
    daemon.wait_for_metric("xksd_authorization_duration_seconds_count", 17.0);
}

/// P-71: the signature first, then the key rules, then the policies, and the HSM last.
#[test]
fn policies_are_asked_before_any_key_is_looked_for_p_80() {
    let daemon = daemon("authorization = { policies = [\"*.cedar\"] }");
    let kms = Caller::new(&daemon, &demo());
    let denied = with(bare_body("DescribeKey"), "awsPrincipalArn", "AWS Internal");
    // Whether there is such a key is not told.
    kms.refused("keys/demo-absent/metadata", &denied, 403, ACCESS_DENIED);
    kms.refused("keys/demo-absent/metadata", &bare_body("DescribeKey"), 404, KEY_NOT_FOUND);
    kms.refused("keys/not-of-this-store/metadata", &denied, 404, KEY_NOT_FOUND);
    let stranger = Caller { credential: other().credentials[0].clone(), ..kms };
    stranger.refused("keys/demo-key/metadata", &denied, 401, AUTHENTICATION_FAILED);
}

/// P-62, P-80
#[test]
fn health_is_not_asked_about_p_80() {
    let daemon = daemon("authorization = { accounts = [\"999999999999\"] }");
    let kms = Caller::new(&daemon, &demo());
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    kms.refused("keys/demo-key/encrypt", &encrypt_body(b"x", None), 403, ACCESS_DENIED);
}

/// The specification's own request, whose ARN has a slash that AWS's do not have.
#[test]
fn the_guard_knows_our_account_p_80() {
    let daemon = daemon("authorization = { accounts = [\"123456789012\"] }");
    let kms = Caller::new(&daemon, &demo());
    kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    let create = with(bare_body("CreateKey"), "kmsKeyArn", Value::Null);
    kms.accepted("keys/demo-key/metadata", &create);
    let stranger = "arn:aws:iam::111122223333:user/Alice";
    let strange = with(create.clone(), "awsPrincipalArn", stranger);
    kms.refused("keys/demo-key/metadata", &strange, 403, ACCESS_DENIED);
    kms.accepted("keys/demo-key/metadata", &with(create, "awsPrincipalArn", "ec2.amazonaws.com"));
    for arn in [
        "arn:aws:kms:us-east-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "123456789012",
    ] {
        let body = with(encrypt_body(b"x", None), "kmsKeyArn", arn);
        kms.refused("keys/demo-key/encrypt", &body, 403, ACCESS_DENIED);
    }
}

#[test]
fn in_shadow_mode_a_denial_is_only_written_down_p_80() {
    let daemon = daemon("authorization = { accounts = [\"999999999999\"], mode = \"shadow\" }");
    let kms = Caller::new(&daemon, &demo());
    kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    let sample = "xksd_authorization_decisions_total{keystore=\"demo\",outcome=\"shadow_denied\"}";
    daemon.wait_for_metric(sample, 1.0);
    let line = daemon.wait_for_line("shadow_denied");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["policies"], "xksd:account-of-the-kms-key");
    assert_eq!(line["outcome"], "ok");
}
