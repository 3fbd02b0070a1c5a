//! Signs what our own client sends: `bench`, `doctor` and the tests.

use std::time::SystemTime;

use http::header::InvalidHeaderValue;
use http::{HeaderMap, HeaderValue};

use crate::names::{AccessKeyId, Region};

use super::authorization::{ALGORITHM, Scope, TERMINATOR};
use super::canonical::{CanonicalRequest, sha256_hex, string_to_sign};
use super::date::AmzDate;
use super::secret_key::SecretAccessKey;
use super::{SERVICE, header};

/// A request that is about to be signed.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as it will be sent.
    pub path: &'a str,
    /// The `Host` header (HTTP/2: `:authority`) as it will be sent, with the port where the
    /// client sends one.
    pub host: &'a str,
    /// More headers to sign; all that are in here are, but for those of [`Signature`] and `host`.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
}

/// The headers that carry a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Value of `Authorization`.
    pub authorization: HeaderValue,
    /// Value of `X-Amz-Date`.
    pub x_amz_date: HeaderValue,
}

impl Signature {
    /// Puts both headers into a request, in place of those that are there.
    pub fn insert_into(self, headers: &mut HeaderMap) {
        headers.insert(header::AUTHORIZATION, self.authorization);
        headers.insert(header::X_AMZ_DATE, self.x_amz_date);
    }
}

/// Why a request cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The time cannot be written as `X-Amz-Date`.
    #[error("the time is outside the years 0 to 9999")]
    Time,
    /// A value that is not allowed in a header.
    #[error("a signed value is not allowed in a header")]
    Header(#[from] InvalidHeaderValue),
}

/// Signs `host`, `x-amz-date` and the given headers for the service of XKS.
///
/// # Errors
/// [`SignError`] for a time that has no form in SigV4.
pub fn sign(
    request: Outgoing<'_>,
    (access_key_id, secret): (&AccessKeyId, &SecretAccessKey),
    region: &Region,
    time: SystemTime,
) -> Result<Signature, SignError> {
    let date = AmzDate::at(time).ok_or(SignError::Time)?;
    let mut headers = request.headers.clone();
    headers.remove(header::AUTHORIZATION);
    let x_amz_date = HeaderValue::try_from(date.text())?;
    headers.insert(header::X_AMZ_DATE, x_amz_date.clone());
    headers.insert(header::HOST, HeaderValue::from_str(request.host)?);

    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let draft = Draft {
        method: request.method,
        path: request.path,
        headers: &headers,
        signed_headers: &names.join(";"),
        body_hash: &sha256_hex(request.body),
        date,
        scope: Scope { date: &date.day_text(), region: region.as_str(), service: SERVICE },
    };
    let authorization = draft.authorization(access_key_id.as_str(), secret);
    Ok(Signature { authorization: HeaderValue::try_from(authorization)?, x_amz_date })
}

/// A signature with each part chosen by hand, sound or not: a conformance test has to sign badly.
#[derive(Clone, Copy)]
pub struct Draft<'a> {
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// All headers that may be signed, `host` and `x-amz-date` among them.
    pub headers: &'a HeaderMap,
    /// Names of the headers to sign, as they will stand in the header.
    pub signed_headers: &'a str,
    /// What stands for the body: its SHA-256 in hex, [`body_hash`], or something else.
    pub body_hash: &'a str,
    /// Goes into the string to sign.
    pub date: AmzDate,
    /// Goes into the credential, the string to sign and the signing key (whose day is that of
    /// `date` where the scope has none that a calendar knows).
    pub scope: Scope<'a>,
}

impl Draft<'_> {
    /// The value of the `Authorization` header.
    pub fn authorization(&self, access_key_id: &str, secret: &SecretAccessKey) -> String {
        let Self { signed_headers, scope, date, .. } = *self;
        let canonical_request = CanonicalRequest {
            method: self.method,
            path: self.path,
            host: None,
            headers: self.headers,
            signed_headers,
            body_hash: self.body_hash,
        };
        let text = string_to_sign(&date.text(), scope, &canonical_request.text());
        let day = AmzDate::parse(format!("{}T000000Z", scope.date).as_bytes()).unwrap_or(date);
        let signature = secret.signing_key_for(day, scope.region, scope.service).sign(&text);
        let Scope { date, region, service } = scope;
        format!(
            "{ALGORITHM} Credential={access_key_id}/{date}/{region}/{service}/{TERMINATOR}, \
             SignedHeaders={signed_headers}, Signature={}",
            signature.as_str(),
        )
    }
}

/// SHA-256 of a body in lower-case hex, as canonical requests and `x-amz-content-sha256` have it.
pub fn body_hash(body: &[u8]) -> String {
    sha256_hex(body)
}
