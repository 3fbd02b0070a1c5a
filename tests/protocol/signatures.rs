//! Rows of the table: signatures that prove nothing (P-10 to P-15), beside those of
//! `xksd conformance`. All are 401, none is 400.

use support::site::Credential;

use crate::bad_requests::{Expect, Table};
use crate::world::AUTHENTICATION_FAILED;

const STRANGER: Expect = Expect::Refused(401, AUTHENTICATION_FAILED);

pub(crate) fn fill(table: &mut Table) {
    authorizations(table);
    times(table);
    signed_headers(table);
    payloads(table);
    who(table);
}

/// P-10: forms of the header that `xksd conformance` does not have.
fn authorizations(t: &mut Table) {
    t.tampered("Authorization: Credential twice", STRANGER, |headers| {
        let good = &mut headers.last_mut().expect("it is the last").1;
        let credential = good["AWS4-HMAC-SHA256 ".len()..].split(',').next().unwrap_or_default();
        *good = format!("{good}, {credential}");
    });
    t.tampered("Authorization twice, the first one empty", STRANGER, |headers| {
        headers.insert(0, ("Authorization".into(), String::new()));
    });
}

/// P-12, P-15: dates that look like one.
fn times(t: &mut Table) {
    for date in [
        "Sat, 21 Nov 2026 00:00:00 GMT",
        "20261121t000000z",
        "20261121T250000Z",
        "20261121T000000Z ,",
        "+0261121T000000Z",
    ] {
        // It is signed as it is: only its form is wrong.
        t.spoiled(format!("X-Amz-Date: {date}"), STRANGER, |r| {
            r.headers.push(("X-Amz-Date".into(), date.into()));
        });
    }
    t.tampered("Date in place of X-Amz-Date", STRANGER, |headers| {
        let date = headers.iter_mut().find(|(name, _)| name == "X-Amz-Date");
        date.expect("it is signed").0 = "Date".into();
    });
}

/// P-11, P-15: which headers are covered, and what is said of the host.
fn signed_headers(t: &mut Table) {
    for names in ["content-type", ";host;x-amz-date", "host, x-amz-date", ":method;host;x-amz-date"]
    {
        t.spoiled(format!("SignedHeaders={names}"), STRANGER, |r| {
            r.signing.signed_headers = names.into()
        });
    }
    t.tampered("another Host", STRANGER, |headers| headers[0].1 = "elsewhere".into());
    t.tampered("no Host", STRANGER, |headers| {
        headers.remove(0);
    });
    t.spoiled("an empty Host, signed", STRANGER, |r| r.headers[0].1 = String::new());
    t.tampered("a signed header twice", STRANGER, |headers| headers.push(headers[1].clone()));
}

/// P-15: the body is covered, whatever the signer says of it.
fn payloads(t: &mut Table) {
    let claim = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    t.spoiled(format!("x-amz-content-sha256: {claim}"), STRANGER, |r| {
        r.headers.push(("x-amz-content-sha256".into(), claim.into()));
        r.signing.signed_headers = "host;x-amz-content-sha256;x-amz-date".into();
        r.signing.body_hash = Some(claim.into());
    });
    let mut request = t.request();
    let headers = request.signed_headers();
    request.target = request.target.replace("demo-key", "demo-second");
    t.bytes("another key than signed", STRANGER, request.with_headers(&headers));
}

/// P-14, P-15: whose signature it is.
fn who(t: &mut Table) {
    let good = t.kms.credential.clone();
    t.spoiled("an access key id with a slash", STRANGER, |r| {
        r.signing.credential = Some(Credential { id: "A/B".into(), ..good.clone() });
    });
    t.spoiled("the secret of the other credential", STRANGER, |r| {
        let secret = crate::world::demo().credentials[1].secret.clone();
        r.signing.credential = Some(Credential { secret, ..good.clone() });
    });
    t.spoiled("an empty secret", STRANGER, |r| {
        r.signing.credential = Some(Credential { secret: String::new(), ..good.clone() });
    });
}
