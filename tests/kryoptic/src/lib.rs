//! The one symbol that makes kryoptic a PKCS#11 module.

use kryoptic_lib::fns::general::fn_get_function_list;
use kryoptic_lib::pkcs11::{CK_FUNCTION_LIST_PTR_PTR, CK_RV};

/// `C_GetFunctionList` (PKCS#11 2.40, section 5.1)
// SAFETY: nothing else in this library bears the name.
#[unsafe(no_mangle)]
pub extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    fn_get_function_list(list)
}
