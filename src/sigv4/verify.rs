//! The order of the checks, and the proof that all of them held.

use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq;

use crate::clock::Clock;
use crate::names::{AccessKeyId, Region};

use super::authorization::{self, Authorization, SyntaxError};
use super::canonical::{CanonicalRequest, sha256_hex, string_to_sign};
use super::credentials::Credentials;
use super::date::AmzDate;
use super::failure::{Excerpt, Failure};
use super::{SERVICE, header};

/// How far `X-Amz-Date` may be from our clock, in seconds, either side (P-12).
const MAX_SKEW_SECONDS: u64 = 300;

/// A request as it arrived, body and all.
#[derive(Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as sent, without a query string.
    pub path: &'a str,
    /// What follows the question mark: `Some` if there is one, be it the last character.
    pub query: Option<&'a str>,
    /// HTTP/2's `:authority`, and the host of an HTTP/1.1 request in absolute form. `None` for
    /// any other HTTP/1.1 request, whose host is its `Host` header.
    pub authority: Option<&'a str>,
    /// All headers, in their order.
    pub headers: &'a HeaderMap,
    /// The body, complete.
    pub body: &'a [u8],
}

/// Proof that the owner of a secret signed a request. Only [`Verifier::verify`] makes one.
///
/// It cannot be made elsewhere:
/// ```compile_fail,E0451
/// let proof = xksd::sigv4::Verified {
///     access_key_id: "ABCDEFGHIJKLMNOPQRST".parse().unwrap(),
///     region: "us-east-1".parse().unwrap(),
///     ahead_seconds: 0,
/// };
/// ```
/// nor copied, so that one proof serves one request:
/// ```compile_fail,E0599
/// fn twice(proof: xksd::sigv4::Verified) -> [xksd::sigv4::Verified; 2] {
///     [proof.clone(), proof]
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Verified {
    access_key_id: AccessKeyId,
    region: Region,
    ahead_seconds: i64,
}

impl Verified {
    /// Whose secret signed.
    pub fn access_key_id(&self) -> &AccessKeyId {
        &self.access_key_id
    }

    /// The Region of the KMS that called.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// How many seconds the signer's clock is ahead of ours; negative if behind. At most 300
    /// either way.
    pub fn ahead_seconds(&self) -> i64 {
        self.ahead_seconds
    }
}

/// Verifies signatures by one clock. All key stores may share it: what differs between them, the
/// cache of signing keys included, is in their [`Credentials`].
#[derive(Debug, Clone, Copy)]
pub struct Verifier {
    clock: Clock,
}

impl Verifier {
    /// A verifier that judges dates by this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// The clock that it judges dates by.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Checks the signature of a request for a key store that has these credentials and allows
    /// these Regions.
    ///
    /// The order is: form of the request, date, scope, and only then body hash and signature
    /// (P-12), so that a stranger makes us compute as little as can be.
    ///
    /// # Errors
    /// [`Failure`], by cause; every one is 401 to the caller (P-15).
    pub fn verify(
        &self,
        request: &SignedRequest<'_>,
        credentials: &Credentials,
        regions: &[Region],
    ) -> Result<Verified, Failure> {
        refuse_query(request.query)?;
        let headers = request.headers;
        let authorization = read_authorization(headers)?;
        check_host(request)?;
        let date = read_date(headers)?;
        check_signed_headers(&authorization, request)?;
        let claimed_hash = read_claimed_hash(headers)?;

        // P-12: the date first, and all of the scope before a key is derived from it.
        let ahead_seconds = date.seconds_ahead_of(self.clock.now());
        if ahead_seconds.unsigned_abs() > MAX_SKEW_SECONDS {
            return Err(Failure::ClockSkew { ahead_seconds });
        }
        let region = check_scope(&authorization, date, regions)?;

        let body_hash = sha256_hex(request.body);
        if claimed_hash.is_some_and(|claim| claim.as_bytes() != body_hash.as_bytes()) {
            return Err(Failure::BodyHash);
        }
        let canonical_request = CanonicalRequest {
            method: request.method,
            path: request.path,
            host: request.authority,
            headers,
            signed_headers: authorization.signed_headers.as_str(),
            body_hash: &body_hash,
        };
        let text = string_to_sign(&date.text(), authorization.scope, &canonical_request.text());
        let access_key_id = check_signature(&authorization, date, region, &text, credentials)?;
        Ok(Verified { access_key_id, region: region.clone(), ahead_seconds })
    }
}

/// P-15: no query string, and so no presigned URL.
fn refuse_query(query: Option<&str>) -> Result<(), Failure> {
    let Some(query) = query else { return Ok(()) };
    let is_signature = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        name.eq_ignore_ascii_case("X-Amz-Signature") || name.eq_ignore_ascii_case("X-Amz-Algorithm")
    };
    if query.split('&').any(is_signature) {
        Err(Failure::PresignedForm)
    } else {
        Err(Failure::QueryString)
    }
}

/// The only value of a header; `None` if it has none. P-15: two are one too many.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> Result<Option<&'a HeaderValue>, Failure> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Failure::DuplicateHeader { name });
    }
    Ok(first)
}

fn read_authorization(headers: &HeaderMap) -> Result<Authorization<'_>, Failure> {
    let value = single(headers, header::AUTHORIZATION)?.ok_or(Failure::NoAuthorization)?;
    let text = value.to_str().map_err(|_| SyntaxError::NotAscii)?;
    Ok(authorization::parse(text)?)
}

/// P-15: one host, by one name.
fn check_host(request: &SignedRequest<'_>) -> Result<(), Failure> {
    let header = single(request.headers, header::HOST)?.map(HeaderValue::as_bytes);
    let authority = request.authority.map(str::as_bytes);
    match (authority, header) {
        (Some(authority), Some(header)) if authority != header => Err(Failure::AuthorityMismatch),
        (Some(host), _) | (None, Some(host)) if !host.is_empty() => Ok(()),
        _ => Err(Failure::NoHost),
    }
}

fn read_date(headers: &HeaderMap) -> Result<AmzDate, Failure> {
    let value = single(headers, header::X_AMZ_DATE)?.ok_or(Failure::NoDate)?;
    AmzDate::parse(value.as_bytes()).ok_or(Failure::DateSyntax)
}

/// P-11: `host` and `x-amz-date` are always signed, and what is signed is there.
fn check_signed_headers(
    authorization: &Authorization<'_>,
    request: &SignedRequest<'_>,
) -> Result<(), Failure> {
    for name in [header::HOST, header::X_AMZ_DATE] {
        if !authorization.signed_headers.contains(name) {
            return Err(Failure::NotSigned { name });
        }
    }
    // Whether there is a host was checked before; on HTTP/2 it need not be among the headers.
    let is_there = |name: &str| name == header::HOST || request.headers.contains_key(name);
    match authorization.signed_headers.iter().find(|name| !is_there(name)) {
        Some(absent) => Err(Failure::SignedHeaderAbsent { name: Excerpt::of(absent) }),
        None => Ok(()),
    }
}

/// The signer's word for the hash of the body, if it gave one. P-15: `UNSIGNED-PAYLOAD` is none,
/// and neither are the chunked forms, `STREAMING-...`.
fn read_claimed_hash(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Failure> {
    let claim = single(headers, header::X_AMZ_CONTENT_SHA256)?;
    match claim.and_then(|value| value.to_str().ok()) {
        Some(text) if text.starts_with("UNSIGNED-") || text.starts_with("STREAMING-") => {
            Err(Failure::UnsignedPayload { claim: Excerpt::of(text) })
        }
        _ => Ok(claim),
    }
}

/// P-10, P-12: the scope is for the day of the request, for us, and for a Region that may call.
fn check_scope<'r>(
    authorization: &Authorization<'_>,
    date: AmzDate,
    regions: &'r [Region],
) -> Result<&'r Region, Failure> {
    let scope = authorization.scope;
    if scope.date != date.day_text() {
        return Err(Failure::ScopeDate { date: Excerpt::of(scope.date) });
    }
    let region = regions
        .iter()
        .find(|region| region.as_str() == scope.region)
        .ok_or_else(|| Failure::ScopeRegion { region: Excerpt::of(scope.region) })?;
    if scope.service != SERVICE {
        return Err(Failure::ScopeService { service: Excerpt::of(scope.service) });
    }
    Ok(region)
}

/// P-15: compares in constant time, and for an id that does not exist just the same.
fn check_signature(
    authorization: &Authorization<'_>,
    date: AmzDate,
    region: &Region,
    string_to_sign: &str,
    credentials: &Credentials,
) -> Result<AccessKeyId, Failure> {
    let id = authorization.access_key_id;
    let expected = credentials.expect_signature(id, date, region, string_to_sign);
    let matches = expected.signature.as_bytes().ct_eq(authorization.signature.as_bytes());
    match (expected.access_key_id, bool::from(matches)) {
        (Some(access_key_id), true) => Ok(access_key_id.clone()),
        (Some(access_key_id), false) => {
            Err(Failure::WrongSignature { access_key_id: access_key_id.clone() })
        }
        // Nobody owns the decoy, so a signature that fits it proves nothing.
        (None, _) => Err(Failure::UnknownAccessKey { access_key_id: id.parse().ok() }),
    }
}
