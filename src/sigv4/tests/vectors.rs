//! P-11 against what others compute: AWS's published suite, and requests captured from curl and
//! botocore. Origin and credentials of both are told in `tests/vectors/sigv4/README.md`.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::sigv4::authorization;
use crate::sigv4::canonical::{CanonicalRequest, string_to_sign};
use crate::sigv4::secret_key::SigningKey;

fn folder(name: &str) -> Vec<(String, Vec<u8>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/sigv4").join(name);
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().into(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn published_vectors_of_aws_hold_p_11() {
    let cases = folder("aws");
    assert_eq!(cases.len(), 23);
    for (name, text) in cases {
        let (request, rest) = split_at(&text, b"\n---- canonical request\n").unwrap();
        let (canonical, to_sign) = split_at(rest, b"\n---- string to sign\n").unwrap();
        let case = read_request(request);
        let authorization = authorization::parse(case.text("authorization")).expect(&name);

        let request = CanonicalRequest {
            method: &case.method,
            path: &case.path,
            host: None,
            headers: &case.headers,
            signed_headers: authorization.signed_headers.as_str(),
            body_hash: &body_hash(&case.body),
        };
        let ours = request.text();
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(canonical), "{name}");

        let scope = authorization.scope;
        let ours = string_to_sign(case.text("x-amz-date"), scope, &ours);
        assert_eq!(ours, str::from_utf8(to_sign).unwrap().trim_end(), "{name}");

        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let date = AmzDate::at(case.now).unwrap();
        let key = SigningKey::derive(secret, date, scope.region, scope.service);
        assert_eq!(key.sign(&ours).as_str(), authorization.signature, "{name}");
    }
}

#[test]
fn captured_requests_of_other_signers_pass() {
    let cases = folder("captured");
    for program in ["curl", "botocore"] {
        assert!(cases.iter().any(|(name, _)| name.starts_with(program)), "{program}");
    }
    for (name, text) in cases {
        let case = read_request(&text);
        let verified = case.verify().unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(verified.access_key_id().as_str(), ID, "{name}");
        assert_eq!(verified.region().as_str(), REGION, "{name}");

        // The same over HTTP/2, where the host comes as `:authority` (P-11).
        let mut h2 = case.clone();
        let host = h2.headers.remove("host").unwrap();
        h2.authority = Some(host.to_str().unwrap().into());
        assert!(h2.verify().is_ok(), "{name}");

        let other = case.verify_with(&credentials(OTHER_SECRET)).unwrap_err();
        assert_eq!(other.reason(), "wrong_signature", "{name}");
    }
}
