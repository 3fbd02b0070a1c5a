//! What an HSM may hold: `CKA_ID`, labels, and ciphertext metadata that comes back from KMS.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xksd::hsm::state::KeyState;
use xksd::wire::ciphertext_metadata::CiphertextMetadata;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = KeyState::parse(bytes) {
        assert_eq!(state.to_string().as_bytes(), bytes);
    }
    if let Ok(metadata) = CiphertextMetadata::decode(bytes) {
        assert_eq!(metadata.encode(), bytes);
    }
});
