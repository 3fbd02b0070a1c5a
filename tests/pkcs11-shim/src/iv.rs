//! Tokens that make the IV of AES-GCM themselves, played in front of one that wants it from the
//! caller. The bytes come from the real module's C_GenerateRandom, past all rules.

use std::any::Any;
use std::slice;

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_GCM_MESSAGE_PARAMS, CK_GCM_PARAMS, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV,
    CK_SESSION_HANDLE, CK_ULONG, CKG_NO_GENERATE, CKM_AES_GCM, CKR_BUFFER_TOO_SMALL,
    CKR_FUNCTION_NOT_SUPPORTED, CKR_MECHANISM_PARAM_INVALID, CKR_OK,
};

use crate::output::{InputOutput, Message, repeat};
use crate::rule::{IvPlace, IvValue, Rule};

/// Bytes of an IV that is written into the caller's buffer.
const IN_PLACE: usize = 12;
/// Bytes of an IV that follows the tag.
const APPENDED: usize = 16;

/// Arguments of C_EncryptInit.
pub(crate) type EncryptInit = (CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE);

/// What C_Encrypt adds to its output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    iv: [u8; APPENDED],
    /// Bytes of the tag before it.
    tag: usize,
}

/// A mechanism made for the real module in place of the caller's. It refers to itself, so it lies
/// in a box, and is not moved out of it.
pub(crate) struct Rewritten {
    mechanism: CK_MECHANISM,
    params: CK_GCM_PARAMS,
    iv: [u8; APPENDED],
}

/// Makes an IV at a call of C_EncryptInit and puts it where the rule says. Other mechanisms than
/// CKM_AES_GCM are left alone.
///
/// # Errors
/// The answer to give the caller instead of calling the real module.
pub(crate) fn make(
    rule: &Rule,
    place: IvPlace,
    value: IvValue,
    real: &CK_FUNCTION_LIST,
    args: &mut dyn Any,
) -> Result<Option<Box<Rewritten>>, CK_RV> {
    let args = args.downcast_mut::<EncryptInit>().expect("the rule is one for C_EncryptInit");
    // SAFETY: the second argument of C_EncryptInit is null or points to a mechanism.
    let Some(params) = (unsafe { gcm_params(args.1) }) else { return Ok(None) };
    match place {
        IvPlace::InPlace => {
            // SAFETY: the caller's pIv points to ulIvLen bytes, or is null, and as this token
            // writes the IV there, the caller lets us write.
            let buffer = unsafe { bytes(params.pIv, params.ulIvLen) };
            let buffer = buffer.filter(|bytes| bytes.len() == IN_PLACE);
            let buffer = buffer.filter(|bytes| bytes.iter().all(|byte| *byte == 0));
            let buffer = buffer.ok_or(CKR_MECHANISM_PARAM_INVALID)?;
            buffer.copy_from_slice(&fresh_or_same::<IN_PLACE>(rule, value, real, args.0)?);
            Ok(None)
        }
        IvPlace::Appended => {
            if !params.pIv.is_null() && params.ulIvLen != 0 {
                return Err(CKR_MECHANISM_PARAM_INVALID);
            }
            let iv = fresh_or_same(rule, value, real, args.0)?;
            // SAFETY: the mechanism has parameters, so it is there.
            let mut rewritten = Box::new(Rewritten { mechanism: unsafe { *args.1 }, params, iv });
            rewritten.params.pIv = rewritten.iv.as_mut_ptr();
            rewritten.params.ulIvLen = APPENDED as CK_ULONG;
            rewritten.params.ulIvBits = 8 * APPENDED as CK_ULONG;
            rewritten.mechanism.pParameter = (&raw mut rewritten.params).cast();
            args.1 = &raw mut rewritten.mechanism;
            Ok(Some(rewritten))
        }
    }
}

impl Rewritten {
    /// What C_Encrypt is to add.
    pub(crate) fn appended(&self) -> Appended {
        Appended { iv: self.iv, tag: bytes_of_bits(self.params.ulTagBits) }
    }
}

impl Appended {
    /// Before C_Encrypt: whether the caller's buffer has room for the IV too.
    ///
    /// # Errors
    /// The answer to give the caller instead of calling the real module.
    pub(crate) fn check_room(&self, args: &InputOutput) -> Result<(), CK_RV> {
        let (_, _, input, output, length) = *args;
        if output.is_null() || length.is_null() {
            return Ok(());
        }
        let needed = input + (self.tag + APPENDED) as CK_ULONG;
        // SAFETY: not null, and by the contract of C_Encrypt it points to the size of the buffer,
        // which the caller lets us write.
        let length = unsafe { &mut *length };
        if *length < needed {
            *length = needed;
            return Err(CKR_BUFFER_TOO_SMALL);
        }
        Ok(())
    }

    /// After C_Encrypt: adds the IV, or its length where only that was asked for. Gives what is to
    /// be added by the next C_Encrypt in this session.
    pub(crate) fn add(self, args: &InputOutput, answer: CK_RV) -> Option<Self> {
        let (_, _, _, output, length) = *args;
        if answer != CKR_OK || length.is_null() {
            return (answer == CKR_BUFFER_TOO_SMALL).then_some(self);
        }
        // SAFETY: not null, and by the contract of C_Encrypt it points to the length, which the
        // real module has just written.
        let length = unsafe { &mut *length };
        let end = *length;
        *length += APPENDED as CK_ULONG;
        if output.is_null() {
            return Some(self);
        }
        let end = usize::try_from(end).expect("so many bytes are in a buffer");
        // SAFETY: `check_room` has found room behind ciphertext and tag, of which the real module
        // has written exactly `end` bytes; the buffer is ours until the call returns.
        unsafe { slice::from_raw_parts_mut(output.add(end), APPENDED) }.copy_from_slice(&self.iv);
        None
    }
}

/// Makes an IV at a call of C_EncryptMessage, in place of the real module. It must be asked for one of
/// 12 bytes.
///
/// # Errors
/// The answer to give the caller instead of calling the real module.
pub(crate) fn make_for_message(
    rule: &Rule,
    value: IvValue,
    real: &CK_FUNCTION_LIST,
    args: &mut dyn Any,
) -> Result<Box<CK_GCM_MESSAGE_PARAMS>, CK_RV> {
    let args = args.downcast_mut::<Message>().expect("the rule is one for C_EncryptMessage");
    let size = size_of::<CK_GCM_MESSAGE_PARAMS>() as CK_ULONG;
    if args.1.is_null() || args.2 != size {
        return Err(CKR_MECHANISM_PARAM_INVALID);
    }
    // SAFETY: not null, and of the size that CKM_AES_GCM wants. It may lie unaligned.
    let mut params = unsafe { args.1.cast::<CK_GCM_MESSAGE_PARAMS>().read_unaligned() };
    // SAFETY: the caller's pIv points to ulIvLen bytes, or is null, and is written by a token that
    // makes the IV.
    let buffer = unsafe { bytes(params.pIv, params.ulIvLen) };
    let is_asked = params.ivGenerator != CKG_NO_GENERATE;
    let buffer = buffer.filter(|bytes| bytes.len() == IN_PLACE && is_asked);
    let buffer = buffer.ok_or(CKR_MECHANISM_PARAM_INVALID)?;
    buffer.copy_from_slice(&fresh_or_same::<IN_PLACE>(rule, value, real, args.0)?);
    params.ivGenerator = CKG_NO_GENERATE;
    let mut params = Box::new(params);
    args.1 = (&raw mut *params).cast();
    Ok(params)
}

/// A copy of the parameters, where this is CKM_AES_GCM and has some.
///
/// # Safety
/// `mechanism` is null or points to a mechanism that keeps the contract of C_EncryptInit.
unsafe fn gcm_params(mechanism: *mut CK_MECHANISM) -> Option<CK_GCM_PARAMS> {
    // SAFETY: null, or a mechanism, says the caller.
    let mechanism = unsafe { mechanism.as_ref() }?;
    let gcm = mechanism.mechanism == CKM_AES_GCM
        && mechanism.ulParameterLen == size_of::<CK_GCM_PARAMS>() as CK_ULONG
        && !mechanism.pParameter.is_null();
    // SAFETY: not null, and of the size that CKM_AES_GCM wants. It may lie unaligned.
    gcm.then(|| unsafe { mechanism.pParameter.cast::<CK_GCM_PARAMS>().read_unaligned() })
}

/// # Safety
/// `start` is null or points to `length` bytes that may be written while the result is in use.
unsafe fn bytes<'a>(start: *mut u8, length: CK_ULONG) -> Option<&'a mut [u8]> {
    let length = usize::try_from(length).ok()?;
    // SAFETY: not null, so it points to as many bytes, says the caller.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts_mut(start, length) })
}

fn fresh_or_same<const N: usize>(
    rule: &Rule,
    value: IvValue,
    real: &CK_FUNCTION_LIST,
    session: CK_SESSION_HANDLE,
) -> Result<[u8; N], CK_RV> {
    let mut iv = [0; N];
    let generate = real.C_GenerateRandom.ok_or(CKR_FUNCTION_NOT_SUPPORTED)?;
    // SAFETY: the buffer has as many bytes as the call is told.
    match unsafe { generate(session, iv.as_mut_ptr(), N as CK_ULONG) } {
        CKR_OK if value == IvValue::Same => repeat(&mut rule.memory(), &mut iv),
        CKR_OK => {}
        refusal => return Err(refusal),
    }
    Ok(iv)
}

fn bytes_of_bits(bits: CK_ULONG) -> usize {
    usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)
}
