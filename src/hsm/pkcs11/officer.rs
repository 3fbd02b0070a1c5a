//! The security officer of a token: who alone can say that a key is trusted.

use cryptoki_sys::{
    CKA_ID, CKA_LABEL, CKA_PRIVATE, CKA_TOKEN, CKA_TRUSTED, CKO_PUBLIC_KEY, CKU_SO,
};

use super::Pkcs11Backend;
use super::objects::is_true;
use super::session::Pkcs11Session;
use super::wrapping::public_template;
use crate::hsm::fault::Fault;
use crate::hsm::profile::SessionKind;
use crate::hsm::transport::{Officer, PEER_LABEL, RsaPublicKey};

/// A session in which only that can be done.
struct OfficerSession(Pkcs11Session);

impl Pkcs11Backend {
    /// Connects as the security officer. The PIN is tried once. No user may be logged in to this token
    /// from this process.
    ///
    /// # Errors
    /// As [`crate::hsm::backend::Backend::connect`].
    pub fn officer(&self, pin: &str) -> Result<Box<dyn Officer>, Fault> {
        let session = self.connect_with(Some(SessionKind::ReadWrite), CKU_SO, pin)?;
        Ok(Box::new(OfficerSession(session)))
    }
}

impl Officer for OfficerSession {
    fn trust(&mut self, public: &RsaPublicKey) -> Result<bool, Fault> {
        let Self(session) = self;
        for (object, found) in session.rsa_keys(PEER_LABEL, CKO_PUBLIC_KEY)? {
            let [trusted] = session.read(object, [CKA_TRUSTED])?;
            if found == *public && is_true(&trusted) {
                return Ok(false);
            }
        }
        let id = format!("{PEER_LABEL}:{}", &public.fingerprint()[..16]);
        // SoftHSM2 lets it be set only here, and never later.
        let template = public_template(public)
            .bytes(CKA_LABEL, PEER_LABEL.as_bytes())
            .bytes(CKA_ID, id.as_bytes())
            .flags(&[CKA_TOKEN, CKA_TRUSTED], true)
            .flag(CKA_PRIVATE, false);
        session.create(template).map(|_| true)
    }
}
