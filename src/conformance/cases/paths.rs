//! P-4 to P-6, P-71: paths and the names of keys.

use serde_json::Value;

use super::super::answer::described;
use super::super::exam::Exam;
use super::super::request::Ask;
use super::super::subject::{Facts, bare, encryption};
use super::super::{Case, Deviation, Expect, Letter, Probe, Steps, Verdict};
use super::{KEY_NOT_FOUND, NOWHERE, STRANGER};

/// A key that no key store should have.
pub(super) const NO_KEY: &str = "xksd-conformance.no-such-key";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "unknown-paths",
        rules: &[4, 70],
        letter: Letter::Must,
        why: "a path that is none of the protocol's, or of another prefix, is InvalidUriPathException",
        needs: &[],
        steps: Steps::Probes(unknown_paths),
    },
    Case {
        name: "paths-byte-for-byte",
        rules: &[5],
        letter: Letter::Decided,
        why: "a path is matched as it was sent: no folding, no decoding",
        needs: &[],
        steps: Steps::Probes(byte_for_byte),
    },
    Case {
        name: "key-ids-of-the-longest-form",
        rules: &[6],
        letter: Letter::Must,
        why: "key ids of 128 characters, and of all characters that are allowed, are key ids",
        needs: &[],
        steps: Steps::Probes(longest_key_ids),
    },
    Case {
        name: "key-ids-of-no-form",
        rules: &[6],
        letter: Letter::Decided,
        why: "what can't be a key id is no path",
        needs: &[],
        steps: Steps::Probes(no_key_ids),
    },
    Case {
        name: "key-ids-are-exact",
        rules: &[6],
        letter: Letter::Must,
        why: "an id names one key without ambiguity: neither case nor a part of it will do",
        needs: &[],
        steps: Steps::Probes(exact_key_ids),
    },
    Case {
        name: "unknown-keys",
        rules: &[70],
        letter: Letter::Must,
        why: "a key that does not exist is KeyNotFoundException for all three operations",
        needs: &[],
        steps: Steps::Probes(unknown_keys),
    },
    Case {
        name: "path-before-signature",
        rules: &[71],
        letter: Letter::Decided,
        why: "path and method are judged before the signature",
        needs: &[],
        steps: Steps::Probes(path_first),
    },
    Case {
        name: "signature-before-key",
        rules: &[71],
        letter: Letter::Decided,
        why: "with a bad signature, the same answer comes whether or not a key exists",
        needs: &[],
        steps: Steps::Scenario { requests: 4, run: |exam| Box::pin(strangers_learn_nothing(exam)) },
    },
    Case {
        name: "signature-before-body",
        rules: &[71],
        letter: Letter::Decided,
        why: "what a stranger's body says is not looked at",
        needs: &[],
        steps: Steps::Probes(signature_before_body),
    },
];

fn at(facts: &Facts, target: String, expect: Expect) -> Probe {
    Probe::spoiled(facts, format!("POST {target}"), expect, |ask| ask.target = target)
}

fn unknown_paths(facts: &Facts) -> Vec<Probe> {
    let root = facts.endpoint().prefix().uri_path();
    let prefix = root.strip_suffix("/kms/xks/v1").unwrap_or_default();
    [
        "/".to_owned(),
        "/favicon.ico".to_owned(),
        format!("{prefix}/xksd-no-such-prefix/kms/xks/v1/health"),
        format!("/xksd-no-such-prefix{root}/health"),
        format!("{prefix}/kms/xks/v2/health"),
        format!("{prefix}/kms/xks/health"),
        format!("{root}/rotate"),
        format!("{root}/{}", facts.rest("rotate")),
    ]
    .map(|target| at(facts, target, NOWHERE))
    .into()
}

fn byte_for_byte(facts: &Facts) -> Vec<Probe> {
    let root = facts.endpoint().prefix().uri_path();
    let key = &facts.subject.key;
    [
        format!("{root}/health/"),
        format!("{root}//health"),
        format!("{root}/./health"),
        format!("{root}/keys/../health"),
        format!("{root}/Health"),
        format!("{root}/%68ealth"),
        format!("{root}/health%20"),
        format!("{root}/health;v=1"),
        format!("/{root}/health"),
        format!("/.{root}/health"),
        format!("{}/health", root.replace("/kms/", "/KMS/")),
        format!("{}/health", root.replace("/kms/", "/%6Bms/")),
        format!("{root}/keys/{key}/encrypt/"),
        format!("{root}/keys/{key}/Encrypt"),
        format!("{root}/keys//{key}/encrypt"),
        format!("{root}/keys/./{key}/encrypt"),
        format!("{root}/keys/{key}%00/encrypt"),
        format!("{root}/keys/{key}"),
        format!("{root}/keys"),
        root.clone(),
        format!("{root}/"),
    ]
    .map(|target| at(facts, target, NOWHERE))
    .into()
}

/// A request that encrypts with this key.
fn encrypts(facts: &Facts, key: &str) -> Ask {
    facts.request(&format!("keys/{key}/encrypt"), &facts.encrypt)
}

fn longest_key_ids(facts: &Facts) -> Vec<Probe> {
    let longest = format!("{NO_KEY}{}", "k".repeat(128 - NO_KEY.len()));
    let all = format!("{NO_KEY}-._AZaz09");
    [("a key id of 128 characters", longest), ("a key id of all kinds of characters", all)]
        .map(|(name, key)| Probe::new(name, encrypts(facts, &key), KEY_NOT_FOUND))
        .into()
}

fn no_key_ids(facts: &Facts) -> Vec<Probe> {
    let too_long = "k".repeat(129);
    [too_long.as_str(), "", "a/b", "a:b", "a~b", "a+b", "a%2Db", "%00"]
        .map(|key| {
            let name = format!("key id `{}`", &key[..key.len().min(20)]);
            Probe::new(name, encrypts(facts, key), NOWHERE)
        })
        .into()
}

fn exact_key_ids(facts: &Facts) -> Vec<Probe> {
    let key = facts.subject.key.as_str();
    let turned: String =
        key.chars()
            .map(|c| {
                if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
            })
            .collect();
    let mut others = vec![];
    if turned != key {
        others.push(("upper case for lower case", turned));
    }
    if key.len() > 1 {
        others.push(("all but the last character", key[..key.len() - 1].to_owned()));
    }
    if key.len() < 128 {
        others.push(("a character more", format!("{key}.")));
        others.push(("a character before it", format!(".{key}")));
    }
    let probe = |(name, other): (&str, String)| {
        Probe::new(format!("{name}: {other}"), encrypts(facts, &other), KEY_NOT_FOUND)
    };
    others.into_iter().map(probe).collect()
}

fn unknown_keys(facts: &Facts) -> Vec<Probe> {
    [
        ("metadata", bare("DescribeKey")),
        ("encrypt", facts.encrypt.clone()),
        ("decrypt", facts.decrypt.clone()),
    ]
    .map(|(operation, body): (&str, Value)| {
        let ask = facts.request(&format!("keys/{NO_KEY}/{operation}"), &body);
        Probe::new(operation, ask, KEY_NOT_FOUND)
    })
    .into()
}

fn path_first(facts: &Facts) -> Vec<Probe> {
    let unsigned = |name: &str, target: &str| {
        Probe::spoiled(facts, name, NOWHERE, |ask| {
            ask.target = target.to_owned();
            ask.signing.credential = None;
        })
    };
    let mut probes = vec![
        unsigned("no path of the protocol, not signed", "/"),
        unsigned("another prefix, not signed", "/xksd-no-such-prefix/kms/xks/v1/health"),
    ];
    probes.push(Probe::spoiled(facts, "no path of the protocol, GET", NOWHERE, |ask| {
        ask.target = "/".to_owned();
        ask.method = "GET".to_owned();
    }));
    probes.push(Probe::spoiled(facts, "no path of the protocol, with a query", NOWHERE, |ask| {
        ask.target = "/nowhere?a=b".to_owned();
    }));
    probes
}

async fn strangers_learn_nothing(exam: &mut Exam) -> Verdict {
    let key = exam.facts.subject.key.to_string();
    for operation in ["metadata", "encrypt"] {
        let mut said = Vec::new();
        for key in [key.as_str(), NO_KEY] {
            let body = if operation == "encrypt" { encryption(b"x") } else { bare("DescribeKey") };
            let mut ask = exam.facts.request(&format!("keys/{key}/{operation}"), &body);
            let credential = exam.facts.subject.credential.with_another_secret();
            ask.signing.credential = Some(credential);
            let asked = format!("{operation} of {key} with a bad signature");
            let unlike = |got: String| Deviation::new(&asked, STRANGER.to_string(), got);
            let answer = exam.ask(&ask).await.map_err(&unlike)?;
            if answer.status != 401 {
                return Err(unlike(described(&answer)));
            }
            said.push(answer.body);
        }
        if said[0] != said[1] {
            let asked = format!("{operation} of a key and of none, with bad signatures");
            return Err(Deviation::new(asked, "the same answer", "two that differ"));
        }
    }
    Ok(())
}

fn signature_before_body(facts: &Facts) -> Vec<Probe> {
    let by_stranger = |name: &str, body: &[u8]| {
        let mut ask = facts.encryption();
        ask.body = body.to_vec();
        ask.signing.credential = Some(facts.subject.credential.with_another_secret());
        Probe::new(name, ask, STRANGER)
    };
    vec![
        by_stranger("no JSON by a stranger", b"no JSON"),
        by_stranger("nothing by a stranger", b""),
        by_stranger("an empty object by a stranger", b"{}"),
    ]
}
