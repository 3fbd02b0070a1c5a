//! The xksd daemon and its tools.

fn main() {}
