//! Why a request was not believed: one text for the operator, another for the caller.

use std::fmt;

use crate::names::AccessKeyId;

use super::authorization::SyntaxError;

/// Why a signature was refused. All of these are 401 `AuthenticationFailedException` (P-15).
///
/// `Display` is for the operator's log. What the caller may read is [`Failure::advice`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request has a query string.
    #[error("the request has a query string")]
    QueryString,
    /// The signature is in the query string instead of the header.
    #[error("the request is a presigned URL")]
    PresignedForm,
    /// There is no `Authorization` header.
    #[error("the request has no Authorization header")]
    NoAuthorization,
    /// There is no `Host` header (HTTP/2: no `:authority`), or it is empty.
    #[error("the request names no host")]
    NoHost,
    /// There is no `X-Amz-Date` header.
    #[error("the request has no X-Amz-Date header")]
    NoDate,
    /// A header is there twice that must be there once.
    #[error("the request has more than one `{name}` header")]
    DuplicateHeader {
        /// The header, in lower case.
        name: &'static str,
    },
    /// The `Authorization` header is not of the form of P-10.
    #[error("the Authorization header is malformed: {0}")]
    Authorization(#[from] SyntaxError),
    /// `X-Amz-Date` is not of the form `yyyymmddThhmmssZ`.
    #[error("the X-Amz-Date header is not of the form yyyymmddThhmmssZ")]
    DateSyntax,
    /// HTTP/2: `host` and `:authority` differ.
    #[error("the `host` header differs from the request's `:authority`")]
    AuthorityMismatch,
    /// A header that must be signed is not.
    #[error("the signature does not cover `{name}`")]
    NotSigned {
        /// The header, in lower case.
        name: &'static str,
    },
    /// A header is named as signed and is not there.
    #[error("the signature covers a header `{name}` that the request does not have")]
    SignedHeaderAbsent {
        /// The name as it stands in SignedHeaders.
        name: Excerpt,
    },
    /// `x-amz-content-sha256` says that the body is not signed, or signed in pieces.
    #[error("the signature does not cover the body: x-amz-content-sha256 is `{claim}`")]
    UnsignedPayload {
        /// The header's value.
        claim: Excerpt,
    },
    /// `x-amz-content-sha256` is not the hash of the body.
    #[error("x-amz-content-sha256 is not the SHA-256 of the body")]
    BodyHash,
    /// `X-Amz-Date` is more than five minutes away from our clock (P-12).
    #[error("X-Amz-Date is {ahead_seconds} seconds ahead of this proxy's clock (negative: behind)")]
    ClockSkew {
        /// How far the signer's clock is ahead of ours; negative if behind.
        ahead_seconds: i64,
    },
    /// The day in the scope is not that of `X-Amz-Date` (P-12).
    #[error("the day in the credential scope, `{date}`, is not that of X-Amz-Date")]
    ScopeDate {
        /// The day as it stands in the scope.
        date: Excerpt,
    },
    /// The key store does not allow this Region.
    #[error("the credential scope names Region `{region}`, which this key store does not allow")]
    ScopeRegion {
        /// The Region as it stands in the scope.
        region: Excerpt,
    },
    /// The scope is for another service.
    #[error("the credential scope names service `{service}` instead of `{expected}`", expected = super::SERVICE)]
    ScopeService {
        /// The service as it stands in the scope.
        service: Excerpt,
    },
    /// No credential of the key store has this id.
    #[error("{}", UnknownAccessKey(access_key_id.as_ref()))]
    UnknownAccessKey {
        /// The id; `None` if it is not of an id's form: people put secrets in the wrong field.
        access_key_id: Option<AccessKeyId>,
    },
    /// The signature is not the one that the secret of this id makes.
    #[error("the signature is not that of access key id `{access_key_id}` over this request")]
    WrongSignature {
        /// The id.
        access_key_id: AccessKeyId,
    },
}

impl Failure {
    /// Every value of [`Failure::reason`], so that a metric can start with all of them at zero.
    pub const REASONS: [&'static str; 19] = [
        "query_string",
        "presigned_form",
        "no_authorization",
        "no_host",
        "no_date",
        "duplicate_header",
        "malformed_authorization",
        "malformed_date",
        "authority_mismatch",
        "not_signed",
        "signed_header_absent",
        "unsigned_payload",
        "body_hash",
        "clock_skew",
        "scope_date",
        "scope_region",
        "scope_service",
        "unknown_access_key",
        "wrong_signature",
    ];

    /// A label for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::QueryString => "query_string",
            Self::PresignedForm => "presigned_form",
            Self::NoAuthorization => "no_authorization",
            Self::NoHost => "no_host",
            Self::NoDate => "no_date",
            Self::DuplicateHeader { .. } => "duplicate_header",
            Self::Authorization(_) => "malformed_authorization",
            Self::DateSyntax => "malformed_date",
            Self::AuthorityMismatch => "authority_mismatch",
            Self::NotSigned { .. } => "not_signed",
            Self::SignedHeaderAbsent { .. } => "signed_header_absent",
            Self::UnsignedPayload { .. } => "unsigned_payload",
            Self::BodyHash => "body_hash",
            Self::ClockSkew { .. } => "clock_skew",
            Self::ScopeDate { .. } => "scope_date",
            Self::ScopeRegion { .. } => "scope_region",
            Self::ScopeService { .. } => "scope_service",
            Self::UnknownAccessKey { .. } => "unknown_access_key",
            Self::WrongSignature { .. } => "wrong_signature",
        }
    }

    /// One sentence for `errorMessage`, which KMS writes into the customer's log (P-70): fixed,
    /// printable ASCII, and of no use to somebody who holds no secret. An unknown access key id
    /// and a wrong signature read alike (P-15).
    pub fn advice(&self) -> &'static str {
        match self {
            Self::QueryString | Self::PresignedForm => {
                "The request has a query string; sign it in the Authorization header and send it \
                 without one."
            }
            Self::NoAuthorization => {
                "The request has no Authorization header; sign it with AWS Signature Version 4."
            }
            Self::NoHost | Self::AuthorityMismatch => {
                "The request must name one host; check what stands between KMS and the proxy."
            }
            Self::NoDate | Self::DateSyntax => {
                "The request needs an X-Amz-Date header of the form yyyymmddThhmmssZ."
            }
            Self::DuplicateHeader { .. } => {
                "A header that must be sent once, Authorization, Host, X-Amz-Date or \
                 X-Amz-Content-Sha256, was sent more than once."
            }
            Self::Authorization(_) => {
                "The Authorization header is not of the form AWS4-HMAC-SHA256 Credential=..., \
                 SignedHeaders=..., Signature=... ."
            }
            Self::NotSigned { .. } => "The signature must cover the headers host and x-amz-date.",
            Self::SignedHeaderAbsent { .. } => {
                "A signed header did not arrive; check what stands between KMS and the proxy."
            }
            Self::UnsignedPayload { .. } => "The signature must cover the body of the request.",
            Self::BodyHash => {
                "The body is not the one that was signed; check what stands between KMS and the \
                 proxy."
            }
            Self::ClockSkew { .. } => {
                "The request's X-Amz-Date is more than 5 minutes away from the proxy's clock; \
                 check the clock of the proxy."
            }
            Self::ScopeDate { .. } => "The day in the credential scope is not that of X-Amz-Date.",
            Self::ScopeRegion { .. } => {
                "The Region in the credential scope is not one that the proxy accepts for this \
                 key store; check the Regions in the proxy's configuration."
            }
            Self::ScopeService { .. } => {
                "The service in the credential scope must be kms-xks-proxy."
            }
            Self::UnknownAccessKey { .. } | Self::WrongSignature { .. } => {
                "The signature does not match a credential of this key store; check that KMS and \
                 the proxy have the same access key id and secret access key, and that nothing \
                 between them changes the request."
            }
        }
    }
}

/// Writes the text of [`Failure::UnknownAccessKey`].
struct UnknownAccessKey<'a>(Option<&'a AccessKeyId>);

impl fmt::Display for UnknownAccessKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, "no credential of this key store has access key id `{id}`"),
            None => f.write_str("the access key id is not of the form of an access key id"),
        }
    }
}

/// A piece of what a stranger sent, escaped and cut so that it may stand in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    /// Most characters of the original that are shown.
    const MAX_CHARS: usize = 64;

    pub(super) fn of(text: &str) -> Self {
        let mut shown: String =
            text.chars().take(Self::MAX_CHARS).flat_map(char::escape_default).collect();
        if text.chars().nth(Self::MAX_CHARS).is_some() {
            shown.push_str("...");
        }
        Self(shown.into())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ABCDEFGHIJKLMNOPQRST";

    /// One of each, in the order of `REASONS`.
    fn all() -> Vec<Failure> {
        let excerpt = || Excerpt::of("text");
        vec![
            Failure::QueryString,
            Failure::PresignedForm,
            Failure::NoAuthorization,
            Failure::NoHost,
            Failure::NoDate,
            Failure::DuplicateHeader { name: "host" },
            Failure::Authorization(SyntaxError::Signature),
            Failure::DateSyntax,
            Failure::AuthorityMismatch,
            Failure::NotSigned { name: "host" },
            Failure::SignedHeaderAbsent { name: excerpt() },
            Failure::UnsignedPayload { claim: excerpt() },
            Failure::BodyHash,
            Failure::ClockSkew { ahead_seconds: -301 },
            Failure::ScopeDate { date: excerpt() },
            Failure::ScopeRegion { region: excerpt() },
            Failure::ScopeService { service: excerpt() },
            Failure::UnknownAccessKey { access_key_id: ID.parse().ok() },
            Failure::WrongSignature { access_key_id: ID.parse().unwrap() },
        ]
    }

    #[test]
    fn reasons_are_a_closed_set() {
        let reasons: Vec<_> = all().iter().map(Failure::reason).collect();
        assert_eq!(reasons, Failure::REASONS);
    }

    #[test]
    fn advice_keeps_p_70() {
        // P-70
        for failure in all() {
            let advice = failure.advice();
            assert!((1..512).contains(&advice.len()), "{advice}");
            assert!(advice.bytes().all(|b| matches!(b, b' '..=b'~')), "{advice}");
            assert!(!advice.contains(ID), "{advice}");
        }
    }

    #[test]
    fn advice_does_not_tell_an_unknown_id_from_a_wrong_signature() {
        // P-15
        let unknown = Failure::UnknownAccessKey { access_key_id: ID.parse().ok() };
        let malformed = Failure::UnknownAccessKey { access_key_id: None };
        let wrong = Failure::WrongSignature { access_key_id: ID.parse().unwrap() };
        assert_eq!(unknown.advice(), wrong.advice());
        assert_eq!(malformed.advice(), wrong.advice());
    }

    #[test]
    fn excerpts_are_escaped_and_cut() {
        assert_eq!(Excerpt::of("us-east-1").to_string(), "us-east-1");
        assert_eq!(Excerpt::of("a\nb\u{1b}[0m").to_string(), "a\\nb\\u{1b}[0m");
        let long = Excerpt::of(&"x".repeat(1000)).to_string();
        assert_eq!(long, format!("{}...", "x".repeat(64)));
    }

    #[test]
    fn operators_read_what_was_wrong() {
        let text = Failure::ClockSkew { ahead_seconds: -301 }.to_string();
        assert!(text.contains("-301 seconds"), "{text}");
        let text = Failure::Authorization(SyntaxError::MissingComponent("Signature")).to_string();
        let expected = "the Authorization header is malformed: its component Signature is missing";
        assert_eq!(text, expected);
    }
}
