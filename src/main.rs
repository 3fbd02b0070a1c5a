//! The xksd daemon and its tools.

use std::process::ExitCode;

fn main() -> ExitCode {
    xksd::cli::main()
}
