//! What the `keys` commands change in a token: objects made, given a new state, destroyed.

use cryptoki_sys::{
    CK_ULONG, CKA_ALWAYS_SENSITIVE, CKA_CLASS, CKA_DECRYPT, CKA_DERIVE, CKA_ENCRYPT,
    CKA_EXTRACTABLE, CKA_ID, CKA_LABEL, CKA_MODIFIABLE, CKA_NEVER_EXTRACTABLE, CKA_PRIVATE,
    CKA_SENSITIVE, CKA_SIGN, CKA_TOKEN, CKA_UNWRAP, CKA_VALUE_LEN, CKA_VERIFY, CKA_WRAP,
    CKO_PRIVATE_KEY, CKO_SECRET_KEY,
};

use super::Pkcs11Backend;
use super::objects::{attribute, bytes, is_true, number};
use super::session::Pkcs11Session;
use crate::hsm::backend::{
    Administration, Labelled, NewKeyUsage, ObjectHandle, Protection, Signing,
};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::profile::SessionKind;
use crate::hsm::state::KeyState;
use crate::names::ExternalKeyId;

impl Pkcs11Backend {
    /// Connects with a session that may change the token. The PIN is tried once.
    ///
    /// # Errors
    /// As [`crate::hsm::backend::Backend::connect`]; a write-protected token refuses it.
    pub fn administer(&self) -> Result<Box<dyn Administration>, Fault> {
        Ok(Box::new(self.connect_as(Some(SessionKind::ReadWrite))?))
    }
}

impl Administration for Pkcs11Session {
    fn labelled(&mut self, label: &ExternalKeyId) -> Result<Vec<Labelled>, Fault> {
        self.check_connection()?;
        let mut text = label.as_str().as_bytes().to_vec();
        let mut objects = Vec::new();
        self.find(bytes(CKA_LABEL, &mut text), &mut objects)?;
        let mut labelled = Vec::with_capacity(objects.len());
        for handle in objects {
            let class = match self.read(handle, [CKA_CLASS]) {
                Ok([class]) => class,
                // Destroyed by somebody since it was found.
                Err(fault) if fault.kind == FaultKind::HandleStale => continue,
                Err(fault) => return Err(fault),
            };
            let is_key = matches!(number(&class), Some(CKO_SECRET_KEY | CKO_PRIVATE_KEY));
            labelled.push(Labelled { handle, is_key });
        }
        Ok(labelled)
    }

    fn read_protection(&mut self, object: ObjectHandle) -> Result<Protection, Fault> {
        self.check_generation(object)?;
        let types = [
            CKA_TOKEN,
            CKA_PRIVATE,
            CKA_SENSITIVE,
            CKA_ALWAYS_SENSITIVE,
            CKA_EXTRACTABLE,
            CKA_NEVER_EXTRACTABLE,
            CKA_MODIFIABLE,
        ];
        let values = self.read(object, types)?.map(|value| value.map(|v| is_true(&Some(v))));
        let [
            token,
            private,
            sensitive,
            always_sensitive,
            extractable,
            never_extractable,
            modifiable,
        ] = values;
        Ok(Protection {
            token,
            private,
            sensitive,
            always_sensitive,
            extractable,
            never_extractable,
            modifiable,
        })
    }

    fn generate(
        &mut self,
        label: &ExternalKeyId,
        state: &KeyState,
        usage: NewKeyUsage,
    ) -> Result<ObjectHandle, Fault> {
        self.check_connection()?;
        let mut class = CKO_SECRET_KEY;
        let mut length: CK_ULONG = 32;
        let mut text = label.as_str().as_bytes().to_vec();
        let mut id = state.to_string().into_bytes();
        let (mut yes, mut no) = (cryptoki_sys::CK_TRUE, cryptoki_sys::CK_FALSE);
        // Every usage is set: modules differ in what they assume.
        let flags = [
            (CKA_TOKEN, true),
            (CKA_PRIVATE, true),
            (CKA_SENSITIVE, true),
            (CKA_EXTRACTABLE, false),
            (CKA_MODIFIABLE, true),
            (CKA_ENCRYPT, usage.encrypt),
            (CKA_DECRYPT, usage.decrypt),
            (CKA_SIGN, false),
            (CKA_VERIFY, false),
            (CKA_WRAP, false),
            (CKA_UNWRAP, false),
            (CKA_DERIVE, false),
        ];
        let mut template = vec![
            attribute(CKA_CLASS, &mut class),
            attribute(CKA_VALUE_LEN, &mut length),
            bytes(CKA_LABEL, &mut text),
            bytes(CKA_ID, &mut id),
        ];
        template
            .extend(flags.map(|(kind, on)| attribute(kind, if on { &mut yes } else { &mut no })));
        self.generate_aes(&mut template)
    }

    fn write_state(&mut self, object: ObjectHandle, state: &KeyState) -> Result<(), Fault> {
        self.check_generation(object)?;
        let mut id = state.to_string().into_bytes();
        let mut template = [bytes(CKA_ID, &mut id)];
        let handle = self.handle;
        self.call("C_SetAttributeValue", |list| {
            // SAFETY: template and value live through the call.
            list.C_SetAttributeValue
                .map(|f| unsafe { f(handle, object.number as CK_ULONG, template.as_mut_ptr(), 1) })
        })
    }

    fn generate_signing_key(&mut self, label: &str, how: Signing) -> Result<(), Fault> {
        self.make_signing_key(label, how)
    }

    fn public_points(&mut self, label: &str) -> Result<Vec<Vec<u8>>, Fault> {
        self.read_public_points(label)
    }

    fn destroy(&mut self, object: ObjectHandle) -> Result<(), Fault> {
        self.check_generation(object)?;
        let handle = self.handle;
        self.call("C_DestroyObject", |list| {
            // SAFETY: takes numbers only.
            list.C_DestroyObject.map(|f| unsafe { f(handle, object.number as CK_ULONG) })
        })
    }
}
