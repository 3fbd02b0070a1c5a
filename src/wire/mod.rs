//! The XKS protocol as bytes and types: paths, JSON, error names, and the ciphertext format.
//!
//! Everything here is pure: bytes in, values out, nothing waits and nothing panics. Each rule of
//! the protocol has one place.
//!
//! | what | where |
//! |---|---|
//! | which operation a path names | [`route`] |
//! | request bodies, and why one is refused | [`request`], [`request_error`], [`limits`] |
//! | what a request says about its origin | [`metadata`], [`log_text`] |
//! | answers | [`response`], [`health`], [`error`] |
//! | what goes into AES-GCM and comes out | [`gcm`], [`aad`], [`ciphertext_format`], [`ciphertext_metadata`], [`cdiv`] |
//!
//! A request is read in two steps. `object` takes the JSON object apart without looking into its
//! members, which stay where they are in the body; `fields` then reads each into its type. So a
//! plaintext is decoded from the body straight into its own zeroized buffer (P-45), and a request
//! that is refused can still be logged with the `kmsRequestId` it carried.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::panic
    )
)]

pub mod aad;
pub mod cdiv;
pub mod ciphertext_format;
pub mod ciphertext_metadata;
pub mod error;
mod fields;
pub mod gcm;
pub mod health;
mod json;
pub mod limits;
pub mod log_text;
pub mod metadata;
mod object;
pub mod other_members;
pub mod request;
pub mod request_error;
pub mod response;
pub mod route;

#[cfg(test)]
mod ciphertext_vectors;
