//! The C calls of an operation and nothing else, on one thread: `tests/speed.sh` compares xksd with it.
//!
//! `bare_calls MODULE LABEL PIN_FILE KEY OPERATION SECONDS` prints one line of JSON: how many operations were
//! done, the processor time of each, and how long the token took to be logged in to. Operations are
//! `encrypt`, `encrypt-checked`, which decrypts what it has encrypted, and `decrypt`. IVs come from
//! C_GenerateRandom, 64 at a time, as xksd has them made.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![allow(unsafe_code, reason = "calls a C library, without anything between")]

use std::error::Error;
use std::path::Path;
use std::ptr::{from_mut, null_mut};
use std::time::{Duration, Instant};

use cryptoki_sys::*;
use rustix::time::{ClockId, clock_gettime};

const IV_LEN: usize = 12;
const IVS: usize = 64;
const TAG_LEN: usize = 16;
/// As `xksd bench` has them: a data key, and an AAD in xksd's frame.
const PLAINTEXT: [u8; 32] = [0x5a; 32];
const AAD: [u8; 84] = [0xa5; 84];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [module, label, pin_file, key, operation, seconds] = &arguments[..] else {
        println!("bare_calls MODULE LABEL PIN_FILE KEY OPERATION SECONDS; tests/speed.sh runs it");
        return Ok(());
    };
    let pin = std::fs::read_to_string(pin_file)?;
    let start = Instant::now();
    let token = Token::login(Path::new(module), label, pin.trim_end())?;
    let login = start.elapsed();
    let key = token.key(key)?;
    let mut ivs = Ivs { bytes: [0; IV_LEN * IVS], used: IVS };
    let first = token.encrypt(key, ivs.next(&token)?)?;
    let duration = Duration::from_secs_f64(seconds.parse()?);
    let (begun, processor) = (Instant::now(), processor_time());
    let mut done = 0_u64;
    while begun.elapsed() < duration {
        for _ in 0..16 {
            match operation.as_str() {
                "encrypt" => {
                    token.encrypt(key, ivs.next(&token)?)?;
                }
                "encrypt-checked" => {
                    let sealed = token.encrypt(key, ivs.next(&token)?)?;
                    token.decrypt(key, &sealed)?;
                }
                "decrypt" => token.decrypt(key, &first)?,
                _ => return Err(format!("no operation `{operation}`").into()),
            }
            done += 1;
        }
    }
    let each = (processor_time() - processor).as_secs_f64() * 1e6 / done as f64;
    let login = login.as_secs_f64() * 1e3;
    println!("{{\"operations\":{done},\"cpu_us\":{each:.3},\"login_ms\":{login:.3}}}");
    Ok(())
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

type Iv = [u8; IV_LEN];

/// Random bytes for the next IVs.
struct Ivs {
    bytes: [u8; IV_LEN * IVS],
    used: usize,
}

impl Ivs {
    fn next(&mut self, token: &Token) -> Result<Iv, Box<dyn Error>> {
        if self.used == IVS {
            let (at, len) = (self.bytes.as_mut_ptr(), self.bytes.len() as CK_ULONG);
            // SAFETY: a buffer of this length.
            token.call("C_GenerateRandom", |list| unsafe {
                Some(list.C_GenerateRandom?(token.session, at, len))
            })?;
            self.used = 0;
        }
        let at = self.used * IV_LEN;
        self.used += 1;
        Ok(self.bytes[at..at + IV_LEN].try_into()?)
    }
}

struct Sealed {
    iv: Iv,
    bytes: [u8; PLAINTEXT.len() + TAG_LEN],
}

/// A session that is logged in.
struct Token {
    list: CK_FUNCTION_LIST,
    session: CK_SESSION_HANDLE,
}

impl Token {
    fn login(module: &Path, label: &str, pin: &str) -> Result<Self, Box<dyn Error>> {
        let mut list = null_mut();
        // SAFETY: a PKCS#11 module, which stays loaded, gives its own list of functions.
        let list = unsafe {
            let library = Box::leak(Box::new(libloading::Library::new(module)?));
            let get: libloading::Symbol<
                '_,
                unsafe extern "C" fn(CK_FUNCTION_LIST_PTR_PTR) -> CK_RV,
            > = library.get(b"C_GetFunctionList")?;
            if get(&mut list) != CKR_OK || list.is_null() {
                return Err("C_GetFunctionList gave no list".into());
            }
            *list
        };
        let mut token = Self { list, session: 0 };
        // The module may use the locks of the system, as xksd lets it.
        let mut settings = CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags: CKF_OS_LOCKING_OK,
            pReserved: null_mut(),
        };
        let at = from_mut(&mut settings).cast();
        // SAFETY: lives longer than the call.
        token.call("C_Initialize", |list| unsafe { Some(list.C_Initialize?(at)) })?;
        let slot = token.slot(label)?;
        let mut session = 0;
        // SAFETY: the handle is written to where it is.
        token.call("C_OpenSession", |list| unsafe {
            Some(list.C_OpenSession?(slot, CKF_SERIAL_SESSION, null_mut(), None, &mut session))
        })?;
        token.session = session;
        let mut pin = pin.as_bytes().to_vec();
        let (at, len) = (pin.as_mut_ptr(), pin.len() as CK_ULONG);
        // SAFETY: a PIN of this length.
        token.call("C_Login", |list| unsafe {
            Some(list.C_Login?(token.session, CKU_USER, at, len))
        })?;
        Ok(token)
    }

    /// The slot whose token has this label.
    fn slot(&self, label: &str) -> Result<CK_SLOT_ID, Box<dyn Error>> {
        let mut slots = [0; 64];
        let mut count = slots.len() as CK_ULONG;
        // SAFETY: room for so many.
        self.call("C_GetSlotList", |list| unsafe {
            Some(list.C_GetSlotList?(CK_TRUE, slots.as_mut_ptr(), &mut count))
        })?;
        for slot in &slots[..usize::try_from(count)?] {
            let mut info = CK_TOKEN_INFO::default();
            // SAFETY: room for what is known of a token.
            self.call("C_GetTokenInfo", |list| unsafe {
                Some(list.C_GetTokenInfo?(*slot, &mut info))
            })?;
            if String::from_utf8_lossy(&info.label).trim_end() == label {
                return Ok(*slot);
            }
        }
        Err(format!("no token `{label}`").into())
    }

    /// The secret key with this label.
    fn key(&self, label: &str) -> Result<CK_OBJECT_HANDLE, Box<dyn Error>> {
        let mut class = CKO_SECRET_KEY;
        let mut label_bytes = label.as_bytes().to_vec();
        let mut template = [
            CK_ATTRIBUTE {
                type_: CKA_CLASS,
                pValue: from_mut(&mut class).cast(),
                ulValueLen: size_of::<CK_OBJECT_CLASS>() as CK_ULONG,
            },
            CK_ATTRIBUTE {
                type_: CKA_LABEL,
                pValue: label_bytes.as_mut_ptr().cast(),
                ulValueLen: label_bytes.len() as CK_ULONG,
            },
        ];
        let (mut found, mut count) = (0, 0);
        // SAFETY: two attributes that live longer than the calls.
        self.call("C_FindObjectsInit", |list| unsafe {
            Some(list.C_FindObjectsInit?(self.session, template.as_mut_ptr(), 2))
        })?;
        // SAFETY: room for one handle.
        self.call("C_FindObjects", |list| unsafe {
            Some(list.C_FindObjects?(self.session, &mut found, 1, &mut count))
        })?;
        // SAFETY: ends the search that this session has begun.
        self.call("C_FindObjectsFinal", |list| unsafe {
            Some(list.C_FindObjectsFinal?(self.session))
        })?;
        if count == 1 { Ok(found) } else { Err(format!("no key `{label}`").into()) }
    }

    fn encrypt(&self, key: CK_OBJECT_HANDLE, iv: Iv) -> Result<Sealed, Box<dyn Error>> {
        let (mut sealed, mut plaintext) = (Sealed { iv, bytes: [0; 48] }, PLAINTEXT);
        let mut len = sealed.bytes.len() as CK_ULONG;
        with_gcm(sealed.iv, |mechanism| {
            // SAFETY: the mechanism lives longer than the call.
            self.call("C_EncryptInit", |list| unsafe {
                Some(list.C_EncryptInit?(self.session, mechanism, key))
            })
        })?;
        let (from, to) = (plaintext.as_mut_ptr(), sealed.bytes.as_mut_ptr());
        // SAFETY: buffers of these lengths.
        self.call("C_Encrypt", |list| unsafe {
            Some(list.C_Encrypt?(self.session, from, PLAINTEXT.len() as CK_ULONG, to, &mut len))
        })?;
        if len == 48 { Ok(sealed) } else { Err("a ciphertext of another length".into()) }
    }

    fn decrypt(&self, key: CK_OBJECT_HANDLE, sealed: &Sealed) -> Result<(), Box<dyn Error>> {
        let (mut sealed_bytes, mut plaintext) = (sealed.bytes, [0; 48]);
        let mut len = plaintext.len() as CK_ULONG;
        with_gcm(sealed.iv, |mechanism| {
            // SAFETY: the mechanism lives longer than the call.
            self.call("C_DecryptInit", |list| unsafe {
                Some(list.C_DecryptInit?(self.session, mechanism, key))
            })
        })?;
        let (from, to) = (sealed_bytes.as_mut_ptr(), plaintext.as_mut_ptr());
        // SAFETY: buffers of these lengths.
        self.call("C_Decrypt", |list| unsafe {
            Some(list.C_Decrypt?(self.session, from, 48, to, &mut len))
        })?;
        if plaintext[..32] == PLAINTEXT { Ok(()) } else { Err("another plaintext".into()) }
    }

    fn call(
        &self,
        name: &str,
        function: impl FnOnce(&CK_FUNCTION_LIST) -> Option<CK_RV>,
    ) -> Result<(), Box<dyn Error>> {
        match function(&self.list) {
            Some(CKR_OK) => Ok(()),
            Some(code) => Err(format!("{name} gave {code:#x}").into()),
            None => Err(format!("the module has no {name}").into()),
        }
    }
}

/// Has a call made with the mechanism CKM_AES_GCM.
fn with_gcm<R>(mut iv: Iv, call: impl FnOnce(CK_MECHANISM_PTR) -> R) -> R {
    let mut aad = AAD;
    let mut gcm = CK_GCM_PARAMS {
        pIv: iv.as_mut_ptr(),
        ulIvLen: IV_LEN as CK_ULONG,
        ulIvBits: 8 * IV_LEN as CK_ULONG,
        pAAD: aad.as_mut_ptr(),
        ulAADLen: AAD.len() as CK_ULONG,
        ulTagBits: 8 * TAG_LEN as CK_ULONG,
    };
    let mut mechanism = CK_MECHANISM {
        mechanism: CKM_AES_GCM,
        pParameter: from_mut(&mut gcm).cast(),
        ulParameterLen: size_of::<CK_GCM_PARAMS>() as CK_ULONG,
    };
    call(&mut mechanism)
}
