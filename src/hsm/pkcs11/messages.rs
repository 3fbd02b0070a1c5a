//! The message functions of PKCS#11 3.0: AES-GCM with one C call an operation.
//!
//! C_MessageEncryptInit begins an operation that goes on from message to message. Each key that is
//! used keeps one open for each direction, in a session of its own beside the worker's: NSS softokn
//! knows one operation a session.
//!
//! An open operation holds the key, not its handle: kryoptic and NSS go on encrypting with a key that
//! was destroyed, or may not encrypt any more, and the handle may be another key's by then. None is
//! therefore used that was begun before the token's keys were last read, nor for longer than
//! [`AGE_MAX`].

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cryptoki_sys::{
    CK_BYTE, CK_FUNCTION_LIST_3_0, CK_GCM_MESSAGE_PARAMS, CK_GENERATOR_FUNCTION, CK_MECHANISM,
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CKG_GENERATE_RANDOM, CKG_NO_GENERATE,
    CKM_AES_GCM,
};
use zeroize::Zeroizing;

use super::data::check_iv;
use super::session::Pkcs11Session;
use crate::hsm::backend::{IV_LEN, ObjectHandle, Sealed, TAG_LEN};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::secret::Plaintext;
use crate::wire::gcm::Iv;

/// How many keys keep an operation open, for each session that serves requests and each direction.
const KEYS_MAX: usize = 4;

/// Age from which on an operation is begun anew: so soon a key is refused that another tool has
/// destroyed or denied, however seldom the keys are read.
const AGE_MAX: Duration = Duration::from_secs(1);

type Init = unsafe extern "C" fn(CK_SESSION_HANDLE, *mut CK_MECHANISM, CK_OBJECT_HANDLE) -> CK_RV;
type Crypt = unsafe extern "C" fn(
    CK_SESSION_HANDLE,
    *mut c_void,
    CK_ULONG,
    *mut CK_BYTE,
    CK_ULONG,
    *mut CK_BYTE,
    CK_ULONG,
    *mut CK_BYTE,
    *mut CK_ULONG,
) -> CK_RV;
type Final = unsafe extern "C" fn(CK_SESSION_HANDLE) -> CK_RV;

/// The message functions of a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageFunctions {
    encrypt: Functions,
    decrypt: Functions,
}

/// Those of one direction, with their names.
#[derive(Debug, Clone, Copy)]
struct Functions {
    init: (&'static str, Init),
    crypt: (&'static str, Crypt),
    end: (&'static str, Final),
}

impl MessageFunctions {
    /// Takes them from the list, if it has all.
    pub(super) fn of(list: &CK_FUNCTION_LIST_3_0) -> Option<Self> {
        let encrypt = Functions {
            init: ("C_MessageEncryptInit", list.C_MessageEncryptInit?),
            crypt: ("C_EncryptMessage", list.C_EncryptMessage?),
            end: ("C_MessageEncryptFinal", list.C_MessageEncryptFinal?),
        };
        let decrypt = Functions {
            init: ("C_MessageDecryptInit", list.C_MessageDecryptInit?),
            crypt: ("C_DecryptMessage", list.C_DecryptMessage?),
            end: ("C_MessageDecryptFinal", list.C_MessageDecryptFinal?),
        };
        Some(Self { encrypt, decrypt })
    }
}

/// What a session keeps open beside itself.
#[derive(Default)]
pub(super) struct Operations {
    encrypting: Vec<Operation>,
    decrypting: Vec<Operation>,
}

/// A session with at most one operation.
struct Operation {
    session: Pkcs11Session,
    /// The handle that the key had when it was begun; `None`: none is active.
    key: Option<u64>,
    begun: Instant,
    used: Instant,
    /// How often the keys had been read before it was begun.
    reading: u64,
}

/// What happened to the operation that a message was for.
enum Begun {
    Now,
    Before,
}

impl Pkcs11Session {
    /// Encrypts under an IV that the token makes.
    pub(super) fn encrypt_message(
        &mut self,
        functions: MessageFunctions,
        key: ObjectHandle,
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, Fault> {
        self.check_generation(key)?;
        let (mut iv, mut tag) = ([0; IV_LEN], [0; TAG_LEN]);
        // Of all generators this one alone does not repeat its IVs in another session of the key's.
        let parameters = parameters(&mut iv, CKG_GENERATE_RANDOM, &mut tag);
        // Room for a tag, so that a module that appends it is found out by the length.
        let mut output = vec![0_u8; plaintext.len() + TAG_LEN];
        let mut operations = std::mem::take(&mut self.operations.encrypting);
        let message = Message { parameters, aad, input: plaintext, output: &mut output };
        let result = self.pass(functions.encrypt, &mut operations, key, message);
        self.operations.encrypting = operations;
        let length = result?;
        if length != plaintext.len() {
            let what = "not the length of the plaintext";
            return Err(Fault::nonsense("C_EncryptMessage", what));
        }
        let iv = Iv::Twelve(iv);
        self.link.token_ivs.believe(&iv)?;
        output.truncate(length);
        Ok(Sealed { iv, ciphertext: output, tag })
    }

    pub(super) fn decrypt_message(
        &mut self,
        functions: MessageFunctions,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<Plaintext, Fault> {
        self.check_generation(key)?;
        check_iv(iv, "C_DecryptMessage")?;
        let (mut iv, mut tag) = (iv.to_vec(), *tag);
        let parameters = parameters(&mut iv, CKG_NO_GENERATE, &mut tag);
        // Zeroized on every way out: kryoptic has written to it when it finds that the tag does not
        // fit.
        let mut output = Zeroizing::new(vec![0_u8; ciphertext.len() + TAG_LEN]);
        let mut operations = std::mem::take(&mut self.operations.decrypting);
        let message = Message { parameters, aad, input: ciphertext, output: &mut output };
        let result = self.pass(functions.decrypt, &mut operations, key, message);
        self.operations.decrypting = operations;
        if result? != ciphertext.len() {
            let what = "not the length of the ciphertext";
            return Err(Fault::nonsense("C_DecryptMessage", what));
        }
        // Shortening keeps the allocation, tail and all, which `Plaintext` zeroizes to its capacity.
        let mut plaintext = std::mem::take(&mut *output);
        plaintext.truncate(ciphertext.len());
        Ok(Plaintext::new(plaintext))
    }

    /// Passes a message to the key's operation; gives the length of what came back.
    fn pass(
        &self,
        functions: Functions,
        operations: &mut Vec<Operation>,
        key: ObjectHandle,
        mut message: Message<'_>,
    ) -> Result<usize, Fault> {
        loop {
            let (mut operation, begun) = self.take_operation(functions, operations, key)?;
            match operation.pass(functions, &mut message) {
                Ok(length) => {
                    operations.push(operation);
                    return Ok(length);
                }
                Err(fault) => {
                    // Modules disagree on whether an operation survives a failure. One that may be
                    // in any state goes with its session.
                    if fault.kind.keeps_session() && operation.end(functions).is_ok() {
                        operations.push(operation);
                    }
                    let vanished = Cause::Returned(codes::OPERATION_NOT_INITIALIZED);
                    match begun {
                        // The module has ended it meanwhile; nothing was encrypted.
                        Begun::Before if fault.cause == vanished => {}
                        _ => return Err(fault),
                    }
                }
            }
        }
    }

    /// Takes the key's operation out of those that are open, or begins one.
    fn take_operation(
        &self,
        functions: Functions,
        operations: &mut Vec<Operation>,
        key: ObjectHandle,
    ) -> Result<(Operation, Begun), Fault> {
        let reading = self.link.readings.load(Ordering::Acquire);
        let of_key = operations.iter().position(|operation| operation.key == Some(key.number));
        let idle = operations.iter().position(|operation| operation.key.is_none());
        let mut operation = match of_key.or(idle) {
            Some(at) => operations.swap_remove(at),
            None => self.make_room(operations)?,
        };
        if operation.key == Some(key.number) && operation.is_current(reading) {
            return Ok((operation, Begun::Before));
        }
        if operation.end(functions).is_err() {
            operation = Operation::none(self.open_another()?);
        }
        match operation.begin(functions, key, reading) {
            Ok(()) => Ok((operation, Begun::Now)),
            Err(fault) => {
                if fault.kind.keeps_session() {
                    operations.push(operation);
                }
                Err(fault)
            }
        }
    }

    /// A session for one key more: a new one, or that of the key that was not used for longest.
    fn make_room(&self, operations: &mut Vec<Operation>) -> Result<Operation, Fault> {
        let by_use = |(_, operation): &(usize, &Operation)| operation.used;
        let oldest = operations.iter().enumerate().min_by_key(by_use).map(|(at, _)| at);
        let no_room = |fault: &Fault| fault.kind == FaultKind::Busy;
        match (oldest, operations.len() < KEYS_MAX) {
            (Some(oldest), false) => Ok(operations.swap_remove(oldest)),
            (oldest, _) => match (oldest, self.open_another()) {
                (Some(oldest), Err(fault)) if no_room(&fault) => Ok(operations.swap_remove(oldest)),
                (_, opened) => opened.map(Operation::none),
            },
        }
    }
}

impl Operation {
    fn none(session: Pkcs11Session) -> Self {
        let now = Instant::now();
        Self { session, key: None, begun: now, used: now, reading: 0 }
    }

    fn is_current(&self, reading: u64) -> bool {
        self.reading == reading && self.begun.elapsed() < AGE_MAX
    }

    fn begin(
        &mut self,
        functions: Functions,
        key: ObjectHandle,
        reading: u64,
    ) -> Result<(), Fault> {
        let mut mechanism =
            CK_MECHANISM { mechanism: CKM_AES_GCM, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        (self.begun, self.reading) = (Instant::now(), reading);
        let (name, init) = functions.init;
        let handle = self.session.handle;
        self.session.call(name, |_| {
            // SAFETY: the function has this type, and the mechanism lives through the call.
            Some(unsafe { init(handle, &mut mechanism, key.number as CK_ULONG) })
        })?;
        self.key = Some(key.number);
        Ok(())
    }

    /// Ends what is active, if anything is.
    fn end(&mut self, functions: Functions) -> Result<(), Fault> {
        if self.key.take().is_none() {
            return Ok(());
        }
        let (name, end) = functions.end;
        let handle = self.session.handle;
        let ended = self.session.call(name, |_| {
            // SAFETY: the function has this type and takes any number.
            Some(unsafe { end(handle) })
        });
        match ended {
            // A failure has ended it (kryoptic).
            Err(Fault { cause: Cause::Returned(codes::OPERATION_NOT_INITIALIZED), .. }) => Ok(()),
            other => other,
        }
    }

    fn pass(&mut self, functions: Functions, message: &mut Message<'_>) -> Result<usize, Fault> {
        self.used = Instant::now();
        let Message { parameters, aad, input, output } = message;
        let mut length = output.len() as CK_ULONG;
        let aad_pointer = if aad.is_empty() { ptr::null_mut() } else { aad.as_ptr().cast_mut() };
        let (name, crypt) = functions.crypt;
        let handle = self.session.handle;
        self.session.call(name, |_| {
            // SAFETY: the function has this type. The parameters, and the IV and tag they point to,
            // live through the call and may be written; AAD and input are only read, although C says
            // `*mut`; `output` has room for `length` bytes.
            Some(unsafe {
                crypt(
                    handle,
                    ptr::from_mut(&mut parameters.gcm).cast(),
                    size_of::<CK_GCM_MESSAGE_PARAMS>() as CK_ULONG,
                    aad_pointer,
                    aad.len() as CK_ULONG,
                    input.as_ptr().cast_mut(),
                    input.len() as CK_ULONG,
                    output.as_mut_ptr(),
                    &mut length,
                )
            })
        })?;
        Ok(length as usize)
    }
}

/// What one call takes.
struct Message<'a> {
    parameters: Parameters<'a>,
    aad: &'a [u8],
    input: &'a [u8],
    output: &'a mut [u8],
}

/// `CK_GCM_MESSAGE_PARAMS` and what it points to.
struct Parameters<'a> {
    gcm: CK_GCM_MESSAGE_PARAMS,
    _iv_and_tag: std::marker::PhantomData<&'a mut [u8]>,
}

fn parameters<'a>(
    iv: &'a mut [u8],
    generator: CK_GENERATOR_FUNCTION,
    tag: &'a mut [u8; TAG_LEN],
) -> Parameters<'a> {
    let gcm = CK_GCM_MESSAGE_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: iv.len() as CK_ULONG,
        ulIvFixedBits: 0,
        ivGenerator: generator,
        pTag: tag.as_mut_ptr(),
        ulTagBits: (TAG_LEN * 8) as CK_ULONG,
    };
    Parameters { gcm, _iv_and_tag: std::marker::PhantomData }
}
