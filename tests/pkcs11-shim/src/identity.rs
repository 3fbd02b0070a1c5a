//! Names that the module gives itself and its token, and what the token says of itself in numbers.

use std::any::Any;
use std::mem::offset_of;

use cryptoki_sys::{CK_INFO, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG};

use crate::function::Function;

/// A text of fixed length, filled up with blanks, or a number, in what a function gives (PKCS#11 2.40,
/// 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) function: Function,
    pub(crate) name: &'static str,
    offset: usize,
    /// In bytes.
    pub(crate) length: usize,
    kind: Kind,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// In place of the number that is there.
    Number,
    /// Bits that are added to those that are there.
    Flags,
}

/// All that may be given another text.
const FIELDS: &[Field] = &[
    field(Function::C_GetInfo, "manufacturer", offset_of!(CK_INFO, manufacturerID), 32),
    field(Function::C_GetInfo, "library", offset_of!(CK_INFO, libraryDescription), 32),
    field(Function::C_GetTokenInfo, "label", offset_of!(CK_TOKEN_INFO, label), 32),
    field(Function::C_GetTokenInfo, "manufacturer", offset_of!(CK_TOKEN_INFO, manufacturerID), 32),
    field(Function::C_GetTokenInfo, "model", offset_of!(CK_TOKEN_INFO, model), 16),
    field(Function::C_GetTokenInfo, "serial", offset_of!(CK_TOKEN_INFO, serialNumber), 16),
    number("sessions", offset_of!(CK_TOKEN_INFO, ulMaxSessionCount), Kind::Number),
    number("flags", offset_of!(CK_TOKEN_INFO, flags), Kind::Flags),
];

const fn field(function: Function, name: &'static str, offset: usize, length: usize) -> Field {
    Field { function, name, offset, length, kind: Kind::Text }
}

const fn number(name: &'static str, offset: usize, kind: Kind) -> Field {
    Field { function: Function::C_GetTokenInfo, name, offset, length: size_of::<CK_ULONG>(), kind }
}

impl Field {
    /// The fields of what this function gives.
    pub(crate) fn of(function: Function) -> impl Iterator<Item = Self> {
        FIELDS.iter().copied().filter(move |field| field.function == function)
    }

    /// Whether it is a text, not a number.
    pub(crate) fn is_text(self) -> bool {
        self.kind == Kind::Text
    }

    /// Whether it can take this text.
    pub(crate) fn takes(self, text: &str) -> bool {
        match self.kind {
            Kind::Text => text.len() <= self.length,
            Kind::Number | Kind::Flags => read(text).is_some(),
        }
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
        let number = read(text).unwrap_or_default();
        match self.kind {
            Kind::Text => {
                bytes.fill(b' ');
                bytes[..text.len()].copy_from_slice(text.as_bytes());
            }
            Kind::Number => bytes.copy_from_slice(&number.to_ne_bytes()),
            Kind::Flags => {
                let bits = number.to_ne_bytes();
                bytes.iter_mut().zip(bits).for_each(|(byte, bits)| *byte |= bits);
            }
        }
    }
}

/// A number, decimal or `0x...`.
fn read(text: &str) -> Option<CK_ULONG> {
    match text.strip_prefix("0x") {
        Some(hex) => CK_ULONG::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
