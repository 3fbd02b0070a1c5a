//! Key stores that come from AWS's sample proxy: its ciphertexts are decrypted, and ours in its mode
//! are decrypted by it (`docs/migrating-from-aws-sample.md`).

use std::sync::OnceLock;

use serde_json::Value;
use support::aws_sample::SampleProxy;
use support::caller::Caller;
use support::daemon::Daemon;
use support::request::{
    bare_body, base64, decrypt_body, encrypt_body, hex, sha256_hex, unbase64, unhex,
};
use support::site::{Configuration, Site, Tenant};

use crate::world::{INVALID_CIPHERTEXT, INVALID_STATE, KEY_NOT_FOUND, XKSD};

const AAD: &[u8] = b"project=nile,department=marketing";
const TEXT: &[u8] = b"a data key of somebody's";
const CONSTANT: &[u8] = b"v0.0.1";
/// With the key of the vectors; the sample proxy serves it as well.
const KEY: &str = "orders";

/// What a request may have for AAD.
const AADS: [Option<&[u8]>; 3] = [None, Some(b""), Some(AAD)];

const ACCEPT: &str = "accept_ciphertexts_of = \"aws-sample\"";
const WRITE: &str = "encrypt_as = \"aws-sample\"";

/// Knows nothing of the sample proxy.
fn off() -> Tenant {
    Tenant::new("off", "off", &["*"], 'A')
}

/// Reads what a sample proxy made that has had every constant of the vectors; writes format 1.
fn reading() -> Tenant {
    let constants = "aws_sample_metadata = [\"djAuMC4x\", \"\", \"17i3Ft1lqROhBDPCD97XtmBuNb4=\"]";
    Tenant { lines: vec![ACCEPT, constants], ..Tenant::new("reading", "reading", &["*"], 'B') }
}

/// Writes as a sample proxy without `ciphertext_metadata_b64`.
fn without_constant() -> Tenant {
    let lines = vec![ACCEPT, WRITE];
    Tenant { lines, ..Tenant::new("without", "without", &["*"], 'C') }
}

/// Writes as a sample proxy with it.
fn with_constant() -> Tenant {
    let lines = vec![ACCEPT, "aws_sample_metadata = \"djAuMC4x\"", WRITE];
    Tenant { lines, ..Tenant::new("with", "with", &["*"], 'D') }
}

/// All of these key stores over one token: each is a step of a migration.
fn daemon() -> &'static Daemon {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let tenants = vec![off(), reading(), without_constant(), with_constant()];
        let site = Site::new(XKSD);
        site.configure(&Configuration::new(tenants));
        let key = unhex(Vector::all()[0].text("key"));
        site.import_aes(KEY, b"\x01", &key);
        site.create_key("versioned", "encrypt,decrypt");
        Daemon::start(site)
    })
}

fn caller(tenant: &Tenant) -> Caller {
    Caller::new(daemon(), tenant)
}

fn sample_proxy() -> SampleProxy {
    SampleProxy::new(&unhex(Vector::all()[0].text("key")))
}

/// One vector of `tests/vectors/aws-sample.json`.
struct Vector(Value);

impl Vector {
    fn all() -> Vec<Self> {
        let file: Value =
            serde_json::from_str(include_str!("../vectors/aws-sample.json")).expect("it is JSON");
        file.as_array().expect("it is a list").iter().cloned().map(Self).collect()
    }

    fn text(&self, member: &str) -> &str {
        self.0[member].as_str().unwrap_or_else(|| panic!("no {member}: {}", self.0["name"]))
    }

    fn bytes(&self, member: &str) -> Option<Vec<u8>> {
        self.0[member].as_str().map(unhex)
    }

    fn body(&self) -> Value {
        let mut body = bare_body("Decrypt");
        body["encryptionAlgorithm"] = "AES_GCM".into();
        for (member, name) in [
            ("ciphertext", "ciphertext"),
            ("initializationVector", "iv"),
            ("authenticationTag", "tag"),
            ("ciphertextMetadata", "ciphertext_metadata"),
            ("additionalAuthenticatedData", "aad"),
        ] {
            if let Some(bytes) = self.bytes(name) {
                body[member] = base64(&bytes).into();
            }
        }
        body
    }
}

fn decrypt(kms: &Caller, body: &Value) -> Vec<u8> {
    unbase64(&kms.accepted(&format!("keys/{KEY}/decrypt"), body)["plaintext"])
}

fn refused(kms: &Caller, body: &Value) {
    kms.refused(&format!("keys/{KEY}/decrypt"), body, 400, INVALID_CIPHERTEXT);
}

fn encrypt(kms: &Caller, aad: Option<&[u8]>) -> Value {
    let mut body = encrypt_body(TEXT, aad);
    body["ciphertextDataIntegrityValueAlgorithm"] = "SHA_256".into();
    kms.accepted(&format!("keys/{KEY}/encrypt"), &body)
}

/// P-42, P-50: by the daemon and the token; with no AAD, an empty one and one, with metadata and
/// without.
#[test]
fn every_ciphertext_of_the_sample_proxy_is_decrypted() {
    let kms = caller(&reading());
    let vectors = Vector::all();
    for aad in [None, Some(&b""[..]), Some(AAD)] {
        for metadata in [None, Some(CONSTANT)] {
            let is_it = |vector: &&Vector| {
                vector.bytes("aad").as_deref() == aad
                    && vector.bytes("ciphertext_metadata").as_deref() == metadata
            };
            assert!(vectors.iter().any(|vector| is_it(&vector)), "{aad:?} {metadata:?}");
        }
    }
    for vector in vectors {
        assert_eq!(hex(&decrypt(&kms, &vector.body())), vector.text("plaintext"), "{}", vector.0);
    }
}

/// P-51: as long as nobody asks for it, they are what they were.
#[test]
fn they_are_refused_where_nobody_asks_for_them() {
    let kms = caller(&off());
    for vector in Vector::all() {
        refused(&kms, &vector.body());
    }
    // One constant was asked for: neither none nor another.
    let (with, without) = (caller(&with_constant()), caller(&without_constant()));
    for vector in Vector::all() {
        let metadata = vector.bytes("ciphertext_metadata");
        for (kms, own) in [(&with, Some(CONSTANT)), (&without, None)] {
            if metadata.as_deref() == own {
                decrypt(kms, &vector.body());
            } else {
                refused(kms, &vector.body());
            }
        }
    }
}

/// P-41, P-42, P-43: a sample proxy that is put back decrypts what was written in its mode.
#[test]
fn what_is_written_in_its_mode_is_decrypted_by_its_rules() {
    let sample = sample_proxy();
    for (tenant, constant) in [(with_constant(), Some(CONSTANT)), (without_constant(), None)] {
        let kms = caller(&tenant);
        for aad in AADS {
            let sealed = encrypt(&kms, aad);
            assert_eq!(sealed.get("ciphertextMetadata").map(unbase64).as_deref(), constant);
            assert_eq!(sample.decrypt(&sealed, aad).as_deref(), Some(TEXT), "{aad:?}");
            let mut parts = [aad.unwrap_or_default(), constant.unwrap_or_default()].concat();
            for member in ["initializationVector", "ciphertext", "authenticationTag"] {
                parts.extend(unbase64(&sealed[member]));
            }
            let cdiv = hex(&unbase64(&sealed["ciphertextDataIntegrityValue"]));
            assert_eq!(cdiv, sha256_hex(&parts), "the CDIV is that of what was sent");
            for reader in [&kms, &caller(&reading())] {
                assert_eq!(decrypt(reader, &decrypt_body(&sealed, aad)), TEXT);
            }
            refused(&caller(&off()), &decrypt_body(&sealed, aad));
            // Each side by the other's rules, and by no rules of its own.
            let theirs = sample.encrypt(TEXT, aad, constant);
            assert_eq!(decrypt(&kms, &decrypt_body(&theirs, aad)), TEXT, "{aad:?}");
        }
    }
}

/// P-51: one bit in any byte of any field, an AAD that is there instead of absent, metadata that are
/// another known constant.
#[test]
fn a_flipped_bit_in_any_field_is_refused() {
    let sealed_by = [&with_constant(), &without_constant()].map(|t| encrypt(&caller(t), Some(AAD)));
    let ours = sealed_by.iter().map(|sealed| decrypt_body(sealed, Some(AAD)));
    let named = |name: &str| {
        let found = Vector::all().into_iter().find(|vector| vector.text("name") == name);
        found.expect("there is such a vector").body()
    };
    let theirs = ["AAD, constant", "AAD, no metadata", "empty AAD, constant"].map(named);
    let kms = caller(&reading());
    let mut connection = kms.connect();
    for good in ours.chain(theirs) {
        decrypt(&kms, &good);
        let mut flipped = 0;
        for member in [
            "ciphertext",
            "authenticationTag",
            "initializationVector",
            "additionalAuthenticatedData",
            "ciphertextMetadata",
        ] {
            let bytes = good.get(member).map(unbase64).unwrap_or_default();
            for at in 0..bytes.len() {
                let mut bad = good.clone();
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << (at % 8);
                bad[member] = base64(&bytes).into();
                let request = kms.request(&format!("keys/{KEY}/decrypt"), &bad);
                connection.send(&request.to_bytes());
                let answer = connection.receive();
                support::caller::assert_refused(&answer, 400, INVALID_CIPHERTEXT);
                flipped += 1;
            }
        }
        assert!(flipped >= 40, "{flipped}");
    }
}

/// P-42: none of AAD and metadata can be added, left out or exchanged, though all of the metadata are
/// known to the key store.
#[test]
fn what_is_absent_and_what_is_empty_are_kept_apart() {
    let kms = caller(&reading());
    for (name, aads, metadata) in [
        ("no AAD, no metadata", [Some(&b""[..]), Some(AAD)], None),
        ("no AAD, constant", [Some(&b""[..]), Some(AAD)], Some(CONSTANT)),
        ("empty AAD, no metadata", [None, Some(AAD)], None),
        ("empty AAD, constant", [None, Some(AAD)], Some(CONSTANT)),
        ("AAD, no metadata", [None, Some(&b""[..])], None),
        ("AAD, constant", [None, Some(&b""[..])], Some(CONSTANT)),
    ] {
        let found = Vector::all().into_iter().find(|vector| vector.text("name") == name);
        let good = found.expect("there is such a vector").body();
        let put = |member: &str, value: Option<&[u8]>| {
            let mut bad = good.clone();
            match value {
                Some(value) => bad[member] = base64(value).into(),
                None => drop(bad.as_object_mut().expect("it is one").remove(member)),
            }
            bad
        };
        for aad in aads {
            refused(&kms, &put("additionalAuthenticatedData", aad));
        }
        let other = if metadata.is_some() { None } else { Some(CONSTANT) };
        refused(&kms, &put("ciphertextMetadata", other));
        let foreign = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        refused(&kms, &put("ciphertextMetadata", Some(&foreign)));
        // Nothing is told by metadata that are there and empty.
        if metadata.is_none() {
            decrypt(&kms, &put("ciphertextMetadata", Some(b"")));
        }
    }
}

/// Format 1 is written and read beside it, and neither passes for the other.
#[test]
fn our_own_format_goes_on_beside_it() {
    let (off, reading) = (caller(&off()), caller(&reading()));
    for aad in AADS {
        let sealed = encrypt(&reading, aad);
        assert_eq!(unbase64(&sealed["ciphertextMetadata"]).len(), 13);
        // It takes whatever metadata it is given, and without an AAD the frames are alike.
        let read = sample_proxy().decrypt(&sealed, aad);
        assert_eq!(read.as_deref(), aad.is_none().then_some(TEXT), "it can't read ours");
        let good = decrypt_body(&sealed, aad);
        // Before, while both are written, and after.
        for kms in [&off, &reading, &caller(&with_constant()), &caller(&without_constant())] {
            assert_eq!(decrypt(kms, &good), TEXT);
        }
        for constant in [&b""[..], CONSTANT] {
            let mut bad = good.clone();
            bad["ciphertextMetadata"] = base64(constant).into();
            refused(&reading, &bad);
        }
    }
}

/// The sample proxy knows no versions: nothing is written that it would decrypt by another one.
#[test]
fn a_key_with_versions_is_not_written_in_its_mode() {
    let (own, writing) = (caller(&reading()), caller(&with_constant()));
    let body = encrypt_body(TEXT, None);
    writing.refused("keys/versioned/encrypt", &body, 400, INVALID_STATE);
    let sealed = own.accepted("keys/versioned/encrypt", &body);
    let opened = writing.accepted("keys/versioned/decrypt", &decrypt_body(&sealed, None));
    assert_eq!(unbase64(&opened["plaintext"]), TEXT);
    // It has no version 0, and nothing stands in for that.
    let theirs = sample_proxy().encrypt(TEXT, None, Some(CONSTANT));
    let theirs = decrypt_body(&theirs, None);
    writing.refused("keys/versioned/decrypt", &theirs, 400, INVALID_CIPHERTEXT);
    writing.refused("keys/nowhere/decrypt", &theirs, 404, KEY_NOT_FOUND);
}

/// How one sees that the sample proxy's ciphertexts are still asked for.
#[test]
fn the_log_names_the_format() {
    let kms = caller(&reading());
    let mut body = Vector::all()[0].body();
    body["requestMetadata"]["kmsRequestId"] = "of-the-sample-proxy".into();
    decrypt(&kms, &body);
    let line: Value = serde_json::from_str(&daemon().wait_for_line("of-the-sample-proxy")).unwrap();
    assert_eq!((&line["format"], &line["version"]), (&"aws-sample".into(), &"0".into()));
    let mut body = encrypt_body(TEXT, None);
    body["requestMetadata"]["kmsRequestId"] = "of-our-own-format".into();
    kms.accepted(&format!("keys/{KEY}/encrypt"), &body);
    let line: Value = serde_json::from_str(&daemon().wait_for_line("of-our-own-format")).unwrap();
    assert_eq!(line.get("format"), None);
}
