//! Verifying a signature.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderValue};
use xksd::clock::Clock;
use xksd::names::{AccessKeyId, Region};
use xksd::sigv4::{Credentials, Outgoing, SecretAccessKey, SignedRequest, Verifier, sign};

use crate::timing::compare;
use crate::wire::encrypt_body;

const PATH: &str = "/demo/kms/xks/v1/keys/demo-key/encrypt";
const HOST: &str = "xks.example.com";

/// The floor is two SHA-256, of the body and of as many bytes as the canonical request has, and the HMAC of
/// as many as the string to sign has, with a key that is at hand.
pub(crate) fn measure() {
    let id: AccessKeyId = "ABCDEFGHIJKLMNOPQRST".parse().expect("it is an access key id");
    let secret = || -> SecretAccessKey { "k".repeat(44).parse().expect("it is a secret") };
    let region: Region = "us-east-1".parse().expect("it is a Region");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_447_400);
    let credentials = Credentials::new([(id.clone(), secret())]).expect("there is one");
    let verifier = Verifier::new(Clock::Fixed(time));
    for size in [32, 4096] {
        let body = encrypt_body(size);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        let outgoing =
            Outgoing { method: "POST", path: PATH, host: HOST, headers: &headers, body: &body };
        let signature = sign(outgoing, (&id, &secret()), &region, time).expect("it is of our days");
        headers.insert("host", HeaderValue::from_static(HOST));
        let date = signature.x_amz_date.to_str().expect("it is ASCII").to_owned();
        signature.insert_into(&mut headers);
        let request = SignedRequest {
            method: "POST",
            path: PATH,
            query: None,
            authority: None,
            headers: &headers,
            body: &body,
        };

        let names = "content-type;host;x-amz-date";
        let hash = "0".repeat(64);
        let canonical = format!(
            "POST\n{PATH}\n\ncontent-type:application/json\nhost:{HOST}\nx-amz-date:{date}\n\n{names}\n{hash}"
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{}/us-east-1/kms-xks-proxy/aws4_request\n{hash}",
            &date[..8]
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let floor = || {
            let hashes = [digest(&SHA256, &body), digest(&SHA256, canonical.as_bytes())];
            (hashes, hmac::sign(&key, to_sign.as_bytes()))
        };
        let regions = std::slice::from_ref(&region);
        let verify = || verifier.verify(&request, &credentials, regions).expect("it is signed");
        compare(&format!("sigv4: verify, body of {} bytes", body.len()), verify, floor);
    }
}
