//! How an HSM call failed, by what must be done about it.
//!
//! A return code alone does not say that: `CKR_GENERAL_ERROR` from C_Decrypt is a wrong tag on
//! SoftHSM, and a dying card elsewhere. [`classify`] therefore takes the C function and the module's
//! profile too.

use std::fmt;

use super::codes::{self, Code};
use super::profile::{self, Profile};

/// What a failure means, and thereby who acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The ciphertext, IV, AAD or tag does not fit. The caller's doing; the session is fine.
    BadCiphertext,
    /// May be a bad ciphertext or an HSM in trouble: a canary decryption settles it.
    Ambiguous,
    /// The key does not permit the operation.
    KeyUsage,
    /// The handle names nothing, or something else: the catalogue must be read again.
    HandleStale,
    /// The session is gone or in a state that cannot be left: open another.
    SessionLost,
    /// The token has logged us out.
    LoginLost,
    /// The token does not answer or is not there.
    TokenLost,
    /// The library has lost its state.
    LibraryLost,
    /// The token has no room for this now.
    Busy,
    /// The PIN was refused. Never tried again by itself: real HSMs lock after three to ten.
    PinRefused,
    /// The token refuses what no correct caller would ask, or answered with impossible lengths.
    Bug,
}

impl FaultKind {
    /// Whether the session that met this fault may go on being used.
    ///
    /// INVARIANT: a caller's garbage never costs a session ([`FaultKind::BadCiphertext`]).
    pub fn keeps_session(self) -> bool {
        matches!(self, Self::BadCiphertext | Self::KeyUsage | Self::HandleStale | Self::Busy)
    }
}

/// A failed call to an HSM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What it means.
    pub kind: FaultKind,
    /// The C function, or the step, that failed.
    pub function: &'static str,
    /// What it returned.
    pub cause: Cause,
}

/// What a fault was recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The function's return code.
    Returned(Code),
    /// The function returned CKR_OK, and what it gave cannot be right.
    Nonsense(&'static str),
    /// The call was not made.
    Refused(&'static str),
}

impl Fault {
    /// A fault by return code, of a module of which nothing is known.
    pub fn returned(function: &'static str, code: Code) -> Self {
        Self::returned_by(&profile::GENERIC, function, code)
    }

    /// A fault by return code, of a module of this profile.
    pub fn returned_by(profile: &Profile, function: &'static str, code: Code) -> Self {
        let kind = classify(profile, function, code);
        Self { kind, function, cause: Cause::Returned(code) }
    }

    /// A fault of a call that claims to have succeeded.
    pub fn nonsense(function: &'static str, what: &'static str) -> Self {
        Self { kind: FaultKind::Bug, function, cause: Cause::Nonsense(what) }
    }

    /// A call that was not made, and what that means.
    pub fn refused(kind: FaultKind, function: &'static str, why: &'static str) -> Self {
        Self { kind, function, cause: Cause::Refused(why) }
    }

    /// The same fault, seen with more knowledge.
    pub fn settled(self, kind: FaultKind) -> Self {
        Self { kind, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Returned(code) => write!(f, "{} returned {code}", self.function),
            Cause::Nonsense(what) => {
                write!(f, "{} gave an impossible answer: {what}", self.function)
            }
            Cause::Refused(why) => write!(f, "{}: {why}", self.function),
        }
    }
}

impl std::error::Error for Fault {}

/// What a return code of this C function means, on a module of this profile.
pub fn classify(profile: &Profile, function: &'static str, code: Code) -> FaultKind {
    let meaning = profile.meaning(function, code);
    // A vendor's own code says nothing to us: nobody knows in which state the session is.
    meaning.or_else(|| standard(function, code)).unwrap_or(FaultKind::Bug)
}

/// What a code means where no profile says otherwise: `None` for those that PKCS#11 does not name.
fn standard(function: &'static str, code: Code) -> Option<FaultKind> {
    use FaultKind::*;
    let takes_iv = matches!(function, "C_DecryptInit" | "C_DecryptMessage");
    let uses_key = profile::crypt().any(|known| known == function);
    let decrypts = profile::without_messages(function) == "C_Decrypt";
    Some(match code {
        codes::ENCRYPTED_DATA_INVALID
        | codes::ENCRYPTED_DATA_LEN_RANGE
        | codes::AEAD_DECRYPT_FAILED
            if decrypts =>
        {
            BadCiphertext
        }
        codes::GENERAL_ERROR | codes::FUNCTION_FAILED => Ambiguous,
        codes::DATA_INVALID | codes::DATA_LEN_RANGE | codes::SIGNATURE_INVALID if decrypts => {
            Ambiguous
        }
        codes::MECHANISM_PARAM_INVALID if takes_iv => Ambiguous,
        codes::KEY_FUNCTION_NOT_PERMITTED
        | codes::KEY_TYPE_INCONSISTENT
        | codes::KEY_SIZE_RANGE
        | codes::KEY_EXHAUSTED
            if uses_key =>
        {
            KeyUsage
        }
        codes::KEY_HANDLE_INVALID | codes::OBJECT_HANDLE_INVALID => HandleStale,
        codes::SESSION_HANDLE_INVALID
        | codes::SESSION_CLOSED
        | codes::OPERATION_ACTIVE
        | codes::OPERATION_NOT_INITIALIZED
        | codes::OPERATION_CANCEL_FAILED
        | codes::CANCEL
        | codes::FUNCTION_CANCELED
        | codes::PENDING
        | codes::BUFFER_TOO_SMALL => SessionLost,
        codes::USER_NOT_LOGGED_IN | codes::USER_ANOTHER_ALREADY_LOGGED_IN => LoginLost,
        codes::DEVICE_ERROR
        | codes::DEVICE_REMOVED
        | codes::TOKEN_NOT_PRESENT
        | codes::TOKEN_NOT_RECOGNIZED
        | codes::TOKEN_NOT_INITIALIZED
        | codes::FIPS_SELF_TEST_FAILED
        // Until the security officer has set one; none was tried.
        | codes::USER_PIN_NOT_INITIALIZED
        | codes::SLOT_ID_INVALID => TokenLost,
        codes::CRYPTOKI_NOT_INITIALIZED | codes::MUTEX_BAD | codes::MUTEX_NOT_LOCKED => LibraryLost,
        codes::SESSION_COUNT
        | codes::DEVICE_MEMORY
        | codes::HOST_MEMORY
        | codes::USER_TOO_MANY_TYPES
        | codes::TOKEN_RESOURCE_EXCEEDED => Busy,
        codes::PIN_INCORRECT
        | codes::PIN_INVALID
        | codes::PIN_LEN_RANGE
        | codes::PIN_EXPIRED
        | codes::PIN_LOCKED
        // The login wants something that is not in the configuration: trying again may lock it.
        | codes::NEW_PIN_MODE
        | codes::NEXT_OTP => match function {
            "C_Login" => PinRefused,
            // No PIN was given. Whether it is still good is for one login to show, after which
            // there is no second.
            _ => LoginLost,
        },
        // What no correct caller would meet on a sound token in these functions, and what tells of
        // functions that are never called.
        codes::ENCRYPTED_DATA_INVALID
        | codes::ENCRYPTED_DATA_LEN_RANGE
        | codes::AEAD_DECRYPT_FAILED
        | codes::DATA_INVALID
        | codes::DATA_LEN_RANGE
        | codes::SIGNATURE_INVALID
        | codes::SIGNATURE_LEN_RANGE
        | codes::MECHANISM_INVALID
        | codes::MECHANISM_PARAM_INVALID
        | codes::ARGUMENTS_BAD
        | codes::NO_EVENT
        | codes::NEED_TO_CREATE_THREADS
        | codes::CANT_LOCK
        | codes::ATTRIBUTE_READ_ONLY
        | codes::ATTRIBUTE_SENSITIVE
        | codes::ATTRIBUTE_TYPE_INVALID
        | codes::ATTRIBUTE_VALUE_INVALID
        | codes::ACTION_PROHIBITED
        | codes::FUNCTION_NOT_PARALLEL
        | codes::FUNCTION_NOT_SUPPORTED
        | codes::FUNCTION_REJECTED
        | codes::KEY_FUNCTION_NOT_PERMITTED
        | codes::KEY_TYPE_INCONSISTENT
        | codes::KEY_SIZE_RANGE
        | codes::KEY_EXHAUSTED
        | codes::KEY_NOT_NEEDED
        | codes::KEY_CHANGED
        | codes::KEY_NEEDED
        | codes::KEY_INDIGESTIBLE
        | codes::KEY_NOT_WRAPPABLE
        | codes::KEY_UNEXTRACTABLE
        | codes::SESSION_PARALLEL_NOT_SUPPORTED
        | codes::SESSION_READ_ONLY
        | codes::SESSION_EXISTS
        | codes::SESSION_READ_ONLY_EXISTS
        | codes::SESSION_READ_WRITE_SO_EXISTS
        | codes::SESSION_ASYNC_NOT_SUPPORTED
        | codes::TEMPLATE_INCOMPLETE
        | codes::TEMPLATE_INCONSISTENT
        | codes::TOKEN_WRITE_PROTECTED
        | codes::UNWRAPPING_KEY_HANDLE_INVALID
        | codes::UNWRAPPING_KEY_SIZE_RANGE
        | codes::UNWRAPPING_KEY_TYPE_INCONSISTENT
        | codes::USER_ALREADY_LOGGED_IN
        | codes::USER_TYPE_INVALID
        | codes::WRAPPED_KEY_INVALID
        | codes::WRAPPED_KEY_LEN_RANGE
        | codes::WRAPPING_KEY_HANDLE_INVALID
        | codes::WRAPPING_KEY_SIZE_RANGE
        | codes::WRAPPING_KEY_TYPE_INCONSISTENT
        | codes::RANDOM_SEED_NOT_SUPPORTED
        | codes::RANDOM_NO_RNG
        | codes::SEED_RANDOM_REQUIRED
        | codes::DOMAIN_PARAMS_INVALID
        | codes::CURVE_NOT_SUPPORTED
        | codes::SAVED_STATE_INVALID
        | codes::INFORMATION_SENSITIVE
        | codes::STATE_UNSAVEABLE
        | codes::CRYPTOKI_ALREADY_INITIALIZED
        | codes::EXCEEDED_MAX_ITERATIONS
        | codes::LIBRARY_LOAD_FAILED
        | codes::PIN_TOO_WEAK
        | codes::PUBLIC_KEY_INVALID
        | codes::OPERATION_NOT_VALIDATED
        | codes::PARAMETER_SET_NOT_SUPPORTED => Bug,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::profile::{ALL, GENERIC};

    #[test]
    fn a_wrong_tag_is_the_callers_fault_and_keeps_the_session() {
        let fault = Fault::returned("C_Decrypt", codes::ENCRYPTED_DATA_INVALID);
        assert_eq!(fault.kind, FaultKind::BadCiphertext);
        assert!(fault.kind.keeps_session());
        // The same code from another function is no statement about a ciphertext.
        let fault = Fault::returned("C_FindObjects", codes::ENCRYPTED_DATA_INVALID);
        assert_eq!(fault.kind, FaultKind::Bug);
    }

    #[test]
    fn general_error_is_never_taken_for_a_bad_ciphertext_unasked() {
        for code in [codes::GENERAL_ERROR, codes::FUNCTION_FAILED] {
            let kind = classify(&GENERIC, "C_Decrypt", code);
            assert_eq!(kind, FaultKind::Ambiguous);
            assert!(!kind.keeps_session());
        }
    }

    #[test]
    fn an_iv_refused_when_decrypting_may_be_the_callers() {
        let kind = classify(&GENERIC, "C_DecryptInit", codes::MECHANISM_PARAM_INVALID);
        assert_eq!(kind, FaultKind::Ambiguous);
        // The IV of an encryption is ours.
        assert_eq!(
            classify(&GENERIC, "C_EncryptInit", codes::MECHANISM_PARAM_INVALID),
            FaultKind::Bug
        );
    }

    #[test]
    fn an_unknown_code_costs_the_session() {
        let kind = classify(&GENERIC, "C_Encrypt", Code(0x8000_1234));
        assert_eq!(kind, FaultKind::Bug);
        assert!(!kind.keeps_session());
    }

    #[test]
    fn every_code_of_pkcs11_has_a_meaning() {
        const FUNCTIONS: [&str; 6] = [
            "C_Decrypt",
            "C_DecryptInit",
            "C_DecryptMessage",
            "C_Encrypt",
            "C_EncryptMessage",
            "C_OpenSession",
        ];
        for &(code, name) in codes::ALL.iter().filter(|(code, _)| *code != codes::OK) {
            for function in FUNCTIONS {
                assert!(standard(function, code).is_some(), "{name} of {function}");
                for profile in ALL {
                    // Only what decrypts can say of a ciphertext, unasked, that it is bad.
                    let kind = classify(profile, function, code);
                    let decrypts = matches!(function, "C_Decrypt" | "C_DecryptMessage");
                    assert!(kind != FaultKind::BadCiphertext || decrypts, "{name}");
                }
            }
        }
        assert_eq!(standard("C_Decrypt", Code(0x8000_0001)), None);
    }

    #[test]
    fn only_the_use_of_a_key_is_refused_for_its_usage() {
        let code = codes::KEY_FUNCTION_NOT_PERMITTED;
        for function in profile::crypt() {
            assert_eq!(classify(&GENERIC, function, code), FaultKind::KeyUsage);
        }
        // No key is in this: KMS is not to be told that its key is not fit.
        for function in ["C_GenerateRandom", "C_OpenSession", "C_GetAttributeValue"] {
            assert_eq!(classify(&GENERIC, function, code), FaultKind::Bug, "{function}");
        }
    }

    #[test]
    fn only_a_login_refuses_a_pin() {
        // Others may speak of a PIN as well (PKCS#11 lists CKR_PIN_EXPIRED for C_EncryptInit), and
        // a token that is never tried again because of that would need a restart.
        for code in [codes::PIN_INCORRECT, codes::PIN_EXPIRED, codes::PIN_LOCKED] {
            assert_eq!(classify(&GENERIC, "C_Login", code), FaultKind::PinRefused);
            for function in ["C_EncryptInit", "C_Decrypt", "C_FindObjects", "C_OpenSession"] {
                assert_eq!(classify(&GENERIC, function, code), FaultKind::LoginLost, "{function}");
            }
        }
    }

    #[test]
    fn display_names_function_and_code() {
        let fault = Fault::returned("C_Login", codes::PIN_INCORRECT);
        assert_eq!(fault.to_string(), "C_Login returned CKR_PIN_INCORRECT (0xa0)");
    }
}
