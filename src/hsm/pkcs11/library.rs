//! A PKCS#11 module in this process: loaded once, initialised once, never finalised.
//!
//! C_Finalize with a call in flight crashes several modules, and so does leaving through `exit`
//! while a thread is inside one. The library is therefore kept to the end, and the process leaves
//! through [`exit_now`], which runs no destructors.

use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use cryptoki_sys::{
    CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_INTERFACE, CK_RV,
    CK_UTF8CHAR, CK_VERSION, CKF_OS_LOCKING_OK,
};

use super::messages::MessageFunctions;
use crate::hsm::codes::{self, Code};
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::profile::{self, Profile};
use crate::metrics::TokenMetrics;

/// A loaded module.
pub struct Library {
    path: PathBuf,
    /// What C_Initialize is given in its reserved argument, if anything.
    initialization: Option<CString>,
    list: OnceLock<FunctionList>,
    /// Asked for once; `None`: it has none.
    message_functions: OnceLock<Option<MessageFunctions>>,
    /// How often C_Initialize has succeeded. Each time the old sessions and handles are gone, and
    /// their numbers are given out again.
    initialisations: AtomicU64,
    /// A function said that the library is not initialised, although it was: it has to be again.
    lost: AtomicBool,
    /// That it can't be loaded was said.
    load_failed: AtomicBool,
    /// Held while loading and initialising, which happens on the stewards' threads only.
    initialising: Mutex<()>,
}

/// The module's function list. It lives as long as the process: the library is never unloaded.
pub(super) struct FunctionList {
    list: *const CK_FUNCTION_LIST,
    /// Where there are others than those of PKCS#11 2.40.
    get_interface: Option<GetInterface>,
}

/// C_GetInterface
type GetInterface = unsafe extern "C" fn(
    *mut CK_UTF8CHAR,
    *mut CK_VERSION,
    *mut *mut CK_INTERFACE,
    CK_FLAGS,
) -> CK_RV;

// SAFETY: the list is constant data of a module that is never unloaded, and a module that was
// initialised with CKF_OS_LOCKING_OK may be called from any thread (PKCS#11 2.40, C_Initialize).
unsafe impl Send for FunctionList {}
// SAFETY: as above.
unsafe impl Sync for FunctionList {}

/// Why a file is no PKCS#11 module.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The dynamic linker refused it.
    #[error("cannot load `{}`: {cause}", path.display())]
    NotLoaded {
        /// The module.
        path: PathBuf,
        /// The linker's own words.
        cause: libloading::Error,
    },
    /// It is a library, but no PKCS#11 module.
    #[error("`{}` is no PKCS#11 module: it has no C_GetFunctionList", path.display())]
    NoFunctionList {
        /// The library.
        path: PathBuf,
    },
}

impl Library {
    /// Names a module; it is loaded when first used, so that a library that hangs while being
    /// loaded does not keep the daemon from starting.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            initialization: None,
            list: OnceLock::new(),
            message_functions: OnceLock::new(),
            initialisations: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            load_failed: AtomicBool::new(false),
            initialising: Mutex::new(()),
        }
    }

    /// The same, with a text for the reserved argument of C_Initialize, which PKCS#11 wants to be
    /// null and NSS softokn to say where its database is.
    pub fn with_initialization(self, text: Option<CString>) -> Self {
        Self { initialization: text, ..self }
    }

    /// A module made of these functions, initialised.
    #[cfg(test)]
    pub(super) fn of_functions(functions: CK_FUNCTION_LIST) -> Self {
        let library = Self::new("a test's own");
        let list = Box::leak(Box::new(functions));
        let _ = library.list.set(FunctionList { list, get_interface: None });
        library
    }

    /// The same, with these functions of PKCS#11 3.0 beside them.
    #[cfg(test)]
    pub(super) fn of_both(functions: CK_FUNCTION_LIST, newer: &CK_FUNCTION_LIST_3_0) -> Self {
        let library = Self::of_functions(functions);
        let _ = library.message_functions.set(MessageFunctions::of(newer));
        library
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Counts how often it was initialised.
    pub(super) fn initialisation(&self) -> u64 {
        self.initialisations.load(Ordering::Acquire)
    }

    /// Loads and initialises it, or does nothing if that was done and it has not lost its state.
    pub(super) fn initialize(&self, metrics: &TokenMetrics) -> Result<(), Fault> {
        let _only_one = self.initialising.lock().expect("a panic here ends the steward anyway");
        if let Some(list) = self.list.get() {
            if self.lost.load(Ordering::Acquire) {
                self.initialize_list(list, metrics)?;
            }
            return Ok(());
        }
        let list = load(&self.path).map_err(|error| {
            // Once: the steward tries again and again.
            if !self.load_failed.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "cannot load the PKCS#11 module");
            }
            let why = "the module cannot be loaded";
            Fault::refused(FaultKind::LibraryLost, "dlopen", why)
        })?;
        self.initialize_list(&list, metrics)?;
        let _ = self.list.set(list);
        Ok(())
    }

    fn initialize_list(&self, list: &FunctionList, metrics: &TokenMetrics) -> Result<(), Fault> {
        let mut arguments = CK_C_INITIALIZE_ARGS {
            CreateMutex: None,
            DestroyMutex: None,
            LockMutex: None,
            UnlockMutex: None,
            flags: CKF_OS_LOCKING_OK,
            pReserved: self
                .initialization
                .as_ref()
                .map_or(ptr::null_mut(), |text| text.as_ptr().cast_mut().cast()),
        };
        let initialised = observed(list, &profile::GENERIC, metrics, "C_Initialize", |list| {
            // SAFETY: the arguments live through the call, and the text, which is only read, as long
            // as the library; the module may lock with the OS's own.
            list.C_Initialize.map(|f| unsafe { f(ptr::from_mut(&mut arguments).cast()) })
        });
        match initialised {
            Err(Fault { cause: Cause::Returned(codes::CRYPTOKI_ALREADY_INITIALIZED), .. }) => {}
            other => other?,
        }
        self.initialisations.fetch_add(1, Ordering::AcqRel);
        self.lost.store(false, Ordering::Release);
        Ok(())
    }

    /// Its message functions, if it has all of them.
    pub(super) fn message_functions(&self, metrics: &TokenMetrics) -> Option<MessageFunctions> {
        *self.message_functions.get_or_init(|| {
            let get_interface = self.list.get()?.get_interface?;
            let (mut name, mut version) = (*INTERFACE, VERSION_3_0);
            let mut interface: *mut CK_INTERFACE = ptr::null_mut();
            let given = self.call(metrics, "C_GetInterface", |_| {
                // SAFETY: name and version are only read and live through the call; `interface` is a
                // valid place for the answer.
                Some(unsafe { get_interface(name.as_mut_ptr(), &mut version, &mut interface, 0) })
            });
            given.ok()?;
            // SAFETY: null, or constant data of a module that is never unloaded.
            let list = unsafe { interface.as_ref() }?.pFunctionList.cast::<CK_FUNCTION_LIST_3_0>();
            // SAFETY: as above. The interface of this name and version begins with its version, and
            // has this layout if that is 3.0 or later (PKCS#11 3.0, section 3.6).
            let is_so = !list.is_null() && unsafe { (*list).version }.major >= VERSION_3_0.major;
            // SAFETY: as above.
            is_so.then(|| unsafe { MessageFunctions::of(&*list) }).flatten()
        })
    }

    /// Calls one C function: names it, times it, counts it, and turns its code into a fault.
    pub(super) fn call(
        &self,
        metrics: &TokenMetrics,
        function: &'static str,
        call: impl FnOnce(&CK_FUNCTION_LIST) -> Option<CK_RV>,
    ) -> Result<(), Fault> {
        self.call_as(&profile::GENERIC, metrics, function, call)
    }

    /// The same, for a token of this profile.
    pub(super) fn call_as(
        &self,
        profile: &Profile,
        metrics: &TokenMetrics,
        function: &'static str,
        call: impl FnOnce(&CK_FUNCTION_LIST) -> Option<CK_RV>,
    ) -> Result<(), Fault> {
        let Some(list) = self.list.get() else {
            let why = "the module is not initialised";
            return Err(Fault::refused(FaultKind::LibraryLost, function, why));
        };
        let result = observed(list, profile, metrics, function, call);
        if let Err(Fault { kind: FaultKind::LibraryLost, .. }) = result {
            self.lost.store(true, Ordering::Release);
        }
        result
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Library({})", self.path.display())
    }
}

/// Loads a module for good and asks it for its function list.
pub(super) fn load(path: &Path) -> Result<FunctionList, LoadError> {
    type GetFunctionList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
    let no_list = || LoadError::NoFunctionList { path: path.to_owned() };
    // SAFETY: loading runs the module's initialisers. The operator named it to be run.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|cause| LoadError::NotLoaded { path: path.to_owned(), cause })?;
    // Never unloaded: threads of its own may be running in it.
    let library = Box::leak(Box::new(library));
    // SAFETY: C_GetFunctionList has this type in every PKCS#11 version.
    let symbol = unsafe { library.get::<GetFunctionList>(b"C_GetFunctionList\0") };
    let get_function_list = symbol.map_err(|_| no_list())?;
    // SAFETY: C_GetInterface has this type since PKCS#11 3.0, which brought it.
    let get_interface = unsafe { library.get::<GetInterface>(b"C_GetInterface\0") };
    let get_interface = get_interface.ok().map(|symbol| *symbol);
    let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
    // SAFETY: `list` is a valid place for the answer; the call is allowed before C_Initialize.
    let code = unsafe { get_function_list(&mut list) };
    if code != codes::OK.0 || list.is_null() {
        return Err(no_list());
    }
    Ok(FunctionList { list, get_interface })
}

fn observed(
    list: &FunctionList,
    profile: &Profile,
    metrics: &TokenMetrics,
    function: &'static str,
    call: impl FnOnce(&CK_FUNCTION_LIST) -> Option<CK_RV>,
) -> Result<(), Fault> {
    // SAFETY: not null (checked when loaded) and never unloaded.
    let list = unsafe { &*list.list };
    let start = Instant::now();
    let Some(code) = call(list) else {
        return Err(Fault::refused(FaultKind::Bug, function, "the module lacks this function"));
    };
    let code = Code(code);
    metrics.hsm_call(function, start.elapsed(), code);
    tracing::trace!(function, code = code.0, "PKCS#11 call");
    if code == codes::OK { Ok(()) } else { Err(Fault::returned_by(profile, function, code)) }
}

/// A text field of PKCS#11: fixed length, padded with blanks.
pub(super) fn padded(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches([' ', '\0']).to_owned()
}

/// Name and version of the interface that has the message functions.
const INTERFACE: &[u8; 8] = b"PKCS 11\0";
const VERSION_3_0: CK_VERSION = CK_VERSION { major: 3, minor: 0 };

/// Ends the process at once, without destructors and exit handlers.
///
/// A module's own exit handlers free what its threads may still be using: SoftHSM crashes 14
/// times out of 15 when left through `exit` with a thread inside.
pub fn exit_now(code: i32) -> ! {
    use std::io::Write;
    let _ = std::io::stdout().flush();
    let _ = std::io::stderr().flush();
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}
