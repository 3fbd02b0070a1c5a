//! The long forms, one after the other, and their table.

use crate::figures::{HEAD, Row};
use crate::world::{Isolation, Scale};
use crate::{codes, library, pin};

/// A scenario's name for `SOAK_ONLY`, and itself.
type Scenario = (&'static str, fn(Scale) -> Vec<Row>);

const SCENARIOS: &[Scenario] = &[
    ("pin", |scale| Isolation::BOTH.map(|mode| pin::wrong_pin(scale, mode)).into()),
    ("library", |scale| {
        let scenarios = [
            library::killed,
            library::stopped,
            library::hung,
            library::hung_on_a_thread,
            library::crashed,
        ];
        scenarios.map(|scenario| scenario(scale)).into()
    }),
    ("codes", |scale| Isolation::BOTH.iter().flat_map(|&mode| codes::all(scale, mode)).collect()),
];

/// `SOAK_ONLY=codes` runs one scenario only.
#[test]
#[ignore = "takes about 25 minutes: make soak"]
#[expect(clippy::print_stdout, reason = "its table is what it is for")]
fn soak() {
    let only = std::env::var("SOAK_ONLY").unwrap_or_default();
    println!("{HEAD}");
    for (name, scenario) in SCENARIOS {
        if only.is_empty() || only == *name {
            for row in scenario(Scale::Long) {
                println!("{row}");
            }
        }
    }
}
