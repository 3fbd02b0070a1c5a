//! Rows of the table: what can be wrong with a body (P-20 to P-23, P-40, P-50, P-51).

use serde_json::{Value, json};
use support::request::{bare_body, base64, encrypt_body, unbase64};

use crate::bad_requests::{AAD, Expect, Table};
use crate::world::{INVALID_CIPHERTEXT, KEY_NOT_FOUND, UNSUPPORTED, VALIDATION};

const INVALID: Expect = Expect::Refused(400, VALIDATION);
const UNFIT: Expect = Expect::Refused(400, INVALID_CIPHERTEXT);
const TOO_MUCH: Expect = Expect::Refused(501, UNSUPPORTED);

const ENCRYPT: &str = "keys/demo-key/encrypt";
const DECRYPT: &str = "keys/demo-key/decrypt";
const METADATA: &str = "keys/demo-key/metadata";

pub(crate) fn fill(table: &mut Table) {
    members(table);
    origins(table);
    base64_texts(table);
    lengths(table);
    seals(table);
    twins(table);
    json_texts(table);
}

/// A good body with one member in the place of another, or of nothing.
fn with(body: &Value, member: &str, value: impl Into<Value>) -> Value {
    let mut body = body.clone();
    body[member] = value.into();
    body
}

fn without(body: &Value, member: &str) -> Value {
    let mut body = body.clone();
    body.as_object_mut().expect("bodies are objects").remove(member);
    body
}

/// Required members that are not there, or are something else.
fn members(t: &mut Table) {
    let required: [(&str, Value, &[&str]); 4] = [
        (ENCRYPT, t.encrypt.clone(), &["requestMetadata", "plaintext", "encryptionAlgorithm"]),
        (
            DECRYPT,
            t.decrypt.clone(),
            &[
                "requestMetadata",
                "ciphertext",
                "encryptionAlgorithm",
                "initializationVector",
                "authenticationTag",
            ],
        ),
        (METADATA, bare_body("DescribeKey"), &["requestMetadata"]),
        ("health", bare_body("KmsHealthCheck"), &["requestMetadata"]),
    ];
    for (rest, good, members) in required {
        for member in members {
            let name = |what: &str| format!("{rest}: {member} {what}");
            t.body(name("missing"), INVALID, rest, &without(&good, member));
            for (what, value) in [
                ("null", json!(null)),
                ("empty", json!("")),
                ("a number", json!(5)),
                ("a list", json!([])),
            ] {
                t.body(name(what), INVALID, rest, &with(&good, member, value));
            }
        }
    }
    for (rest, good, member, value) in [
        (ENCRYPT, t.encrypt.clone(), "additionalAuthenticatedData", json!(5)),
        (ENCRYPT, t.encrypt.clone(), "additionalAuthenticatedData", json!({})),
        (ENCRYPT, t.encrypt.clone(), "ciphertextDataIntegrityValueAlgorithm", json!(true)),
        (ENCRYPT, t.encrypt.clone(), "ciphertextDataIntegrityValueAlgorithm", json!("")),
        (ENCRYPT, t.encrypt.clone(), "ciphertextDataIntegrityValueAlgorithm", json!("SHA_512")),
        (ENCRYPT, t.encrypt.clone(), "encryptionAlgorithm", json!("AES_CBC")),
        (ENCRYPT, t.encrypt.clone(), "encryptionAlgorithm", json!("aes_gcm")),
        (ENCRYPT, t.encrypt.clone(), "encryptionAlgorithm", json!("AES_GCM ")),
        (DECRYPT, t.decrypt.clone(), "encryptionAlgorithm", json!("AES_GCM_SIV")),
        (DECRYPT, t.decrypt.clone(), "ciphertextMetadata", json!(["x"])),
        (DECRYPT, t.decrypt.clone(), "additionalAuthenticatedData", json!(false)),
    ] {
        t.body(
            format!("{rest}: {member} = {value}"),
            INVALID,
            rest,
            &with(&good, member, value.clone()),
        );
    }
}

/// What is wrong within `requestMetadata`.
fn origins(t: &mut Table) {
    let required: [(&str, Value, &[&str]); 4] = [
        (
            ENCRYPT,
            t.encrypt.clone(),
            &["awsPrincipalArn", "kmsKeyArn", "kmsOperation", "kmsRequestId"],
        ),
        (
            DECRYPT,
            t.decrypt.clone(),
            &["awsPrincipalArn", "kmsKeyArn", "kmsOperation", "kmsRequestId"],
        ),
        (METADATA, bare_body("DescribeKey"), &["awsPrincipalArn", "kmsOperation", "kmsRequestId"]),
        ("health", bare_body("KmsHealthCheck"), &["kmsOperation", "kmsRequestId"]),
    ];
    for (rest, good, members) in required {
        let origin = &good["requestMetadata"];
        for &member in members {
            let name = |what: &str| format!("{rest}: requestMetadata.{member} {what}");
            let within = |changed: Value| with(&good, "requestMetadata", changed);
            t.body(name("missing"), INVALID, rest, &within(without(origin, member)));
            t.body(name("null"), INVALID, rest, &within(with(origin, member, json!(null))));
            t.body(name("a number"), INVALID, rest, &within(with(origin, member, 5)));
            // P-22: an empty kmsRequestId is the exception.
            let empty = if member == "kmsRequestId" { Expect::Served } else { INVALID };
            t.body(name("empty"), empty, rest, &within(with(origin, member, "")));
        }
    }
    let good = t.encrypt.clone();
    let origin = &good["requestMetadata"];
    for (member, value) in [
        ("awsPrincipalArn", json!("a".repeat(2049))),
        ("kmsKeyArn", json!("a".repeat(2049))),
        ("kmsViaService", json!(1)),
        ("awsSourceVpc", json!({})),
        ("awsSourceVpce", json!([null])),
    ] {
        let body = with(&good, "requestMetadata", with(origin, member, value));
        t.body(format!("requestMetadata.{member} too long or no string"), INVALID, ENCRYPT, &body);
    }
}

/// P-40: standard alphabet, padded, nothing else.
fn base64_texts(t: &mut Table) {
    for (rest, good, members) in [
        (ENCRYPT, t.encrypt.clone(), &["plaintext", "additionalAuthenticatedData"][..]),
        (
            DECRYPT,
            t.decrypt.clone(),
            &[
                "ciphertext",
                "initializationVector",
                "authenticationTag",
                "ciphertextMetadata",
                "additionalAuthenticatedData",
            ],
        ),
    ] {
        for member in members {
            for (what, text) in [
                ("no Base64", "!!!!"),
                ("URL-safe Base64", "-_-_-_-_-_-_-_-_"),
                ("unpadded Base64", "QUJDREVGR0hJSktMTU5PUA"),
                ("Base64 with a line break at its end", "QUJDREVGR0hJSktMTU5PUA==\n"),
                ("Base64 with a space in it", "QUJDREVGR0hJ SktMTU5PUA=="),
                ("Base64 with bits left over", "QUJDREVGR0hJSktMTU5PUB=="),
                ("Base64 with too much padding", "QUJDREVGR0hJSktM===="),
                ("one character", "Q"),
            ] {
                t.body(
                    format!("{rest}: {member}: {what}"),
                    INVALID,
                    rest,
                    &with(&good, member, text),
                );
            }
        }
    }
    // Base64 is still Base64 where JSON escapes a character of it.
    let escaped = t.encrypt.to_string().replacen("AES_GCM", "\\u0041ES_GCM", 1);
    t.raw_body("an escaped algorithm", Expect::Served, escaped);
}

/// P-23, P-40, P-50, P-51: what is too long, too short, or just long enough.
fn lengths(t: &mut Table) {
    let zeros = |len: usize| base64(&vec![0; len]);
    let (encrypt, decrypt) = (t.encrypt.clone(), t.decrypt.clone());
    for (len, expect) in [
        (1, Expect::Served),
        (4300, Expect::Served),
        (8192, Expect::Served),
        (8193, TOO_MUCH),
        (65536, TOO_MUCH),
    ] {
        t.body(format!("plaintext of {len}"), expect, ENCRYPT, &encrypt_body(&vec![7; len], None));
    }
    for (len, expect) in [
        (0, Expect::Served),
        (16384, Expect::Served),
        (16385, TOO_MUCH),
        (65535, TOO_MUCH),
        (65536, TOO_MUCH),
    ] {
        let name = format!("AAD of {len}");
        let member = "additionalAuthenticatedData";
        t.body(format!("encrypt, {name}"), expect, ENCRYPT, &with(&encrypt, member, zeros(len)));
        // Of a good length, but not the AAD of this ciphertext.
        let expect = if expect == Expect::Served { UNFIT } else { expect };
        t.body(format!("decrypt, {name}"), expect, DECRYPT, &with(&decrypt, member, zeros(len)));
    }
    for (member, len, expect) in [
        ("initializationVector", 1, INVALID),
        ("initializationVector", 11, INVALID),
        ("initializationVector", 13, INVALID),
        ("initializationVector", 15, INVALID),
        ("initializationVector", 16, UNFIT),
        ("initializationVector", 17, INVALID),
        ("initializationVector", 32, INVALID),
        ("authenticationTag", 1, INVALID),
        ("authenticationTag", 12, INVALID),
        ("authenticationTag", 15, INVALID),
        ("authenticationTag", 17, INVALID),
        ("authenticationTag", 32, INVALID),
        ("ciphertextMetadata", 0, UNFIT),
        ("ciphertextMetadata", 12, UNFIT),
        ("ciphertextMetadata", 14, UNFIT),
        ("ciphertextMetadata", 20, UNFIT),
        ("ciphertextMetadata", 21, INVALID),
        ("ciphertextMetadata", 255, INVALID),
        ("ciphertextMetadata", 256, INVALID),
        ("ciphertext", 1, UNFIT),
        ("ciphertext", 8192, UNFIT),
        ("ciphertext", 8193, TOO_MUCH),
        ("ciphertext", 65536, TOO_MUCH),
    ] {
        t.body(format!("{member} of {len}"), expect, DECRYPT, &with(&decrypt, member, zeros(len)));
    }
}

/// P-51: parts that are well formed and do not belong together.
fn seals(t: &mut Table) {
    let good = t.decrypt.clone();
    let metadata = unbase64(&good["ciphertextMetadata"]);
    for (what, at, value) in [
        ("another format", 0, 2),
        ("format 0", 0, 0),
        ("another version", 4, 2),
        ("another object id", 12, metadata[12] ^ 1),
    ] {
        let mut changed = metadata.clone();
        changed[at] = value;
        let body = with(&good, "ciphertextMetadata", base64(&changed));
        t.body(format!("ciphertextMetadata of {what}"), UNFIT, DECRYPT, &body);
    }
    let of_foreign =
        with(&good, "ciphertextMetadata", base64(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    t.body("ciphertextMetadata of a foreign key", UNFIT, DECRYPT, &of_foreign);
    let neighbour = t.kms.accepted("keys/demo-second/encrypt", &encrypt_body(b"x", Some(AAD)));
    let of_neighbour = with(&good, "ciphertextMetadata", neighbour["ciphertextMetadata"].clone());
    t.body("ciphertextMetadata of another key", UNFIT, DECRYPT, &of_neighbour);
    t.body("ciphertext of another key", UNFIT, "keys/demo-second/decrypt", &good);
    t.body("no ciphertextMetadata", UNFIT, DECRYPT, &without(&good, "ciphertextMetadata"));
    t.body("AAD left out", UNFIT, DECRYPT, &without(&good, "additionalAuthenticatedData"));
    t.body("a body of Encrypt for Decrypt", INVALID, DECRYPT, &t.encrypt.clone());
    t.body("a body of Decrypt for Encrypt", INVALID, ENCRYPT, &good);

    // The boundary between ciphertext and tag, moved both ways.
    let joined = [unbase64(&good["ciphertext"]), unbase64(&good["authenticationTag"])].concat();
    let at = joined.len() - 16;
    for (moved, expect) in
        [(at - 2, INVALID), (at + 4, INVALID), (at - 1, INVALID), (at + 1, INVALID)]
    {
        let (ciphertext, tag) = joined.split_at(moved);
        let body = with(&good, "ciphertext", base64(ciphertext));
        let body = with(&body, "authenticationTag", base64(tag));
        t.body(format!("boundary moved from {at} to {moved}"), expect, DECRYPT, &body);
    }
    let body = with(&good, "ciphertext", base64(&joined));
    t.body("ciphertext with the tag at its end, and the tag", UNFIT, DECRYPT, &body);
    let body = with(&good, "ciphertext", base64(&joined[1..at]));
    t.body("ciphertext without its first byte", UNFIT, DECRYPT, &body);
    t.body(
        "a key that does not exist",
        Expect::Refused(404, KEY_NOT_FOUND),
        "keys/demo-none/decrypt",
        &good,
    );
    // P-71: the body is judged before the key.
    let bad = with(&good, "authenticationTag", "");
    t.body("a bad body for a key that does not exist", INVALID, "keys/demo-none/decrypt", &bad);
}

/// P-22: a member that stands twice, wherever.
fn twins(t: &mut Table) {
    let good = t.encrypt.to_string();
    let open = good.strip_suffix('}').expect("it is an object");
    for (what, more) in [
        ("plaintext", r#","plaintext":"QUJD""#),
        ("plaintext, the same", &format!(r#","plaintext":{}"#, t.encrypt["plaintext"])),
        ("plaintext, written with an escape", r#","pl\u0061intext":"QUJD""#),
        ("requestMetadata", r#","requestMetadata":{}"#),
        ("encryptionAlgorithm, null", r#","encryptionAlgorithm":null"#),
        ("an unknown member", r#","unknown":1,"unknown":2"#),
        ("a member of an unknown member", r#","unknown":{"a":1,"b":[{"c":1,"c":2}]}"#),
    ] {
        t.raw_body(format!("twice: {what}"), INVALID, format!("{open}{more}}}"));
    }
    let nested =
        good.replacen(r#""requestMetadata":{"#, r#""requestMetadata":{"kmsRequestId":"other","#, 1);
    t.raw_body("twice: kmsRequestId", INVALID, nested);
    let nested = good.replacen(r#""requestMetadata":{"#, r#""requestMetadata":{"u":1,"u":1,"#, 1);
    t.raw_body("twice: an unknown member of requestMetadata", INVALID, nested);
}

/// P-22: what is no JSON, or more than one.
fn json_texts(t: &mut Table) {
    let good = t.encrypt.to_string();
    let half = &good[..good.len() / 2];
    let nested = |depth: usize| format!(r#"{{"u":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let with_request_id = |id: &str| good.replacen("4112f4d6-db54-4af4-ae30-c55a22a8dfae", id, 1);
    for (what, body) in [
        ("nothing", String::new()),
        ("white space", " \r\n\t".into()),
        ("null", "null".into()),
        ("a list", "[]".into()),
        ("a string", "\"{}\"".into()),
        ("a number", "1".into()),
        ("an empty object", "{}".into()),
        ("an open brace", "{".into()),
        ("half of it", half.into()),
        ("all but the last brace", good[..good.len() - 1].into()),
        ("something after it", format!("{good}x")),
        ("two of it", format!("{good}{good}")),
        ("a NUL after it", format!("{good}\0")),
        ("a comment", format!("/* */{good}")),
        ("single quotes", good.replace('"', "'")),
        ("a trailing comma", format!("{},}}", &good[..good.len() - 1])),
        ("a byte order mark", format!("\u{feff}{good}")),
        ("nesting without end", nested(40_000)),
        ("nesting of 200", nested(200)),
        ("a lone surrogate", with_request_id("\\ud800")),
        ("a control character", with_request_id("\u{1}")),
        ("an unknown escape", with_request_id("\\x41")),
        ("a number without end", format!(r#"{{"u":{}}}"#, "9".repeat(400))),
        ("NaN", format!("{},\"u\":NaN}}", &good[..good.len() - 1])),
        ("a form", "plaintext=QUJD&encryptionAlgorithm=AES_GCM".into()),
    ] {
        t.raw_body(format!("the body is {what}"), INVALID, body);
    }
    let mut latin = good.clone().into_bytes();
    latin.truncate(latin.len() - 1);
    latin.extend_from_slice(b",\"u\":\"\xff\"}");
    t.raw_body("the body is not UTF-8", INVALID, latin);
    t.raw_body("white space around it", Expect::Served, format!(" \n{good}\r\n\t "));
    let typed = |kind: &str| (String::from("Content-Type"), kind.to_owned());
    // P-22: what the request says of its type is not asked.
    for kind in ["text/plain", "application/x-amz-json-1.1", ""] {
        t.spoiled(format!("Content-Type: {kind}"), Expect::Served, |r| r.headers[1] = typed(kind));
    }
}
