//! What is encrypted under a key to find out whether two tokens hold the same one.

/// The plaintext.
pub const TEXT: &[u8] = b"xksd:equal";

/// The AAD.
pub const AAD: &[u8] = b"xksd:proof";

/// How often two keys must differ before they are called different: HSMs flip bits.
pub const TRIES: usize = 3;
