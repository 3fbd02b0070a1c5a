//! Each rule of P-10 to P-15, kept and broken, one at a time.

use std::sync::Arc;
use std::thread;

use super::*;

#[test]
fn a_sound_request_is_verified() {
    // P-10, P-11
    let verified = Case::signed().verify().unwrap();
    assert_eq!(verified.access_key_id().as_str(), ID);
    assert_eq!(verified.region().as_str(), REGION);
    assert_eq!(verified.ahead_seconds(), 0);
}

#[test]
fn the_date_may_be_five_minutes_away_and_no_more() {
    // P-12
    let sent = date("20261121T120000Z").system_time();
    for (now, verdict) in [
        (sent + seconds(300), Ok(-300)),
        (sent - seconds(300), Ok(300)),
        (sent + seconds(301), Err(-301)),
        (sent - seconds(301), Err(301)),
        (sent + seconds(86_400), Err(-86_400)),
        (SystemTime::UNIX_EPOCH, Err(1_795_262_400)),
    ] {
        let result = Case { now, ..Case::signed() }.verify();
        let ahead = result.map(|verified| verified.ahead_seconds());
        let expected = verdict.map_err(|ahead_seconds| Failure::ClockSkew { ahead_seconds });
        assert_eq!(ahead, expected);
    }
}

#[test]
fn around_midnight_the_scope_has_the_day_of_the_signer() {
    // P-12: our clock may be in the next day already; the day in the scope is that of the date.
    let mut case = Case::new();
    case.set("x-amz-date", "20261121T235900Z");
    case.now = date("20261122T000100Z").system_time();
    case.sign(&Recipe::default());
    assert!(case.verify().is_ok());
    case.sign(&Recipe { scope_date: Some("20261122"), ..Recipe::default() });
    assert_eq!(case.verify().unwrap_err().reason(), "scope_date");
}

#[test]
fn every_region_that_is_allowed_may_sign() {
    for (region, allowed) in [(REGION, true), ("eu-central-1", true), ("us-east-2", false)] {
        let mut case = Case::new();
        case.sign(&Recipe { region, ..Recipe::default() });
        assert_eq!(case.verify().is_ok(), allowed, "{region}");
    }
}

#[test]
fn unsound_signatures_are_refused_by_cause() {
    // P-10, P-12, P-15: signed as the recipe says, which is not as it should be.
    let hash = body_hash(b"another body");
    let default = Recipe::default;
    let cases = [
        ("not_signed", Recipe { signed_headers: "content-type;x-amz-date", ..default() }),
        ("not_signed", Recipe { signed_headers: "content-type;host", ..default() }),
        ("signed_header_absent", Recipe { signed_headers: "host;x-amz-date;x-no", ..default() }),
        ("malformed_authorization", Recipe { signed_headers: "x-amz-date;host", ..default() }),
        ("malformed_authorization", Recipe { signed_headers: "Host;x-amz-date", ..default() }),
        ("malformed_authorization", Recipe { signed_headers: "", ..default() }),
        ("wrong_signature", Recipe { body_hash: Some(&hash), ..default() }),
        ("wrong_signature", Recipe { body_hash: Some("UNSIGNED-PAYLOAD"), ..default() }),
        ("scope_date", Recipe { scope_date: Some("20261120"), ..default() }),
        ("scope_date", Recipe { scope_date: Some("2026112"), ..default() }),
        ("scope_region", Recipe { region: "us-east-2", ..default() }),
        ("scope_region", Recipe { region: "US-EAST-1", ..default() }),
        ("scope_service", Recipe { service: "kms", ..default() }),
        ("unknown_access_key", Recipe { id: "TSRQPONMLKJIHGFEDCBA", ..default() }),
        ("unknown_access_key", Recipe { id: "InvalidABCDEFGHIJKLMNOPQRST", ..default() }),
        ("wrong_signature", Recipe { secret: OTHER_SECRET, ..default() }),
    ];
    for (reason, recipe) in cases {
        let mut case = Case::new();
        case.sign(&recipe);
        assert_eq!(case.verify().unwrap_err().reason(), reason);
    }
}

#[test]
fn what_was_changed_after_signing_is_refused_by_cause() {
    // P-15
    type Change = fn(&mut Case);
    let cases: [(&str, Change); 26] = [
        ("query_string", |case| case.query = Some("a=b".into())),
        ("query_string", |case| case.query = Some(String::new())),
        ("presigned_form", |case| case.query = Some("a=b&X-Amz-Signature=00".into())),
        ("presigned_form", |case| case.query = Some("x-amz-algorithm".into())),
        ("no_authorization", |case| drop(case.headers.remove("authorization"))),
        ("duplicate_header", |case| case.add("authorization", "Basic dXNlcjpwYXNz")),
        ("malformed_authorization", |case| case.set("authorization", "")),
        ("malformed_authorization", |case| {
            let bytes = HeaderValue::from_bytes(b"AWS4-HMAC-SHA256 \xff").unwrap();
            case.headers.insert("authorization", bytes);
        }),
        ("no_host", |case| drop(case.headers.remove("host"))),
        ("no_host", |case| case.set("host", "")),
        ("no_host", |case| {
            case.headers.remove("host");
            case.authority = Some(String::new());
        }),
        ("duplicate_header", |case| case.add("host", "xks.example.com:8443")),
        ("authority_mismatch", |case| case.authority = Some("xks.example.com".into())),
        ("wrong_signature", |case| case.set("host", "xks.example.com")),
        ("no_date", |case| drop(case.headers.remove("x-amz-date"))),
        ("no_date", |case| {
            // `Date` is no substitute.
            case.headers.remove("x-amz-date");
            case.set("date", "20261121T120000Z");
        }),
        ("duplicate_header", |case| case.add("x-amz-date", "20261121T120000Z")),
        ("malformed_date", |case| case.set("x-amz-date", "2026-11-21T12:00:00Z")),
        ("wrong_signature", |case| case.set("x-amz-date", "20261121T120001Z")),
        ("unsigned_payload", |case| case.set("x-amz-content-sha256", "UNSIGNED-PAYLOAD")),
        ("unsigned_payload", |case| {
            case.set("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        }),
        ("body_hash", |case| case.set("x-amz-content-sha256", &body_hash(b""))),
        ("signed_header_absent", |case| drop(case.headers.remove("content-type"))),
        ("wrong_signature", |case| case.add("content-type", "text/plain")),
        ("wrong_signature", |case| case.body.push(b' ')),
        ("wrong_signature", |case| case.method = "PUT".into()),
    ];
    for (number, (reason, change)) in cases.into_iter().enumerate() {
        let mut case = Case::signed();
        change(&mut case);
        assert_eq!(case.verify().unwrap_err().reason(), reason, "case {number}");
    }
}

#[test]
fn http_2_is_judged_by_its_authority() {
    // P-11, P-15
    let mut case = Case::new();
    case.headers.remove("host");
    case.authority = Some("xks.example.com".into());
    case.sign(&Recipe::default());
    assert!(case.verify().is_ok());
    case.set("host", "xks.example.com");
    assert!(case.verify().is_ok(), "the same host twice is one host");
    case.set("host", "evil.example.com");
    assert_eq!(case.verify().unwrap_err(), Failure::AuthorityMismatch);
}

#[test]
fn a_true_content_hash_may_be_sent() {
    // P-15
    let mut case = Case::signed();
    let hash = body_hash(&case.body);
    case.set("x-amz-content-sha256", &hash);
    assert!(case.verify().is_ok());
    case.set("x-amz-content-sha256", &hash.to_uppercase());
    assert_eq!(case.verify().unwrap_err(), Failure::BodyHash);
}

#[test]
fn more_headers_may_be_signed_whatever_their_bytes() {
    // P-11
    let mut case = Case::new();
    case.headers.insert("x-raw", HeaderValue::from_bytes(b" \xff  \xfe ").unwrap());
    case.add("x-raw", "second");
    case.set("connection", "keep-alive");
    let signed_headers = "connection;host;x-amz-date;x-raw";
    case.sign(&Recipe { signed_headers, ..Recipe::default() });
    assert!(case.verify().is_ok());
    case.headers.insert("x-raw", HeaderValue::from_bytes(b" \xff  \xfd ").unwrap());
    assert_eq!(case.verify().unwrap_err().reason(), "wrong_signature");
}

#[test]
fn a_new_secret_under_the_same_id_counts_at_once() {
    // P-13: one object of credentials replaces another; no key of the old one lives on.
    let case = Case::signed();
    let (old, new) = (credentials(SECRET), credentials(OTHER_SECRET));
    assert!(case.verify_with(&old).is_ok());
    assert_eq!(case.verify_with(&new).unwrap_err().reason(), "wrong_signature");
    let mut case = Case::new();
    case.sign(&Recipe { secret: OTHER_SECRET, ..Recipe::default() });
    assert!(case.verify_with(&new).is_ok());
    assert_eq!(case.verify_with(&old).unwrap_err().reason(), "wrong_signature");
}

#[test]
fn a_signature_of_the_decoy_opens_nothing() {
    // P-15: even who knows what the decoy's secret is gains nothing.
    let mut case = Case::new();
    let decoy = "0".repeat(43);
    case.sign(&Recipe { id: "TSRQPONMLKJIHGFEDCBA", secret: &decoy, ..Recipe::default() });
    assert_eq!(case.verify().unwrap_err().reason(), "unknown_access_key");
    case.sign(&Recipe { secret: &decoy, ..Recipe::default() });
    assert_eq!(case.verify().unwrap_err().reason(), "wrong_signature");
}

#[test]
fn nothing_of_a_secret_is_in_any_failure() {
    // P-15: the secret as access key id is what people do by mistake.
    let mut case = Case::new();
    let secret = SECRET.replace('/', "+");
    case.sign(&Recipe { id: &secret, ..Recipe::default() });
    let by_mistake = case.verify().unwrap_err();
    case.sign(&Recipe { secret: OTHER_SECRET, ..Recipe::default() });
    let wrong = case.verify().unwrap_err();
    for failure in [by_mistake, wrong] {
        let texts = format!("{failure} {failure:?} {} {}", failure.advice(), failure.reason());
        assert!(!texts.contains("wJalrXUtnFEMI"), "{texts}");
    }
}

#[test]
fn one_verifier_serves_many_threads() {
    let shared = Arc::new(credentials(SECRET));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || (0..50).all(|_| Case::signed().verify_with(&shared).is_ok()))
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
}
