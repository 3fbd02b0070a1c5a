//! A session that does not show all objects each time, as SoftHSM2's while another process writes them.

use std::collections::VecDeque;

use xksd::hsm::backend::{
    ChangeableAttributes, IV_LEN, ObjectHandle, Sealed, Session, Signing, TAG_LEN,
};
use xksd::hsm::fault::Fault;
use xksd::hsm::key::KeyAttributes;
use xksd::secret::Plaintext;

/// What each look at the token does not show, in turn; later ones show all.
pub(crate) struct Blinking {
    pub(crate) session: Box<dyn Session>,
    pub(crate) hidden: VecDeque<Vec<ObjectHandle>>,
}

impl Session for Blinking {
    fn random(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        self.session.random(buffer)
    }

    fn encrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8; IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, Fault> {
        self.session.encrypt(key, iv, aad, plaintext)
    }

    fn decrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<Plaintext, Fault> {
        self.session.decrypt(key, iv, aad, ciphertext, tag)
    }

    fn objects(&mut self) -> Result<Vec<ObjectHandle>, Fault> {
        let mut objects = self.session.objects()?;
        let hidden = self.hidden.pop_front().unwrap_or_default();
        objects.retain(|object| !hidden.contains(object));
        Ok(objects)
    }

    fn read_changeable(&mut self, object: ObjectHandle) -> Result<ChangeableAttributes, Fault> {
        self.session.read_changeable(object)
    }

    fn read_attributes(&mut self, object: ObjectHandle) -> Result<KeyAttributes, Fault> {
        self.session.read_attributes(object)
    }

    fn make_probe_key(&mut self) -> Result<ObjectHandle, Fault> {
        self.session.make_probe_key()
    }

    fn sign(&mut self, key: ObjectHandle, how: Signing, input: &[u8]) -> Result<Vec<u8>, Fault> {
        self.session.sign(key, how, input)
    }
}
