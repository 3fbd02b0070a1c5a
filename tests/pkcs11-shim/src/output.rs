//! The bytes that a call gives back, and lies about them.

use std::any::Any;
use std::ffi::c_void;
use std::slice;

use cryptoki_sys::{
    CK_BYTE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG, CKR_OK,
};

use crate::chance::Chance;
use crate::function::Function;
use crate::rule::{Action, Rule};

/// Session, input, output and its length: C_Encrypt and its like.
pub(crate) type InputOutput =
    (CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG, *mut CK_BYTE, *mut CK_ULONG);
/// Session, output and its length: C_EncryptFinal and its like.
pub(crate) type OutputOnly = (CK_SESSION_HANDLE, *mut CK_BYTE, *mut CK_ULONG);
/// C_WrapKey.
pub(crate) type Wrapped = (
    CK_SESSION_HANDLE,
    *mut CK_MECHANISM,
    CK_OBJECT_HANDLE,
    CK_OBJECT_HANDLE,
    *mut CK_BYTE,
    *mut CK_ULONG,
);
/// C_EncryptMessage and C_DecryptMessage.
pub(crate) type Message = (
    CK_SESSION_HANDLE,
    *mut c_void,
    CK_ULONG,
    *mut CK_BYTE,
    CK_ULONG,
    *mut CK_BYTE,
    CK_ULONG,
    *mut CK_BYTE,
    *mut CK_ULONG,
);
/// C_GenerateRandom: the length is the caller's.
pub(crate) type Filled = (CK_SESSION_HANDLE, *mut CK_BYTE, CK_ULONG);

/// Where in its arguments a function has its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    InputOutput,
    OutputOnly,
    Wrapped,
    Message,
    Filled,
}

/// Output of a call that has succeeded.
pub(crate) struct Output {
    /// Null where the caller only asked for the length.
    bytes: *mut CK_BYTE,
    /// What the real module said, so what may be touched.
    length: usize,
    /// Where the caller is told the length, if it is.
    told: Option<*mut CK_ULONG>,
}

impl Shape {
    /// Whether the function says how long its output is.
    pub(crate) fn has_length(self) -> bool {
        self != Self::Filled
    }
}

/// Where this function has its output, if it gives bytes.
pub(crate) fn of_function(function: Function) -> Option<Shape> {
    use Function::*;
    match function {
        C_Encrypt
        | C_EncryptUpdate
        | C_Decrypt
        | C_DecryptUpdate
        | C_Digest
        | C_Sign
        | C_SignRecover
        | C_VerifyRecover
        | C_DigestEncryptUpdate
        | C_DecryptDigestUpdate
        | C_SignEncryptUpdate
        | C_DecryptVerifyUpdate => Some(Shape::InputOutput),
        C_EncryptFinal | C_DecryptFinal | C_DigestFinal | C_SignFinal | C_GetOperationState => {
            Some(Shape::OutputOnly)
        }
        C_WrapKey => Some(Shape::Wrapped),
        C_EncryptMessage | C_DecryptMessage => Some(Shape::Message),
        C_GenerateRandom => Some(Shape::Filled),
        _ => None,
    }
}

impl Output {
    /// The output of a call of this function that the real module has answered so.
    pub(crate) fn of_call(function: Function, args: &dyn Any, answer: CK_RV) -> Option<Self> {
        if answer != CKR_OK {
            return None;
        }
        let (bytes, told) = match of_function(function)? {
            Shape::InputOutput => args.downcast_ref::<InputOutput>().map(|args| (args.3, args.4)),
            Shape::OutputOnly => args.downcast_ref::<OutputOnly>().map(|args| (args.1, args.2)),
            Shape::Wrapped => args.downcast_ref::<Wrapped>().map(|args| (args.4, args.5)),
            Shape::Message => args.downcast_ref::<Message>().map(|args| (args.7, args.8)),
            Shape::Filled => {
                let (_, bytes, length) = *args.downcast_ref::<Filled>()?;
                return Some(Self { bytes, length: usize::try_from(length).ok()?, told: None });
            }
        }?;
        if told.is_null() {
            return None;
        }
        // SAFETY: not null, and by the contract of the function it points to the length, which the
        // real module has just written.
        let length = usize::try_from(unsafe { *told }).ok()?;
        Some(Self { bytes, length, told: Some(told) })
    }

    /// Does what the rule says about the output; other rules are left to others.
    pub(crate) fn obey(&mut self, rule: &Rule, chance: Chance) {
        match rule.action {
            Action::Flip(bits) => self.flip(bits, chance),
            Action::Short(by) => self.tell(|length| length.saturating_sub(by)),
            Action::Long(by) => self.tell(|length| length.saturating_add(by)),
            Action::Zero => self.bytes().fill(0),
            Action::Same => repeat(&mut rule.memory(), self.bytes()),
            _ => {}
        }
    }

    fn flip(&mut self, bits: u64, mut chance: Chance) {
        let bytes = self.bytes();
        let end = bytes.len() as u64 * 8;
        let first = chance.below(end);
        for bit in (0..bits.min(end)).map(|offset| (first + offset) % end) {
            let byte = usize::try_from(bit / 8).expect("it is an index of the slice");
            bytes[byte] ^= 1 << (bit % 8);
        }
    }

    fn tell(&mut self, lie: impl FnOnce(CK_ULONG) -> CK_ULONG) {
        if let Some(told) = self.told {
            // SAFETY: it was not null, and it points to the length that the caller lets us write.
            unsafe { *told = lie(*told) };
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        if self.bytes.is_null() {
            return &mut [];
        }
        // SAFETY: the real module has succeeded and says that it wrote so many bytes here, into
        // the caller's buffer, which is ours until the call returns.
        unsafe { slice::from_raw_parts_mut(self.bytes, self.length) }
    }
}

/// Puts into `bytes` what the memory holds, and into the memory what it lacks for that.
pub(crate) fn repeat(memory: &mut Vec<u8>, bytes: &mut [u8]) {
    let known = memory.len().min(bytes.len());
    memory.extend_from_slice(&bytes[known..]);
    let length = bytes.len();
    bytes.copy_from_slice(&memory[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(bytes: &mut [u8], told: Option<&mut CK_ULONG>) -> Output {
        let told = told.map(|told| &raw mut *told);
        Output { bytes: bytes.as_mut_ptr(), length: bytes.len(), told }
    }

    fn rule(action: Action) -> Rule {
        Rule::new(Vec::new(), action, 0)
    }

    #[test]
    fn as_many_bits_are_flipped_as_wanted_and_there_are() {
        for (wanted, flipped) in [(1, 1), (3, 3), (32, 32), (99, 32)] {
            for number in 0..20 {
                let mut bytes = [0_u8; 4];
                let chance = Chance::new(0, 0, number);
                output(&mut bytes, None).obey(&rule(Action::Flip(wanted)), chance);
                let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
                assert_eq!(ones, flipped);
            }
        }
        output(&mut [], None).obey(&rule(Action::Flip(1)), Chance::new(0, 0, 0));
    }

    #[test]
    fn lengths_are_told_short_and_long() {
        for (action, told) in [
            (Action::Short(1), 3),
            (Action::Short(9), 0),
            (Action::Long(1), 5),
            (Action::Long(CK_ULONG::MAX), CK_ULONG::MAX),
        ] {
            let mut length = 4;
            output(&mut [0; 4], Some(&mut length)).obey(&rule(action), Chance::new(0, 0, 0));
            assert_eq!(length, told);
        }
    }

    #[test]
    fn the_first_bytes_come_again_whatever_the_length() {
        let mut memory = Vec::new();
        for (now, then) in [("abc", "abc"), ("xy", "ab"), ("vwxyz", "abcyz"), ("12345", "abcyz")] {
            let mut bytes = now.as_bytes().to_vec();
            repeat(&mut memory, &mut bytes);
            assert_eq!(bytes, then.as_bytes());
        }
    }
}
