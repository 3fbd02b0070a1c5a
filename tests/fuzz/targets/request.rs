//! The four request bodies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xksd::wire::limits::Limits;
use xksd::wire::request::{DecryptRequest, EncryptRequest, HealthRequest, MetadataRequest};

fuzz_target!(|body: &[u8]| {
    let limits = Limits::default();
    if let Ok(request) = EncryptRequest::parse(body, limits) {
        assert!((1..=limits.text()).contains(&request.plaintext.len()));
        assert!(request.aad.is_none_or(|aad| aad.len() <= limits.aad()));
    }
    if let Ok(request) = DecryptRequest::parse(body, limits) {
        assert!((1..=limits.text()).contains(&request.ciphertext.len()));
        assert!(request.ciphertext_metadata.is_none_or(|metadata| metadata.len() <= 20));
    }
    // Whatever one operation takes of the metadata, health, which wants the least, takes as well.
    if MetadataRequest::parse(body).is_ok() {
        assert!(HealthRequest::parse(body).is_ok());
    }
});
