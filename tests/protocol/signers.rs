//! P-10, P-11: signatures by others than us: curl, botocore, the crate aws-sigv4.

use std::process::Command;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4::SigningParams;
use serde_json::{Value, json};
use support::caller::Caller;
use support::request::{bare_body, encrypt_body};
use support::site::REGION;
use support::tool::{ask, python};

use crate::world::{caller, daemon, demo};

/// The requests that each of them signs.
fn requests() -> [(&'static str, Value); 3] {
    [
        ("health", bare_body("KmsHealthCheck")),
        ("keys/demo-key/metadata", bare_body("DescribeKey")),
        ("keys/demo-key/encrypt", encrypt_body(b"signed by others", Some(b"aad"))),
    ]
}

fn url(kms: &Caller, rest: &str) -> String {
    format!("https://{}{}", kms.address, kms.path(rest))
}

fn authority() -> String {
    daemon().site.authority.certificate().display().to_string()
}

/// curl, over both versions of HTTP. Secret and body come by standard input and file: what is in
/// its arguments, everybody can read.
#[test]
fn curl_signs() {
    let kms = caller(&demo());
    let directory = tempfile::tempdir().unwrap();
    for (version, flag) in [("1.1", "http1.1"), ("2", "http2")] {
        for (rest, body) in requests() {
            let file = directory.path().join("body.json");
            std::fs::write(&file, body.to_string()).unwrap();
            let config = format!(
                "url = \"{}\"\n{flag}\ncacert = \"{}\"\naws-sigv4 = \"aws:amz:{REGION}:kms-xks-proxy\"\n\
                 user = \"{}:{}\"\nheader = \"Content-Type: application/json\"\n\
                 data-binary = \"@{}\"\nsilent\nshow-error\nmax-time = 60\n\
                 write-out = \"\\n%{{http_version}} %{{response_code}}\"\n",
                url(&kms, rest),
                authority(),
                kms.credential.id,
                kms.credential.secret,
                file.display(),
            );
            let said = ask(Command::new("curl").args(["--config", "-"]), &config).unwrap();
            let (body, outcome) = said.rsplit_once('\n').unwrap();
            assert_eq!(outcome, format!("{version} 200"), "{rest}: {body}");
        }
    }
}

/// Signs by botocore and sends by Python's own HTTP client.
const BOTOCORE: &str = "
import http.client, json, ssl, sys
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
want = json.load(sys.stdin)
request = AWSRequest('POST', want['url'], data=want['body'].encode(),
                     headers={'Content-Type': 'application/json'})
SigV4Auth(Credentials(want['id'], want['secret']), 'kms-xks-proxy', want['region']).add_auth(request)
prepared = request.prepare()
context = ssl.create_default_context(cafile=want['ca'])
connection = http.client.HTTPSConnection(want['host'], context=context, timeout=60)
connection.request('POST', want['path'], body=prepared.body, headers=dict(prepared.headers))
answer = connection.getresponse()
print(answer.status, answer.read().decode())
";

#[test]
fn botocore_signs() {
    let kms = caller(&demo());
    let Some(python) = python("botocore", "botocore as a signer") else { return };
    for (rest, body) in requests() {
        let want = json!({
            "url": url(&kms, rest),
            "host": kms.address.to_string(),
            "path": kms.path(rest),
            "body": body.to_string(),
            "id": kms.credential.id,
            "secret": kms.credential.secret,
            "region": REGION,
            "ca": authority(),
        });
        let said = ask(Command::new(&python).args(["-c", BOTOCORE]), &want.to_string()).unwrap();
        assert!(said.starts_with("200 "), "{rest}: {said}");
    }
}

/// The signer of AWS's SDK for Rust: its canonical request, not ours.
#[test]
fn the_sdk_signs() {
    let kms = caller(&demo());
    let (id, secret) = (&kms.credential.id, &kms.credential.secret);
    let identity = Credentials::new(id, secret, None, None, "test").into();
    for (rest, body) in requests() {
        let mut request = kms.request(rest, &body);
        request.signing.credential = None;
        let params = SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("kms-xks-proxy")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let signable = SignableRequest::new(
            "POST",
            format!("https://localhost{}", request.target),
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())),
            SignableBody::Bytes(&request.body),
        )
        .unwrap();
        let signed = aws_sigv4::http_request::sign(signable, &params).unwrap();
        let (instructions, _) = signed.into_parts();
        for (name, value) in instructions.headers() {
            request.headers.push((name.to_owned(), value.to_owned()));
        }
        let answer = kms.send(&request);
        assert_eq!(answer.status, 200, "{rest}: {}", answer.text());
    }
}
