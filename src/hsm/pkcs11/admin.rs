//! Offline administration of a token's keys, with the crate `cryptoki`.

use std::ffi::CStr;
use std::path::Path;
use std::ptr::NonNull;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;

use super::TokenSelector;
use crate::hsm::state::{Date, KeyState};
use crate::names::{ExternalKeyId, ObjectId};
use crate::secret::Secret;

/// Why an administrative action failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No slot holds the token.
    #[error("no slot of the module holds the configured token")]
    NoToken,
    /// Two slots hold a token that fits: a key must not land in either.
    #[error("two tokens of the module bear the configured label: name one by its serial")]
    TwoTokens,
    /// The label is taken: a second object would make the key ambiguous.
    #[error("an object with the label `{0}` exists already")]
    Exists(ExternalKeyId),
    /// The PIN is wrong, expired or locked. It was tried once.
    #[error("the PIN was refused ({0:?})")]
    PinRefused(RvError),
    /// The module or token refused.
    #[error("{0}")]
    Pkcs11(#[from] Error),
}

/// What a new key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewKeyUsage {
    /// `CKA_ENCRYPT`
    pub encrypt: bool,
    /// `CKA_DECRYPT`
    pub decrypt: bool,
}

/// A session with write access, logged in.
pub struct Admin {
    session: Session,
}

/// C_GenerateKey of SoftHSM fails for no reason in about 3% of calls under load.
const GENERATE_ATTEMPTS: usize = 5;

impl Admin {
    /// Loads the module, finds the token and logs in. The PIN is tried once.
    ///
    /// # Errors
    /// The module's or the token's; a wrong PIN is `CKR_PIN_INCORRECT`.
    pub fn login(
        module: &Path,
        selector: &TokenSelector,
        pin: &Secret<String>,
        initialization: Option<&CStr>,
    ) -> Result<Self, AdminError> {
        let pkcs11 = Pkcs11::new(module)?;
        let flags = CInitializeFlags::OS_LOCKING_OK;
        let arguments = match initialization.map(|text| NonNull::from(text).cast()) {
            None => CInitializeArgs::new(flags),
            // SAFETY: a text with a NUL at its end, which lives through the call and is only read.
            Some(text) => unsafe { CInitializeArgs::new_with_reserved(flags, text) },
        };
        match pkcs11.initialize(arguments) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut only = None;
        for slot in pkcs11.get_slots_with_initialized_token()? {
            let info = pkcs11.get_token_info(slot)?;
            let found = match selector {
                TokenSelector::Label(label) => info.label() == label,
                TokenSelector::Serial(serial) => info.serial_number() == serial,
            };
            if found && only.replace(slot).is_some() {
                return Err(AdminError::TwoTokens);
            }
        }
        let session = pkcs11.open_rw_session(only.ok_or(AdminError::NoToken)?)?;
        let pin = AuthPin::new(pin.expose().clone().into());
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(Self { session }),
            Err(error) => Err(login_error(error)),
        }
    }

    /// Makes the first version of a key: AES-256, sensitive, never extractable, every usage set
    /// explicitly, since modules differ in what they assume.
    ///
    /// # Errors
    /// [`AdminError::Exists`] if any object bears the label; else the token's error.
    pub fn create(&self, id: &ExternalKeyId, usage: NewKeyUsage) -> Result<KeyState, AdminError> {
        let label = Attribute::Label(id.as_str().as_bytes().to_vec());
        if !self.session.find_objects(std::slice::from_ref(&label))?.is_empty() {
            return Err(AdminError::Exists(id.clone()));
        }
        let state = KeyState::first(self.object_id()?, Date::of(std::time::SystemTime::now()));
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(true),
            Attribute::ValueLen(32.into()),
            label,
            Attribute::Id(state.to_string().into_bytes()),
            Attribute::Encrypt(usage.encrypt),
            Attribute::Decrypt(usage.decrypt),
            Attribute::Sign(false),
            Attribute::Verify(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Derive(false),
        ];
        let mut attempt = 1;
        loop {
            match self.session.generate_key(&Mechanism::AesKeyGen, &template) {
                Ok(_) => return Ok(state),
                Err(Error::Pkcs11(RvError::GeneralError, _)) if attempt < GENERATE_ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Eight random bytes of the token's; zero is taken by foreign keys.
    fn object_id(&self) -> Result<ObjectId, AdminError> {
        loop {
            let mut bytes = [0; 8];
            self.session.generate_random_slice(&mut bytes)?;
            if bytes != [0; 8] {
                return Ok(ObjectId::new(bytes));
            }
        }
    }
}

fn login_error(error: Error) -> AdminError {
    use RvError::{PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked};
    match error {
        Error::Pkcs11(
            code @ (PinIncorrect | PinInvalid | PinLenRange | PinExpired | PinLocked),
            _,
        ) => AdminError::PinRefused(code),
        error => error.into(),
    }
}
