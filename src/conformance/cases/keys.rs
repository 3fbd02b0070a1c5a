//! P-30, P-46, P-70: what keys are, and what they may be used for.

use serde_json::Value;

use super::super::exam::Exam;
use super::super::subject::{bare, decryption, encryption, with_cdiv};
use super::super::{Case, Deviation, Expect, Letter, Need, Steps, Verdict};
use super::{INVALID_KEY_USAGE, INVALID_STATE};
use crate::names::ExternalKeyId;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "key-metadata",
        rules: &[30],
        letter: Letter::Must,
        why: "a key that KMS may use is an enabled AES_256 for ENCRYPT and DECRYPT",
        needs: &[],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(good_key(exam)) },
    },
    Case {
        name: "encrypt-only-key",
        rules: &[30, 70],
        letter: Letter::Must,
        why: "a key that may only encrypt says so and does so",
        needs: &[Need::EncryptOnlyKey],
        steps: Steps::Scenario { requests: 3, run: |exam| Box::pin(encrypt_only(exam)) },
    },
    Case {
        name: "cdiv-promises-decryption",
        rules: &[46],
        letter: Letter::Decided,
        why: "a data integrity value is not given for a key that can't decrypt",
        needs: &[Need::EncryptOnlyKey],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(cdiv_of_encrypt_only(exam)) },
    },
    Case {
        name: "decrypt-only-key",
        rules: &[30, 70],
        letter: Letter::Must,
        why: "a key that may only decrypt says so and does not encrypt",
        needs: &[Need::DecryptOnlyKey],
        steps: Steps::Scenario { requests: 2, run: |exam| Box::pin(decrypt_only(exam)) },
    },
    Case {
        name: "no-use-key",
        rules: &[30, 70],
        letter: Letter::Must,
        why: "a key that may do neither says so and does neither",
        needs: &[Need::NoUseKey],
        steps: Steps::Scenario { requests: 3, run: |exam| Box::pin(no_use(exam)) },
    },
    Case {
        name: "disabled-key",
        rules: &[70],
        letter: Letter::Must,
        why: "a disabled key does nothing",
        needs: &[Need::DisabledKey],
        steps: Steps::Scenario { requests: 2, run: |exam| Box::pin(disabled(exam)) },
    },
    Case {
        name: "disabled-key-metadata",
        rules: &[30],
        letter: Letter::Decided,
        why: "a disabled key is described, as DISABLED",
        needs: &[Need::DisabledKey],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(disabled_metadata(exam)) },
    },
    Case {
        name: "other-kind-key",
        rules: &[30],
        letter: Letter::Must,
        why: "a key that is no AES_256 is not called one",
        needs: &[Need::OtherKindKey],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(other_kind(exam)) },
    },
];

/// What a key that has encrypted nothing says to another one's ciphertext: both are true.
const UNUSABLE: Expect =
    Expect::Refused(&[(400, "InvalidKeyUsageException"), (400, "InvalidCiphertextException")]);

/// GetKeyMetadata of a key; checks the form of its answer.
async fn describe(exam: &mut Exam, key: &ExternalKeyId) -> Result<Value, Deviation> {
    let asked = format!("metadata of {key}");
    let ask = exam.facts.request(&format!("keys/{key}/metadata"), &bare("DescribeKey"));
    let members = exam.accepted(&asked, &ask).await?;
    let unlike = |wanted: &str, got: &Value| Err(Deviation::new(&asked, wanted, shown(got)));
    for name in ["keySpec", "keyStatus"] {
        if members[name].as_str().is_none_or(str::is_empty) {
            return unlike(&format!("a string for {name}"), &members[name]);
        }
    }
    if !matches!(members["keyStatus"].as_str(), Some("ENABLED" | "DISABLED")) {
        return unlike("ENABLED or DISABLED", &members["keyStatus"]);
    }
    let known = ["ENCRYPT", "DECRYPT", "SIGN", "VERIFY", "WRAP", "UNWRAP", "DERIVE"];
    let is_usage = |usage: &Value| usage.as_str().is_some_and(|usage| known.contains(&usage));
    match members["keyUsage"].as_array() {
        Some(usages) if usages.len() <= 10 && usages.iter().all(is_usage) => Ok(members),
        _ => unlike("at most ten usages for keyUsage", &members["keyUsage"]),
    }
}

/// Something of an answer of GetKeyMetadata, in which nothing is secret.
fn shown(value: &Value) -> String {
    super::super::answer::shown(&value.to_string())
}

/// Describes a key; compares whether it may encrypt and decrypt.
async fn has_usage(
    exam: &mut Exam,
    key: &ExternalKeyId,
    wanted: [bool; 2],
) -> Result<Value, Deviation> {
    let members = describe(exam, key).await?;
    let has = |name: &str| {
        members["keyUsage"].as_array().is_some_and(|list| list.iter().any(|usage| usage == name))
    };
    if [has("ENCRYPT"), has("DECRYPT")] == wanted {
        return Ok(members);
    }
    let [encrypt, decrypt] = wanted.map(|may| if may { "with" } else { "without" });
    let wanted = format!("a keyUsage {encrypt} ENCRYPT and {decrypt} DECRYPT");
    Err(Deviation::new(format!("metadata of {key}"), wanted, shown(&members["keyUsage"])))
}

async fn good_key(exam: &mut Exam) -> Verdict {
    let key = exam.facts.subject.key.clone();
    let members = has_usage(exam, &key, [true, true]).await?;
    for (name, wanted) in [("keySpec", "AES_256"), ("keyStatus", "ENABLED")] {
        if members[name] != wanted {
            return Err(Deviation::new(format!("{name} of {key}"), wanted, shown(&members[name])));
        }
    }
    Ok(())
}

/// Uses a key in a way that it does not permit.
async fn refuses(
    exam: &mut Exam,
    key: &ExternalKeyId,
    operation: &str,
    body: &Value,
    expect: Expect,
) -> Verdict {
    let ask = exam.facts.request(&format!("keys/{key}/{operation}"), body);
    exam.refused(&format!("{operation} with {key}"), &ask, expect).await
}

async fn encrypt_only(exam: &mut Exam) -> Verdict {
    let Some(key) = exam.facts.subject.keys.encrypt_only.clone() else { return Ok(()) };
    has_usage(exam, &key, [true, false]).await?;
    let ask = exam.facts.request(&format!("keys/{key}/encrypt"), &encryption(b"x"));
    let sealed = exam.accepted(&format!("encrypt with {key}"), &ask).await?;
    // Its own ciphertext: another key's might as well be said not to fit.
    refuses(exam, &key, "decrypt", &decryption(&sealed), INVALID_KEY_USAGE).await
}

async fn cdiv_of_encrypt_only(exam: &mut Exam) -> Verdict {
    let Some(key) = exam.facts.subject.keys.encrypt_only.clone() else { return Ok(()) };
    refuses(exam, &key, "encrypt", &with_cdiv(encryption(b"x")), INVALID_KEY_USAGE).await
}

async fn decrypt_only(exam: &mut Exam) -> Verdict {
    let Some(key) = exam.facts.subject.keys.decrypt_only.clone() else { return Ok(()) };
    has_usage(exam, &key, [false, true]).await?;
    refuses(exam, &key, "encrypt", &encryption(b"x"), INVALID_KEY_USAGE).await
}

async fn no_use(exam: &mut Exam) -> Verdict {
    let Some(key) = exam.facts.subject.keys.no_use.clone() else { return Ok(()) };
    has_usage(exam, &key, [false, false]).await?;
    refuses(exam, &key, "encrypt", &encryption(b"x"), INVALID_KEY_USAGE).await?;
    let body = exam.facts.decrypt.clone();
    refuses(exam, &key, "decrypt", &body, UNUSABLE).await
}

async fn disabled(exam: &mut Exam) -> Verdict {
    let Some(key) = exam.facts.subject.keys.disabled.clone() else { return Ok(()) };
    refuses(exam, &key, "encrypt", &encryption(b"x"), INVALID_STATE).await?;
    let body = exam.facts.decrypt.clone();
    refuses(exam, &key, "decrypt", &body, INVALID_STATE).await
}

async fn disabled_metadata(exam: &mut Exam) -> Verdict {
    let Some(key) = exam.facts.subject.keys.disabled.clone() else { return Ok(()) };
    let members = describe(exam, &key).await?;
    if members["keyStatus"] == "DISABLED" {
        return Ok(());
    }
    let got = shown(&members["keyStatus"]);
    Err(Deviation::new(format!("metadata of {key}"), "DISABLED", got))
}

async fn other_kind(exam: &mut Exam) -> Verdict {
    let Some(key) = exam.facts.subject.keys.other_kind.clone() else { return Ok(()) };
    let members = describe(exam, &key).await?;
    if members["keySpec"] != "AES_256" {
        return Ok(());
    }
    Err(Deviation::new(format!("metadata of {key}"), "its own keySpec", "AES_256"))
}
