//! The test harness of xksd.
//!
//! Helpers panic with a message instead of returning errors: a test has nothing better to do.

pub mod child;
pub mod contract;
pub mod foreign;
pub mod gate;
pub mod memory;
pub mod shim;
pub mod token;
