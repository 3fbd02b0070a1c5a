//! The XKS protocol as bytes and types: paths, JSON, error names, and the ciphertext format.
//!
//! Everything here is pure: bytes in, values out, nothing waits and nothing panics. Each rule of
//! the protocol has one place.
//!
//! | what | where |
//! |---|---|
//! | which operation a path names | [`route`] |
//! | answers | [`response`], [`health`], [`error`] |
//! | what goes into AES-GCM and comes out | [`gcm`], [`aad`], [`ciphertext_metadata`], [`cdiv`] |

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
pub mod ciphertext_metadata;
pub mod error;
pub mod gcm;
pub mod health;
mod json;
pub mod limits;
pub mod log_text;
pub mod response;
pub mod route;

#[cfg(test)]
mod ciphertext_vectors;
