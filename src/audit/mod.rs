//! The audit log: one record for each request that was authenticated and each administrative action,
//! chained by hashes, with checkpoints that are signed in the HSM.
//!
//! Pure: [`record`] says what is recorded, [`json`] and [`line`] how it is written and read, [`chain`]
//! how records hang together, [`checkpoint`] what is signed, [`verify`] what is wrong with a log.

pub mod chain;
pub mod checkpoint;
pub mod json;
pub mod line;
pub mod record;
pub mod verify;
