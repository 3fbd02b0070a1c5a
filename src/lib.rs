//! xksd: the daemon between AWS KMS and a company's own HSM.

pub mod catalogue;
pub mod clock;
pub mod hsm;
pub mod metrics;
pub mod names;
pub mod secret;
pub mod sigv4;
pub mod wire;
