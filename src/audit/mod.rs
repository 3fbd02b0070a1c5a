//! The audit log: one record for each request that was authenticated and each administrative action,
//! chained by hashes, with checkpoints that are signed in the HSM.
//!
//! Pure: [`record`] says what is recorded, [`json`] and [`line`] how it is written and read, [`chain`]
//! how records hang together, [`checkpoint`] what is signed, [`verify`] what is wrong with a log.
//!
//! On disk: [`store`] holds the files of one log ([`disk`], [`names`], `recovery`). A running [`log`] is
//! what requests leave their records with; `writer` is its thread, and [`copies`] go elsewhere. The
//! [`sealer`] has checkpoints signed, as [`seal`] says. Administrators' commands write a [`journal`].

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod chain;
pub mod checkpoint;
pub mod copies;
pub mod disk;
pub mod journal;
pub mod json;
pub mod line;
pub mod log;
pub mod names;
pub mod record;
mod recovery;
pub mod seal;
pub mod sealer;
pub mod store;
pub mod verify;
mod writer;
