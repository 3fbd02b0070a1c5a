//! xksd: the daemon between AWS KMS and a company's own HSM.
//!
//! AWS KMS can keep its keys outside AWS, in an *external key store* (XKS). It then sends each
//! Encrypt, Decrypt, GetKeyMetadata and GetHealthStatus over HTTPS, signed with SigV4, to a proxy
//! beside the HSM. This library is that proxy; the binary only hands the command line to [`cli`].
//!
//! # The way of a request
//!
//! 1. [`server::listener`] accepts the connection, and [`server::http`] reads head and body within
//!    their bounds.
//! 2. [`server::pipeline`] is the way on, in one function: [`wire::route`] reads the path, which
//!    chooses the [`keystore`]; [`sigv4`] verifies the signature against that key store's
//!    credentials and gives a [`sigv4::Verified`]; [`wire::request`] parses the body;
//!    [`keystore::Keystore::permit`] gives a [`keystore::Permit`] for the key's name.
//! 3. [`operations`] looks the key up among those of the key store's tokens, [`hsm::fleet`], makes it
//!    an [`keystore::AuthorizedKey`], and asks one [`hsm::token`] after the other to encrypt or
//!    decrypt with it.
//! 4. A [`hsm::worker`] takes the job from the token's queue, on a thread that owns one session,
//!    and has two C calls made by [`hsm::pkcs11`]: in a child process, through [`hsm::process`],
//!    or on its own thread.
//! 5. [`wire::response`] writes the answer. A failure anywhere is turned into an error of the
//!    protocol by [`server::rescue`], and [`server::record`] writes down what happened.
//!
//! Beside the requests, a [`hsm::steward`] per token connects, reads the [`catalogue`] and probes, and
//! a [`hsm::fleet::Keeper`] per group of tokens puts the catalogues together. [`counts`] reserves encryptions
//! before they are made, so that the limit of a key holds across crashes.
//!
//! # Layers
//!
//! Each module uses only modules of its own layer and of those below; a test holds this.
//!
//! | layer | modules |
//! |---|---|
//! | 5 process | [`daemon`], [`cli`], [`doctor`], [`config`], [`telemetry`] |
//! | 4 compose | [`server`] |
//! | 3 act | [`operations`], [`lifecycle`], [`client`], [`conformance`], [`catalogue`], [`counts`], [`tls`], [`metrics`], [`traces`], [`audit`] but for what is pure in it, [`hsm::fleet`], [`hsm::token`], [`hsm::lanes`], [`hsm::worker`], [`hsm::steward`], [`hsm::iv`], [`hsm::process`], [`hsm::pkcs11`] |
//! | 2 decide | [`keystore`], [`policy`], [`limits`], [`audit::record`], [`audit::chain`], [`audit::checkpoint`], [`audit::verify`] with [`audit::json`] and [`audit::line`], [`hsm::backend`], [`hsm::fault`], [`hsm::codes`], [`hsm::key`], [`hsm::state`], [`hsm::freeze`], [`hsm::transport`], [`counts::book`], [`counts::ledger`], [`counts::limit`], [`counts::store`] |
//! | 1 protocol | [`wire`], [`sigv4`] |
//! | 0 words | [`names`], [`secret`], [`clock`] |
//!
//! The numbered rules in comments (`P-42`) are those of `docs/conformance.md`.

pub mod audit;
pub mod catalogue;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod conformance;
pub mod counts;
pub mod daemon;
pub mod doctor;
pub mod hsm;
pub mod keystore;
pub mod lifecycle;
pub mod limits;
pub mod metrics;
pub mod names;
pub mod operations;
pub mod policy;
pub mod secret;
pub mod server;
pub mod sigv4;
pub mod telemetry;
pub mod tls;
pub mod traces;
pub mod wire;
