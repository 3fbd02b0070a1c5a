//! The real PKCS#11 module behind the shim.

use std::path::{Path, PathBuf};
use std::ptr;

use cryptoki_sys::{CK_C_GetFunctionList, CK_FUNCTION_LIST, CK_RV, CKR_OK};
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
        std::mem::forget(library);
        Ok(Self { functions })
    }
}
