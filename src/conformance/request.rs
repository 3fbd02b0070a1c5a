//! Requests of which every part can be wrong, and their signatures.
//!
//! SigV4 is written here from its description, apart from [`crate::sigv4`]: a proxy of ours must
//! not be examined by its own reading of the rules (P-10, P-11).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;
use zeroize::Zeroizing;

use crate::client::{Endpoint, HttpVersion};
use crate::secret::Secret;

/// The name of the service in every scope (P-10).
const SERVICE: &str = "kms-xks-proxy";

/// A SigV4 credential, sound or not.
#[derive(Debug)]
pub struct Credential {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: Secret<String>,
}

impl Credential {
    /// Takes both over.
    pub fn new(id: impl Into<String>, secret: Secret<String>) -> Arc<Self> {
        Arc::new(Self { id: id.into(), secret })
    }

    /// The same secret under another id.
    pub(super) fn under(&self, id: impl Into<String>) -> Arc<Self> {
        Self::new(id, Secret::new(self.secret.expose().clone()))
    }

    /// The same id with a secret that is another one.
    pub(super) fn with_another_secret(&self) -> Arc<Self> {
        let text = self.secret.expose();
        // As long and of the same alphabet (P-14), and not the same for any secret.
        let turned = |c: char| if c == 'x' { 'y' } else { 'x' };
        Self::new(self.id.clone(), Secret::new(text.chars().map(turned).collect()))
    }
}

/// Changes headers after they were signed.
pub(super) type Tamper = Arc<dyn Fn(&mut Vec<(String, String)>) + Send + Sync>;

/// A request before it is signed.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: String,
    /// Path and query, as they are sent.
    pub(super) target: String,
    /// Headers in their order; `Host` is the first of them.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) signing: Signing,
    pub(super) tamper: Option<Tamper>,
}

/// How a request is signed. What is `None` is taken from the request.
#[derive(Clone)]
pub(super) struct Signing {
    /// By whom; `None` leaves the request without `Authorization`.
    pub(super) credential: Option<Arc<Credential>>,
    /// Seconds by which the signer's clock is ahead.
    pub(super) ahead: i64,
    /// Days by which the scope's date is ahead of that clock.
    pub(super) scope_days: i64,
    pub(super) scope_date: Option<String>,
    pub(super) region: String,
    pub(super) service: String,
    pub(super) terminator: String,
    pub(super) signed_headers: String,
    pub(super) path: Option<String>,
    pub(super) query: String,
    pub(super) body_hash: Option<String>,
}

impl Ask {
    /// A POST of JSON, signed as KMS signs.
    pub(super) fn post(
        endpoint: &Endpoint,
        (credential, region): (&Arc<Credential>, &str),
        target: String,
        body: &Value,
    ) -> Self {
        Self {
            method: "POST".to_owned(),
            target,
            headers: vec![
                ("Host".to_owned(), endpoint.authority().to_owned()),
                ("Content-Type".to_owned(), "application/json".to_owned()),
            ],
            body: body.to_string().into_bytes(),
            signing: Signing {
                credential: Some(credential.clone()),
                ahead: 0,
                scope_days: 0,
                scope_date: None,
                region: region.to_owned(),
                service: SERVICE.to_owned(),
                terminator: "aws4_request".to_owned(),
                signed_headers: "content-type;host;x-amz-date".to_owned(),
                path: None,
                query: String::new(),
                body_hash: None,
            },
            tamper: None,
        }
    }

    /// All headers, signed now, in the order in which they are sent.
    pub(super) fn signed_headers(&self, now: SystemTime) -> Vec<(String, String)> {
        let mut headers = self.headers.clone();
        let signing = &self.signing;
        let time = at(now) + time::Duration::seconds(signing.ahead);
        let named = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-amz-date"));
        let date = named.map(|(_, date)| date.clone()).unwrap_or_else(|| {
            headers.push(("X-Amz-Date".to_owned(), amz_date(time)));
            amz_date(time)
        });
        let Some(credential) = &signing.credential else { return headers };
        let day = signing.scope_date.clone().unwrap_or_else(|| {
            let day = amz_date(time + time::Duration::days(signing.scope_days));
            day.chars().take(8).collect()
        });
        let Signing { region, service, terminator, signed_headers, .. } = signing;
        let scope = format!("{day}/{region}/{service}/{terminator}");
        let canonical = sha256_hex(self.canonical(&headers).as_bytes());
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{canonical}");
        let start = Zeroizing::new(format!("AWS4{}", credential.secret.expose()).into_bytes());
        let parts = [day.as_str(), region, service, terminator];
        let key = parts.iter().fold(start, |key, part| Zeroizing::new(mac(&key, part)));
        let signature = hex(&mac(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed_headers}, \
             Signature={signature}",
            credential.id
        );
        headers.push(("Authorization".to_owned(), authorization));
        headers
    }

    fn canonical(&self, headers: &[(String, String)]) -> String {
        let Self { method, target, signing, .. } = self;
        let path = target.split('?').next().unwrap_or_default();
        let path = signing.path.as_deref().unwrap_or(path);
        let mut text = format!("{method}\n{path}\n{}\n", signing.query);
        for name in signing.signed_headers.split(';') {
            let named = headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
            let values: Vec<&str> = named.map(|(_, value)| value.trim()).collect();
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        let hash = signing.body_hash.clone().unwrap_or_else(|| sha256_hex(&self.body));
        text.push_str(&format!("\n{}\n{hash}", signing.signed_headers));
        text
    }

    /// The request as it goes out now, over this version of HTTP.
    ///
    /// # Errors
    /// Words, where HTTP has no form for it.
    pub(super) fn to_http(
        &self,
        endpoint: &Endpoint,
        version: HttpVersion,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut headers = self.signed_headers(SystemTime::now());
        if let Some(tamper) = &self.tamper {
            tamper(&mut headers);
        }
        let authority = endpoint.authority();
        let uri = match version {
            HttpVersion::Http1 => self.target.clone(),
            HttpVersion::Http2 => {
                // `:authority` stands in for the header; one that says something else is sent too.
                let is_it = |(name, value): &(String, String)| {
                    name.eq_ignore_ascii_case(HOST.as_str()) && value == authority
                };
                if let Some(at) = headers.iter().position(is_it) {
                    headers.remove(at);
                }
                format!("{}://{authority}{}", endpoint.scheme().as_str(), self.target)
            }
        };
        let mut request = Request::new(Full::new(Bytes::from(self.body.clone())));
        let words = |error: &dyn fmt::Display| format!("it can't be sent: {error}");
        *request.uri_mut() = uri.parse::<Uri>().map_err(|error| words(&error))?;
        *request.method_mut() =
            Method::from_bytes(self.method.as_bytes()).map_err(|error| words(&error))?;
        *request.version_mut() = version.version();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| words(&error))?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|error| words(&error))?;
            request.headers_mut().append(name, value);
        }
        Ok(request)
    }
}

/// Shows no body: there may be a plaintext in it (P-45).
impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} <{} bytes redacted>", self.method, self.target, self.body.len())
    }
}

fn at(time: SystemTime) -> OffsetDateTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    OffsetDateTime::UNIX_EPOCH + since
}

fn amz_date(time: OffsetDateTime) -> String {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    time.format(form).expect("a time of day has all of these parts")
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

/// SHA-256 in lower-case hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Clock;
    use crate::sigv4::{Credentials, SignedRequest, Verifier};

    /// P-11: two readings of SigV4 agree.
    #[test]
    fn what_is_signed_here_is_verified_there() {
        let endpoint: Endpoint = "https://xks.example.com/p".parse().unwrap();
        let secret = "s".repeat(43);
        let id = "ABCDEFGHIJKLMNOPQRST";
        let credential = Credential::new(id, Secret::new(secret.clone()));
        let target = "/p/kms/xks/v1/health".to_owned();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let verify = |ask: &Ask| {
            let headers = ask.signed_headers(now);
            let headers = headers.iter().map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            });
            let request = SignedRequest {
                method: &ask.method,
                path: &ask.target,
                query: None,
                authority: None,
                headers: &headers.collect(),
                body: &ask.body,
            };
            let known = [(id.parse().unwrap(), secret.parse().unwrap())];
            let regions = ["us-east-1".parse().unwrap()];
            let known = Credentials::new(known).unwrap();
            Verifier::new(Clock::Fixed(now)).verify(&request, &known, &regions).is_ok()
        };
        let body = json!({"a": 1});
        let ask = Ask::post(&endpoint, (&credential, "us-east-1"), target, &body);
        assert!(verify(&ask));
        let mut spoiled = ask.clone();
        spoiled.signing.ahead = 301;
        assert!(!verify(&spoiled));
        let other = credential.with_another_secret();
        assert_eq!(other.secret.expose().len(), secret.len());
        let mut spoiled = ask.clone();
        spoiled.signing.credential = Some(other);
        assert!(!verify(&spoiled));
        assert!(!format!("{ask:?} {credential:?}").contains(&secret));
    }

    /// P-15: HTTP/2 has `:authority`; a `host` that contradicts it is there for the proxy to see.
    #[test]
    fn http_2_has_its_host_elsewhere() {
        let endpoint: Endpoint = "https://xks.example.com/p".parse().unwrap();
        let credential = Credential::new("A", Secret::new("s".to_owned()));
        let target = "/p/kms/xks/v1/health".to_owned();
        let mut ask = Ask::post(&endpoint, (&credential, "r"), target, &json!({}));
        let request = ask.to_http(&endpoint, HttpVersion::Http2).unwrap();
        assert_eq!(request.headers().get(HOST), None);
        assert_eq!(request.uri().authority().unwrap(), "xks.example.com");
        ask.tamper = Some(Arc::new(|headers| headers[0].1 = "elsewhere".to_owned()));
        let request = ask.to_http(&endpoint, HttpVersion::Http2).unwrap();
        assert_eq!(request.headers()[HOST], "elsewhere");
        let request = ask.to_http(&endpoint, HttpVersion::Http1).unwrap();
        assert_eq!(request.uri().to_string(), "/p/kms/xks/v1/health");
        ask.target = "no path".to_owned();
        assert!(ask.to_http(&endpoint, HttpVersion::Http1).is_err());
    }
}
