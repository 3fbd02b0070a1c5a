//! AES-GCM in single C calls into buffers of the test's choice.
#![allow(unsafe_code, reason = "what is tested is a C library, down to its lengths and buffers")]

use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use cryptoki_sys::{CK_GCM_PARAMS, CK_MECHANISM, CK_RV, CK_ULONG, CKM_AES_GCM, CKR_OK, Pkcs11};
use support::shim;

/// Bytes of every tag.
pub(crate) const TAG: usize = 16;
/// Additional data of every encryption.
const AAD: &[u8] = b"additional data";

/// The functions of the shim, past `cryptoki`, for a session of `cryptoki`'s.
pub(crate) struct Gcm<'a> {
    pkcs11: Pkcs11,
    session: &'a Session,
    key: ObjectHandle,
}

/// What a call has answered, and the length it has told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: CK_RV,
    pub(crate) told: usize,
    /// The whole buffer, in which all bytes were [`Answer::UNTOUCHED`].
    pub(crate) buffer: Vec<u8>,
}

impl Answer {
    /// No bytes of a ciphertext in these tests are all like this.
    pub(crate) const UNTOUCHED: u8 = 0xaa;

    /// What the caller takes for the output.
    pub(crate) fn output(mut self) -> Vec<u8> {
        assert_eq!(self.code, CKR_OK);
        self.buffer.truncate(self.told);
        self.buffer
    }
}

impl<'a> Gcm<'a> {
    pub(crate) fn new(session: &'a Session, key: ObjectHandle) -> Self {
        // SAFETY: `cryptoki` has loaded and initialised the same library.
        let pkcs11 = unsafe { Pkcs11::new(shim::library()) }.expect("it can be loaded again");
        Self { pkcs11, session, key }
    }

    /// C_EncryptInit; the token may write into `iv`.
    pub(crate) fn encrypt_init(&self, iv: &mut [u8]) -> CK_RV {
        // SAFETY: the mechanism is good while the call lasts, and nobody keeps it.
        self.init(iv, |mechanism| unsafe {
            self.pkcs11.C_EncryptInit(self.session.handle(), mechanism, self.key.handle())
        })
    }

    /// C_Encrypt into a buffer of this size, or only for the length.
    pub(crate) fn encrypt(&self, plaintext: &[u8], size: Option<usize>) -> Answer {
        // SAFETY: input and output are buffers of the lengths that the call is told.
        call(plaintext, size, |input, input_len, output, output_len| unsafe {
            self.pkcs11.C_Encrypt(self.session.handle(), input, input_len, output, output_len)
        })
    }

    /// C_EncryptFinal into a buffer of this size.
    pub(crate) fn encrypt_final(&self, size: usize) -> Answer {
        // SAFETY: as in `encrypt`.
        call(&[], Some(size), |_, _, output, output_len| unsafe {
            self.pkcs11.C_EncryptFinal(self.session.handle(), output, output_len)
        })
    }

    /// C_DecryptInit and C_Decrypt, with room for what comes.
    pub(crate) fn decrypt(&self, iv: &mut [u8], ciphertext: &[u8]) -> Answer {
        // SAFETY: as in `encrypt_init`.
        let code = self.init(iv, |mechanism| unsafe {
            self.pkcs11.C_DecryptInit(self.session.handle(), mechanism, self.key.handle())
        });
        assert_eq!(code, CKR_OK);
        // SAFETY: as in `encrypt`.
        call(ciphertext, Some(ciphertext.len()), |input, input_len, output, output_len| unsafe {
            self.pkcs11.C_Decrypt(self.session.handle(), input, input_len, output, output_len)
        })
    }

    fn init(&self, iv: &mut [u8], call: impl FnOnce(*mut CK_MECHANISM) -> CK_RV) -> CK_RV {
        let mut params = CK_GCM_PARAMS {
            pIv: if iv.is_empty() { std::ptr::null_mut() } else { iv.as_mut_ptr() },
            ulIvLen: iv.len() as CK_ULONG,
            ulIvBits: 8 * iv.len() as CK_ULONG,
            pAAD: AAD.as_ptr().cast_mut(),
            ulAADLen: AAD.len() as CK_ULONG,
            ulTagBits: 8 * TAG as CK_ULONG,
        };
        let mut mechanism = CK_MECHANISM {
            mechanism: CKM_AES_GCM,
            pParameter: (&raw mut params).cast(),
            ulParameterLen: size_of::<CK_GCM_PARAMS>() as CK_ULONG,
        };
        call(&raw mut mechanism)
    }
}

/// C_CloseAllSessions, which `cryptoki` does not have.
pub(crate) fn close_all_sessions(slot: Slot) -> CK_RV {
    // SAFETY: `cryptoki` has loaded and initialised the same library, and the call takes any slot.
    unsafe {
        let pkcs11 = Pkcs11::new(shim::library()).expect("it can be loaded again");
        pkcs11.C_CloseAllSessions(slot.id())
    }
}

fn call(
    input: &[u8],
    size: Option<usize>,
    call: impl FnOnce(*mut u8, CK_ULONG, *mut u8, *mut CK_ULONG) -> CK_RV,
) -> Answer {
    let mut buffer = vec![Answer::UNTOUCHED; size.unwrap_or(0)];
    let output = if size.is_some() { buffer.as_mut_ptr() } else { std::ptr::null_mut() };
    let mut told = buffer.len() as CK_ULONG;
    let input_len = input.len() as CK_ULONG;
    let code = call(input.as_ptr().cast_mut(), input_len, output, &raw mut told);
    Answer { code, told: usize::try_from(told).expect("it is 64 bits"), buffer }
}
