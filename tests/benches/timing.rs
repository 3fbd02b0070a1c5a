//! A piece of work and its floor, timed in turns.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Turns of each, and how long one takes.
const TURNS: usize = 31;
const TURN: Duration = Duration::from_millis(10);

/// `cargo bench` says `--bench`; whoever else runs it wants to know whether it runs.
pub(crate) fn is_measured() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Whether a part is to be run: all are, unless some are named on the command line.
pub(crate) fn is_wanted(part: &str) -> bool {
    let mut named =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

/// What stands above the lines of [`compare`].
pub(crate) fn head() {
    println!("{:44} {:>10} {:>10} {:>7}", "", "ns per op", "floor ns", "ratio");
}

/// Prints what `work` takes beside what `floor` takes: the least that anything could which has the same
/// result. Medians of turns, so that whatever else the machine does meets both.
pub(crate) fn compare<W, F>(name: &str, mut work: impl FnMut() -> W, mut floor: impl FnMut() -> F) {
    let (works, floors) = (fill(&mut work), fill(&mut floor));
    let turns = if is_measured() { TURNS } else { 1 };
    let mut times = [Vec::with_capacity(turns), Vec::with_capacity(turns)];
    for _ in 0..turns {
        times[0].push(turn(&mut work, works));
        times[1].push(turn(&mut floor, floors));
    }
    let [work, floor] = times.map(median);
    println!("{name:44} {work:10.1} {floor:10.1} {:7.2}", work / floor);
}

/// How many operations fill a turn.
fn fill<R>(operation: &mut impl FnMut() -> R) -> u32 {
    if !is_measured() {
        return 1;
    }
    let mut count = 1;
    loop {
        let start = Instant::now();
        let _ = turn(operation, count);
        if start.elapsed() >= TURN {
            return count;
        }
        count *= 2;
    }
}

/// Nanoseconds of one operation.
fn turn<R>(operation: &mut impl FnMut() -> R, count: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        let _ = black_box(operation());
    }
    start.elapsed().as_nanos() as f64 / f64::from(count)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
