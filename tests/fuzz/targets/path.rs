//! The only path parser: what it accepts, it would print again byte for byte (P-5).
#![no_main]

use libfuzzer_sys::fuzz_target;
use xksd::wire::route;

fuzz_target!(|path: &str| {
    if let Ok(route) = route::parse("POST", path) {
        assert_eq!(route.to_string(), path);
    }
});
