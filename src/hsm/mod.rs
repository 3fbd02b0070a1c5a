//! The HSM: what xksd needs of one ([`backend`]), how it fails ([`fault`]), what vendors do
//! differently ([`profile`]), how its keys are described ([`key`], [`state`], [`freeze`]), and how their
//! material travels ([`transport`]).
//!
//! Only [`pkcs11`] knows PKCS#11; [`process`] has it run in a process of its own. Above them,
//! [`worker`] owns sessions on threads of their own, [`lanes`] say whose job is next, [`steward`]
//! watches over a token, [`token`] is what the asynchronous side talks to, and [`fleet`] makes one of
//! several tokens with the same keys.

pub mod backend;
mod breaker;
mod canary;
pub mod codes;
pub mod fault;
pub mod fleet;
pub mod freeze;
pub mod iv;
pub mod key;
pub mod lanes;
mod load;
pub mod pkcs11;
pub mod process;
pub mod profile;
pub mod proof;
mod queue;
mod shared;
pub mod state;
pub mod steward;
pub mod token;
pub mod transport;
pub mod worker;
