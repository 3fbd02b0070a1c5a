//! What a module says of itself and of its tokens, before anybody logs in: for `xksd doctor`.

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;

use cryptoki_sys::{
    CK_FLAGS, CK_INFO, CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_SLOT_ID, CK_TOKEN_INFO, CK_VERSION,
    CKF_DECRYPT, CKF_ENCRYPT, CKF_GENERATE, CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW,
    CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED,
    CKF_USER_PIN_TO_BE_CHANGED, CKM_AES_GCM, CKM_AES_KEY_GEN,
};

use super::library::{LoadError, load, padded};
use super::session::{slots, token_info};
use super::{Library, TokenSelector};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault};
use crate::metrics::TokenMetrics;

/// A module that is loaded and initialised.
pub struct Module {
    library: Arc<Library>,
    metrics: Arc<TokenMetrics>,
}

/// Why a module can't be looked into.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// It is no PKCS#11 module, or lacks something.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// It does not start.
    #[error("{0}")]
    Start(#[from] Fault),
}

/// What C_GetInfo tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Version of PKCS#11.
    pub cryptoki: String,
    /// `manufacturerID`
    pub manufacturer: String,
    /// `libraryDescription`
    pub description: String,
    /// `libraryVersion`
    pub version: String,
}

/// What C_GetTokenInfo tells of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSummary {
    slot: CK_SLOT_ID,
    /// `label`
    pub label: String,
    /// `serialNumber`
    pub serial: String,
    /// `model`
    pub model: String,
    /// `CKF_TOKEN_INITIALIZED`
    pub is_initialized: bool,
    /// How the user PIN is.
    pub pin: PinState,
    /// `ulMaxSessionCount`, where the token knows a limit.
    pub max_sessions: Option<u64>,
}

/// How the user PIN is, by the token's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// Nothing is known against it.
    Ready,
    /// `CKF_USER_PIN_INITIALIZED` is missing: there is none yet.
    Missing,
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong one was tried since the last login.
    CountLow,
    /// `CKF_USER_PIN_FINAL_TRY`: the next wrong one locks it.
    FinalTry,
    /// `CKF_USER_PIN_LOCKED`
    Locked,
    /// `CKF_USER_PIN_TO_BE_CHANGED`: it is the one that the security officer gave.
    ToBeChanged,
}

/// A mechanism that xksd needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// `CKM_AES_GCM`
    AesGcm,
    /// `CKM_AES_KEY_GEN`
    AesKeyGen,
}

/// Whether a token has a mechanism as xksd needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// It has.
    Usable,
    /// The token does not know it.
    Absent,
    /// It is not for the operations that are needed.
    WrongUse,
    /// It does not take keys of 256 bits; these are its bounds, in whatever unit.
    WrongSize {
        /// `ulMinKeySize`
        min: u64,
        /// `ulMaxKeySize`
        max: u64,
    },
}

impl Module {
    /// Loads and initialises a module. It stays so to the end of the process, which must be left
    /// through [`super::exit_now`].
    ///
    /// # Errors
    /// [`ModuleError`]
    pub fn load(
        path: &Path,
        initialization: Option<CString>,
        metrics: Arc<TokenMetrics>,
    ) -> Result<Self, ModuleError> {
        // By itself, for the linker's words; the second time below costs nothing.
        load(path)?;
        let library = Arc::new(Library::new(path).with_initialization(initialization));
        library.initialize(&metrics)?;
        Ok(Self { library, metrics })
    }

    /// The library, to log in through.
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// C_GetInfo
    ///
    /// # Errors
    /// The module's.
    pub fn info(&self) -> Result<ModuleInfo, Fault> {
        module_info(&self.library, &self.metrics)
    }

    /// All tokens that are there; those that can't be asked are left out.
    ///
    /// # Errors
    /// The module's, if it does not give its slots.
    pub fn tokens(&self) -> Result<Vec<TokenSummary>, Fault> {
        let slots = slots(&self.library, &self.metrics)?.into_iter();
        let info = |slot| Some((slot, token_info(&self.library, &self.metrics, slot).ok()?));
        Ok(slots.filter_map(info).map(|(slot, info)| TokenSummary::new(slot, &info)).collect())
    }

    /// Whether a token has a mechanism as it is needed.
    ///
    /// # Errors
    /// The module's.
    pub fn mechanism(&self, token: &TokenSummary, needed: Needed) -> Result<Mechanism, Fault> {
        let (mechanism, flags) = needed.mechanism();
        let mut info = CK_MECHANISM_INFO { ulMinKeySize: 0, ulMaxKeySize: 0, flags: 0 };
        let asked = self.library.call(&self.metrics, "C_GetMechanismInfo", |list| {
            // SAFETY: `info` is a valid place for the answer.
            list.C_GetMechanismInfo.map(|f| unsafe { f(token.slot, mechanism, &mut info) })
        });
        match asked {
            Err(Fault { cause: Cause::Returned(codes::MECHANISM_INVALID), .. }) => {
                return Ok(Mechanism::Absent);
            }
            other => other?,
        }
        if info.flags & flags != flags {
            return Ok(Mechanism::WrongUse);
        }
        let (min, max) = (info.ulMinKeySize, info.ulMaxKeySize);
        // PKCS#11 counts in bytes here; some modules count in bits.
        if [32, 256].iter().any(|size| (min..=max).contains(size)) {
            return Ok(Mechanism::Usable);
        }
        Ok(Mechanism::WrongSize { min, max })
    }
}

impl Needed {
    /// The name in PKCS#11.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "CKM_AES_GCM",
            Self::AesKeyGen => "CKM_AES_KEY_GEN",
        }
    }

    fn mechanism(self) -> (CK_MECHANISM_TYPE, CK_FLAGS) {
        match self {
            Self::AesGcm => (CKM_AES_GCM, CKF_ENCRYPT | CKF_DECRYPT),
            Self::AesKeyGen => (CKM_AES_KEY_GEN, CKF_GENERATE),
        }
    }
}

impl TokenSummary {
    fn new(slot: CK_SLOT_ID, info: &CK_TOKEN_INFO) -> Self {
        // Zero is CK_EFFECTIVELY_INFINITE, all ones CK_UNAVAILABLE_INFORMATION.
        let sessions = info.ulMaxSessionCount;
        let is_known = sessions != 0 && sessions != cryptoki_sys::CK_UNAVAILABLE_INFORMATION;
        Self {
            slot,
            label: padded(&info.label),
            serial: padded(&info.serialNumber),
            model: padded(&info.model),
            is_initialized: info.flags & CKF_TOKEN_INITIALIZED != 0,
            pin: PinState::of(info.flags),
            max_sessions: is_known.then_some(sessions),
        }
    }

    /// Whether the configuration means this one.
    pub fn is(&self, selector: &TokenSelector) -> bool {
        match selector {
            TokenSelector::Label(label) => self.label == *label,
            TokenSelector::Serial(serial) => self.serial == *serial,
        }
    }
}

impl PinState {
    fn of(flags: CK_FLAGS) -> Self {
        // The worst first: a locked PIN may bear the other flags as well.
        [
            (CKF_USER_PIN_LOCKED, Self::Locked),
            (CKF_USER_PIN_FINAL_TRY, Self::FinalTry),
            (CKF_USER_PIN_COUNT_LOW, Self::CountLow),
            (CKF_USER_PIN_TO_BE_CHANGED, Self::ToBeChanged),
        ]
        .into_iter()
        .find(|(flag, _)| flags & flag != 0)
        .map(|(_, state)| state)
        .unwrap_or(if flags & CKF_USER_PIN_INITIALIZED == 0 {
            Self::Missing
        } else {
            Self::Ready
        })
    }
}

/// C_GetInfo
pub(super) fn module_info(library: &Library, metrics: &TokenMetrics) -> Result<ModuleInfo, Fault> {
    // SAFETY: CK_INFO is plain data, for which all zeros is a value.
    let mut info: CK_INFO = unsafe { std::mem::zeroed() };
    library.call(metrics, "C_GetInfo", |list| {
        // SAFETY: `info` is a valid place for the answer.
        list.C_GetInfo.map(|f| unsafe { f(&mut info) })
    })?;
    Ok(ModuleInfo {
        cryptoki: dotted(info.cryptokiVersion),
        manufacturer: padded(&info.manufacturerID),
        description: padded(&info.libraryDescription),
        version: dotted(info.libraryVersion),
    })
}

fn dotted(version: CK_VERSION) -> String {
    format!("{}.{}", version.major, version.minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_flags_the_worst_counts() {
        let initialized = CKF_USER_PIN_INITIALIZED;
        for (flags, state) in [
            (0, PinState::Missing),
            (initialized, PinState::Ready),
            (initialized | CKF_USER_PIN_COUNT_LOW, PinState::CountLow),
            (initialized | CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY, PinState::FinalTry),
            (initialized | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED, PinState::Locked),
            (initialized | CKF_USER_PIN_TO_BE_CHANGED, PinState::ToBeChanged),
        ] {
            assert_eq!(PinState::of(flags), state, "{flags:#x}");
        }
    }
}
