//! Encryptions, counted for each version of a key against the 2^32 that AES-GCM with random IVs
//! allows (NIST SP 800-38D, 8.3).
//!
//! Every proxy counts its own, and may use its share of the whole: one over the size of the fleet. It
//! reserves encryptions in blocks, in a file, before it uses them, so that it counts too many after a
//! crash and never too few. Where the file is lost, each version that there is counts as having used
//! the whole share.
//!
//! [`book`] is the accounting, [`ledger`] what is written down, [`store`] where.

pub mod book;
pub mod ledger;
pub mod limit;
pub mod store;
