//! Keys that somebody else made in a PKCS#11 token, with whatever attributes.

use std::ffi::CStr;
use std::path::Path;
use std::ptr::NonNull;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use xksd::hsm::key::Usage;

/// A session with write access that makes keys as other people's tools do.
///
/// It may be used beside a backend in the same process: nothing is finalised when it goes.
#[derive(Debug)]
pub struct ForeignTool(Session);

/// What a new key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Material {
    /// An AES key of this value: 16, 24 or 32 bytes.
    Aes(&'static [u8]),
    /// A generic secret of 32 bytes.
    GenericSecret,
    /// The private key of a new RSA pair of 2048 bits; encrypt and decrypt usage only.
    Rsa2048,
}

impl ForeignTool {
    /// Loads the module, unless it is, and logs in to the token.
    ///
    /// # Panics
    /// Where that fails.
    pub fn login(module: &Path, token: &str, pin: &str) -> Self {
        Self::login_initializing(module, token, pin, None)
    }

    /// The same, with a text for the reserved argument of C_Initialize.
    ///
    /// # Panics
    /// Where that fails.
    #[allow(unsafe_code, reason = "cryptoki takes the argument as a pointer")]
    pub fn login_initializing(
        module: &Path,
        token: &str,
        pin: &str,
        initialization: Option<&CStr>,
    ) -> Self {
        let pkcs11 = Pkcs11::new(module).expect("the module can be loaded");
        let flags = CInitializeFlags::OS_LOCKING_OK;
        let arguments = match initialization.map(|text| NonNull::from(text).cast()) {
            None => CInitializeArgs::new(flags),
            // SAFETY: a text with a NUL at its end, which lives through the call and is only read.
            Some(text) => unsafe { CInitializeArgs::new_with_reserved(flags, text) },
        };
        match pkcs11.initialize(arguments) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => panic!("C_Initialize: {error}"),
        }
        let slots = pkcs11.get_slots_with_initialized_token().expect("there are slots");
        let is_ours =
            |slot: &_| pkcs11.get_token_info(*slot).expect("the slot has a token").label() == token;
        let slot = slots.into_iter().find(is_ours).expect("one of them has the token");
        let session = pkcs11.open_rw_session(slot).expect("a session can be opened");
        match session.login(UserType::User, Some(&AuthPin::from(pin))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => panic!("C_Login: {error}"),
        }
        Self(session)
    }

    /// Whether the token takes a label that is no UTF-8, which PKCS#11 wants: kryoptic does not.
    ///
    /// # Panics
    /// Where it refuses for another reason.
    pub fn takes_any_label(&self) -> bool {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(false),
            Attribute::Value(vec![1; 32]),
            Attribute::Label(vec![0xff]),
        ];
        match self.0.create_object(&template) {
            Ok(object) => self.0.destroy_object(object).map(|()| true).expect("it was made"),
            Err(Error::Pkcs11(RvError::AttributeValueInvalid, _)) => false,
            Err(error) => panic!("C_CreateObject: {error}"),
        }
    }

    /// Makes a token object.
    ///
    /// # Panics
    /// Where the token refuses.
    pub fn add(&self, label: &[u8], id: &[u8], material: Material, usage: Usage) {
        let mut template = vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Label(label.to_vec()),
            Attribute::Id(id.to_vec()),
            Attribute::Decrypt(usage.decrypt),
            Attribute::Sign(usage.sign),
            Attribute::Unwrap(usage.unwrap),
            Attribute::Derive(usage.derive),
        ];
        if material == Material::Rsa2048 {
            // NSS assumes no exponent, and no id of the private key's.
            let public = [
                Attribute::ModulusBits(2048.into()),
                Attribute::PublicExponent(vec![1, 0, 1]),
                Attribute::Label(label.to_vec()),
                Attribute::Id(id.to_vec()),
            ];
            let made = self.0.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &template);
            made.expect("the token makes RSA keys");
            return;
        }
        template.extend([
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(usage.encrypt),
            Attribute::Verify(usage.verify),
            Attribute::Wrap(usage.wrap),
        ]);
        template.extend(match material {
            Material::Aes(value) => {
                [Attribute::KeyType(KeyType::AES), Attribute::Value(value.to_vec())]
            }
            _ => [Attribute::KeyType(KeyType::GENERIC_SECRET), Attribute::Value(vec![7; 32])],
        });
        self.0.create_object(&template).expect("the token takes the key");
    }

    /// Changes attributes of all objects of a label.
    ///
    /// # Panics
    /// Where there are none, or the token refuses.
    pub fn change(&self, label: &[u8], attributes: &[Attribute]) {
        for object in self.find(label) {
            self.0.update_attributes(object, attributes).expect("the token lets itself be changed");
        }
    }

    /// Gives all objects of a label another label.
    ///
    /// # Panics
    /// Where there are none, or the token refuses.
    pub fn rename(&self, label: &[u8], new: &[u8]) {
        self.change(label, &[Attribute::Label(new.to_vec())]);
    }

    /// Destroys all objects of a label.
    ///
    /// # Panics
    /// Where there are none, or the token refuses.
    pub fn destroy(&self, label: &[u8]) {
        for object in self.find(label) {
            self.0.destroy_object(object).expect("the token destroys what it has");
        }
    }

    /// Has the private key of this label unwrap an AES key, by RSA-OAEP with SHA-1, so that its value can
    /// be read, and reads it; `None` where the token refuses.
    ///
    /// # Panics
    /// Where there is no such key.
    pub fn peek(&self, label: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
        let source = PkcsOaepSource::empty();
        let oaep = PkcsOaepParams::new(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1, source);
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(false),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
        ];
        let private = self.private(label);
        let key = self.0.unwrap_key(&Mechanism::RsaPkcsOaep(oaep), private, wrapped, &template);
        let value = self.0.get_attributes(key.ok()?, &[AttributeType::Value]).ok()?;
        match value.into_iter().next() {
            Some(Attribute::Value(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether the token lets the private key of this label be made to decrypt.
    ///
    /// # Panics
    /// Where there is no such key.
    pub fn could_decrypt(&self, label: &[u8]) -> bool {
        let private = self.private(label);
        self.0.update_attributes(private, &[Attribute::Decrypt(true)]).is_ok()
    }

    fn private(&self, label: &[u8]) -> ObjectHandle {
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.to_vec())];
        self.0.find_objects(&wanted).expect("the token can be searched")[0]
    }

    fn find(&self, label: &[u8]) -> Vec<ObjectHandle> {
        let found = self.0.find_objects(&[Attribute::Label(label.to_vec())]);
        let found = found.expect("the token can be searched");
        assert!(!found.is_empty(), "no object of the label {:?}", label.escape_ascii().to_string());
        found
    }
}
