//! Key stores: isolated from each other (P-4), each with its credentials and key rules.

use support::caller::Caller;
use support::request::{bare_body, decrypt_body, encrypt_body};

use crate::world::{
    AUTHENTICATION_FAILED, INVALID_STATE, INVALID_URI_PATH, KEY_NOT_FOUND, caller, closed, demo,
    other, root,
};

/// P-4, P-14: nobody's credential opens another's door.
#[test]
fn a_credential_is_good_for_its_own_key_store() {
    for (tenant, owner) in
        [(demo(), other()), (other(), demo()), (root(), demo()), (demo(), root())]
    {
        let stranger = Caller { credential: owner.credentials[0].clone(), ..caller(&tenant) };
        stranger.refused("health", &bare_body("KmsHealthCheck"), 401, AUTHENTICATION_FAILED);
    }
}

/// P-13: several credentials at once, each good for all operations.
#[test]
fn each_credential_of_a_key_store_is_good() {
    for credential in demo().credentials {
        let kms = Caller { credential, ..caller(&demo()) };
        kms.accepted("health", &bare_body("KmsHealthCheck"));
        let sealed = kms.accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
        kms.accepted("keys/demo-key/decrypt", &decrypt_body(&sealed, None));
    }
}

/// P-70: a key that no rule of the key store names is as if it were not there, whoever else may
/// use it. All three operations say so.
#[test]
fn a_key_of_another_tenant_does_not_exist() {
    let kms = caller(&demo());
    let neighbour = caller(&other());
    let sealed = neighbour.accepted("keys/other-key/encrypt", &encrypt_body(b"x", None));
    let bodies = [
        ("metadata", bare_body("DescribeKey")),
        ("encrypt", encrypt_body(b"x", None)),
        ("decrypt", decrypt_body(&sealed, None)),
    ];
    for key in ["other-key", "exactly-not", "demo", "Demo-key", "no-such-key"] {
        for (operation, body) in &bodies {
            kms.refused(&format!("keys/{key}/{operation}"), body, 404, KEY_NOT_FOUND);
        }
    }
    kms.accepted("keys/exact/metadata", &bare_body("DescribeKey"));
    // The answer is the same, to the byte, for a key that exists elsewhere and one that does not.
    let said =
        |key: &str| kms.call(&format!("keys/{key}/metadata"), &bare_body("DescribeKey")).body;
    assert_eq!(said("other-key"), said("no-such-key"));
}

/// P-4: the empty prefix is a prefix like any other, and a rule `*` allows every key.
#[test]
fn a_key_store_without_prefix() {
    let kms = caller(&root());
    assert_eq!(kms.path("health"), "/kms/xks/v1/health");
    kms.accepted("health", &bare_body("KmsHealthCheck"));
    for key in ["demo-key", "other-key", "exactly-not"] {
        kms.accepted(&format!("keys/{key}/encrypt"), &encrypt_body(b"x", None));
    }
}

/// P-30: a disabled key store says so, for all four operations, to its own callers only.
#[test]
fn a_disabled_key_store_refuses_everything() {
    let kms = caller(&closed());
    let sealed = caller(&demo()).accepted("keys/demo-key/encrypt", &encrypt_body(b"x", None));
    for (rest, body) in [
        ("health", bare_body("KmsHealthCheck")),
        ("keys/demo-key/metadata", bare_body("DescribeKey")),
        ("keys/no-such-key/metadata", bare_body("DescribeKey")),
        ("keys/demo-key/encrypt", encrypt_body(b"x", None)),
        ("keys/demo-key/decrypt", decrypt_body(&sealed, None)),
    ] {
        kms.refused(rest, &body, 400, INVALID_STATE);
        let stranger = Caller { credential: demo().credentials[0].clone(), ..kms.clone() };
        stranger.refused(rest, &body, 401, AUTHENTICATION_FAILED);
    }
}

/// P-71: a stranger learns neither which keys exist, nor, by the path alone, more than which
/// prefixes do.
#[test]
fn a_stranger_learns_nothing_of_keys() {
    let mut stranger = caller(&demo());
    stranger.credential.secret = "A".repeat(43);
    let said = |key: &str| {
        let answer = stranger.call(&format!("keys/{key}/metadata"), &bare_body("DescribeKey"));
        assert_eq!(answer.status, 401);
        answer.body
    };
    assert_eq!(said("demo-key"), said("no-such-key"));
    // P-15: an access key id that is unknown is answered like a wrong signature.
    let of_known = said("demo-key");
    let mut unknown = stranger.clone();
    unknown.credential.id = "UNKNOWNUNKNOWNUNKNOWN".into();
    let answer = unknown.call("keys/demo-key/metadata", &bare_body("DescribeKey"));
    assert_eq!((answer.status, answer.body), (401, of_known));
    let nowhere = Caller { prefix: "nobody".into(), ..stranger };
    nowhere.refused("health", &bare_body("KmsHealthCheck"), 404, INVALID_URI_PATH);
}
