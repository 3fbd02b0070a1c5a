//! The real PKCS#11 module behind the shim.

use std::path::{Path, PathBuf};
use std::ptr;

use cryptoki_sys::{
    CK_C_GetFunctionList, CK_C_GetInterface, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_INTERFACE,
    CK_RV, CK_VERSION, CKR_OK,
};
use libloading::Library;

use crate::forward::FUNCTION_LIST;
use crate::settings::{self, MODULE};

/// Where distributions put SoftHSM2, the module used where none is named.
const SOFTHSM: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// A loaded module. It stays loaded to the end of the process: modules that are unloaded while a
/// thread of theirs is alive, or whose exit handlers then run, crash.
pub(crate) struct Module {
    functions: CK_FUNCTION_LIST,
    /// With those of PKCS#11 3.0, if it has them.
    newer: Option<CK_FUNCTION_LIST_3_0>,
}

/// Why the real module cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("no SoftHSM2 found; install it or name a PKCS#11 module in {MODULE}")]
    NotNamed,
    #[error("cannot load `{0}`: {1}")]
    Load(PathBuf, libloading::Error),
    #[error("`{0}` is no PKCS#11 module: {1}")]
    Symbol(PathBuf, libloading::Error),
    #[error("C_GetFunctionList of `{0}` answered {1:#x}")]
    Refused(PathBuf, CK_RV),
    #[error("C_GetFunctionList of `{0}` gave no list")]
    NoList(PathBuf),
    #[error("{MODULE} names the shim itself: `{0}`")]
    Itself(PathBuf),
}

impl Module {
    /// Loads the module that the settings name, else SoftHSM2.
    pub(crate) fn load() -> Result<Self, ModuleError> {
        match settings::path(MODULE) {
            Some(path) => Self::open(&path),
            None => {
                let found = SOFTHSM.iter().map(Path::new).find(|path| path.exists());
                Self::open(found.ok_or(ModuleError::NotNamed)?)
            }
        }
    }

    /// Its functions, as it gave them.
    pub(crate) fn functions(&self) -> &CK_FUNCTION_LIST {
        &self.functions
    }

    /// Its functions with those of PKCS#11 3.0.
    pub(crate) fn newer_functions(&self) -> Option<&CK_FUNCTION_LIST_3_0> {
        self.newer.as_ref()
    }

    fn open(path: &Path) -> Result<Self, ModuleError> {
        // SAFETY: loading a library runs its initialisers, and that is what the user of the shim
        // asked for by naming it.
        let library = unsafe { Library::new(path) }
            .map_err(|error| ModuleError::Load(path.to_owned(), error))?;
        // SAFETY: the type is the one that PKCS#11 gives the symbol of this name.
        let symbol = unsafe { library.get::<CK_C_GetFunctionList>(b"C_GetFunctionList\0") }
            .map_err(|error| ModuleError::Symbol(path.to_owned(), error))?;
        let mut list = ptr::null_mut();
        let function_list = symbol.expect("libloading refuses a null symbol");
        // SAFETY: the argument points to a pointer that may be written, as the function wants it.
        let answer = unsafe { function_list(&raw mut list) };
        if answer != CKR_OK {
            return Err(ModuleError::Refused(path.to_owned(), answer));
        }
        if list.is_null() {
            return Err(ModuleError::NoList(path.to_owned()));
        }
        if ptr::eq(list, &raw const FUNCTION_LIST) {
            return Err(ModuleError::Itself(path.to_owned()));
        }
        // SAFETY: not null, and a module's list is valid and constant while it is loaded, which
        // `forget` below makes for ever. C_GetFunctionList always gives the layout of 2.x.
        let functions = unsafe { *list };
        let newer = newer_functions(&library);
        std::mem::forget(library);
        Ok(Self { functions, newer })
    }
}

fn newer_functions(library: &Library) -> Option<CK_FUNCTION_LIST_3_0> {
    // SAFETY: the type is the one that PKCS#11 3.0 gives the symbol of this name.
    let symbol = unsafe { library.get::<CK_C_GetInterface>(b"C_GetInterface\0") }.ok()?;
    let get_interface = (*symbol)?;
    let (mut name, mut version) = (*b"PKCS 11\0", CK_VERSION { major: 3, minor: 0 });
    let mut interface: *mut CK_INTERFACE = ptr::null_mut();
    // SAFETY: name and version are only read, and the third points to a pointer that may be written.
    let answer =
        unsafe { get_interface(name.as_mut_ptr(), &raw mut version, &raw mut interface, 0) };
    if answer != CKR_OK {
        return None;
    }
    // SAFETY: null, or constant while the module is loaded, which it is for ever.
    let list = unsafe { interface.as_ref() }?.pFunctionList.cast::<CK_FUNCTION_LIST_3_0>();
    // SAFETY: as above; an interface of this name and version has this layout.
    unsafe { list.as_ref() }.copied()
}
