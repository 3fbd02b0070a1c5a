//! xksd: the daemon between AWS KMS and a company's own HSM.

pub mod clock;
pub mod names;
pub mod secret;
pub mod sigv4;
