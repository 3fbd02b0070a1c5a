//! The long forms, one after the other, and their table.

use crate::figures::{HEAD, Row};
use crate::world::{Isolation, Scale};
use crate::{
    automatic, chaos, codes, credentials, fleet, library, network, pin, quotas, reload, restart,
    rotation, writes,
};

/// A scenario's name for `SOAK_ONLY`, and itself.
type Scenario = (&'static str, fn(Scale) -> Vec<Row>);

const SCENARIOS: &[Scenario] = &[
    ("pin", |scale| in_both(|isolation| vec![pin::wrong_pin(scale, isolation)])),
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
    ("restart", |scale| {
        let scenarios = [restart::taken_over, restart::restarted];
        let all = scenarios.map(|scenario| Isolation::BOTH.map(|mode| scenario(scale, mode)));
        all.into_iter().flatten().collect()
    }),
    ("reload", |scale| in_both(|isolation| vec![reload::reloaded(scale, isolation)])),
    ("credentials", |scale| vec![credentials::rotated(scale)]),
    ("rotation", |scale| vec![rotation::rotated(scale), automatic::raced(scale)]),
    ("writes", |scale| {
        let mut rows = writes::checked(scale);
        rows.extend([writes::unchecked(scale), writes::uncheckable(scale)]);
        rows
    }),
    ("quotas", quotas::neighbours),
    ("network", |scale| {
        let stopped = Isolation::BOTH.map(|isolation| network::stopped(scale, isolation));
        stopped.into_iter().chain([network::killed(scale)]).flatten().collect()
    }),
    ("fleet", |scale| {
        let scenarios = [fleet::killed, fleet::hung, fleet::slowed, fleet::removed];
        scenarios.map(|scenario| scenario(scale)).into()
    }),
    ("codes", |scale| in_both(|isolation| codes::all(scale, isolation))),
    // All at once: each takes ten minutes, most of which it waits.
    ("chaos", |scale| {
        std::thread::scope(|scope| {
            let two = scope.spawn(move || fleet::chaos(scale));
            let mut rows = in_both(|isolation| vec![chaos::one_token(scale, isolation)]);
            rows.push(two.join().unwrap_or_else(|why| std::panic::resume_unwind(why)));
            rows
        })
    }),
];

/// In both kinds of isolation at once.
fn in_both(scenario: impl Fn(Isolation) -> Vec<Row> + Sync) -> Vec<Row> {
    std::thread::scope(|scope| {
        let threads = Isolation::BOTH.map(|isolation| {
            let scenario = &scenario;
            scope.spawn(move || scenario(isolation))
        });
        let rows = threads.into_iter().map(|thread| thread.join());
        rows.flat_map(|rows| rows.unwrap_or_else(|why| std::panic::resume_unwind(why))).collect()
    })
}

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
