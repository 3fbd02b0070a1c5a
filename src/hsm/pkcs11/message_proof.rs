//! The proof that a token's message functions encrypt as its others do, under IVs that it makes anew.
//!
//! A mistake here would be found by nobody until data is lost: an IV that repeats gives the key's
//! authentication away, and what C_EncryptMessage gives has to be decrypted, for years to come, by
//! other modules and other proxies with C_Decrypt.

use super::session::Pkcs11Session;
use crate::hsm::backend::{IV_LEN, ObjectHandle, Sealed, Session, TAG_LEN};
use crate::hsm::canary::probe_key;
use crate::hsm::fault::{Fault, FaultKind};

/// How many messages prove it.
const MESSAGES: usize = 8;

/// After so many the operation is begun anew, and another session takes part.
const HALF: usize = MESSAGES / 2;

const TEXT: &[u8] = b"xksd:admission";
const AAD: &[u8] = b"xksd:messages";

/// Has a token prove it under a probe key, with a session for two calls an operation and two for one
/// call, none of which is used for anything else.
///
/// # Errors
/// The token's, or that it gave no proof: its message functions must not be used then.
pub(super) fn prove(
    plain: &mut Pkcs11Session,
    [first, second]: [&mut Pkcs11Session; 2],
) -> Result<(), Fault> {
    let key = probe_key(plain)?;
    let mut ivs = Vec::with_capacity(MESSAGES);
    for number in 0..MESSAGES {
        // As after a reading: the operation is begun anew.
        if number == HALF {
            first.keys_were_read()?;
        }
        // Operations of two sessions, side by side.
        let session = if number % 2 == 0 { &mut *first } else { &mut *second };
        let sealed = session.encrypt(key, &[0; IV_LEN], AAD, TEXT)?;
        opens(plain, key, &sealed, "C_Decrypt")?;
        opens(session, key, &sealed, "C_DecryptMessage")?;
        refuses(session, key, sealed.clone(), number)?;
        let iv: [u8; IV_LEN] = sealed.iv.as_bytes().try_into().map_err(|_| no_proof("an IV"))?;
        ivs.push(iv);
    }
    if !are_random(&ivs) {
        return Err(no_proof("IVs that are not random"));
    }
    // And the other way round.
    let mut iv = [0; IV_LEN];
    plain.random(&mut iv)?;
    let sealed = plain.encrypt(key, &iv, AAD, TEXT)?;
    opens(first, key, &sealed, "C_DecryptMessage")
}

fn no_proof(what: &'static str) -> Fault {
    Fault::nonsense("C_EncryptMessage", what)
}

fn opens(
    session: &mut Pkcs11Session,
    key: ObjectHandle,
    sealed: &Sealed,
    function: &'static str,
) -> Result<(), Fault> {
    let Sealed { iv, ciphertext, tag } = sealed;
    let opened = session.decrypt(key, iv.as_bytes(), AAD, ciphertext, tag)?;
    if opened.expose() == TEXT {
        return Ok(());
    }
    Err(Fault::nonsense(function, "the probe was decrypted to something else"))
}

/// What does not fit is refused, whichever part of it.
fn refuses(
    session: &mut Pkcs11Session,
    key: ObjectHandle,
    sealed: Sealed,
    number: usize,
) -> Result<(), Fault> {
    let Sealed { iv, mut ciphertext, mut tag } = sealed;
    let mut aad = AAD.to_vec();
    match number % 3 {
        0 => tag[number % TAG_LEN] ^= 1,
        1 => aad[number % AAD.len()] ^= 1,
        _ => ciphertext[number % TEXT.len()] ^= 1,
    }
    match session.decrypt(key, iv.as_bytes(), &aad, &ciphertext, &tag) {
        Err(fault) if matches!(fault.kind, FaultKind::BadCiphertext | FaultKind::Ambiguous) => {
            Ok(())
        }
        Err(fault) => Err(fault),
        Ok(_) => Err(Fault::nonsense("C_DecryptMessage", "what does not fit was decrypted")),
    }
}

/// Whether these look like random bytes and not like a counter, whose first bytes do not change: two
/// sessions would count alike. Of random ones a byte is the same in all of them once in 2^56 times.
fn are_random(ivs: &[[u8; IV_LEN]]) -> bool {
    let mut sorted = ivs.to_vec();
    sorted.sort_unstable();
    let differ = sorted.windows(2).all(|pair| pair[0] != pair[1]);
    differ && (0..IV_LEN).all(|at| ivs.iter().any(|iv| iv[at] != ivs[0][at]))
}
