//! The C functions: each call is counted, held up by the script, and passed on to the real module.
//!
//! Every call but C_GetFunctionList goes through [`pass`]; it is the one place to change when
//! something else is to happen around calls.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys::*;

use crate::function::Function;
use crate::shim::Shim;
use crate::table::for_each_forwarded_function;

/// Counts the call, obeys the script, and then lets `call` call the real module.
///
/// Before a successful C_Initialize there is no real module, and the answer is
/// `CKR_CRYPTOKI_NOT_INITIALIZED`, as PKCS#11 wants it for all but two functions.
fn pass(function: Function, call: impl FnOnce(&CK_FUNCTION_LIST) -> CK_RV) -> CK_RV {
    guard(|| {
        let shim = Shim::of_this_process();
        shim.count(function);
        shim.obey_script(function);
        if function == Function::C_Initialize && shim.load().is_err() {
            // Why has been said on stderr.
            return CKR_GENERAL_ERROR;
        }
        match shim.module() {
            Some(module) => call(module.functions()),
            None => CKR_CRYPTOKI_NOT_INITIALIZED,
        }
    })
}

/// C_GetFunctionList needs no real module, so that a client can load the shim and be told by
/// C_Initialize what is wrong.
fn function_list(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    guard(|| {
        let shim = Shim::of_this_process();
        shim.count(Function::C_GetFunctionList);
        shim.obey_script(Function::C_GetFunctionList);
        if list.is_null() {
            return CKR_ARGUMENTS_BAD;
        }
        // SAFETY: not null, and by the contract of C_GetFunctionList it points to a pointer that
        // the caller lets us write. The list itself is for reading only, as in any module.
        unsafe { list.write((&raw const FUNCTION_LIST).cast_mut()) };
        CKR_OK
    })
}

/// Turns a panic into `CKR_GENERAL_ERROR`: it must not unwind into the C caller.
fn guard(call: impl FnOnce() -> CK_RV) -> CK_RV {
    // Unwind safe: what a panic may leave behind is a poisoned lock, and the locks ignore that.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(CKR_GENERAL_ERROR)
}

macro_rules! define_entries {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {
        /// What the function list points to. Not exported: an executable with symbols of the same
        /// names would otherwise take the calls.
        #[allow(non_snake_case, reason = "the names of PKCS#11, unchanged")]
        mod entry {
            use super::*;

            $(pub(super) unsafe extern "C" fn $name($($arg: $type),*) -> CK_RV {
                pass(Function::$name, |real| match real.$name {
                    // SAFETY: the arguments are the caller's own, unchanged, and the caller keeps
                    // the contract of this very function with whatever module it calls.
                    Some(function) => unsafe { function($($arg),*) },
                    None => CKR_FUNCTION_NOT_SUPPORTED,
                })
            })*

            pub(super) unsafe extern "C" fn C_GetFunctionList(
                list: *mut *mut CK_FUNCTION_LIST,
            ) -> CK_RV {
                function_list(list)
            }
        }

        /// The exported symbols, for clients that look functions up one by one.
        #[allow(non_snake_case, reason = "the names of PKCS#11, unchanged")]
        mod symbol {
            use super::*;

            $(// SAFETY: the name is PKCS#11's, and nothing else in this library defines it.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $type),*) -> CK_RV {
                // SAFETY: the contract of the two is the same.
                unsafe { entry::$name($($arg),*) }
            })*

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
                function_list(list)
            }
        }

        /// The shim's own function list.
        pub(crate) static FUNCTION_LIST: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            C_GetFunctionList: Some(entry::C_GetFunctionList),
            $($name: Some(entry::$name),)*
        };
    };
}

for_each_forwarded_function!(define_entries);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(guard(|| panic!("deliberate")), CKR_GENERAL_ERROR);
        assert_eq!(guard(|| CKR_OK), CKR_OK);
    }
}
