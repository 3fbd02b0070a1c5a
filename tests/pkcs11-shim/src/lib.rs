//! A PKCS#11 3.0 module that forwards to a real one, counts the calls per function, and by a
//! script makes them late, wrong or fatal. How to use it is in the README beside this crate.
//!
//! The way of a call: the entry made for its function in `forward` → counted in the file of
//! `counts` → the rules for the function in the script of `script_file` (`call`, before) → the
//! function of the same name in the real `module` → the rules once more (`call`, after).
//!
//! `shim` holds these together, one per process, as `settings` say; `function` and `table` name the functions.
//! A script is read by `script`, `grammar` and `words` with the names of `codes`; `plays` are
//! scripts that come with the shim. A `rule` selects calls, some by `chance`, and acts on them, with
//! `output`, `iv`, `handles`, `identity` and what `sessions` remembers.
#![allow(
    unsafe_code,
    reason = "a C library that calls a C library: every entry is C, and the counters lie in shared \
              memory"
)]

mod call;
mod chance;
mod codes;
mod counts;
mod forward;
mod function;
mod grammar;
mod handles;
mod identity;
mod iv;
mod module;
mod output;
mod plays;
mod rule;
mod script;
mod script_file;
mod sessions;
mod settings;
mod shim;
mod table;
mod words;
