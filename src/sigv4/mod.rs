//! AWS Signature Version 4 as XKS uses it (P-10 to P-15): verify what KMS signed, sign what our
//! own client sends.
//!
//! The way of a request through [`Verifier::verify`]:
//!
//! 1. [`authorization`] parses the `Authorization` header into id, scope, header list, signature.
//! 2. [`date`] reads `X-Amz-Date` and tells how far the signer's clock is from ours.
//! 3. `canonical` writes the canonical request and the string to sign.
//! 4. [`credentials`] makes the signature that the owner of the secret would have made; signing
//!    keys are cached there, so a reload that replaces the credentials replaces them too.
//! 5. [`verify`] holds the order of the checks and gives [`Verified`], the proof, or a
//!    [`Failure`] with one text for the operator and another for the caller.
//!
//! [`sign()`] goes the other way for `bench`, `doctor` and the tests.
//!
//! The canonical request is ours, byte for byte over what arrived; the derivation of the signing
//! key and the HMAC are those of the crate `aws-sigv4`.

// Bytes of strangers are read here: nothing in this module may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::as_conversions
    )
)]

pub mod authorization;
mod canonical;
pub mod credentials;
pub mod date;
pub mod failure;
mod secret_key;
pub mod sign;
pub mod verify;

#[cfg(test)]
mod tests;

pub use credentials::{Credentials, CredentialsError};
pub use failure::Failure;
pub use secret_key::{SecretAccessKey, SecretAccessKeyError};
pub use sign::{Outgoing, SignError, Signature, sign};
pub use verify::{SignedRequest, Verified, Verifier};

/// The service name in every credential scope of XKS (P-10).
pub const SERVICE: &str = "kms-xks-proxy";

/// Names of the headers that have a meaning of their own here.
mod header {
    pub(super) const AUTHORIZATION: &str = "authorization";
    pub(super) const HOST: &str = "host";
    pub(super) const X_AMZ_CONTENT_SHA256: &str = "x-amz-content-sha256";
    pub(super) const X_AMZ_DATE: &str = "x-amz-date";
}
