//! xksd: the daemon between AWS KMS and a company's own HSM.

pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod hsm;
pub mod keystore;
pub mod metrics;
pub mod names;
pub mod operations;
pub mod secret;
pub mod server;
pub mod sigv4;
pub mod telemetry;
pub mod tls;
pub mod wire;
