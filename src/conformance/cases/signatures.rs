//! P-10 to P-15: signatures, good and bad. What proves nothing is 401, never 400.

use super::super::exam::Exam;
use super::super::request::sha256_hex;
use super::super::subject::{Facts, bare_health};
use super::super::{Case, Deviation, Expect, Letter, Need, Probe, Steps, Verdict};
use super::STRANGER;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "unsigned",
        rules: &[10],
        letter: Letter::Must,
        why: "a request without Authorization is nobody's",
        needs: &[],
        steps: Steps::Probes(unsigned),
    },
    Case {
        name: "wrong-secrets",
        rules: &[10],
        letter: Letter::Must,
        why: "a signature by another secret proves nothing",
        needs: &[],
        steps: Steps::Probes(wrong_secrets),
    },
    Case {
        name: "signature-bits",
        rules: &[10],
        letter: Letter::Must,
        why: "every part of the signature counts",
        needs: &[],
        steps: Steps::Probes(signature_bits),
    },
    Case {
        name: "authorization-form",
        rules: &[15, 10],
        letter: Letter::Decided,
        why: "whatever is wrong with the Authorization header is 401",
        needs: &[],
        steps: Steps::Probes(authorizations),
    },
    Case {
        name: "altered-after-signing",
        rules: &[11],
        letter: Letter::Must,
        why: "body, path, date and signed headers are covered by the signature",
        needs: &[],
        steps: Steps::Probes(altered),
    },
    Case {
        name: "signers-may-sign-more",
        rules: &[11],
        letter: Letter::Must,
        why: "which headers are signed beyond host and x-amz-date is the signer's choice",
        needs: &[],
        steps: Steps::Probes(signed_more),
    },
    Case {
        name: "signed-headers",
        rules: &[15, 11],
        letter: Letter::Decided,
        why: "host and x-amz-date have to be signed, by a list in its canonical form",
        needs: &[],
        steps: Steps::Probes(signed_headers),
    },
    Case {
        name: "recent-signatures",
        rules: &[12],
        letter: Letter::Must,
        why: "a signer's clock may be some minutes off",
        needs: &[],
        steps: Steps::Probes(recent),
    },
    Case {
        name: "old-signatures",
        rules: &[12],
        letter: Letter::Should,
        why: "a signature of more than five minutes ago, or ahead, proves nothing any more",
        needs: &[],
        steps: Steps::Probes(old),
    },
    Case {
        name: "dates-of-no-form",
        rules: &[12, 15],
        letter: Letter::Decided,
        why: "X-Amz-Date has one form, and the scope's date is its date",
        needs: &[],
        steps: Steps::Probes(dates),
    },
    Case {
        name: "other-services",
        rules: &[10],
        letter: Letter::Must,
        why: "the service is kms-xks-proxy: a signature for another one is no signature for this",
        needs: &[],
        steps: Steps::Probes(services),
    },
    Case {
        name: "other-regions",
        rules: &[12],
        letter: Letter::Decided,
        why: "the Region is one that the key store serves",
        needs: &[],
        steps: Steps::Probes(regions),
    },
    Case {
        name: "second-credential",
        rules: &[13],
        letter: Letter::Should,
        why: "two credentials are good at the same time, so that one can replace the other",
        needs: &[Need::SecondCredential],
        steps: Steps::Probes(second_credential),
    },
    Case {
        name: "unknown-ids-like-wrong-secrets",
        rules: &[15],
        letter: Letter::Decided,
        why: "an unknown access key id is answered like a wrong signature",
        needs: &[],
        steps: Steps::Scenario { requests: 2, run: |exam| Box::pin(alike(exam)) },
    },
    Case {
        name: "duplicate-headers",
        rules: &[15],
        letter: Letter::Decided,
        why: "a header that stands twice could be read in two ways",
        needs: &[],
        steps: Steps::Probes(duplicates),
    },
    Case {
        name: "contradicting-hosts",
        rules: &[15],
        letter: Letter::Decided,
        why: "on HTTP/2, a host header says what :authority says, or the request is refused",
        needs: &[Need::Http2],
        steps: Steps::Probes(contradicting_hosts),
    },
    Case {
        name: "unsigned-payloads",
        rules: &[15],
        letter: Letter::Decided,
        why: "the body is covered, whatever the signer says of it",
        needs: &[],
        steps: Steps::Probes(payloads),
    },
    Case {
        name: "query-strings",
        rules: &[15],
        letter: Letter::Decided,
        why: "the protocol has no query strings: none is accepted, signed or not",
        needs: &[],
        steps: Steps::Probes(queries),
    },
];

/// The value of the Authorization header, which is the last one.
fn authorization(headers: &mut [(String, String)]) -> &mut String {
    &mut headers.last_mut().expect("a signed request has headers").1
}

fn unsigned(facts: &Facts) -> Vec<Probe> {
    vec![
        Probe::spoiled(facts, "no Authorization", STRANGER, |ask| ask.signing.credential = None),
        Probe::tampered(facts, "an empty Authorization", STRANGER, |headers| {
            authorization(headers).clear();
        }),
        Probe::tampered(facts, "Basic", STRANGER, |headers| {
            *authorization(headers) = "Basic dXNlcjpwYXNzd29yZA==".to_owned();
        }),
    ]
}

fn wrong_secrets(facts: &Facts) -> Vec<Probe> {
    let good = &facts.subject.credential;
    [
        ("another secret", good.with_another_secret()),
        ("an unknown access key id", good.under("UNKNOWNUNKNOWNUNKNOWN")),
        ("the access key id in lower case", good.under(good.id.to_lowercase())),
        ("a character more in the access key id", good.under(format!("{}A", good.id))),
        ("a short access key id", good.under("short")),
    ]
    .map(|(name, credential)| {
        Probe::spoiled(facts, name, STRANGER, |ask| ask.signing.credential = Some(credential))
    })
    .into()
}

fn signature_bits(facts: &Facts) -> Vec<Probe> {
    (0..64)
        .step_by(3)
        .map(|digit| {
            let name = format!("digit {digit} of the signature");
            Probe::tampered(facts, name, STRANGER, move |headers| {
                let value = authorization(headers);
                let at = value.len() - 64 + digit;
                let other = if value.as_bytes()[at] == b'0' { "1" } else { "0" };
                value.replace_range(at..=at, other);
            })
        })
        .collect()
}

type Change = fn(&str) -> String;

fn authorizations(facts: &Facts) -> Vec<Probe> {
    const CHANGES: [(&str, Change); 20] = [
        ("the algorithm alone", |_| "AWS4-HMAC-SHA256".into()),
        ("Bearer", |_| "Bearer token".into()),
        ("another algorithm", |good| good.replace("SHA256", "SHA512")),
        ("SigV4A", |good| good.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")),
        ("a scheme in lower case", |good| good.replace("AWS4-HMAC", "aws4-hmac")),
        ("no Credential", |good| good.replace("Credential=", "Credit=")),
        ("no SignedHeaders", |good| good.replace("SignedHeaders=", "Headers=")),
        ("no Signature", |good| good.split(", Signature").next().unwrap_or_default().into()),
        ("an empty Signature", |good| good[..good.len() - 64].into()),
        ("a short Signature", |good| good[..good.len() - 1].into()),
        ("a long Signature", |good| format!("{good}0")),
        ("half of the Signature", |good| good[..good.len() - 32].into()),
        ("no hex", |good| format!("{}g", &good[..good.len() - 1])),
        ("a Signature in upper case", |good| {
            let (rest, signature) = good.split_at(good.len() - 64);
            rest.to_owned() + &signature.to_uppercase()
        }),
        ("a comma at the end", |good| format!("{good},")),
        ("a component more", |good| format!("{good}, Extra=1")),
        ("Signature twice", |good| {
            format!("{good}, {}", good.rsplit(", ").next().unwrap_or_default())
        }),
        ("semicolons", |good| good.replace(", ", "; ")),
        ("not ASCII", |good| format!("{good}\u{e9}")),
        ("of 3,000 bytes", |good| good.replace("host", &format!("host;{}", "x".repeat(2800)))),
    ];
    let mut probes: Vec<Probe> = CHANGES
        .into_iter()
        .map(|(name, change)| {
            Probe::tampered(facts, format!("Authorization: {name}"), STRANGER, move |headers| {
                let value = authorization(headers);
                *value = change(value);
            })
        })
        .collect();
    for terminator in ["aws5_request", "AWS4_REQUEST", "aws4_request/x", ""] {
        let name = format!("a scope that ends with `{terminator}`");
        probes.push(Probe::spoiled(facts, name, STRANGER, |ask| {
            ask.signing.terminator = terminator.to_owned();
        }));
    }
    probes
}

fn altered(facts: &Facts) -> Vec<Probe> {
    // The signature is that of the good request; what is sent differs from it.
    let mut body = facts.encryption();
    let hash = sha256_hex(&body.body);
    body.signing.body_hash = Some(hash);
    body.body.extend_from_slice(b" ");
    let mut path = facts.request("health", &bare_health("KmsHealthCheck"));
    path.signing.path = Some(path.target.clone());
    path.target = facts.path(&facts.rest("metadata"));
    vec![
        Probe::new("a body of one more space", body, STRANGER),
        Probe::new("another path", path, STRANGER),
        Probe::tampered(facts, "another Content-Type", STRANGER, |headers| {
            headers[1].1 = "text/plain".to_owned();
        }),
        Probe::tampered(facts, "another second in X-Amz-Date", STRANGER, |headers| {
            for (_, value) in headers.iter_mut().filter(|(name, _)| name == "X-Amz-Date") {
                let last = value.len() - 2;
                let other = if value.as_bytes()[last] == b'0' { "1" } else { "0" };
                value.replace_range(last..=last, other);
            }
        }),
        Probe::spoiled(facts, "the hash of nothing", STRANGER, |ask| {
            ask.signing.body_hash = Some(sha256_hex(b""));
        }),
    ]
}

fn signed_more(facts: &Facts) -> Vec<Probe> {
    vec![
        Probe::spoiled(facts, "host and date, nothing else", Expect::Served, |ask| {
            ask.signing.signed_headers = "host;x-amz-date".to_owned();
        }),
        Probe::spoiled(facts, "x-amz-content-sha256", Expect::Served, |ask| {
            ask.headers.push(("X-Amz-Content-Sha256".to_owned(), sha256_hex(&ask.body)));
            ask.signing.signed_headers = "host;x-amz-content-sha256;x-amz-date".to_owned();
        }),
        Probe::spoiled(facts, "a header with spaces inside", Expect::Served, |ask| {
            ask.headers.push(("X-Spaces".to_owned(), "one two".to_owned()));
            ask.signing.signed_headers = "host;x-amz-date;x-spaces".to_owned();
        }),
        Probe::tampered(facts, "a header that is not signed", Expect::Served, |headers| {
            headers.push(("X-Forwarded-For".to_owned(), "192.0.2.1".to_owned()));
        }),
    ]
}

fn signed_headers(facts: &Facts) -> Vec<Probe> {
    [
        "",
        "host",
        "x-amz-date",
        "content-type;host",
        "content-type;x-amz-date",
        "x-amz-date;host",
        "host;host;x-amz-date",
        "Host;x-amz-date",
        "host;x-amz-date;",
        "host;x-absent;x-amz-date",
    ]
    .map(|names| {
        Probe::spoiled(facts, format!("SignedHeaders={names}"), STRANGER, |ask| {
            ask.signing.signed_headers = names.to_owned();
        })
    })
    .into()
}

/// Requests whose signer has another idea of the time.
fn by_clock<const N: usize>(
    facts: &Facts,
    expect: Expect,
    seconds: [(&str, i64); N],
) -> Vec<Probe> {
    seconds
        .map(|(name, ahead)| Probe::spoiled(facts, name, expect, |ask| ask.signing.ahead = ahead))
        .into()
}

fn recent(facts: &Facts) -> Vec<Probe> {
    // Well within five minutes: the proxy's clock and this one may differ a little, too.
    by_clock(facts, Expect::Served, [("four minutes ago", -240), ("four minutes ahead", 240)])
}

fn old(facts: &Facts) -> Vec<Probe> {
    const DAY: i64 = 24 * 3600;
    by_clock(
        facts,
        STRANGER,
        [
            ("six minutes ago", -360),
            ("six minutes ahead", 360),
            ("a day ago", -DAY),
            ("a day ahead", DAY),
            ("a year ago", -365 * DAY),
        ],
    )
}

fn dates(facts: &Facts) -> Vec<Probe> {
    let mut probes: Vec<Probe> = [
        "",
        "now",
        "20261121",
        "2026-11-21T00:00:00Z",
        "20261121T000000",
        "20261321T000000Z",
        "99999999T999999Z",
    ]
    .map(|date| {
        // It is signed as it is: only its form is wrong.
        Probe::spoiled(facts, format!("X-Amz-Date: {date}"), STRANGER, |ask| {
            ask.headers.push(("X-Amz-Date".to_owned(), date.to_owned()));
        })
    })
    .into();
    for days in [-1, 1] {
        let name = format!("a scope whose date is {days} day away");
        probes.push(Probe::spoiled(facts, name, STRANGER, |ask| ask.signing.scope_days = days));
    }
    for date in ["20261", "xxxxxxxx", "2026-11-21"] {
        let name = format!("a scope of the date {date}");
        probes.push(Probe::spoiled(facts, name, STRANGER, |ask| {
            ask.signing.scope_date = Some(date.to_owned());
        }));
    }
    probes.push(Probe::tampered(facts, "no X-Amz-Date", STRANGER, |headers| {
        headers.retain(|(name, _)| name != "X-Amz-Date");
    }));
    probes
}

fn services(facts: &Facts) -> Vec<Probe> {
    ["kms", "s3", "kms-xks-proxy2", "KMS-XKS-PROXY"]
        .map(|service| {
            Probe::spoiled(facts, format!("service {service}"), STRANGER, |ask| {
                ask.signing.service = service.to_owned();
            })
        })
        .into()
}

fn regions(facts: &Facts) -> Vec<Probe> {
    let own = &facts.subject.region;
    ["xx-nowhere-9".to_owned(), own.to_uppercase(), format!("{own}1"), "*".to_owned()]
        .map(|region| {
            Probe::spoiled(facts, format!("Region {region}"), STRANGER, |ask| {
                ask.signing.region = region;
            })
        })
        .into()
}

fn second_credential(facts: &Facts) -> Vec<Probe> {
    let first = &facts.subject.credential;
    let second = facts.subject.second_credential.as_ref().unwrap_or(first);
    let by = |name: &str, credential: &std::sync::Arc<super::super::Credential>, expect| {
        Probe::spoiled(facts, name, expect, |ask| {
            ask.signing.credential = Some(credential.clone());
        })
    };
    vec![
        by("the first credential", first, Expect::Served),
        by("the second credential", second, Expect::Served),
        by("the first id with the second secret", &second.under(first.id.clone()), STRANGER),
    ]
}

async fn alike(exam: &mut Exam) -> Verdict {
    let good = exam.facts.subject.credential.clone();
    let mut said = Vec::new();
    for credential in [good.with_another_secret(), good.under("UNKNOWNUNKNOWNUNKNOWN")] {
        let mut ask = exam.facts.health();
        ask.signing.credential = Some(credential);
        let unlike = |got| Deviation::new("a stranger", STRANGER.to_string(), got);
        let answer = exam.ask(&ask).await.map_err(unlike)?;
        said.push((answer.status, answer.body));
    }
    if said[0] == said[1] {
        return Ok(());
    }
    let asked = "an unknown access key id, and a wrong secret";
    Err(Deviation::new(asked, "the same answer", "two that differ"))
}

fn duplicates(facts: &Facts) -> Vec<Probe> {
    let twice = |name: &'static str| {
        Probe::tampered(facts, format!("{name} twice"), STRANGER, move |headers| {
            let found = headers.iter().find(|(known, _)| known == name).cloned();
            headers.extend(found);
        })
    };
    let mut probes = vec![twice("Authorization"), twice("X-Amz-Date")];
    if facts.subject.connector.http() == crate::client::HttpVersion::Http1 {
        probes.push(twice("Host"));
        probes.push(Probe::tampered(facts, "another Host before it", STRANGER, |headers| {
            headers.insert(0, ("Host".to_owned(), "elsewhere".to_owned()));
        }));
    }
    probes
}

fn contradicting_hosts(facts: &Facts) -> Vec<Probe> {
    vec![Probe::tampered(facts, "host: elsewhere", STRANGER, |headers| {
        headers.push(("Host".to_owned(), "elsewhere".to_owned()));
    })]
}

fn payloads(facts: &Facts) -> Vec<Probe> {
    let claims = [
        "UNSIGNED-PAYLOAD".to_owned(),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD".to_owned(),
        sha256_hex(b"{}"),
        String::new(),
    ];
    let mut probes = Vec::new();
    for claim in claims {
        let name = format!("x-amz-content-sha256: {claim}");
        probes.push(Probe::spoiled(facts, name, STRANGER, |ask| {
            ask.headers.push(("X-Amz-Content-Sha256".to_owned(), claim.clone()));
            ask.signing.signed_headers = "host;x-amz-content-sha256;x-amz-date".to_owned();
            ask.signing.body_hash = Some(claim.clone());
        }));
        let name = format!("`{claim}` in place of the body's hash");
        probes.push(Probe::spoiled(facts, name, STRANGER, |ask| {
            ask.signing.body_hash = Some(claim);
        }));
    }
    probes
}

fn queries(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for query in ["", "a=b", "a=", "Action=Encrypt"] {
        for signed in [true, false] {
            let name = format!("?{query}, {}", if signed { "signed" } else { "not signed" });
            probes.push(Probe::spoiled(facts, name, STRANGER, |ask| {
                ask.target = format!("{}?{query}", ask.target);
                if signed {
                    ask.signing.query = query.to_owned();
                }
            }));
        }
    }
    probes.push(Probe::spoiled(facts, "the form of presigned URLs", STRANGER, |ask| {
        ask.target = format!(
            "{}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=300&X-Amz-Signature={}",
            ask.target,
            "0".repeat(64)
        );
        ask.signing.credential = None;
    }));
    probes
}
