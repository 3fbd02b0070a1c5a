//! Tests of the whole: requests from end to end, published vectors, captured requests of other
//! programs, and properties.

mod properties;
mod vectors;
mod verdicts;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Clock;
use crate::names::Region;

use super::authorization::Scope;
use super::date::AmzDate;
use super::sign::{Draft, body_hash};
use super::{Credentials, Failure, SecretAccessKey, SignedRequest, Verified, Verifier};

const ID: &str = "ABCDEFGHIJKLMNOPQRST";
/// Two made-up secrets; a canary is part of each.
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY+of+xksd";
const OTHER_SECRET: &str = "OTHERwJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY+of+xksd";
const REGION: &str = "us-east-1";

fn credentials(secret: &str) -> Credentials {
    Credentials::new([(ID.parse().unwrap(), secret.parse().unwrap())]).unwrap()
}

fn regions() -> Vec<Region> {
    [REGION, "eu-central-1"].map(|name| name.parse().unwrap()).to_vec()
}

fn date(text: &str) -> AmzDate {
    AmzDate::parse(text.as_bytes()).unwrap()
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A request with each part open to change, before it is signed and after.
#[derive(Debug, Clone)]
struct Case {
    method: String,
    path: String,
    query: Option<String>,
    authority: Option<String>,
    headers: HeaderMap,
    body: Vec<u8>,
    now: SystemTime,
}

impl Case {
    /// What KMS might send, over HTTP/1.1; not signed yet.
    fn new() -> Self {
        let mut case = Self {
            method: "POST".into(),
            path: "/example/prefix/kms/xks/v1/keys/demo-key_1.0/encrypt".into(),
            query: None,
            authority: None,
            headers: HeaderMap::new(),
            body: br#"{"plaintext":"aGVsbG8="}"#.to_vec(),
            now: date("20261121T120000Z").system_time(),
        };
        case.set("host", "xks.example.com:8443");
        case.set("content-type", "application/json");
        case.set("x-amz-date", "20261121T120000Z");
        case
    }

    fn signed() -> Self {
        let mut case = Self::new();
        case.sign(&Recipe::default());
        case
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }

    fn add(&mut self, name: &'static str, value: &str) {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
    }

    fn text(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }

    fn sign(&mut self, recipe: &Recipe<'_>) {
        let mut headers = self.headers.clone();
        if let Some(authority) = &self.authority {
            headers.insert("host", HeaderValue::from_str(authority).unwrap());
        }
        let date = AmzDate::parse(self.text("x-amz-date").as_bytes());
        let date = date.unwrap_or(AmzDate::at(self.now).unwrap());
        let own_hash = body_hash(&self.body);
        let own_day = date.day_text();
        let draft = Draft {
            method: &self.method,
            path: &self.path,
            headers: &headers,
            signed_headers: recipe.signed_headers,
            body_hash: recipe.body_hash.unwrap_or(&own_hash),
            date,
            scope: Scope {
                date: recipe.scope_date.unwrap_or(&own_day),
                region: recipe.region,
                service: recipe.service,
            },
        };
        let secret: SecretAccessKey = recipe.secret.parse().unwrap();
        self.set("authorization", &draft.authorization(recipe.id, &secret));
    }

    fn verify(&self) -> Result<Verified, Failure> {
        self.verify_with(&credentials(SECRET))
    }

    fn verify_with(&self, credentials: &Credentials) -> Result<Verified, Failure> {
        let request = SignedRequest {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            authority: self.authority.as_deref(),
            headers: &self.headers,
            body: &self.body,
        };
        Verifier::new(Clock::Fixed(self.now)).verify(&request, credentials, &regions())
    }
}

/// How a request is signed; the default is the right way.
struct Recipe<'a> {
    id: &'a str,
    secret: &'a str,
    signed_headers: &'a str,
    body_hash: Option<&'a str>,
    scope_date: Option<&'a str>,
    region: &'a str,
    service: &'a str,
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        Self {
            id: ID,
            secret: SECRET,
            signed_headers: "content-type;host;x-amz-date",
            body_hash: None,
            scope_date: None,
            region: REGION,
            service: super::SERVICE,
        }
    }
}

/// Reads a request as text. Lines that begin with a blank continue the header before them.
fn read_request(text: &[u8]) -> Case {
    let (head, body) = split_at(text, b"\r\n\r\n").or_else(|| split_at(text, b"\n\n")).unwrap();
    let head = str::from_utf8(head).unwrap().replace("\n ", " ");
    let mut lines = head.lines();
    let (method, rest) = lines.next().unwrap().split_once(' ').unwrap();
    let mut case = Case { body: body.to_vec(), method: method.into(), ..Case::new() };
    case.path = rest.strip_suffix(" HTTP/1.1").unwrap().into();
    case.headers.clear();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let name: HeaderName = name.parse().unwrap();
        case.headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    case.now = date(case.text("x-amz-date")).system_time();
    case
}

fn split_at<'a>(text: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(mark.len()).position(|window| window == mark)?;
    Some((&text[..at], &text[at + mark.len()..]))
}
