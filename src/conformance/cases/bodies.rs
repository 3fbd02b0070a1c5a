//! P-20 to P-22, P-40, P-50: what stands in bodies.

use serde_json::{Value, json};

use super::super::subject::{Facts, bare, bare_health, with, without};
use super::super::{Case, Expect, Letter, Probe, Steps};
use super::VALIDATION;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "required-metadata",
        rules: &[20],
        letter: Letter::Must,
        why: "requestMetadata and what each operation requires in it can't be left out",
        needs: &[],
        steps: Steps::Probes(required_metadata),
    },
    Case {
        name: "optional-metadata",
        rules: &[20],
        letter: Letter::Must,
        why: "what an operation does not require may be absent, and ARNs have up to 2,048 characters",
        needs: &[],
        steps: Steps::Probes(optional_metadata),
    },
    Case {
        name: "metadata-of-no-form",
        rules: &[22, 20],
        letter: Letter::Decided,
        why: "members of requestMetadata are strings, not empty but for kmsRequestId",
        needs: &[],
        steps: Steps::Probes(metadata_of_no_form),
    },
    Case {
        name: "required-members",
        rules: &[40, 50, 70],
        letter: Letter::Must,
        why: "what Encrypt and Decrypt require can't be left out",
        needs: &[],
        steps: Steps::Probes(required_members),
    },
    Case {
        name: "members-of-no-form",
        rules: &[22],
        letter: Letter::Decided,
        why: "a member of a wrong type, null or empty where it is required, is invalid",
        needs: &[],
        steps: Steps::Probes(members_of_no_form),
    },
    Case {
        name: "nulls",
        rules: &[22],
        letter: Letter::Decided,
        why: "null for an optional member is as if it were absent",
        needs: &[],
        steps: Steps::Probes(nulls),
    },
    Case {
        name: "unknown-members",
        rules: &[21],
        letter: Letter::Must,
        why: "KMS will send more some day: what is not known is accepted",
        needs: &[],
        steps: Steps::Probes(unknown_members),
    },
    Case {
        name: "unknown-kms-operations",
        rules: &[21],
        letter: Letter::Must,
        why: "an unknown kmsOperation is never invalid, and a kmsRequestId is any string",
        needs: &[],
        steps: Steps::Probes(unknown_operations),
    },
    Case {
        name: "malformed-json",
        rules: &[22],
        letter: Letter::Decided,
        why: "what is no JSON object, or more than one, is invalid",
        needs: &[],
        steps: Steps::Probes(malformed),
    },
    Case {
        name: "duplicate-members",
        rules: &[22],
        letter: Letter::Decided,
        why: "a member that stands twice could be read in two ways",
        needs: &[],
        steps: Steps::Probes(duplicates),
    },
    Case {
        name: "content-types-of-requests",
        rules: &[22],
        letter: Letter::Decided,
        why: "what a request says of its type is not enforced",
        needs: &[],
        steps: Steps::Probes(content_types),
    },
    Case {
        name: "other-algorithms",
        rules: &[23],
        letter: Letter::Decided,
        why: "AES_GCM and SHA_256 are all there is, to the letter",
        needs: &[],
        steps: Steps::Probes(algorithms),
    },
    Case {
        name: "strict-base64",
        rules: &[40, 22],
        letter: Letter::Decided,
        why: "Base64 is of the standard alphabet, padded, and canonical",
        needs: &[],
        steps: Steps::Probes(base64_texts),
    },
];

/// Operation, good body, and what its `requestMetadata` has to have (P-20).
fn operations(facts: &Facts) -> [(String, Value, &'static [&'static str]); 4] {
    let of_keys: &[&str] = &["kmsOperation", "kmsRequestId", "awsPrincipalArn", "kmsKeyArn"];
    [
        ("health".to_owned(), bare_health("KmsHealthCheck"), &of_keys[..2]),
        (facts.rest("metadata"), bare("DescribeKey"), &of_keys[..3]),
        (facts.rest("encrypt"), facts.encrypt.clone(), of_keys),
        (facts.rest("decrypt"), facts.decrypt.clone(), of_keys),
    ]
}

fn metadata_of(body: &Value) -> &Value {
    &body["requestMetadata"]
}

fn required_metadata(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (rest, good, required) in operations(facts) {
        let body = without(&good, "requestMetadata");
        let ask = facts.request(&rest, &body);
        probes.push(Probe::new(format!("{rest}: no requestMetadata"), ask, VALIDATION));
        let empty = facts.request(&rest, &with(&good, "requestMetadata", json!({})));
        probes.push(Probe::new(format!("{rest}: an empty requestMetadata"), empty, VALIDATION));
        for member in required {
            let body = with(&good, "requestMetadata", without(metadata_of(&good), member));
            let ask = facts.request(&rest, &body);
            probes.push(Probe::new(format!("{rest}: no {member}"), ask, VALIDATION));
        }
    }
    probes
}

fn optional_metadata(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (rest, good, required) in operations(facts) {
        let mut least = good.clone();
        if let Some(members) = least["requestMetadata"].as_object_mut() {
            members.retain(|name, _| required.contains(&name.as_str()));
        }
        let ask = facts.request(&rest, &least);
        probes.push(Probe::new(format!("{rest}: what is required only"), ask, Expect::Served));
    }
    let mut long = facts.encrypt.clone();
    for member in ["awsPrincipalArn", "kmsKeyArn"] {
        long["requestMetadata"][member] = "a".repeat(2048).into();
    }
    let ask = facts.request(&facts.rest("encrypt"), &long);
    probes.push(Probe::new("ARNs of 2,048 characters", ask, Expect::Served));
    let mut all = facts.encrypt.clone();
    all["requestMetadata"]["awsSourceVpc"] = "vpc-1234567890abcdef0".into();
    all["requestMetadata"]["awsSourceVpce"] = "vpce-1234567890abcdef0".into();
    let ask = facts.request(&facts.rest("encrypt"), &all);
    probes.push(Probe::new("all that is optional", ask, Expect::Served));
    probes
}

fn metadata_of_no_form(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (rest, good, required) in operations(facts) {
        for member in required {
            for (what, value) in
                [("null", json!(null)), ("a number", json!(5)), ("empty", json!(""))]
            {
                // The one string that may be empty.
                let may = *member == "kmsRequestId" && what == "empty";
                let expect = if may { Expect::Served } else { VALIDATION };
                let metadata = with(metadata_of(&good), member, value);
                let ask = facts.request(&rest, &with(&good, "requestMetadata", metadata));
                probes.push(Probe::new(format!("{rest}: {member} is {what}"), ask, expect));
            }
        }
    }
    for (member, value) in [
        ("awsPrincipalArn", json!("a".repeat(2049))),
        ("kmsKeyArn", json!("a".repeat(2049))),
        ("kmsViaService", json!(1)),
        ("awsSourceVpc", json!({})),
        ("awsSourceVpce", json!([null])),
    ] {
        let metadata = with(metadata_of(&facts.encrypt), member, value);
        let body = with(&facts.encrypt, "requestMetadata", metadata);
        let ask = facts.request(&facts.rest("encrypt"), &body);
        probes.push(Probe::new(format!("{member} is too long or no string"), ask, VALIDATION));
    }
    probes
}

/// Encrypt and Decrypt: good body and required members.
fn of_keys(facts: &Facts) -> [(String, Value, &'static [&'static str]); 2] {
    [
        (facts.rest("encrypt"), facts.encrypt.clone(), &["plaintext", "encryptionAlgorithm"]),
        (
            facts.rest("decrypt"),
            facts.decrypt.clone(),
            &["ciphertext", "encryptionAlgorithm", "initializationVector", "authenticationTag"],
        ),
    ]
}

fn required_members(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (rest, good, required) in of_keys(facts) {
        for member in required {
            let ask = facts.request(&rest, &without(&good, member));
            probes.push(Probe::new(format!("{rest}: no {member}"), ask, VALIDATION));
        }
    }
    probes
}

fn members_of_no_form(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut add = |rest: &str, good: &Value, member: &str, value: Value| {
        let name = format!("{rest}: {member} = {value}");
        let ask = facts.request(rest, &with(good, member, value));
        probes.push(Probe::new(name, ask, VALIDATION));
    };
    for (rest, good, required) in of_keys(facts) {
        for member in required {
            for value in [json!(null), json!(""), json!(5), json!([])] {
                add(&rest, &good, member, value);
            }
        }
        for value in [json!(5), json!({}), json!(false)] {
            add(&rest, &good, "additionalAuthenticatedData", value);
        }
    }
    let (encrypt, decrypt) = (facts.rest("encrypt"), facts.rest("decrypt"));
    for value in [json!(true), json!(""), json!(["SHA_256"])] {
        let member = "ciphertextDataIntegrityValueAlgorithm";
        add(&encrypt, &facts.encrypt, member, value);
    }
    add(&decrypt, &facts.decrypt, "ciphertextMetadata", json!(["x"]));
    probes
}

fn nulls(facts: &Facts) -> Vec<Probe> {
    let mut body = facts.encrypt.clone();
    body["additionalAuthenticatedData"] = Value::Null;
    body["ciphertextDataIntegrityValueAlgorithm"] = Value::Null;
    body["requestMetadata"]["awsSourceVpc"] = Value::Null;
    let ask = facts.request(&facts.rest("encrypt"), &body);
    vec![Probe::new("Encrypt with null for all that is optional", ask, Expect::Served)]
}

fn unknown_members(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (rest, mut body, _) in operations(facts) {
        body["requestMetadata"]["sourceIdentity"] = json!({"nested": [1, {"deep": null}]});
        body["nitroAttestation"] = json!({"pcr0": "00"});
        body["tags"] = json!([{"key": "k", "value": "v"}]);
        probes.push(Probe::new(rest.clone(), facts.request(&rest, &body), Expect::Served));
    }
    probes
}

fn unknown_operations(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (rest, mut body, _) in operations(facts) {
        body["requestMetadata"]["kmsOperation"] = "OperationOfTomorrow".into();
        body["requestMetadata"]["kmsRequestId"] = "not a UUID \u{1f511} \"\\\n".into();
        probes.push(Probe::new(rest.clone(), facts.request(&rest, &body), Expect::Served));
    }
    probes
}

/// Requests of Encrypt with these texts for a body.
fn texts(facts: &Facts, texts: Vec<(&str, Vec<u8>)>, expect: Expect) -> Vec<Probe> {
    let probe = |(name, body): (&str, Vec<u8>)| {
        let mut ask = facts.encryption();
        ask.body = body;
        Probe::new(format!("the body is {name}"), ask, expect)
    };
    texts.into_iter().map(probe).collect()
}

fn malformed(facts: &Facts) -> Vec<Probe> {
    let good = facts.encrypt.to_string();
    let open = &good[..good.len() - 1];
    let nested = |depth: usize| format!(r#"{{"u":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("white space", b" \r\n\t".to_vec()),
        ("null", b"null".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a string", b"\"{}\"".to_vec()),
        ("a number", b"1".to_vec()),
        ("an open brace", b"{".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("half of it", good.as_bytes()[..good.len() / 2].to_vec()),
        ("all but the last brace", open.into()),
        ("something after it", format!("{good}x").into()),
        ("two of it", format!("{good}{good}").into()),
        ("a NUL after it", format!("{good}\0").into()),
        ("a comment", format!("/* */{good}").into()),
        ("single quotes", good.replace('"', "'").into()),
        ("a comma too many", format!("{open},}}").into()),
        ("a byte order mark", format!("\u{feff}{good}").into()),
        ("nesting without end", nested(40_000).into()),
        ("nesting of 200", nested(200).into()),
        ("an unknown escape", format!(r#"{open},"u":"\x41"}}"#).into()),
        ("a number without end", format!(r#"{{"u":{}}}"#, "9".repeat(400)).into()),
        ("a lone surrogate", format!(r#"{open},"u":"\ud800"}}"#).into()),
        ("a control character", format!("{open},\"u\":\"\u{1}\"}}").into()),
        ("NaN", format!("{open},\"u\":NaN}}").into()),
        ("not UTF-8", [open.as_bytes(), b",\"u\":\"\xff\"}"].concat()),
        ("a form", b"plaintext=QUJD&encryptionAlgorithm=AES_GCM".to_vec()),
    ];
    let mut probes = texts(facts, bodies, VALIDATION);
    let spaced = vec![("padded with white space", format!(" \n{good}\r\n\t ").into())];
    probes.extend(texts(facts, spaced, Expect::Served));
    probes
}

fn duplicates(facts: &Facts) -> Vec<Probe> {
    let good = facts.encrypt.to_string();
    let open = &good[..good.len() - 1];
    let same = &facts.encrypt["plaintext"];
    let inner = |more: &str| {
        let from = r#""requestMetadata":{"#;
        good.replacen(from, &format!("{from}{more},"), 1)
    };
    let bodies = vec![
        ("two of plaintext", format!(r#"{open},"plaintext":"QUJD"}}"#)),
        ("two of the same plaintext", format!(r#"{open},"plaintext":{same}}}"#)),
        ("two of plaintext, one escaped", format!(r#"{open},"pl\u0061intext":"QUJD"}}"#)),
        ("two of requestMetadata", format!(r#"{open},"requestMetadata":{{}}}}"#)),
        ("two of encryptionAlgorithm", format!(r#"{open},"encryptionAlgorithm":null}}"#)),
        ("two of an unknown member", format!(r#"{open},"u":1,"u":2}}"#)),
        ("two within an unknown member", format!(r#"{open},"u":[{{"c":1,"c":2}}]}}"#)),
        ("two of an unknown member of requestMetadata", inner(r#""u":1,"u":2"#)),
        ("two of kmsRequestId", inner(r#""kmsRequestId":"other""#)),
        ("two of awsPrincipalArn", inner(r#""awsPrincipalArn":"other""#)),
    ];
    let bodies = bodies.into_iter().map(|(name, body)| (name, body.into_bytes())).collect();
    texts(facts, bodies, VALIDATION)
}

fn content_types(facts: &Facts) -> Vec<Probe> {
    ["text/plain", "application/x-amz-json-1.1", ""]
        .map(|kind| {
            Probe::spoiled(facts, format!("Content-Type: {kind}"), Expect::Served, |ask| {
                ask.headers[1].1 = kind.to_owned();
            })
        })
        .into()
}

fn algorithms(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut add = |rest: String, good: &Value, member: &str, value: &str| {
        let ask = facts.request(&rest, &with(good, member, value));
        probes.push(Probe::new(format!("{rest}: {member} = {value}"), ask, VALIDATION));
    };
    for value in ["AES_CBC", "aes_gcm", "AES_GCM ", "AES_GCM_SIV"] {
        add(facts.rest("encrypt"), &facts.encrypt, "encryptionAlgorithm", value);
        add(facts.rest("decrypt"), &facts.decrypt, "encryptionAlgorithm", value);
    }
    for value in ["SHA_512", "sha_256", "SHA-256"] {
        let member = "ciphertextDataIntegrityValueAlgorithm";
        add(facts.rest("encrypt"), &facts.encrypt, member, value);
    }
    probes
}

fn base64_texts(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    let decrypt =
        &["ciphertext", "initializationVector", "authenticationTag", "ciphertextMetadata"];
    for (rest, good, members) in [
        (facts.rest("encrypt"), &facts.encrypt, &["plaintext", "additionalAuthenticatedData"][..]),
        (facts.rest("decrypt"), &facts.decrypt, &decrypt[..]),
    ] {
        for member in members {
            for (what, text) in [
                ("no Base64", "!!!!"),
                ("of the URL-safe alphabet", "-_-_-_-_-_-_-_-_"),
                ("not padded", "QUJDREVGR0hJSktMTU5PUA"),
                ("with a line break", "QUJDREVGR0hJSktMTU5PUA==\n"),
                ("with a space in it", "QUJDREVGR0hJ SktMTU5PUA=="),
                ("with bits left over", "QUJDREVGR0hJSktMTU5PUB=="),
                ("with too much padding", "QUJDREVGR0hJSktM===="),
                ("one character", "Q"),
            ] {
                let ask = facts.request(&rest, &with(good, member, text));
                probes.push(Probe::new(format!("{rest}: {member} {what}"), ask, VALIDATION));
            }
        }
    }
    probes
}
