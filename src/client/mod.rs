//! A signing XKS client, as KMS is one: `bench`, `doctor` and conformance runs are built on it.
//!
//! ```text
//! Endpoint ─┐                        ┌─ Signer: SigV4 over host, date, body
//!           ├─ Connector ─ connect ─ Connection ─ call(operation) ─ typed answer or CallError
//! Trust ────┘   TCP, TLS, HTTP/1.1 or HTTP/2 (each step timed)
//! ```
//!
//! Nothing is hidden from the caller: connections are made by an explicit [`Connector::connect`],
//! kept alive until dropped, never replaced in silence, and nothing is ever sent twice. Each step
//! has the connector's time limit. [`load`] measures with it.

pub mod answer;
pub mod connection;
pub mod connector;
pub mod endpoint;
pub mod load;
pub mod request;
#[cfg(test)]
mod tests;
pub mod trust;
pub mod witness;

pub use answer::{EncryptAnswer, HealthAnswer, MetadataAnswer};
pub use connection::{CallError, Connection, RawAnswer};
pub use connector::{ConnectError, Connector, HttpVersion};
pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use request::{Caller, Encrypt, IntegrityValue, Prepared, Signer};
pub use trust::{ClientIdentity, Trust, TrustError};
pub use witness::Witness;
