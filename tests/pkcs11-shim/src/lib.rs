//! A PKCS#11 2.40 module that forwards to a real one, counts the calls per function, and delays
//! them by a script. How to use it is in the README beside this crate.
//!
//! The way of a call: the entry made for its function in `forward` → counted in the file of `counts`
//! → held up as the script of `script_file` says (grammar and actions: `script`) → the function of
//! the same name in the real `module`. `shim` holds these together, one per process; `function` and
//! `table` name the functions.
#![allow(
    unsafe_code,
    reason = "a C library that calls a C library: every entry is C, and the counters lie in shared \
              memory"
)]

mod counts;
mod forward;
mod function;
mod module;
mod script;
mod script_file;
mod shim;
mod table;
