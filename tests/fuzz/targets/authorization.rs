//! The Authorization header, before anything about it is authenticated.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xksd::sigv4::authorization;

fuzz_target!(|value: &str| {
    if let Ok(parsed) = authorization::parse(value) {
        assert!(parsed.signed_headers.iter().all(|name| value.contains(name)));
    }
});
