//! P-41 to P-43: what Encrypt answers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::answer::{self, Sealed};
use super::super::exam::Exam;
use super::super::subject::{AAD, TEXT, decryption, encryption, with_aad, with_cdiv, without};
use super::super::{Case, Deviation, Letter, Steps, Verdict};
use super::INVALID_CIPHERTEXT;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "round-trips",
        rules: &[41, 50],
        letter: Letter::Must,
        why: "what is encrypted has the lengths of the specification, and decrypts to what it was",
        needs: &[],
        steps: Steps::Scenario { requests: 12, run: |exam| Box::pin(round_trips(exam)) },
    },
    Case {
        name: "fresh-ivs",
        rules: &[41],
        letter: Letter::Must,
        why: "no two encryptions have the same initialization vector: GCM would be broken",
        needs: &[],
        steps: Steps::Scenario { requests: IVS, run: |exam| Box::pin(fresh_ivs(exam)) },
    },
    Case {
        name: "cdiv",
        rules: &[43],
        letter: Letter::Must,
        why: "the data integrity value is SHA-256 over AAD, metadata, IV, ciphertext and tag",
        needs: &[],
        steps: Steps::Scenario { requests: 6, run: |exam| Box::pin(cdiv(exam)) },
    },
    Case {
        name: "cdiv-only-where-asked",
        rules: &[41],
        letter: Letter::Decided,
        why: "there is no data integrity value where none was asked for",
        needs: &[],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(cdiv_only_where_asked(exam)) },
    },
    Case {
        name: "metadata-are-not-aad",
        rules: &[42],
        letter: Letter::Should,
        why: "ciphertext metadata can't be passed off as AAD: lengths are authenticated",
        needs: &[],
        steps: Steps::Scenario { requests: 3, run: |exam| Box::pin(metadata_are_not_aad(exam)) },
    },
];

/// How many encryptions are looked at for equal IVs.
const IVS: u32 = 24;

/// Encrypts, and reads the answer.
async fn encrypt(
    exam: &mut Exam,
    asked: &str,
    body: &Value,
    length: usize,
) -> Result<(Value, Sealed), Deviation> {
    let ask = exam.facts.request(&exam.facts.rest("encrypt"), body);
    let members = exam.accepted(asked, &ask).await?;
    let object = members.as_object().cloned().unwrap_or_default();
    let sealed = Sealed::read(&object, length)
        .map_err(|got| Deviation::new(asked, "the lengths of P-41", got))?;
    Ok((members, sealed))
}

/// Decrypts, and compares.
async fn opens(exam: &mut Exam, asked: &str, body: &Value, plaintext: &[u8]) -> Verdict {
    let ask = exam.facts.request(&exam.facts.rest("decrypt"), body);
    let opened = exam.accepted(asked, &ask).await?;
    let unlike = |got: String| Deviation::new(asked, "the plaintext that was encrypted", got);
    let object = opened.as_object().cloned().unwrap_or_default();
    let bytes = answer::bytes(&object, "plaintext").map_err(unlike)?;
    if bytes == plaintext { Ok(()) } else { Err(unlike(format!("{} other bytes", bytes.len()))) }
}

async fn round_trips(exam: &mut Exam) -> Verdict {
    for (text, aad) in [
        (1, None),
        (1, Some(0)),
        (1, Some(1)),
        (32, Some(33)),
        (16, Some(8192)),
        (4300, Some(8192)),
    ] {
        let plaintext: Vec<u8> = (0..text).map(|n: usize| (n % 251) as u8).collect();
        let aad = aad.map(|length| vec![0xa5; length]);
        let mut body = encryption(&plaintext);
        if let Some(aad) = &aad {
            body = with_aad(body, aad);
        }
        let size =
            aad.as_ref().map_or("no AAD".to_owned(), |aad| format!("an AAD of {}", aad.len()));
        let asked = format!("a plaintext of {text} bytes with {size}");
        let (members, sealed) = encrypt(exam, &asked, &body, text).await?;
        if text > 16 && sealed.ciphertext == plaintext {
            return Err(Deviation::new(asked, "a ciphertext", "the plaintext itself"));
        }
        let mut body = decryption(&members);
        if let Some(aad) = &aad {
            body = with_aad(body, aad);
        }
        opens(exam, &format!("decryption of {asked}"), &body, &plaintext).await?;
    }
    Ok(())
}

async fn fresh_ivs(exam: &mut Exam) -> Verdict {
    let mut seen = BTreeSet::new();
    let body = encryption(TEXT);
    for number in 1..=IVS {
        let asked = format!("encryption {number} of the same");
        let (_, sealed) = encrypt(exam, &asked, &body, TEXT.len()).await?;
        if !seen.insert(sealed.iv) {
            let got = "an initializationVector that was there before";
            return Err(Deviation::new(asked, "an initializationVector of its own", got));
        }
    }
    Ok(())
}

async fn cdiv(exam: &mut Exam) -> Verdict {
    for (asked, aad) in [("no AAD", None), ("an empty AAD", Some(&b""[..])), ("an AAD", Some(AAD))]
    {
        let add = |body: Value| aad.map_or(body.clone(), |aad| with_aad(body, aad));
        let body = add(with_cdiv(encryption(TEXT)));
        let (members, sealed) = encrypt(exam, asked, &body, TEXT.len()).await?;
        let expected = sealed.expected_cdiv(aad.unwrap_or_default());
        let got = match sealed.cdiv {
            Some(cdiv) if cdiv == expected => {
                opens(exam, asked, &add(decryption(&members)), TEXT).await?;
                continue;
            }
            Some(cdiv) => format!("another value of {} bytes", cdiv.len()),
            None => "no ciphertextDataIntegrityValue".to_owned(),
        };
        let asked = format!("a data integrity value with {asked}");
        return Err(Deviation::new(asked, "the SHA-256 of the answer's parts", got));
    }
    Ok(())
}

async fn cdiv_only_where_asked(exam: &mut Exam) -> Verdict {
    let asked = "no data integrity value asked for";
    let (_, sealed) = encrypt(exam, asked, &encryption(TEXT), TEXT.len()).await?;
    match sealed.cdiv {
        None => Ok(()),
        Some(_) => Err(Deviation::new(asked, "none", "a ciphertextDataIntegrityValue")),
    }
}

async fn metadata_are_not_aad(exam: &mut Exam) -> Verdict {
    let (members, sealed) = encrypt(exam, "no AAD", &encryption(TEXT), TEXT.len()).await?;
    let Some(metadata) = sealed.metadata.filter(|metadata| !metadata.is_empty()) else {
        // Nothing could be passed off as anything.
        return Ok(());
    };
    let moved = with_aad(decryption(&members), &metadata);
    let rest = exam.facts.rest("decrypt");
    let copied = exam.facts.request(&rest, &moved);
    exam.refused("the metadata as AAD, too", &copied, INVALID_CIPHERTEXT).await?;
    let moved = exam.facts.request(&rest, &without(&moved, "ciphertextMetadata"));
    exam.refused("the metadata as AAD", &moved, INVALID_CIPHERTEXT).await
}
