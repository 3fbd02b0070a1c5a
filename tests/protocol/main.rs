//! The daemon as its callers see it: the real process on SoftHSM2, over real connections.
//!
//! Tests name the rules of the protocol that they hold (P-1 to P-81, `docs/conformance.md`). Those
//! that only ask share one daemon, [`world::daemon`]; those that configure, stop or fill it have
//! one of their own. They run in parallel and never sleep to let something happen.

mod activation;
mod audit;
mod audit_disk;
mod authorization;
mod aws_sample;
mod bad_requests;
mod bodies;
mod canary;
mod conformance;
mod control;
mod counts;
mod credentials;
mod drain;
mod framing;
mod handshake;
mod hsm_calls;
mod http2;
mod isolation;
mod key_kinds;
mod listener;
mod metrics;
mod operations;
mod probe;
mod quotas;
mod reload;
mod rotation;
mod sharing;
mod signatures;
mod signers;
mod specification;
mod supervision;
mod targets;
mod tenants;
mod traces;
mod vectors;
mod world;
