//! Vendor profiles: what modules do differently, as data.
//!
//! PKCS#11 leaves open who makes the IV of AES-GCM, and modules disagree about what their return
//! codes mean. A [`Profile`] says it for one kind of module, so that the code that calls them has no
//! case for any vendor.
//!
//! A wrong profile can be silent ruin: SoftHSM and kryoptic take the twelve zero bytes that are a
//! question to CloudHSM for the IV, and encrypt under it again and again. A profile whose IVs the
//! token makes is therefore only ever chosen by the operator, never by [`recognise`], and the token
//! has to prove it before it is used.

use std::fmt;

use super::codes::{self, Code};
use super::fault::FaultKind;

/// Who makes the initialization vector, and where it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IvSource {
    /// The caller: 12 bytes from the token's random number generator.
    HostFromTokenRng,
    /// The token, over the 12 zero bytes that the caller passes in.
    TokenInPlace,
    /// The token, which is passed none and appends 16 bytes to ciphertext and tag.
    TokenAppended,
}

impl IvSource {
    /// Whether the token makes it.
    pub fn is_token(self) -> bool {
        self != Self::HostFromTokenRng
    }
}

/// Whether the message functions of PKCS#11 3.0 are used, with which an operation is one C call and
/// the token makes the IV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageApi {
    /// Never: an operation is two calls.
    Unused,
    /// Where the module has them and the token proves, with each connection, that they do what they
    /// say; else two calls.
    WhereProved,
}

/// The kind of session that serves requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// `CKF_RW_SESSION`: some tokens know no other kind.
    ReadWrite,
    /// Token objects can't be changed through it, session objects can be made.
    ReadOnly,
}

/// What C_Initialize is given in its reserved argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialization {
    /// Nothing, as PKCS#11 wants.
    Nothing,
    /// A text of the operator's, with a NUL at its end.
    Text,
}

/// What a profile rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The module itself, in tests.
    Module,
    /// The vendor's documentation, and a module that plays this one in tests.
    Simulation,
}

/// A return code that means something else than it does elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Meaning {
    /// From these C functions.
    pub functions: &'static [&'static str],
    /// This code
    pub code: Code,
    /// is this.
    pub kind: FaultKind,
}

/// One kind of module.
#[derive(Debug)]
pub struct Profile {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Who makes IVs.
    pub iv_source: IvSource,
    /// How many calls an operation is.
    pub message_api: MessageApi,
    /// Return codes that mean something else than by [`super::fault::classify`]'s own rules.
    pub meanings: &'static [Meaning],
    /// The kind of session to open.
    pub session_kind: SessionKind,
    /// How many sessions are used where the configuration does not say.
    pub sessions: usize,
    /// How many sessions may be configured.
    pub sessions_max: usize,
    /// What C_Initialize wants.
    pub initialization: Initialization,
    /// What all this rests on.
    pub evidence: Evidence,
    /// Words, in lower case, of which one stands in what such a module says of itself.
    words: &'static [&'static str],
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Profile {
    /// The profile of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|profile| profile.name == name)
    }

    /// What a return code means here and not elsewhere. Of a function that works on messages it
    /// means what it does of the one that does the same.
    pub(super) fn meaning(&self, function: &str, code: Code) -> Option<FaultKind> {
        let function = without_messages(function);
        let fits = |m: &&Meaning| m.code == code && m.functions.contains(&function);
        self.meanings.iter().find(fits).map(|meaning| meaning.kind)
    }
}

/// What a module and a token say of themselves (C_GetInfo, C_GetTokenInfo).
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    /// `manufacturerID` of the library.
    pub library_manufacturer: &'a str,
    /// `libraryDescription`
    pub library_description: &'a str,
    /// `manufacturerID` of the token.
    pub token_manufacturer: &'a str,
    /// `model` of the token.
    pub token_model: &'a str,
}

/// Which profile a module seems to want.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Recognised {
    /// This one; its IVs are the caller's.
    As(&'static Profile),
    /// This one, whose IVs the token makes: the operator has to say so. Until then [`GENERIC`] is
    /// used, under which such a token encrypts nothing.
    Perhaps(&'static Profile),
    /// None: [`GENERIC`].
    Unknown,
}

/// Looks for the module's profile. Never chooses one whose IVs the token makes.
pub fn recognise(words: Words<'_>) -> Recognised {
    let said = [
        words.library_manufacturer,
        words.library_description,
        words.token_manufacturer,
        words.token_model,
    ]
    .join("\n")
    .to_lowercase();
    let fits = |profile: &&&Profile| profile.words.iter().any(|word| said.contains(word));
    match ALL.iter().find(fits) {
        None => Recognised::Unknown,
        Some(profile) if profile.iv_source.is_token() => Recognised::Perhaps(profile),
        Some(profile) => Recognised::As(profile),
    }
}

/// Every profile.
pub const ALL: [&Profile; 8] =
    [&GENERIC, &SOFTHSM2, &KRYOPTIC, &NSS, &CLOUDHSM, &LUNA, &LUNA_FIPS, &NSHIELD];

/// Functions that use a key for data, and those that do the same without messages: under their names
/// codes are known.
const CRYPT: &[(&str, &str)] = &[
    ("C_EncryptInit", "C_EncryptInit"),
    ("C_Encrypt", "C_Encrypt"),
    ("C_DecryptInit", "C_DecryptInit"),
    ("C_Decrypt", "C_Decrypt"),
    ("C_MessageEncryptInit", "C_EncryptInit"),
    ("C_EncryptMessage", "C_Encrypt"),
    ("C_MessageDecryptInit", "C_DecryptInit"),
    ("C_DecryptMessage", "C_Decrypt"),
];

/// The functions that use a key for data.
pub(super) fn crypt() -> impl Iterator<Item = &'static str> {
    CRYPT.iter().map(|(function, _)| *function)
}

/// The function that does without messages what this one does; else this one.
pub(super) fn without_messages(function: &str) -> &str {
    let found = CRYPT.iter().find(|(of_messages, _)| *of_messages == function);
    found.map_or(function, |(_, without)| without)
}

/// What PKCS#11 says, and no more.
pub const GENERIC: Profile = Profile {
    name: "generic",
    iv_source: IvSource::HostFromTokenRng,
    message_api: MessageApi::Unused,
    meanings: &[],
    // The only kind that every token knows.
    session_kind: SessionKind::ReadWrite,
    sessions: 8,
    sessions_max: 1024,
    initialization: Initialization::Nothing,
    evidence: Evidence::Module,
    words: &[],
};

/// SoftHSM2, 2.6 and 2.7.
pub const SOFTHSM2: Profile = Profile {
    name: "softhsm2",
    // A bad tag is CKR_GENERAL_ERROR, which a canary settles.
    session_kind: SessionKind::ReadOnly,
    // Its locks make more of them slower: 78,000 encryptions a second on one thread, 66,000 on four.
    sessions: 4,
    words: &["softhsm"],
    ..GENERIC
};

/// kryoptic, a software token of latchset.
pub const KRYOPTIC: Profile = Profile {
    name: "kryoptic",
    message_api: MessageApi::WhereProved,
    // A key that another process has destroyed. Not where the catalogue reads attributes: there it
    // would make a key that can't be read one that does not exist.
    meanings: &[Meaning {
        functions: &["C_EncryptInit", "C_DecryptInit"],
        code: codes::GENERAL_ERROR,
        kind: FaultKind::HandleStale,
    }],
    session_kind: SessionKind::ReadOnly,
    sessions: 4,
    words: &["kryoptic"],
    ..GENERIC
};

/// NSS softokn, the token of Mozilla's libraries.
pub const NSS: Profile = Profile {
    name: "nss",
    message_api: MessageApi::WhereProved,
    session_kind: SessionKind::ReadOnly,
    sessions: 4,
    initialization: Initialization::Text,
    words: &["nss internal", "nss 3", "mozilla"],
    ..GENERIC
};

/// AWS CloudHSM, client SDK 5.
pub const CLOUDHSM: Profile = Profile {
    name: "cloudhsm",
    iv_source: IvSource::TokenInPlace,
    // Never a bad ciphertext: a canary that works a moment later would not prove that it was.
    meanings: &[Meaning {
        functions: &[
            "C_EncryptInit",
            "C_Encrypt",
            "C_DecryptInit",
            "C_Decrypt",
            "C_GenerateRandom",
            "C_OpenSession",
        ],
        code: codes::FUNCTION_FAILED,
        kind: FaultKind::Busy,
    }],
    sessions: 16,
    evidence: Evidence::Simulation,
    words: &["cloudhsm"],
    ..GENERIC
};

/// Thales Luna, not in FIPS mode.
pub const LUNA: Profile = Profile {
    name: "luna",
    // About thirty threads are what one of them can use.
    sessions: 16,
    evidence: Evidence::Simulation,
    words: &["luna", "chrystoki", "safenet"],
    ..GENERIC
};

/// Thales Luna in FIPS mode.
pub const LUNA_FIPS: Profile = Profile {
    name: "luna-fips",
    iv_source: IvSource::TokenAppended,
    // Nothing that it says of itself tells the mode.
    words: &[],
    ..LUNA
};

/// Entrust nShield.
pub const NSHIELD: Profile = Profile {
    name: "nshield",
    iv_source: IvSource::TokenInPlace,
    // Its code for a bad tag, which means other things as well: a canary settles it.
    meanings: &[Meaning {
        functions: &["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"],
        code: codes::FUNCTION_FAILED,
        kind: FaultKind::Ambiguous,
    }],
    evidence: Evidence::Simulation,
    words: &["ncipher", "nshield"],
    ..GENERIC
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::fault::classify;

    fn words(of: [&str; 4]) -> Recognised {
        let [library_manufacturer, library_description, token_manufacturer, token_model] = of;
        recognise(Words {
            library_manufacturer,
            library_description,
            token_manufacturer,
            token_model,
        })
    }

    #[test]
    fn what_modules_say_of_themselves_is_recognised() {
        let softhsm = ["SoftHSM", "Implementation of PKCS11", "SoftHSM project", "SoftHSM v2"];
        assert_eq!(words(softhsm), Recognised::As(&SOFTHSM2));
        let nss =
            ["Mozilla Foundation", "NSS Internal Crypto Services", "Mozilla Foundation", "NSS 3"];
        assert_eq!(words(nss), Recognised::As(&NSS));
        assert_eq!(words(["Kryoptic", "", "Kryoptic Project", "v1"]), Recognised::As(&KRYOPTIC));
        assert_eq!(words(["SafeNet", "Chrystoki", "SafeNet", "Luna K7"]), Recognised::As(&LUNA));
        assert_eq!(words(["", "CloudHSM PKCS#11", "", ""]), Recognised::Perhaps(&CLOUDHSM));
        assert_eq!(words(["nCipher Corp. Ltd", "", "", ""]), Recognised::Perhaps(&NSHIELD));
        assert_eq!(words(["somebody", "something", "", ""]), Recognised::Unknown);
        assert_eq!(words([""; 4]), Recognised::Unknown);
    }

    #[test]
    fn no_name_chooses_an_iv_that_the_token_makes() {
        for profile in ALL {
            for word in profile.words {
                match words([word, "", "", ""]) {
                    Recognised::As(found) => assert!(!found.iv_source.is_token(), "{word}"),
                    Recognised::Perhaps(found) => assert!(found.iv_source.is_token(), "{word}"),
                    Recognised::Unknown => panic!("{word}"),
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_one_profile() {
        for profile in ALL {
            assert_eq!(Profile::named(profile.name), Some(profile));
            assert!((1..=profile.sessions_max).contains(&profile.sessions), "{profile}");
        }
        assert_eq!(Profile::named("softhsm"), None);
    }

    #[test]
    fn busy_is_not_a_bad_ciphertext() {
        let failed = |profile| classify(profile, "C_Decrypt", codes::FUNCTION_FAILED);
        assert_eq!(failed(&CLOUDHSM), FaultKind::Busy);
        for profile in [&GENERIC, &NSHIELD, &LUNA] {
            assert_eq!(failed(profile), FaultKind::Ambiguous, "{profile}");
        }
        let error = |function| classify(&KRYOPTIC, function, codes::GENERAL_ERROR);
        assert_eq!(error("C_DecryptInit"), FaultKind::HandleStale);
        assert_eq!(error("C_Decrypt"), FaultKind::Ambiguous);
        // The same of messages.
        assert_eq!(error("C_MessageDecryptInit"), FaultKind::HandleStale);
        assert_eq!(error("C_DecryptMessage"), FaultKind::Ambiguous);
    }

    #[test]
    fn no_token_is_believed_that_appends_ivs_and_sends_messages() {
        for profile in ALL {
            let both = profile.iv_source.is_token() && profile.message_api != MessageApi::Unused;
            assert!(!both, "{profile}");
        }
    }
}
