//! What the `keys` commands change in a token: objects made, given a new state, destroyed.

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ULONG, CKA_ALWAYS_SENSITIVE, CKA_CLASS, CKA_EXTRACTABLE, CKA_ID, CKA_LABEL,
    CKA_MODIFIABLE, CKA_NEVER_EXTRACTABLE, CKA_PRIVATE, CKA_SENSITIVE, CKA_TOKEN, CKA_VALUE_LEN,
    CKA_WRAP_WITH_TRUSTED, CKO_PRIVATE_KEY, CKO_SECRET_KEY,
};

use super::Pkcs11Backend;
use super::objects::{is_true, number};
use super::session::Pkcs11Session;
use super::template::Template;
use crate::hsm::backend::{Administration, Labelled, NewKey, ObjectHandle, Protection};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::profile::SessionKind;
use crate::hsm::state::KeyState;
use crate::hsm::transport::MATERIAL_LEN;

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
    fn labelled(&mut self, label: &str) -> Result<Vec<Labelled>, Fault> {
        self.check_connection()?;
        let mut text = label.as_bytes().to_vec();
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
            // Last: not every module knows it.
            CKA_WRAP_WITH_TRUSTED,
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
            wrap_with_trusted,
        ] = values;
        let [_, value_len] = self.read(object, [CKA_CLASS, CKA_VALUE_LEN])?;
        // SoftHSM2 says zero of a key that was unwrapped.
        let value_len = number(&value_len).filter(|length| *length > 0);
        Ok(Protection {
            token,
            private,
            sensitive,
            always_sensitive,
            extractable,
            never_extractable,
            modifiable,
            wrap_with_trusted,
            value_len,
        })
    }

    fn generate(&mut self, new: &NewKey<'_>) -> Result<ObjectHandle, Fault> {
        self.check_connection()?;
        let mut template = Template::of(new).number(CKA_VALUE_LEN, MATERIAL_LEN as CK_ULONG);
        self.generate_aes(&mut template.attributes())
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

    fn destroy(&mut self, object: ObjectHandle) -> Result<(), Fault> {
        self.check_generation(object)?;
        let handle = self.handle;
        self.call("C_DestroyObject", |list| {
            // SAFETY: takes numbers only.
            list.C_DestroyObject.map(|f| unsafe { f(handle, object.number as CK_ULONG) })
        })
    }
}

fn bytes(kind: CK_ULONG, value: &mut [u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: value.as_mut_ptr().cast(),
        ulValueLen: value.len() as CK_ULONG,
    }
}
