//! What the parts of a request cost, each with its floor beside it: `cargo bench --bench floors`.
//!
//! The floor is the least that could have the same result: the hash over the same bytes, the copy of
//! them, the scan of the JSON. Names of parts on the command line leave out the others:
//! `cargo bench --bench floors policy`.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

mod audit;
mod cdiv;
mod policy;
mod sigv4;
mod timing;
mod wire;

fn main() {
    let parts: [(&str, fn()); 5] = [
        ("sigv4", sigv4::measure),
        ("wire", wire::measure),
        ("cdiv", cdiv::measure),
        ("audit", audit::measure),
        ("policy", policy::measure),
    ];
    timing::head();
    for (_, measure) in parts.into_iter().filter(|(name, _)| timing::is_wanted(name)) {
        measure();
    }
}
