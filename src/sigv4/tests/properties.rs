//! What is signed verifies; what was changed by as much as a bit does not. Our signer and AWS's
//! agree.

use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
};
use proptest::prelude::*;

use super::*;
use crate::sigv4::{Outgoing, sign};

/// Signs by the crate's own signer, canonical request and all, the path as it is sent (P-5).
fn sign_by_aws(case: &mut Case) {
    sign_by_aws_with(case, UriPathNormalizationMode::Disabled);
}

fn sign_by_aws_with(case: &mut Case, normalization: UriPathNormalizationMode) {
    let mut settings = SigningSettings::default();
    settings.uri_path_normalization_mode = normalization;
    let provider = "test";
    let credentials =
        aws_credential_types::Credentials::new(ID, SECRET, None, None, provider).into();
    let params = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&credentials)
        .region(REGION)
        .name(crate::sigv4::SERVICE)
        .time(case.now)
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let uri = format!("https://{}{}", case.text("host"), case.path);
    let headers = case.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let body = SignableBody::Bytes(&case.body);
    let request = SignableRequest::new(&case.method, uri, headers, body).unwrap();
    let (instructions, _) = aws_sigv4::http_request::sign(request, &params).unwrap().into_parts();
    for (name, value) in instructions.headers() {
        let name: HeaderName = name.parse().unwrap();
        case.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
}

/// Signs by ours.
fn sign_by_us(case: &mut Case) {
    let request = Outgoing {
        method: &case.method,
        path: &case.path,
        host: case.text("host"),
        headers: &case.headers,
        body: &case.body,
    };
    let (id, secret) = (ID.parse().unwrap(), SECRET.parse().unwrap());
    let signature = sign(request, (&id, &secret), &REGION.parse().unwrap(), case.now).unwrap();
    signature.insert_into(&mut case.headers);
}

prop_compose! {
    /// Any request of the protocol, not signed.
    fn any_case()(
        path in "(/[A-Za-z0-9_-]{1,20}){0,3}/kms/xks/v1/keys/[A-Za-z0-9._-]{1,40}/(encrypt|decrypt)",
        host in "[a-z0-9.-]{1,40}(:[0-9]{1,5})?",
        content_type in "[ -~]{0,40}",
        body in prop::collection::vec(any::<u8>(), 0..300),
        // From 1970 into 2099.
        time in 0u64..4_102_444_800,
    ) -> Case {
        let mut case = Case::new();
        case.path = path;
        case.set("host", &host);
        case.set("content-type", content_type.trim());
        case.body = body;
        case.now = SystemTime::UNIX_EPOCH + seconds(time);
        case.headers.remove("x-amz-date");
        case
    }
}

/// Flips one bit of the byte at `at`, counted around.
fn flip(bytes: &mut [u8], at: usize, bit: u8) {
    let length = bytes.len();
    bytes[at % length] ^= 1 << bit;
}

/// The same in a header's value; `None` where no header may have the result.
fn flip_header(case: &mut Case, name: &'static str, at: usize, bit: u8) -> Option<()> {
    let mut value = case.headers.get(name)?.as_bytes().to_vec();
    flip(&mut value, at, bit);
    case.headers.insert(name, HeaderValue::from_bytes(&value).ok()?);
    Some(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_we_sign_verifies(mut case in any_case()) {
        sign_by_us(&mut case);
        prop_assert!(case.verify().is_ok(), "{:?}", case.verify());
    }

    #[test]
    fn what_aws_signs_verifies(mut case in any_case()) {
        sign_by_aws(&mut case);
        prop_assert!(case.verify().is_ok(), "{:?}", case.verify());
    }

    #[test]
    fn both_signers_agree(case in any_case()) {
        let (mut ours, mut theirs) = (case.clone(), case);
        ours.headers.remove("content-type");
        theirs.headers.remove("content-type");
        sign_by_us(&mut ours);
        sign_by_aws(&mut theirs);
        prop_assert_eq!(ours.headers, theirs.headers);
    }

    #[test]
    fn any_flipped_bit_fails(mut case in any_case(), at in any::<usize>(), bit in 0u8..8) {
        case.body.push(b'}');
        sign_by_us(&mut case);
        prop_assert!(case.verify().is_ok());

        let mut body = case.clone();
        flip(&mut body.body, at, bit);
        prop_assert!(body.verify().is_err());

        for name in ["authorization", "host", "x-amz-date"] {
            let mut header = case.clone();
            if flip_header(&mut header, name, at, bit).is_some() {
                prop_assert!(header.verify().is_err(), "{} {:?}", name, header.headers);
            }
        }

        let mut path = case.path.clone().into_bytes();
        flip(&mut path, at, bit);
        if let Ok(path) = String::from_utf8(path) {
            case.path = path;
            prop_assert!(case.verify().is_err());
        }
    }

    #[test]
    fn no_request_makes_it_panic(
        path in any::<String>(),
        authority in any::<Option<String>>(),
        query in any::<Option<String>>(),
        values in prop::collection::vec(("[a-z-]{1,12}", prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        keep in any::<[bool; 4]>(),
    ) {
        let mut case = Case { path, authority, query: query.filter(|_| keep[3]), ..Case::signed() };
        for (name, keep) in ["authorization", "host", "x-amz-date"].into_iter().zip(keep) {
            if !keep {
                case.headers.remove(name);
            }
        }
        for (name, value) in values {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(&value)) {
                case.headers.append(name, value);
            }
        }
        prop_assert!(case.verify().is_err());
    }
}

#[test]
fn every_bit_of_a_signature_counts() {
    // P-15
    let case = Case::signed();
    let start = case.text("authorization").len() - 64;
    let mut tried = 0;
    for at in start..start + 64 {
        for bit in 0..8 {
            let mut changed = case.clone();
            if flip_header(&mut changed, "authorization", at, bit).is_some() {
                assert!(changed.verify().is_err(), "byte {at} bit {bit}");
                tried += 1;
            }
        }
    }
    assert!(tried > 256, "{tried}");
}

#[test]
fn a_path_counts_as_it_was_sent() {
    // P-5, P-11: `.` and `..` are external key ids by P-6. A signer that folds them, as AWS's does
    // unless told otherwise, signs another path than it sends.
    for id in [".", ".."] {
        let mut case = Case::new();
        case.path = format!("/kms/xks/v1/keys/{id}/encrypt");
        sign_by_aws(&mut case);
        assert!(case.verify().is_ok(), "{id}");

        let mut folded = Case::new();
        folded.path = case.path;
        sign_by_aws_with(&mut folded, UriPathNormalizationMode::Enabled);
        assert_eq!(folded.verify().unwrap_err().reason(), "wrong_signature", "{id}");
    }
}

#[test]
fn signing_again_replaces_the_signature() {
    let mut case = Case::signed();
    sign_by_us(&mut case);
    assert!(case.verify().is_ok());
}
