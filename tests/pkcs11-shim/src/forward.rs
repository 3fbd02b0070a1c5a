//! The C functions: each call is counted, obeys the script, and is passed on to the real module.
//!
//! Every call goes through [`obey`].

use std::any::Any;
use std::ffi::{CStr, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys::*;

use crate::function::Function;
use crate::module::Module;
use crate::shim::Shim;
use crate::table::for_each_forwarded_function;

/// Counts the call, obeys the script, and in between lets `real` call the real module.
///
/// Before a successful C_Initialize there is no real module, and the answer is
/// `CKR_CRYPTOKI_NOT_INITIALIZED`, as PKCS#11 wants it for all but two functions.
fn pass<A: Any>(
    function: Function,
    args: A,
    real: impl FnOnce(&CK_FUNCTION_LIST, &A) -> CK_RV,
) -> CK_RV {
    obey(function, args, |shim, args| {
        if function == Function::C_Initialize && shim.load().is_err() {
            // Why has been said on stderr.
            return CKR_GENERAL_ERROR;
        }
        match shim.module() {
            Some(module) => real(module.functions(), args),
            None => CKR_CRYPTOKI_NOT_INITIALIZED,
        }
    })
}

/// The same for a function that PKCS#11 3.0 has brought, and that the real module need not have.
fn pass_newer<A: Any>(
    function: Function,
    args: A,
    real: impl FnOnce(&CK_FUNCTION_LIST_3_0, &A) -> CK_RV,
) -> CK_RV {
    obey(function, args, |shim, args| match shim.module().map(Module::newer_functions) {
        Some(Some(newer)) => real(newer, args),
        Some(None) => CKR_FUNCTION_NOT_SUPPORTED,
        None => CKR_CRYPTOKI_NOT_INITIALIZED,
    })
}

/// Counts the call, and gives what `answer` answers, except where the script says something else.
///
/// The script sees the arguments as a tuple, and may change them.
fn obey<A: Any>(function: Function, mut args: A, answer: impl FnOnce(&Shim, &A) -> CK_RV) -> CK_RV {
    guard(|| {
        let shim = Shim::of_this_process();
        shim.count(function);
        let Some(script) = shim.script() else { return answer(shim, &args) };
        let mut call = script.call(function, &args);
        match call.before(shim.module().map(Module::functions), &mut args) {
            Some(given) => given,
            None => {
                let answer = answer(shim, &args);
                call.after(&args, answer)
            }
        }
    })
}

/// C_GetFunctionList needs no real module, so that a client can load the shim and be told by
/// C_Initialize what is wrong.
fn function_list(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    obey(Function::C_GetFunctionList, (list,), |_, (list,)| {
        if list.is_null() {
            return CKR_ARGUMENTS_BAD;
        }
        // SAFETY: not null, and by the contract of C_GetFunctionList it points to a pointer that
        // the caller lets us write. The list itself is for reading only, as in any module.
        unsafe { list.write((&raw const FUNCTION_LIST).cast_mut()) };
        CKR_OK
    })
}

/// An interface, for reading only.
#[repr(transparent)]
struct Interface(CK_INTERFACE);

// SAFETY: what it points to is constant, and never written.
unsafe impl Sync for Interface {}

/// The interfaces of the shim: all functions, and those of PKCS#11 2.40.
static INTERFACES: [Interface; 2] = [
    interface((&raw const FUNCTION_LIST_3_0).cast()),
    interface((&raw const FUNCTION_LIST).cast()),
];

const fn interface(list: *const c_void) -> Interface {
    Interface(CK_INTERFACE {
        pInterfaceName: c"PKCS 11".as_ptr().cast_mut().cast(),
        pFunctionList: list.cast_mut(),
        flags: 0,
    })
}

/// Like C_GetFunctionList, without a real module: functions that it lacks answer
/// `CKR_FUNCTION_NOT_SUPPORTED`.
fn interface_list(list: *mut CK_INTERFACE, count: *mut CK_ULONG) -> CK_RV {
    obey(Function::C_GetInterfaceList, (list, count), |_, (list, count)| {
        let known = INTERFACES.len() as CK_ULONG;
        // SAFETY: null, or by the contract of the function a number that the caller lets us write.
        let Some(count) = (unsafe { count.as_mut() }) else { return CKR_ARGUMENTS_BAD };
        let room = std::mem::replace(count, known);
        if list.is_null() {
            return CKR_OK;
        }
        if room < known {
            return CKR_BUFFER_TOO_SMALL;
        }
        for (at, interface) in INTERFACES.iter().enumerate() {
            // SAFETY: the caller gives room for so many interfaces.
            unsafe { list.add(at).write(interface.0) };
        }
        CKR_OK
    })
}

/// Without a name or a version, the newest.
fn get_interface(
    name: *mut CK_UTF8CHAR,
    version: *mut CK_VERSION,
    found: *mut *mut CK_INTERFACE,
    flags: CK_FLAGS,
) -> CK_RV {
    let args = (name, version, found, flags);
    obey(Function::C_GetInterface, args, |_, &(name, version, found, flags)| {
        // SAFETY: null, or by the contract of the function a text with a NUL at its end.
        let is_ours = name.is_null() || unsafe { CStr::from_ptr(name.cast()) } == c"PKCS 11";
        // SAFETY: null, or by the contract of the function a version.
        let version = unsafe { version.as_ref() }.map(|version| (version.major, version.minor));
        let at = match version {
            None | Some((3, 0)) => 0,
            Some((2, 40)) => 1,
            Some(_) => return CKR_ARGUMENTS_BAD,
        };
        if !is_ours || flags != 0 || found.is_null() {
            return CKR_ARGUMENTS_BAD;
        }
        // SAFETY: not null, and the caller lets us write a pointer there.
        unsafe { found.write((&raw const INTERFACES[at].0).cast_mut()) };
        CKR_OK
    })
}

/// Turns a panic into `CKR_GENERAL_ERROR`: it must not unwind into the C caller.
fn guard(call: impl FnOnce() -> CK_RV) -> CK_RV {
    // Unwind safe: what a panic may leave behind is a poisoned lock, and the locks ignore that.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(CKR_GENERAL_ERROR)
}

macro_rules! define_entries {
    (
        {$(fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*}
        {$(fn $newer:ident($($newer_arg:ident: $newer_type:ty),* $(,)?);)*}
    ) => {
        /// What the function list points to. Not exported: an executable with symbols of the same
        /// names would otherwise take the calls.
        #[allow(non_snake_case, reason = "the names of PKCS#11, unchanged")]
        mod entry {
            use super::*;

            $(pub(super) unsafe extern "C" fn $name($($arg: $type),*) -> CK_RV {
                pass(Function::$name, ($($arg,)*), |real, &($($arg,)*)| match real.$name {
                    // SAFETY: the arguments are the caller's own, and the caller keeps the contract
                    // of this very function with whatever module it calls. What the script puts
                    // in their place keeps it as well, and lives until the call has returned.
                    Some(function) => unsafe { function($($arg),*) },
                    None => CKR_FUNCTION_NOT_SUPPORTED,
                })
            })*

            pub(super) unsafe extern "C" fn C_GetFunctionList(
                list: *mut *mut CK_FUNCTION_LIST,
            ) -> CK_RV {
                function_list(list)
            }

            $(pub(super) unsafe extern "C" fn $newer($($newer_arg: $newer_type),*) -> CK_RV {
                pass_newer(Function::$newer, ($($newer_arg,)*), |real, &($($newer_arg,)*)| {
                    match real.$newer {
                        // SAFETY: as above.
                        Some(function) => unsafe { function($($newer_arg),*) },
                        None => CKR_FUNCTION_NOT_SUPPORTED,
                    }
                })
            })*

            pub(super) unsafe extern "C" fn C_GetInterfaceList(
                list: *mut CK_INTERFACE,
                count: *mut CK_ULONG,
            ) -> CK_RV {
                interface_list(list, count)
            }

            pub(super) unsafe extern "C" fn C_GetInterface(
                name: *mut CK_UTF8CHAR,
                version: *mut CK_VERSION,
                found: *mut *mut CK_INTERFACE,
                flags: CK_FLAGS,
            ) -> CK_RV {
                get_interface(name, version, found, flags)
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

            $(// SAFETY: as above.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $newer($($newer_arg: $newer_type),*) -> CK_RV {
                // SAFETY: the contract of the two is the same.
                unsafe { entry::$newer($($newer_arg),*) }
            })*

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn C_GetInterfaceList(
                list: *mut CK_INTERFACE,
                count: *mut CK_ULONG,
            ) -> CK_RV {
                interface_list(list, count)
            }

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn C_GetInterface(
                name: *mut CK_UTF8CHAR,
                version: *mut CK_VERSION,
                found: *mut *mut CK_INTERFACE,
                flags: CK_FLAGS,
            ) -> CK_RV {
                get_interface(name, version, found, flags)
            }
        }

        /// The shim's own function list.
        pub(crate) static FUNCTION_LIST: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            C_GetFunctionList: Some(entry::C_GetFunctionList),
            $($name: Some(entry::$name),)*
        };

        /// The same with what PKCS#11 3.0 has brought.
        static FUNCTION_LIST_3_0: CK_FUNCTION_LIST_3_0 = CK_FUNCTION_LIST_3_0 {
            version: CK_VERSION { major: 3, minor: 0 },
            C_GetFunctionList: Some(entry::C_GetFunctionList),
            C_GetInterfaceList: Some(entry::C_GetInterfaceList),
            C_GetInterface: Some(entry::C_GetInterface),
            $($name: Some(entry::$name),)*
            $($newer: Some(entry::$newer),)*
        };
    };
}

for_each_forwarded_function!(define_entries);

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use super::*;
    use crate::handles;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(guard(|| panic!("deliberate")), CKR_GENERAL_ERROR);
        assert_eq!(guard(|| CKR_OK), CKR_OK);
    }

    macro_rules! define_arguments {
        ($({$(fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*})*) => {
            /// Arguments of each function, all of them zero.
            const ARGUMENTS: &[(Function, fn() -> Box<dyn Any>)] = &[$($((Function::$name, || {
                // SAFETY: integers, pointers and optional functions may all be zero.
                Box::new(unsafe { std::mem::zeroed::<($($type,)*)>() })
            }),)*)*];
        };
    }

    for_each_forwarded_function!(define_arguments);

    #[test]
    fn functions_with_an_output_have_the_arguments_of_its_shape() {
        use crate::output::{
            Filled, InputOutput, Message, OutputOnly, Shape, Wrapped, of_function,
        };

        for (function, arguments) in ARGUMENTS {
            let arguments = (*arguments()).type_id();
            let by_arguments = [
                (TypeId::of::<InputOutput>(), Shape::InputOutput),
                (TypeId::of::<OutputOnly>(), Shape::OutputOnly),
                (TypeId::of::<Wrapped>(), Shape::Wrapped),
                (TypeId::of::<Message>(), Shape::Message),
            ];
            let by_arguments = by_arguments.iter().find(|(id, _)| *id == arguments);
            match of_function(*function) {
                // Others with the same arguments read the bytes.
                Some(Shape::Filled) => assert_eq!(arguments, TypeId::of::<Filled>()),
                shape => assert_eq!(shape, by_arguments.map(|(_, shape)| *shape), "{function:?}"),
            }
        }
    }

    #[test]
    fn functions_with_object_handles_are_told_by_their_arguments() {
        let with = |handles: fn(&mut dyn Any) -> usize| {
            let with = ARGUMENTS.iter().filter(move |(_, zeros)| handles(&mut *zeros()) > 0);
            with.map(|(function, _)| function.name()).collect::<Vec<_>>()
        };
        assert_eq!(
            with(|args| handles::arguments(args).len()),
            [
                "C_SetOperationState",
                "C_CopyObject",
                "C_DestroyObject",
                "C_GetObjectSize",
                "C_GetAttributeValue",
                "C_SetAttributeValue",
                "C_EncryptInit",
                "C_DecryptInit",
                "C_DigestKey",
                "C_SignInit",
                "C_SignRecoverInit",
                "C_VerifyInit",
                "C_VerifyRecoverInit",
                "C_WrapKey",
                "C_UnwrapKey",
                "C_DeriveKey",
                // Flags, which `call` leaves alone.
                "C_SessionCancel",
                "C_MessageEncryptInit",
                "C_MessageDecryptInit",
                "C_MessageSignInit",
                "C_MessageVerifyInit",
            ]
        );
        assert_eq!(
            with(|args| handles::results(args).len()),
            [
                "C_CreateObject",
                "C_CopyObject",
                "C_FindObjects",
                "C_GenerateKey",
                "C_GenerateKeyPair",
                "C_UnwrapKey",
                "C_DeriveKey",
            ]
        );
    }
}
