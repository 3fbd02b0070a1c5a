//! The token's objects: finding them, reading attributes, making the probe key.

use std::ptr;
use std::sync::atomic::Ordering;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_CLASS,
    CK_OBJECT_HANDLE, CK_ULONG, CKA_CHECK_VALUE, CKA_CLASS, CKA_DECRYPT, CKA_DERIVE, CKA_ENCRYPT,
    CKA_EXTRACTABLE, CKA_ID, CKA_KEY_TYPE, CKA_LABEL, CKA_MODULUS, CKA_PRIVATE, CKA_SENSITIVE,
    CKA_SIGN, CKA_TOKEN, CKA_UNWRAP, CKA_VALUE_LEN, CKA_VERIFY, CKA_WRAP, CKK_AES, CKK_DES3,
    CKK_EC, CKK_GENERIC_SECRET, CKK_RSA, CKM_AES_KEY_GEN, CKO_PRIVATE_KEY, CKO_SECRET_KEY,
};

use super::session::Pkcs11Session;
use crate::hsm::backend::{ChangeableAttributes, ObjectHandle, Session, Signing};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::key::{CheckValue, KeyAttributes, KeyKind, Usage};
use crate::hsm::state::KeyState;
use crate::hsm::transport::MATERIAL_LEN;
use crate::secret::Plaintext;

/// How many handles one C_FindObjects call takes.
const FIND_BATCH: usize = 256;

/// More objects than this are no answer: a module that gives the same ones for ever.
const OBJECTS_MAX: usize = 1 << 20;

/// What buffers are filled with: in a number it is CK_UNAVAILABLE_INFORMATION, and no label that
/// fills the whole buffer consists of it.
const UNTOUCHED: u8 = 0xff;

/// Room for a value; the longest wanted is the modulus of an RSA key. A longer label or id is none of
/// ours and is left out.
const VALUE_MAX: usize = 2056;

impl Session for Pkcs11Session {
    fn random(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        self.fill_random(buffer)
    }

    fn makes_ivs(&self) -> bool {
        self.link.messages.is_some() || self.link.profile.iv_source.is_token()
    }

    fn encrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8; crate::hsm::backend::IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<crate::hsm::backend::Sealed, Fault> {
        match self.link.messages {
            Some(functions) => self.encrypt_message(functions, key, aad, plaintext),
            None => self.gcm_encrypt(key, iv, aad, plaintext),
        }
    }

    fn decrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; crate::hsm::backend::TAG_LEN],
    ) -> Result<Plaintext, Fault> {
        match self.link.messages {
            Some(functions) => self.decrypt_message(functions, key, iv, aad, ciphertext, tag),
            None => self.gcm_decrypt(key, iv, aad, ciphertext, tag),
        }
    }

    fn objects(&mut self) -> Result<Vec<ObjectHandle>, Fault> {
        self.check_connection()?;
        let mut objects = Vec::new();
        // Private keys too: one that bears an external key's label is named truthfully (P-30).
        for class in [CKO_SECRET_KEY, CKO_PRIVATE_KEY] {
            self.find_class(class, &mut objects)?;
        }
        Ok(objects)
    }

    fn read_changeable(&mut self, object: ObjectHandle) -> Result<ChangeableAttributes, Fault> {
        self.check_generation(object)?;
        let types = [CKA_LABEL, CKA_ID, CKA_ENCRYPT, CKA_DECRYPT];
        let [label, id, encrypt, decrypt] = self.read(object, types)?;
        let [encrypt, decrypt] = [encrypt, decrypt].map(|value| is_true(&value));
        Ok(ChangeableAttributes {
            label: label.unwrap_or_default(),
            id: id.unwrap_or_default(),
            encrypt,
            decrypt,
        })
    }

    fn read_attributes(&mut self, object: ObjectHandle) -> Result<KeyAttributes, Fault> {
        let changeable = self.read_changeable(object)?;
        let types = [CKA_SIGN, CKA_VERIFY, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE];
        let [sign, verify, wrap, unwrap, derive] =
            self.read(object, types)?.map(|value| is_true(&value));
        let kind_types = [CKA_KEY_TYPE, CKA_VALUE_LEN, CKA_MODULUS];
        let [key_type, bytes, modulus] = self.read(object, kind_types)?;
        let (key_type, bytes) = (number(&key_type), number(&bytes));
        // Private keys have no CKA_MODULUS_BITS.
        let bits = modulus.map(|modulus| bit_length(&modulus));
        let bytes = bytes.filter(|length| *length > 0).or_else(|| {
            // SoftHSM2 does not tell the length of a key that was unwrapped. A key whose state is ours
            // is AES-256, or it was never enabled.
            let is_ours = key_type == Some(CKK_AES) && KeyState::parse(&changeable.id).is_ok();
            is_ours.then_some(MATERIAL_LEN as CK_ULONG)
        });
        let ChangeableAttributes { encrypt, decrypt, .. } = changeable;
        let usage = Usage { encrypt, decrypt, sign, verify, wrap, unwrap, derive };
        let check_value = self.check_value(object)?;
        Ok(KeyAttributes { changeable, kind: kind(key_type, bytes, bits), usage, check_value })
    }

    fn keys_were_read(&mut self) -> Result<(), Fault> {
        self.link.readings.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn make_probe_key(&mut self) -> Result<ObjectHandle, Fault> {
        self.check_connection()?;
        let mut length: CK_ULONG = 32;
        let (mut yes, mut no) = (cryptoki_sys::CK_TRUE, cryptoki_sys::CK_FALSE);
        // Every usage is set: the defaults of modules differ.
        let on = [CKA_PRIVATE, CKA_SENSITIVE, CKA_ENCRYPT, CKA_DECRYPT];
        let off =
            [CKA_TOKEN, CKA_EXTRACTABLE, CKA_SIGN, CKA_VERIFY, CKA_WRAP, CKA_UNWRAP, CKA_DERIVE];
        // Of the colon in it: no external key id can name this key.
        let mut label = *b"xksd:probe";
        let mut template: Vec<CK_ATTRIBUTE> = Vec::with_capacity(on.len() + off.len() + 2);
        template.push(attribute(CKA_LABEL, &mut label));
        template.push(attribute(CKA_VALUE_LEN, &mut length));
        template.extend(on.map(|kind| attribute(kind, &mut yes)));
        template.extend(off.map(|kind| attribute(kind, &mut no)));
        self.generate_aes(&mut template)
    }

    fn sign(&mut self, key: ObjectHandle, how: Signing, input: &[u8]) -> Result<Vec<u8>, Fault> {
        self.sign_with(key, how, input)
    }
}

impl Pkcs11Session {
    /// Makes an AES key as the template says, whose values the caller keeps until this returns.
    pub(super) fn generate_aes(
        &mut self,
        template: &mut [CK_ATTRIBUTE],
    ) -> Result<ObjectHandle, Fault> {
        self.generate_by(CKM_AES_KEY_GEN, template)
    }

    /// The same for any secret key that this mechanism makes.
    pub(super) fn generate_by(
        &mut self,
        mechanism: CK_MECHANISM_TYPE,
        template: &mut [CK_ATTRIBUTE],
    ) -> Result<ObjectHandle, Fault> {
        let mut mechanism =
            CK_MECHANISM { mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let mut key: CK_OBJECT_HANDLE = 0;
        let handle = self.handle;
        let count = template.len() as CK_ULONG;
        self.call("C_GenerateKey", |list| {
            // SAFETY: mechanism, template and what it points to live through the call; `key` is a
            // valid place for the answer.
            list.C_GenerateKey.map(|f| unsafe {
                f(handle, &mut mechanism, template.as_mut_ptr(), count, &mut key)
            })
        })?;
        // CK_INVALID_HANDLE
        if key == 0 {
            return Err(Fault::nonsense("C_GenerateKey", "the number of no object"));
        }
        Ok(ObjectHandle { generation: self.generation, number: key })
    }

    /// By itself, since it is optional (PKCS#11 2.40, 4.8.2): a module that fails on it tells the rest.
    fn check_value(&mut self, object: ObjectHandle) -> Result<Option<CheckValue>, Fault> {
        match self.read(object, [CKA_CHECK_VALUE]) {
            Ok([value]) => Ok(value.and_then(|value| value.try_into().ok())),
            Err(fault) if matches!(fault.kind, FaultKind::Ambiguous | FaultKind::Bug) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Appends all objects of a class. The search is ended on every way out: one that is left
    /// open makes every later search of the session fail with OPERATION_ACTIVE.
    fn find_class(
        &mut self,
        mut class: CK_OBJECT_CLASS,
        objects: &mut Vec<ObjectHandle>,
    ) -> Result<(), Fault> {
        self.find(attribute(CKA_CLASS, &mut class), objects)
    }

    /// The same for all objects that have this attribute.
    pub(super) fn find(
        &mut self,
        wanted: CK_ATTRIBUTE,
        objects: &mut Vec<ObjectHandle>,
    ) -> Result<(), Fault> {
        let mut template = [wanted];
        let handle = self.handle;
        self.call("C_FindObjectsInit", |list| {
            // SAFETY: template and value live through the call.
            list.C_FindObjectsInit.map(|f| unsafe { f(handle, template.as_mut_ptr(), 1) })
        })?;
        let found = self.collect(objects);
        let ended = self.call("C_FindObjectsFinal", |list| {
            // SAFETY: takes the session handle only.
            list.C_FindObjectsFinal.map(|f| unsafe { f(handle) })
        });
        found.and(ended)
    }

    fn collect(&mut self, objects: &mut Vec<ObjectHandle>) -> Result<(), Fault> {
        loop {
            let mut batch: [CK_OBJECT_HANDLE; FIND_BATCH] = [0; FIND_BATCH];
            let mut count: CK_ULONG = 0;
            let handle = self.handle;
            self.call("C_FindObjects", |list| {
                // SAFETY: `batch` has room for the number of handles that is asked for.
                list.C_FindObjects.map(|f| unsafe {
                    f(handle, batch.as_mut_ptr(), FIND_BATCH as CK_ULONG, &mut count)
                })
            })?;
            let found = batch
                .get(..count as usize)
                .ok_or(Fault::nonsense("C_FindObjects", "more objects than the buffer holds"))?;
            if objects.len() > OBJECTS_MAX {
                return Err(Fault::nonsense("C_FindObjects", "objects without end"));
            }
            if found.is_empty() {
                return Ok(());
            }
            let generation = self.generation;
            objects.extend(found.iter().map(|&number| ObjectHandle { generation, number }));
        }
    }

    /// Reads attributes in one call. Those that the object does not have are `None`; that it has none
    /// of those that are asked for is no answer.
    pub(super) fn read<const N: usize>(
        &mut self,
        object: ObjectHandle,
        types: [CK_ATTRIBUTE_TYPE; N],
    ) -> Result<[Option<Vec<u8>>; N], Fault> {
        let mut buffers = types.map(room);
        let mut template: Vec<CK_ATTRIBUTE> = types
            .iter()
            .zip(&mut buffers)
            .map(|(&kind, buffer)| CK_ATTRIBUTE {
                type_: kind,
                pValue: buffer.as_mut_ptr().cast(),
                ulValueLen: buffer.len() as CK_ULONG,
            })
            .collect();
        let handle = self.handle;
        let read = self.call("C_GetAttributeValue", |list| {
            // SAFETY: each attribute points to a buffer of the length it states.
            list.C_GetAttributeValue.map(|f| unsafe {
                f(handle, object.number as CK_ULONG, template.as_mut_ptr(), N as CK_ULONG)
            })
        });
        match read {
            // The others have been read all the same (PKCS#11 2.40, C_GetAttributeValue).
            Err(Fault {
                cause:
                    Cause::Returned(
                        codes::ATTRIBUTE_TYPE_INVALID
                        | codes::ATTRIBUTE_SENSITIVE
                        | codes::BUFFER_TOO_SMALL,
                    ),
                ..
            }) => {}
            other => other?,
        }
        let lengths: Vec<usize> = template.iter().map(|a| a.ulValueLen as usize).collect();
        let mut lengths = lengths.into_iter();
        let values = buffers.map(|mut buffer| {
            // An attribute that cannot be given has the length CK_UNAVAILABLE_INFORMATION; one that
            // a module did not come to, having met such a one before, still that of the buffer.
            let length = lengths.next().filter(|&length| length <= buffer.len())?;
            let is_untouched = buffer.iter().all(|byte| *byte == UNTOUCHED);
            if length == buffer.len() && is_untouched {
                return None;
            }
            buffer.truncate(length);
            Some(buffer)
        });
        if values.iter().all(Option::is_none) {
            return Err(Fault::nonsense("C_GetAttributeValue", "not one of the attributes"));
        }
        Ok(values)
    }
}

/// The buffer for an attribute. NSS softokn takes none but the exact size for a number.
fn room(kind: CK_ATTRIBUTE_TYPE) -> Vec<u8> {
    let length = match kind {
        CKA_CLASS | CKA_KEY_TYPE | CKA_VALUE_LEN => size_of::<CK_ULONG>(),
        _ => VALUE_MAX,
    };
    vec![UNTOUCHED; length]
}

pub(super) fn attribute<T>(kind: CK_ATTRIBUTE_TYPE, value: &mut T) -> CK_ATTRIBUTE {
    let pointer = ptr::from_mut(value).cast();
    CK_ATTRIBUTE { type_: kind, pValue: pointer, ulValueLen: size_of::<T>() as CK_ULONG }
}

pub(super) fn bytes(kind: CK_ULONG, value: &mut [u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: value.as_mut_ptr().cast(),
        ulValueLen: value.len() as CK_ULONG,
    }
}

pub(super) fn is_true(value: &Option<Vec<u8>>) -> bool {
    matches!(value.as_deref(), Some([1]))
}

pub(super) fn number(value: &Option<Vec<u8>>) -> Option<CK_ULONG> {
    let bytes = value.as_deref()?.try_into().ok()?;
    Some(CK_ULONG::from_ne_bytes(bytes))
}

/// Length of a big-endian number, in bits.
fn bit_length(number: &[u8]) -> usize {
    let leading = number.iter().take_while(|byte| **byte == 0).count();
    let digits = &number[leading..];
    digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize)
}

/// Names the key as `keySpec` will: AES with its length, others by type (P-30).
fn kind(
    key_type: Option<CK_ULONG>,
    bytes: Option<CK_ULONG>,
    modulus_bits: Option<usize>,
) -> KeyKind {
    match (key_type, bytes) {
        (Some(CKK_AES), Some(bytes @ (16 | 24 | 32))) => KeyKind::Aes { bits: bytes as u16 * 8 },
        (Some(CKK_RSA), _) => match modulus_bits {
            Some(bits) => KeyKind::Other(format!("RSA_{bits}")),
            None => KeyKind::Other("RSA".into()),
        },
        (Some(CKK_EC), _) => KeyKind::Other("EC".into()),
        (Some(CKK_DES3), _) => KeyKind::Other("DES3".into()),
        (Some(CKK_GENERIC_SECRET), _) => KeyKind::Other("GENERIC_SECRET".into()),
        (Some(CKK_AES), _) => KeyKind::Other("AES".into()),
        (Some(other), _) => KeyKind::Other(format!("CKK_{other:#x}")),
        (None, _) => KeyKind::Other("UNKNOWN".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_from_the_first_that_is_set() {
        let cases: [(&[u8], usize); 6] =
            [(&[], 0), (&[0, 0], 0), (&[1], 1), (&[0, 0x80, 0], 16), (&[0x7f, 0], 15), (&[255], 8)];
        for (number, bits) in cases {
            assert_eq!(bit_length(number), bits, "{number:?}");
        }
    }

    #[test]
    fn keys_are_named_by_type_and_length() {
        let name = |name: &str| KeyKind::Other(name.to_owned());
        assert_eq!(kind(Some(CKK_AES), Some(32), None), KeyKind::Aes { bits: 256 });
        assert_eq!(kind(Some(CKK_AES), Some(16), None), KeyKind::Aes { bits: 128 });
        // A length that no AES key has, and one that the token does not tell.
        assert_eq!(kind(Some(CKK_AES), Some(33), None), name("AES"));
        assert_eq!(kind(Some(CKK_AES), None, None), name("AES"));
        assert_eq!(kind(Some(CKK_RSA), None, Some(2048)), name("RSA_2048"));
        assert_eq!(kind(Some(CKK_GENERIC_SECRET), Some(32), None), name("GENERIC_SECRET"));
        assert_eq!(kind(Some(0x8000_0001), Some(32), None), name("CKK_0x80000001"));
        assert_eq!(kind(None, None, None), name("UNKNOWN"));
    }
}
