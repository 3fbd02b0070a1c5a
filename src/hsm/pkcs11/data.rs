//! The data path: random numbers, AES-GCM encryption and decryption, two C calls each.
//!
//! Every output buffer is sized before the call. Asking for the length first would cost a round
//! trip more to a network HSM, and NSS softokn answers it wrongly. Every length that comes back
//! is checked before anything is sliced by it.

use std::ptr;

use cryptoki_sys::{CK_GCM_PARAMS, CK_MECHANISM, CK_ULONG, CKM_AES_GCM};

use super::session::Pkcs11Session;
use crate::hsm::backend::{IV_LEN, ObjectHandle, Sealed, TAG_LEN};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::iv;
use crate::hsm::profile::IvSource;
use crate::secret::Plaintext;
use crate::wire::gcm::Iv;

/// What a token appends that makes its IVs so.
const APPENDED_IV_LEN: usize = 16;

impl Pkcs11Session {
    pub(super) fn fill_random(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        self.check_connection()?;
        let length = buffer.len() as CK_ULONG;
        let handle = self.handle;
        self.call("C_GenerateRandom", |list| {
            // SAFETY: `buffer` has room for `length` bytes.
            list.C_GenerateRandom.map(|f| unsafe { f(handle, buffer.as_mut_ptr(), length) })
        })
    }

    pub(super) fn gcm_encrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8; IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, Fault> {
        self.check_generation(key)?;
        if *iv == iv::NONE && self.link.profile.iv_source == IvSource::HostFromTokenRng {
            return Err(Fault::refused(FaultKind::Bug, "C_EncryptInit", "there is no IV"));
        }
        // A copy, since some tokens write an IV of their own over the one they are given; zeros are
        // the question for one.
        let mut used_iv = match self.link.profile.iv_source {
            IvSource::HostFromTokenRng => *iv,
            IvSource::TokenInPlace | IvSource::TokenAppended => [0; IV_LEN],
        };
        let appended = match self.link.profile.iv_source {
            IvSource::TokenAppended => APPENDED_IV_LEN,
            IvSource::HostFromTokenRng | IvSource::TokenInPlace => 0,
        };
        let passed_iv = if appended == 0 { &mut used_iv[..] } else { &mut [] };
        let mut parameters = Parameters::new(passed_iv, aad);
        let mut mechanism = parameters.mechanism();
        let handle = self.handle;
        self.call("C_EncryptInit", |list| {
            // SAFETY: mechanism, parameters, IV and AAD live through the call.
            list.C_EncryptInit.map(|f| unsafe { f(handle, &mut mechanism, key.number as CK_ULONG) })
        })?;
        let expected = plaintext.len() + TAG_LEN + appended;
        let mut output = vec![0_u8; expected];
        let mut length = output.len() as CK_ULONG;
        self.call("C_Encrypt", |list| {
            // SAFETY: the input is only read, although C says `*mut`; `output` has room for
            // `length` bytes. Parameters, IV and AAD still live: some modules read them here, and
            // some write the IV here.
            list.C_Encrypt.map(|f| unsafe {
                let input = plaintext.as_ptr().cast_mut();
                f(handle, input, plaintext.len() as CK_ULONG, output.as_mut_ptr(), &mut length)
            })
        })?;
        parameters.keep();
        if length as usize != expected {
            return Err(Fault::nonsense("C_Encrypt", "not the length that plaintext and tag make"));
        }
        let made_iv = output.split_off(plaintext.len() + TAG_LEN);
        let iv = match self.link.profile.iv_source {
            IvSource::HostFromTokenRng if used_iv == *iv => Iv::Twelve(used_iv),
            IvSource::HostFromTokenRng => {
                let what = "the token used an IV of its own: its profile is not the right one";
                return Err(Fault::nonsense("C_Encrypt", what));
            }
            IvSource::TokenInPlace => Iv::Twelve(used_iv),
            IvSource::TokenAppended => Iv::try_from(&*made_iv)
                .map_err(|_| Fault::nonsense("C_Encrypt", "an IV of no known length"))?,
        };
        if self.link.profile.iv_source.is_token() {
            self.link.token_ivs.believe(&iv)?;
        }
        let tag = output.split_off(plaintext.len());
        let tag = tag.try_into().map_err(|_| Fault::nonsense("C_Encrypt", "no tag"))?;
        Ok(Sealed { iv, ciphertext: output, tag })
    }

    pub(super) fn gcm_decrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<Plaintext, Fault> {
        self.check_generation(key)?;
        check_iv(iv, "C_DecryptInit")?;
        let mut iv = iv.to_vec();
        let mut parameters = Parameters::new(&mut iv, aad);
        let mut mechanism = parameters.mechanism();
        let handle = self.handle;
        self.call("C_DecryptInit", |list| {
            // SAFETY: mechanism, parameters, IV and AAD live through the call.
            list.C_DecryptInit.map(|f| unsafe { f(handle, &mut mechanism, key.number as CK_ULONG) })
        })?;
        let input = [ciphertext, tag].concat();
        // As long as the input, which SoftHSM wants although the plaintext is shorter. Zeroized on
        // every way out: a token may have written to it although the tag does not fit.
        let mut output = zeroize::Zeroizing::new(vec![0_u8; input.len()]);
        let mut length = output.len() as CK_ULONG;
        self.call("C_Decrypt", |list| {
            // SAFETY: the input is only read, although C says `*mut`; `output` has room for
            // `length` bytes. Parameters, IV and AAD still live: some modules read them here.
            list.C_Decrypt.map(|f| unsafe {
                let bytes = input.as_ptr().cast_mut();
                f(handle, bytes, input.len() as CK_ULONG, output.as_mut_ptr(), &mut length)
            })
        })?;
        parameters.keep();
        if length as usize != ciphertext.len() {
            return Err(Fault::nonsense("C_Decrypt", "not the length of the ciphertext"));
        }
        // Shortening keeps the allocation, tail and all, which `Plaintext` zeroizes to its capacity.
        let mut plaintext = std::mem::take(&mut *output);
        plaintext.truncate(ciphertext.len());
        Ok(Plaintext::new(plaintext))
    }

    /// A handle of an earlier connection may name another key by now, and the session's own number
    /// another session.
    pub(super) fn check_generation(&self, key: ObjectHandle) -> Result<(), Fault> {
        self.check_connection()?;
        if key.generation == self.generation {
            return Ok(());
        }
        let why = "the key was looked up in an earlier connection";
        Err(Fault::refused(FaultKind::HandleStale, "key handle", why))
    }
}

/// P-50. SoftHSM would take an IV of any length, even of none.
pub(super) fn check_iv(iv: &[u8], function: &'static str) -> Result<(), Fault> {
    if matches!(iv.len(), 12 | 16) {
        return Ok(());
    }
    let why = "the IV has neither 12 nor 16 bytes";
    Err(Fault::refused(FaultKind::BadCiphertext, function, why))
}

/// `CK_GCM_PARAMS` and what it points to.
struct Parameters<'a> {
    gcm: CK_GCM_PARAMS,
    _iv: std::marker::PhantomData<&'a mut [u8]>,
}

impl<'a> Parameters<'a> {
    fn new(iv: &'a mut [u8], aad: &'a [u8]) -> Self {
        let aad_pointer = if aad.is_empty() { ptr::null_mut() } else { aad.as_ptr().cast_mut() };
        let gcm = CK_GCM_PARAMS {
            // Null asks a token that appends its IV for one.
            pIv: if iv.is_empty() { ptr::null_mut() } else { iv.as_mut_ptr() },
            ulIvLen: iv.len() as CK_ULONG,
            // Always set: zero once broke decryption on Luna.
            ulIvBits: (iv.len() * 8) as CK_ULONG,
            pAAD: aad_pointer,
            ulAADLen: aad.len() as CK_ULONG,
            ulTagBits: (TAG_LEN * 8) as CK_ULONG,
        };
        Self { gcm, _iv: std::marker::PhantomData }
    }

    fn mechanism(&mut self) -> CK_MECHANISM {
        CK_MECHANISM {
            mechanism: CKM_AES_GCM,
            pParameter: ptr::from_mut(&mut self.gcm).cast(),
            ulParameterLen: size_of::<CK_GCM_PARAMS>() as CK_ULONG,
        }
    }

    /// Marks the point up to which the parameters must live.
    fn keep(self) {}
}
