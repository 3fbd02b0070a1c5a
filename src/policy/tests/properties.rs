use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Outcome::{Allowed, Denied};
use super::{Asked, OURS, authorization, guard, policies};
use crate::policy::{Authorization, Outcome, Settings};
use crate::wire::route::KeyOperation;

const ALICE: &str = "arn:aws:iam::111122223333:user/Alice";

/// Only Alice, with keys of our account.
static ALICE_ONLY: LazyLock<Authorization> = LazyLock::new(|| {
    let text = format!(
        "@id(\"alice\") permit (principal == xks::User::\"{ALICE}\", action, resource) when {{
            context has kmsKey && context.kmsKey.account == xks::Account::\"{OURS}\" }};"
    );
    authorization(policies(&text))
});

static NOBODY: LazyLock<Authorization> = LazyLock::new(|| authorization(policies("")));

static UNRECOGNIZED: LazyLock<Authorization> = LazyLock::new(|| {
    let text = "@id(\"p\") permit (principal is xks::Unrecognized, action, resource);";
    authorization(policies(text))
});

static GUARD: LazyLock<Authorization> = LazyLock::new(|| authorization(guard()));

fn operation() -> impl Strategy<Value = KeyOperation> {
    prop::sample::select(KeyOperation::ALL.to_vec())
}

/// Texts near to those that mean something, and far from them.
fn member() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[ -~]{1,60}".prop_map(Value::from),
        any::<String>().prop_filter("not empty", |text| !text.is_empty()).prop_map(Value::from),
        "arn:aws(-cn)?:(iam|sts|kms):(us-east-1)?:[0-9]{11,13}:(user|role|key|root)/?[a-zA-Z*]{0,6}"
            .prop_map(Value::from),
    ]
}

/// Metadata with anything in them, none of which is Alice.
fn asked() -> impl Strategy<Value = Asked> {
    let names =
        ["kmsViaService", "awsSourceVpc", "awsSourceVpce", "xks::User", "principal", "account"];
    let others = prop::collection::vec((prop::sample::select(names.to_vec()), member()), 0..5);
    (operation(), member(), member(), member(), others).prop_map(|(op, who, key, kms, others)| {
        let asked = Asked::new(op)
            .with("awsPrincipalArn", who)
            .with("kmsKeyArn", key)
            .with("kmsOperation", kms);
        others.into_iter().fold(asked, |asked, (name, value)| asked.with(name, value))
    })
}

fn outcome(authorization: &Authorization, asked: &Asked) -> Outcome {
    asked.put_to(authorization).outcome()
}

/// The same text with some letters in the other case.
fn recased(text: &str, flips: &[bool]) -> String {
    let flip = |(index, c): (usize, char)| match flips[index % flips.len()] {
        true if c.is_ascii_lowercase() => c.to_ascii_uppercase(),
        true => c.to_ascii_lowercase(),
        false => c,
    };
    text.chars().enumerate().map(flip).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Deny by default, whatever the metadata are.
    #[test]
    fn whatever_no_policy_permits_is_denied_p_80(asked in asked()) {
        prop_assert_eq!(outcome(&NOBODY, &asked), Denied);
        let is_alice = asked.metadata["awsPrincipalArn"] == json!(ALICE);
        prop_assert!(is_alice || outcome(&ALICE_ONLY, &asked) == Denied);
    }

    /// Texts that are no ARN say nothing: neither what is in them nor how they are written counts.
    #[test]
    fn a_text_that_is_not_read_decides_nothing_p_80(
        op in operation(), first in "[ -~]{1,40}", second in "[ -~]{1,40}"
    ) {
        for authorization in [&*ALICE_ONLY, &UNRECOGNIZED, &GUARD] {
            let of = |text: &str| {
                // What begins like an ARN might be one.
                let asked = Asked::new(op).by(&format!("x{text}")).with("kmsKeyArn", format!("x{text}"));
                asked.put_to(authorization)
            };
            prop_assert_eq!(of(&first), of(&second));
        }
    }

    /// Whoever is written in other letters is somebody else.
    #[test]
    fn another_letter_case_is_never_allowed_for_the_same_p_80(
        op in operation(), flips in prop::collection::vec(any::<bool>(), 1..40)
    ) {
        let text = recased(ALICE, &flips);
        let expected = if text == ALICE { Allowed } else { Denied };
        prop_assert_eq!(outcome(&ALICE_ONLY, &Asked::new(op).by(&text)), expected);
        let arn = format!("arn:aws:kms:us-east-1:{OURS}:key/1");
        let written = recased(&arn, &flips);
        let asked = Asked::new(op).with("kmsKeyArn", &*written);
        let expected = if written == arn { Allowed } else { Denied };
        prop_assert_eq!(outcome(&GUARD, &asked), expected);
    }

    /// A member that policies don't ask about changes nothing.
    #[test]
    fn unknown_members_decide_nothing_by_themselves_p_80(
        op in operation(), name in "x[a-zA-Z]{0,8}", value in member()
    ) {
        let asked = Asked::new(op);
        let more = asked.clone().with(&name, value);
        prop_assert_eq!(asked.put_to(&ALICE_ONLY), more.put_to(&ALICE_ONLY));
    }
}

/// More than is looked at is denied, even by who permits everything.
#[test]
fn what_is_not_looked_at_is_denied_p_80() {
    let all = "@id(\"all\") permit (principal, action, resource);";
    let all: Settings = policies(all);
    let mut asked = Asked::new(KeyOperation::Encrypt);
    for index in 0..32 {
        asked = asked.with(&format!("member{index}"), "x");
    }
    let all = authorization(all);
    assert_eq!(outcome(&all, &asked), Allowed);
    assert_eq!(outcome(&all, &asked.with("onemore", "x")), Outcome::Error);
}
