//! Rows of the table: signatures that prove nothing (P-10 to P-15). All are 401, none is 400.

use std::time::Duration;

use support::request::{base64, sha256_hex};
use support::site::Credential;

use crate::bad_requests::{Expect, Table};
use crate::world::{AUTHENTICATION_FAILED, other};

const STRANGER: Expect = Expect::Refused(401, AUTHENTICATION_FAILED);

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn fill(table: &mut Table) {
    authorizations(table);
    times(table);
    scopes(table);
    signed_headers(table);
    payloads(table);
    who(table);
}

/// P-10: the form of the header.
fn authorizations(t: &mut Table) {
    t.tampered("no Authorization", STRANGER, |headers| {
        headers.pop();
    });
    type Change = fn(&str) -> String;
    let changes: [(&str, Change); 24] = [
        ("empty", |_| String::new()),
        ("the algorithm alone", |_| "AWS4-HMAC-SHA256".into()),
        ("Basic", |_| "Basic dXNlcjpwYXNzd29yZA==".into()),
        ("Bearer", |_| "Bearer token".into()),
        ("another algorithm", |good| good.replace("SHA256", "SHA512")),
        ("SigV4A", |good| good.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")),
        ("lower-case scheme", |good| good.replace("AWS4-HMAC", "aws4-hmac")),
        ("no Credential", |good| good.replace("Credential=", "Credit=")),
        ("no SignedHeaders", |good| good.replace("SignedHeaders=", "Headers=")),
        ("no Signature", |good| good.split(", Signature").next().unwrap_or_default().into()),
        ("an empty Signature", |good| good[..good.len() - 64].into()),
        ("a short Signature", |good| good[..good.len() - 1].into()),
        ("a long Signature", |good| format!("{good}0")),
        ("a Signature of half the length", |good| good[..good.len() - 32].into()),
        ("no hex", |good| format!("{}g", &good[..good.len() - 1])),
        ("zeros", |good| good[..good.len() - 64].to_owned() + &"0".repeat(64)),
        ("upper-case hex", |good| {
            let (rest, signature) = good.split_at(good.len() - 64);
            rest.to_owned() + &signature.to_uppercase()
        }),
        ("a trailing comma", |good| format!("{good},")),
        ("a component more", |good| format!("{good}, Extra=1")),
        ("Signature twice", |good| {
            let signature = good.rsplit(", ").next().unwrap_or_default();
            format!("{good}, {signature}")
        }),
        ("Credential twice", |good| {
            let credential =
                good["AWS4-HMAC-SHA256 ".len()..].split(',').next().unwrap_or_default();
            format!("{good}, {credential}")
        }),
        ("semicolons", |good| good.replace(", ", "; ")),
        ("not ASCII", |good| format!("{good}\u{e9}")),
        ("of 3,000 bytes", |good| good.replace("host", &format!("host;{}", "x".repeat(2800)))),
    ];
    for (what, change) in changes {
        t.tampered(format!("Authorization: {what}"), STRANGER, |headers| {
            let authorization = &mut headers.last_mut().expect("it is the last").1;
            *authorization = change(authorization);
        });
    }
    t.tampered("Authorization twice", STRANGER, |headers| {
        headers.push(headers.last().expect("it is the last").clone());
    });
    t.tampered("Authorization twice, the first one empty", STRANGER, |headers| {
        headers.insert(0, ("Authorization".into(), String::new()));
    });
}

/// P-12: when it was signed. `bad_requests` has the last second of the five minutes.
fn times(t: &mut Table) {
    for (what, away) in
        [("six minutes", Duration::from_secs(360)), ("a day", DAY), ("a year", 365 * DAY)]
    {
        t.spoiled(format!("{what} ago"), STRANGER, |r| r.signing.time -= away);
        t.spoiled(format!("{what} ahead"), STRANGER, |r| r.signing.time += away);
    }
    for date in [
        "",
        "now",
        "20261121",
        "2026-11-21T00:00:00Z",
        "Sat, 21 Nov 2026 00:00:00 GMT",
        "20261121T000000",
        "20261121t000000z",
        "20261321T000000Z",
        "20261121T250000Z",
        "20261121T000000Z ,",
        "99999999T999999Z",
        "+0261121T000000Z",
    ] {
        // It is signed as it is: only its form is wrong.
        t.spoiled(format!("X-Amz-Date: {date}"), STRANGER, |r| {
            r.headers.push(("X-Amz-Date".into(), date.into()));
        });
    }
    t.tampered("no X-Amz-Date", STRANGER, |headers| {
        headers.retain(|(name, _)| name != "X-Amz-Date")
    });
    t.tampered("Date in place of X-Amz-Date", STRANGER, |headers| {
        let date = headers.iter_mut().find(|(name, _)| name == "X-Amz-Date");
        date.expect("it is signed").0 = "Date".into();
    });
    t.tampered("X-Amz-Date twice", STRANGER, |headers| {
        let date = headers.iter().find(|(name, _)| name == "X-Amz-Date").cloned();
        headers.push(date.expect("it is signed"));
    });
}

/// P-10, P-12: what the signature is for.
fn scopes(t: &mut Table) {
    for days in [-1, 1] {
        t.spoiled(format!("scope of {days} day away"), STRANGER, |r| {
            let time = if days < 0 { r.signing.time - DAY } else { r.signing.time + DAY };
            let date = xksd::sigv4::date::AmzDate::at(time).expect("a time of our days");
            r.signing.scope_date = Some(date.day_text());
        });
    }
    for date in ["20261", "xxxxxxxx", "2026-11-21"] {
        t.spoiled(format!("scope date {date}"), STRANGER, |r| {
            r.signing.scope_date = Some(date.into())
        });
    }
    for region in ["eu-west-1", "us-east-11", "US-EAST-1", "us-east-1 ", "*", "us-east-1/x"] {
        t.spoiled(format!("scope Region `{region}`"), STRANGER, |r| {
            r.signing.region = region.into()
        });
    }
    for service in ["kms", "s3", "kms-xks-proxy2", "KMS-XKS-PROXY", "execute-api"] {
        t.spoiled(format!("scope service {service}"), STRANGER, |r| {
            r.signing.service = service.into()
        });
    }
    for terminator in ["aws5_request", "aws4_request/x", "AWS4_REQUEST", ""] {
        t.spoiled(format!("scope end `{terminator}`"), STRANGER, |r| {
            r.signing.terminator = terminator.into();
        });
    }
}

/// P-11, P-15: which headers are covered.
fn signed_headers(t: &mut Table) {
    for names in [
        "",
        "host",
        "x-amz-date",
        "content-type;host",
        "content-type;x-amz-date",
        "content-type",
        "x-amz-date;host",
        "host;host;x-amz-date",
        "Host;x-amz-date",
        "host;x-amz-date;",
        ";host;x-amz-date",
        "host;x-absent;x-amz-date",
        "host, x-amz-date",
        ":method;host;x-amz-date",
    ] {
        t.spoiled(format!("SignedHeaders={names}"), STRANGER, |r| {
            r.signing.signed_headers = names.into()
        });
    }
    t.tampered("Host twice, the same", STRANGER, |headers| headers.insert(1, headers[0].clone()));
    t.tampered("Host twice, another", STRANGER, |headers| {
        headers.insert(0, ("Host".into(), "elsewhere".into()));
    });
    t.tampered("another Host", STRANGER, |headers| headers[0].1 = "elsewhere".into());
    t.tampered("no Host", STRANGER, |headers| {
        headers.remove(0);
    });
    t.spoiled("an empty Host, signed", STRANGER, |r| r.headers[0].1 = String::new());
    t.tampered("another Content-Type than signed", STRANGER, |headers| {
        headers[1].1 = "text/plain".into();
    });
    t.tampered("a signed header twice", STRANGER, |headers| headers.push(headers[1].clone()));
    t.tampered("a header that is not signed", Expect::Served, |headers| {
        headers.push(("X-Forwarded-For".into(), "192.0.2.1".into()));
    });
    t.spoiled("host and date signed, nothing else", Expect::Served, |r| {
        r.signing.signed_headers = "host;x-amz-date".into();
    });
    t.spoiled("a signed header with spaces inside", Expect::Served, |r| {
        r.headers.push(("X-Spaces".into(), "one two".into()));
        r.signing.signed_headers = "host;x-amz-date;x-spaces".into();
    });
}

/// P-15: the body is covered, whatever the signer says of it.
fn payloads(t: &mut Table) {
    for claim in [
        "UNSIGNED-PAYLOAD",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    ] {
        t.spoiled(format!("x-amz-content-sha256: {claim}"), STRANGER, |r| {
            r.headers.push(("x-amz-content-sha256".into(), claim.into()));
            r.signing.signed_headers = "host;x-amz-content-sha256;x-amz-date".into();
            r.signing.body_hash = Some(claim.into());
        });
        t.spoiled(format!("{claim} in the canonical request"), STRANGER, |r| {
            r.signing.body_hash = Some(claim.into());
        });
    }
    for (what, hash) in [
        ("of nothing", sha256_hex(b"")),
        ("empty", String::new()),
        ("of another body", sha256_hex(b"{}")),
    ] {
        t.spoiled(format!("signed hash {what}"), STRANGER, |r| {
            r.signing.body_hash = Some(hash.clone())
        });
        t.spoiled(format!("claimed hash {what}"), STRANGER, |r| {
            r.headers.push(("x-amz-content-sha256".into(), hash.clone()));
            r.signing.body_hash = Some(hash.clone());
            r.signing.signed_headers = "host;x-amz-content-sha256;x-amz-date".into();
        });
    }
    let mut request = t.request();
    let headers = request.signed_headers();
    request.body = {
        let text = String::from_utf8(request.body).expect("JSON is UTF-8");
        text.replace(&base64(b"plaintext of good bodies"), &base64(b"another, of equal length"))
            .into()
    };
    t.bytes("another body than signed", STRANGER, request.with_headers(&headers));
    let mut request = t.request();
    let headers = request.signed_headers();
    request.target = request.target.replace("demo-key", "demo-second");
    t.bytes("another path than signed", STRANGER, request.with_headers(&headers));
}

/// P-14, P-15: whose signature it is.
fn who(t: &mut Table) {
    let good = t.kms.credential.clone();
    let with_id = |id: &str| Credential { id: id.into(), ..good.clone() };
    for id in [
        "UNKNOWNUNKNOWNUNKNOWN",
        "short",
        &good.id.to_lowercase(),
        &format!("{}A", good.id),
        "A/B",
        "AKIAIOSFODNN7EXAMPLE",
    ] {
        t.spoiled(format!("access key id {id}"), STRANGER, |r| {
            r.signing.credential = Some(with_id(id))
        });
    }
    t.spoiled("another tenant's credential", STRANGER, |r| {
        r.signing.credential = Some(other().credentials[0].clone());
    });
    t.spoiled("another secret", STRANGER, |r| {
        let secret = other().credentials[0].secret.clone();
        r.signing.credential = Some(Credential { secret, ..good.clone() });
    });
    t.spoiled("the secret of the other credential", STRANGER, |r| {
        let secret = crate::world::demo().credentials[1].secret.clone();
        r.signing.credential = Some(Credential { secret, ..good.clone() });
    });
    t.spoiled("an empty secret", STRANGER, |r| {
        r.signing.credential = Some(Credential { secret: String::new(), ..good.clone() });
    });
    // P-71: what a stranger's body says is not even looked at.
    t.spoiled("a bad body by a stranger", STRANGER, |r| {
        r.body = b"no JSON".to_vec();
        r.signing.credential = Some(with_id("UNKNOWNUNKNOWNUNKNOWN"));
    });
    t.spoiled("an unknown key by a stranger", STRANGER, |r| {
        r.target = r.target.replace("demo-key", "demo-none");
        r.signing.credential = Some(with_id("UNKNOWNUNKNOWNUNKNOWN"));
    });
}
