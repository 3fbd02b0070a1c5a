//! Names that the module gives itself and its token.

use std::any::Any;
use std::mem::offset_of;

use cryptoki_sys::{CK_INFO, CK_SLOT_ID, CK_TOKEN_INFO};

use crate::function::Function;

/// A text of fixed length, filled up with blanks, in what a function gives (PKCS#11 2.40, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) function: Function,
    pub(crate) name: &'static str,
    offset: usize,
    /// In bytes.
    pub(crate) length: usize,
}

/// All that may be given another text.
const FIELDS: &[Field] = &[
    field(Function::C_GetInfo, "manufacturer", offset_of!(CK_INFO, manufacturerID), 32),
    field(Function::C_GetInfo, "library", offset_of!(CK_INFO, libraryDescription), 32),
    field(Function::C_GetTokenInfo, "label", offset_of!(CK_TOKEN_INFO, label), 32),
    field(Function::C_GetTokenInfo, "manufacturer", offset_of!(CK_TOKEN_INFO, manufacturerID), 32),
    field(Function::C_GetTokenInfo, "model", offset_of!(CK_TOKEN_INFO, model), 16),
    field(Function::C_GetTokenInfo, "serial", offset_of!(CK_TOKEN_INFO, serialNumber), 16),
];

const fn field(function: Function, name: &'static str, offset: usize, length: usize) -> Field {
    Field { function, name, offset, length }
}

impl Field {
    /// The fields of what this function gives.
    pub(crate) fn of(function: Function) -> impl Iterator<Item = Self> {
        FIELDS.iter().copied().filter(move |field| field.function == function)
    }

    /// Writes the text into the structure that the arguments of the successful call point to.
    pub(crate) fn write(self, text: &str, args: &dyn Any) {
        let info: *mut u8 = if let Some((info,)) = args.downcast_ref::<(*mut CK_INFO,)>() {
            info.cast()
        } else if let Some((_, info)) = args.downcast_ref::<(CK_SLOT_ID, *mut CK_TOKEN_INFO)>() {
            info.cast()
        } else {
            return;
        };
        if info.is_null() {
            return;
        }
        // SAFETY: the call of `self.function` has succeeded, so its argument points to the
        // structure of that function, in which the field lies and which the caller lets us write.
        let bytes = unsafe { std::slice::from_raw_parts_mut(info.add(self.offset), self.length) };
        bytes.fill(b' ');
        bytes[..text.len()].copy_from_slice(text.as_bytes());
    }
}
