//! The frame of the AAD for the HSM, and the CDIV.

use std::hint::black_box;

use aws_lc_rs::digest::{SHA256, digest};
use xksd::wire::aad::frame;
use xksd::wire::cdiv::CdivInput;
use xksd::wire::ciphertext_metadata::CiphertextMetadata;
use xksd::wire::gcm::{Iv, Tag};

use crate::timing::compare;
use crate::wire::AAD;

/// The floor of a frame is a copy of its bytes to where there is room, that of a CDIV is the SHA-256 of the
/// same bytes in one piece.
pub(crate) fn measure() {
    let metadata = CiphertextMetadata::FOREIGN.encode();
    let iv = Iv::try_from(&[3; 12][..]).expect("12 bytes are right");
    let tag = Tag::new([4; 16]);
    for (aad, size) in [(AAD, 32), (&[0xa5; 8192], 4096)] {
        let framed = frame(aad, &metadata).expect("it fits");
        let mut room = framed.clone();
        let floor = || {
            room.copy_from_slice(black_box(&framed));
            black_box(&mut room).len()
        };
        let name = format!("cdiv: frame of an AAD of {} bytes", aad.len());
        compare(&name, || frame(black_box(aad), &metadata).expect("it fits"), floor);

        let ciphertext = vec![0x5a; size];
        let input = CdivInput {
            aad,
            ciphertext_metadata: &metadata,
            iv: &iv,
            ciphertext: &ciphertext,
            tag: &tag,
        };
        let bytes = [aad, &metadata, iv.as_bytes(), &ciphertext, tag.as_bytes()].concat();
        let name = format!("cdiv: CDIV over {} bytes", bytes.len());
        compare(&name, || input.digest(), || digest(&SHA256, &bytes));
    }
}
