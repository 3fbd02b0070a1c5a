//! The test harness of xksd.
//!
//! Helpers panic with a message instead of returning errors: a test has nothing better to do.
//!
//! [`site::Site`] makes what a daemon is started from, [`daemon::Daemon`] runs it,
//! [`request::Request`] is what KMS sends, and [`http::Connection`] carries it.

pub mod audit_log;
pub mod aws_sample;
pub mod caller;
pub mod certificates;
pub mod child;
pub mod collector;
pub mod contract;
pub mod daemon;
pub mod foreign;
pub mod gate;
pub mod http;
pub mod load;
pub mod manager;
pub mod memory;
pub mod network_hsm;
pub mod process;
pub mod request;
pub mod shim;
pub mod site;
pub mod soft_tokens;
pub mod token;
pub mod tool;
pub mod volume;

use std::io::Write as _;

/// Notes something that this machine cannot run; `make test` prints and counts these lines.
///
/// # Panics
/// Where the file of these lines cannot be written.
pub fn not_run(what: &str) {
    if let Some(path) = std::env::var_os("NOT_RUN_FILE") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(format!("{what}\n").as_bytes()));
        written.unwrap_or_else(|error| panic!("cannot note `{what}`: {error}"));
    }
}

/// The cryptography of the TLS clients here.
fn tls_provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}
