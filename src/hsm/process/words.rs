//! Faults hold `&'static str`s: how these pass between the two processes.
//!
//! Names of functions become labels of metrics, so they come from a closed table. Reasons are for
//! people; each is kept once, and only so many of them: what the child says is not trusted to be
//! few or short.

use std::sync::Mutex;

use super::frame::{Malformed, Reader, Writer};
use crate::hsm::codes::Code;
use crate::hsm::fault::{Cause, Fault, FaultKind};

/// Every function and step that a fault or a metric can name; those of the data path first.
const FUNCTIONS: &[&str] = &[
    "C_EncryptInit",
    "C_Encrypt",
    "C_DecryptInit",
    "C_Decrypt",
    "C_GenerateRandom",
    "C_GetAttributeValue",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_FindObjectsFinal",
    "C_GenerateKey",
    "C_SignInit",
    "C_Sign",
    "C_GenerateKeyPair",
    "C_OpenSession",
    "C_CloseSession",
    "C_Login",
    "C_Initialize",
    "C_GetSlotList",
    "C_GetTokenInfo",
    "dlopen",
    "session",
    "key handle",
    "C_Finalize",
    "C_GetInfo",
    "C_GetSlotInfo",
    "C_GetMechanismList",
    "C_GetMechanismInfo",
    "C_CloseAllSessions",
    "C_GetSessionInfo",
    "C_Logout",
    "C_CreateObject",
    "C_CopyObject",
    "C_DestroyObject",
    "C_GetObjectSize",
    "C_SetAttributeValue",
    "C_SeedRandom",
    "C_GetInterface",
    "C_LoginUser",
    "C_SessionCancel",
    "C_MessageEncryptInit",
    "C_EncryptMessage",
    "C_MessageEncryptFinal",
    "C_MessageDecryptInit",
    "C_DecryptMessage",
    "C_MessageDecryptFinal",
];

/// Stands for a function that the table does not know.
const OTHER_FUNCTION: &str = "another function";

/// Most reasons that are kept, and how long each may be.
const REASONS: (usize, usize) = (64, 200);

/// Stands for a reason that is not kept.
const OTHER_REASON: &str = "for another reason";

/// Longest fault in a frame.
pub(super) const FAULT_ROOM: usize = 16 + REASONS.1;

/// The reasons that were heard so far.
#[derive(Debug, Default)]
pub(super) struct Words(Mutex<Vec<&'static str>>);

impl Words {
    /// The same text, for ever.
    fn keep(&self, text: &str) -> &'static str {
        let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !is_plain || text.len() > REASONS.1 {
            return OTHER_REASON;
        }
        let mut kept = self.0.lock().expect("nothing panics while holding this lock");
        if let Some(known) = kept.iter().find(|known| **known == text) {
            return known;
        }
        if kept.len() >= REASONS.0 {
            return OTHER_REASON;
        }
        let new: &'static str = Box::leak(text.to_owned().into_boxed_str());
        kept.push(new);
        new
    }

    /// Reads a fault.
    pub(super) fn fault(&self, reader: &mut Reader<'_>) -> Result<Fault, Malformed> {
        let kind = kind(reader.u8()?)?;
        let function = read_function(reader)?;
        let cause = match reader.u8()? {
            0 => Cause::Returned(Code(reader.u64()?)),
            1 => Cause::Nonsense(self.keep(reader.text()?)),
            2 => Cause::Refused(self.keep(reader.text()?)),
            _ => return Err(Malformed),
        };
        Ok(Fault { kind, function, cause })
    }
}

/// Writes a fault.
pub(super) fn write_fault(writer: &mut Writer, fault: &Fault) {
    writer.u8(number(fault.kind));
    write_function(writer, fault.function);
    match fault.cause {
        Cause::Returned(code) => {
            writer.u8(0);
            writer.u64(code.0);
        }
        Cause::Nonsense(what) => {
            writer.u8(1);
            writer.bytes(what.as_bytes());
        }
        Cause::Refused(why) => {
            writer.u8(2);
            writer.bytes(why.as_bytes());
        }
    }
}

/// Writes the name of a function.
pub(super) fn write_function(writer: &mut Writer, function: &str) {
    let place = FUNCTIONS.iter().position(|known| *known == function);
    writer.u16(place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX));
}

/// Reads the name of a function.
pub(super) fn read_function(reader: &mut Reader<'_>) -> Result<&'static str, Malformed> {
    Ok(FUNCTIONS.get(usize::from(reader.u16()?)).copied().unwrap_or(OTHER_FUNCTION))
}

fn number(kind: FaultKind) -> u8 {
    match kind {
        FaultKind::BadCiphertext => 0,
        FaultKind::Ambiguous => 1,
        FaultKind::KeyUsage => 2,
        FaultKind::HandleStale => 3,
        FaultKind::SessionLost => 4,
        FaultKind::LoginLost => 5,
        FaultKind::TokenLost => 6,
        FaultKind::LibraryLost => 7,
        FaultKind::Busy => 8,
        FaultKind::PinRefused => 9,
        FaultKind::Bug => 10,
    }
}

/// The same table, read the other way.
fn kind(wanted: u8) -> Result<FaultKind, Malformed> {
    use FaultKind::*;
    let kinds = [
        BadCiphertext,
        Ambiguous,
        KeyUsage,
        HandleStale,
        SessionLost,
        LoginLost,
        TokenLost,
        LibraryLost,
        Busy,
        PinRefused,
        Bug,
    ];
    kinds.into_iter().find(|kind| number(*kind) == wanted).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::codes;

    fn through(fault: &Fault, words: &Words) -> Fault {
        let mut writer = Writer::with_room(FAULT_ROOM);
        write_fault(&mut writer, fault);
        words.fault(&mut Reader::new(writer.content())).expect("it was just written")
    }

    #[test]
    fn faults_arrive_as_they_were_sent() {
        let words = Words::default();
        let mut faults: Vec<Fault> =
            codes::ALL.iter().map(|(code, _)| Fault::returned("C_Decrypt", *code)).collect();
        faults.push(Fault::returned("C_Login", Code(u64::MAX)));
        faults.push(Fault::nonsense("C_GetSlotList", "more slots than the buffer holds"));
        faults.push(Fault::refused(FaultKind::TokenLost, "dlopen", "no slot"));
        for fault in faults {
            assert_eq!(through(&fault, &words), fault);
        }
    }

    #[test]
    fn every_kind_has_a_number_of_its_own() {
        for wanted in 0..=10 {
            assert_eq!(kind(wanted).map(number), Ok(wanted));
        }
        assert_eq!(kind(11), Err(Malformed));
    }

    #[test]
    fn what_the_sources_name_is_in_the_table() {
        // Of all that has the form of a C function in the sources of the module's side.
        for source in [
            include_str!("../pkcs11/data.rs"),
            include_str!("../pkcs11/library.rs"),
            include_str!("../pkcs11/message_proof.rs"),
            include_str!("../pkcs11/messages.rs"),
            include_str!("../pkcs11/mod.rs"),
            include_str!("../pkcs11/objects.rs"),
            include_str!("../pkcs11/session.rs"),
            include_str!("../pkcs11/signing.rs"),
        ] {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let texts = source.split('"').filter(|text| text.starts_with("C_"));
            for text in texts.filter(|text| text.chars().all(is_name)) {
                assert!(FUNCTIONS.contains(&text), "{text} is not in the table");
            }
        }
    }

    #[test]
    fn reasons_are_few_short_and_plain() {
        let words = Words::default();
        assert_eq!(words.keep("a\nb"), OTHER_REASON);
        assert_eq!(words.keep(&"a".repeat(REASONS.1 + 1)), OTHER_REASON);
        for n in 0..REASONS.0 {
            assert_eq!(words.keep(&format!("reason {n}")), format!("reason {n}"));
        }
        assert_eq!(words.keep("one more"), OTHER_REASON);
        assert_eq!(words.keep("reason 3"), "reason 3");
    }

    #[test]
    fn functions_beyond_the_table_have_one_name() {
        let mut writer = Writer::with_room(2);
        write_function(&mut writer, "C_Nonsense");
        assert_eq!(read_function(&mut Reader::new(writer.content())), Ok(OTHER_FUNCTION));
    }
}
