//! Keys that sign: made, used, and their public halves read.

use std::ptr;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_ULONG, CKA_CLASS,
    CKA_DECRYPT, CKA_DERIVE, CKA_EC_PARAMS, CKA_EC_POINT, CKA_ENCRYPT, CKA_EXTRACTABLE, CKA_ID,
    CKA_LABEL, CKA_PRIVATE, CKA_SENSITIVE, CKA_SIGN, CKA_TOKEN, CKA_UNWRAP, CKA_VALUE_LEN,
    CKA_VERIFY, CKA_WRAP, CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, CKM_GENERIC_SECRET_KEY_GEN,
    CKM_SHA256_HMAC, CKO_PUBLIC_KEY,
};

use super::objects::{attribute, bytes, number};
use super::session::Pkcs11Session;
use crate::hsm::backend::{ObjectHandle, Signing};
use crate::hsm::fault::{Fault, FaultKind};

/// P-256 as CKA_EC_PARAMS names it: the object identifier 1.2.840.10045.3.1.7 in DER.
const P_256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Length of a key for HMAC, that of its hash.
const HMAC_KEY_LEN: CK_ULONG = 32;

fn mechanism(mechanism: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM { mechanism, pParameter: ptr::null_mut(), ulParameterLen: 0 }
}

impl Pkcs11Session {
    pub(super) fn sign_with(
        &mut self,
        key: ObjectHandle,
        how: Signing,
        input: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        self.check_generation(key)?;
        let mut mechanism = mechanism(match how {
            Signing::EcdsaP256 => CKM_ECDSA,
            Signing::HmacSha256 => CKM_SHA256_HMAC,
        });
        let handle = self.handle;
        self.call("C_SignInit", |list| {
            // SAFETY: the mechanism lives through the call.
            list.C_SignInit.map(|f| unsafe { f(handle, &mut mechanism, key.number as CK_ULONG) })
        })?;
        let mut signature = vec![0_u8; how.signature_len()];
        let mut length = signature.len() as CK_ULONG;
        self.call("C_Sign", |list| {
            // SAFETY: the input is only read, although C says `*mut`; `signature` has room for `length`
            // bytes.
            list.C_Sign.map(|f| unsafe {
                let data = input.as_ptr().cast_mut();
                f(handle, data, input.len() as CK_ULONG, signature.as_mut_ptr(), &mut length)
            })
        })?;
        if length as usize != signature.len() {
            return Err(Fault::nonsense("C_Sign", "not the length of such a signature"));
        }
        Ok(signature)
    }

    pub(super) fn make_signing_key(&mut self, label: &str, how: Signing) -> Result<(), Fault> {
        self.check_connection()?;
        let mut text = label.as_bytes().to_vec();
        // NSS softokn takes two keys of one id for the same.
        let mut id = vec![0; 8];
        self.fill_random(&mut id)?;
        let (mut yes, mut no) = (cryptoki_sys::CK_TRUE, cryptoki_sys::CK_FALSE);
        // Every usage is set: modules differ in what they assume.
        let on = [CKA_TOKEN, CKA_PRIVATE, CKA_SENSITIVE, CKA_SIGN];
        let off = [CKA_EXTRACTABLE, CKA_DECRYPT, CKA_UNWRAP, CKA_DERIVE];
        let mut template = vec![bytes(CKA_LABEL, &mut text), bytes(CKA_ID, &mut id)];
        template.extend(on.map(|kind| attribute(kind, &mut yes)));
        template.extend(off.map(|kind| attribute(kind, &mut no)));
        match how {
            Signing::EcdsaP256 => self.make_pair(label, &mut template),
            Signing::HmacSha256 => {
                let mut length = HMAC_KEY_LEN;
                template.push(attribute(CKA_VALUE_LEN, &mut length));
                // Sealing twice alike is how a seal is verified, and takes no other right.
                let unused = [CKA_ENCRYPT, CKA_VERIFY, CKA_WRAP];
                template.extend(unused.map(|kind| attribute(kind, &mut no)));
                self.generate_by(CKM_GENERIC_SECRET_KEY_GEN, &mut template).map(drop)
            }
        }
    }

    fn make_pair(&mut self, label: &str, private: &mut [CK_ATTRIBUTE]) -> Result<(), Fault> {
        let mut text = label.as_bytes().to_vec();
        let mut curve = P_256;
        let (mut yes, mut no) = (cryptoki_sys::CK_TRUE, cryptoki_sys::CK_FALSE);
        let id = private.iter().find(|attribute| attribute.type_ == CKA_ID).copied();
        let mut public = vec![
            bytes(CKA_LABEL, &mut text),
            bytes(CKA_EC_PARAMS, &mut curve),
            attribute(CKA_TOKEN, &mut yes),
            attribute(CKA_VERIFY, &mut yes),
            attribute(CKA_PRIVATE, &mut no),
        ];
        public.extend(id);
        let mut mechanism = mechanism(CKM_EC_KEY_PAIR_GEN);
        let handle = self.handle;
        let mut made: [CK_OBJECT_HANDLE; 2] = [0; 2];
        let [public_key, private_key] = &mut made;
        self.call("C_GenerateKeyPair", |list| {
            // SAFETY: mechanism, templates and what they point to live through the call; the handles
            // are valid places for the answer.
            list.C_GenerateKeyPair.map(|f| unsafe {
                f(
                    handle,
                    &mut mechanism,
                    public.as_mut_ptr(),
                    public.len() as CK_ULONG,
                    private.as_mut_ptr(),
                    private.len() as CK_ULONG,
                    public_key,
                    private_key,
                )
            })
        })?;
        // CK_INVALID_HANDLE
        if made.contains(&0) {
            return Err(Fault::nonsense("C_GenerateKeyPair", "the number of no object"));
        }
        Ok(())
    }

    pub(super) fn read_public_points(&mut self, label: &str) -> Result<Vec<Vec<u8>>, Fault> {
        self.check_connection()?;
        let mut text = label.as_bytes().to_vec();
        let mut objects = Vec::new();
        self.find(bytes(CKA_LABEL, &mut text), &mut objects)?;
        let mut points = Vec::new();
        for object in objects {
            match self.read(object, [CKA_CLASS]) {
                Ok([class]) if number(&class) == Some(CKO_PUBLIC_KEY) => {}
                Ok(_) => continue,
                // Destroyed by somebody since it was found.
                Err(fault) if fault.kind == FaultKind::HandleStale => continue,
                Err(fault) => return Err(fault),
            }
            let [point] = self.read(object, [CKA_EC_POINT])?;
            points.extend(point);
        }
        Ok(points)
    }
}
