//! The calls that wrap and unwrap, and the keys that they take.

use std::ptr;

use cryptoki_sys::{
    CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RSA_PKCS_OAEP_PARAMS, CK_ULONG,
    CKA_CLASS, CKA_DECRYPT, CKA_DERIVE, CKA_ENCRYPT, CKA_EXTRACTABLE, CKA_ID, CKA_KEY_TYPE,
    CKA_LABEL, CKA_MODIFIABLE, CKA_MODULUS, CKA_MODULUS_BITS, CKA_PRIVATE, CKA_PUBLIC_EXPONENT,
    CKA_SENSITIVE, CKA_SIGN, CKA_SIGN_RECOVER, CKA_TOKEN, CKA_UNWRAP, CKA_UNWRAP_TEMPLATE,
    CKA_VALUE_LEN, CKA_VERIFY, CKA_VERIFY_RECOVER, CKA_WRAP, CKG_MGF1_SHA1, CKG_MGF1_SHA256,
    CKK_RSA, CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_RSA_PKCS_OAEP, CKM_SHA_1, CKM_SHA256, CKO_PUBLIC_KEY,
    CKO_SECRET_KEY, CKZ_DATA_SPECIFIED,
};

use super::objects::number;
use super::session::Pkcs11Session;
use super::template::Template;
use crate::hsm::backend::{Administration, ObjectHandle};
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::transport::{MATERIAL_LEN, OaepHash, RSA_BITS, RsaPublicKey};

/// Room for a wrapped key: the longest modulus that is taken.
const WRAPPED_MAX: usize = 1024;

/// C_GenerateKey of SoftHSM fails for no reason in about 3% of calls under load.
const GENERATE_ATTEMPTS: usize = 5;

/// What unwraps.
#[derive(Clone, Copy)]
pub(super) enum Mechanism {
    Oaep(OaepHash),
    Kwp(CK_MECHANISM_TYPE),
}

impl Pkcs11Session {
    /// The RSA keys of a label and class, as far as their numbers can be read.
    pub(super) fn rsa_keys(
        &mut self,
        label: &str,
        class: CK_ULONG,
    ) -> Result<Vec<(ObjectHandle, RsaPublicKey)>, Fault> {
        self.check_connection()?;
        let (mut label, mut objects) =
            (Template::default().bytes(CKA_LABEL, label.as_bytes()), vec![]);
        self.find(label.attributes()[0], &mut objects)?;
        let mut keys = Vec::new();
        for object in objects {
            let types = [CKA_CLASS, CKA_KEY_TYPE, CKA_MODULUS, CKA_PUBLIC_EXPONENT];
            let [its_class, kind, modulus, exponent] = match self.read(object, types) {
                Err(fault) if fault.kind == FaultKind::HandleStale => continue,
                read => read?,
            };
            if number(&its_class) != Some(class) || number(&kind) != Some(CKK_RSA) {
                continue;
            }
            if let (Some(modulus), Some(exponent)) = (modulus, exponent) {
                keys.extend(RsaPublicKey::new(&modulus, &exponent).map(|public| (object, public)));
            }
        }
        Ok(keys)
    }

    pub(super) fn create(&mut self, mut template: Template) -> Result<ObjectHandle, Fault> {
        let mut attributes = template.attributes();
        let (handle, count) = (self.handle, attributes.len() as CK_ULONG);
        let mut object: CK_OBJECT_HANDLE = 0;
        self.call("C_CreateObject", |list| {
            // SAFETY: the attributes and what they point to live through the call; `object` is a valid
            // place for the answer.
            list.C_CreateObject
                .map(|f| unsafe { f(handle, attributes.as_mut_ptr(), count, &mut object) })
        })?;
        self.object("C_CreateObject", object)
    }

    pub(super) fn generate_pair(
        &mut self,
        label: &str,
        id: &str,
        bound: Option<Template>,
    ) -> Result<(), Fault> {
        // The public key is told by the private one: a second object would be one that somebody could
        // put another in the place of.
        let mut public = Template::default()
            .number(CKA_MODULUS_BITS, RSA_BITS as CK_ULONG)
            .bytes(CKA_PUBLIC_EXPONENT, &[1, 0, 1])
            .bytes(CKA_LABEL, label.as_bytes())
            .bytes(CKA_ID, id.as_bytes())
            .flag(CKA_WRAP, true)
            .flags(&[CKA_TOKEN, CKA_ENCRYPT, CKA_VERIFY, CKA_VERIFY_RECOVER], false);
        let mut private = Template::default()
            .bytes(CKA_LABEL, label.as_bytes())
            .bytes(CKA_ID, id.as_bytes())
            .flags(&[CKA_TOKEN, CKA_PRIVATE, CKA_SENSITIVE, CKA_UNWRAP], true)
            // Else whoever has the PIN could let it decrypt later.
            .flag(CKA_MODIFIABLE, false)
            .flags(&[CKA_EXTRACTABLE, CKA_DECRYPT, CKA_SIGN, CKA_SIGN_RECOVER, CKA_DERIVE], false);
        if let Some(bound) = bound {
            private = private.nested(CKA_UNWRAP_TEMPLATE, bound);
        }
        let mut mechanism = bare(CKM_RSA_PKCS_KEY_PAIR_GEN);
        let (mut of_public, mut of_private) = (public.attributes(), private.attributes());
        let lengths = [of_public.len() as CK_ULONG, of_private.len() as CK_ULONG];
        let handle = self.handle;
        let (mut first, mut second): (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) = (0, 0);
        self.call("C_GenerateKeyPair", |list| {
            // SAFETY: mechanism, templates and what they point to live through the call; both places
            // for the answer are valid.
            list.C_GenerateKeyPair.map(|f| unsafe {
                f(
                    handle,
                    &mut mechanism,
                    of_public.as_mut_ptr(),
                    lengths[0],
                    of_private.as_mut_ptr(),
                    lengths[1],
                    &mut first,
                    &mut second,
                )
            })
        })?;
        self.object("C_GenerateKeyPair", second).map(|_| ())
    }

    /// An AES-256 key of this session that may be wrapped, and nothing else.
    pub(super) fn generate_for_wrapping(&mut self) -> Result<ObjectHandle, Fault> {
        let mut attempt = 1;
        loop {
            let mut template = Template::default()
                .number(CKA_CLASS, CKO_SECRET_KEY)
                .number(CKA_VALUE_LEN, MATERIAL_LEN as CK_ULONG)
                .flags(&[CKA_PRIVATE, CKA_SENSITIVE, CKA_EXTRACTABLE], true)
                .flags(&[CKA_TOKEN, CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY], false)
                .flags(&[CKA_WRAP, CKA_UNWRAP, CKA_DERIVE], false);
            match self.generate_aes(&mut template.attributes()) {
                Err(fault) if fault.kind == FaultKind::Ambiguous && attempt < GENERATE_ATTEMPTS => {
                    attempt += 1;
                }
                made => return made,
            }
        }
    }

    /// Makes a public key of this session, does something with it, and destroys it in any case.
    pub(super) fn with_public<T>(
        &mut self,
        public: &RsaPublicKey,
        act: impl FnOnce(&mut Self, ObjectHandle) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let template = public_template(public).flag(CKA_TOKEN, false);
        let object = self.create(template)?;
        let done = act(self, object);
        let destroyed = self.destroy(object);
        let done = done?;
        destroyed.map(|()| done)
    }

    pub(super) fn wrap(
        &mut self,
        with: ObjectHandle,
        key: ObjectHandle,
        hash: OaepHash,
    ) -> Result<Vec<u8>, Fault> {
        let mut parameters = oaep(hash);
        let mut mechanism = with_parameters(&mut parameters);
        let mut output = vec![0; WRAPPED_MAX];
        let mut length = output.len() as CK_ULONG;
        let handle = self.handle;
        let (with, key) = (with.number as CK_ULONG, key.number as CK_ULONG);
        self.call("C_WrapKey", |list| {
            // SAFETY: mechanism and parameters live through the call; `output` has room for `length`
            // bytes.
            list.C_WrapKey.map(|f| unsafe {
                f(handle, &mut mechanism, with, key, output.as_mut_ptr(), &mut length)
            })
        })?;
        if length as usize > output.len() {
            return Err(Fault::nonsense("C_WrapKey", "more bytes than the buffer holds"));
        }
        output.truncate(length as usize);
        Ok(output)
    }

    pub(super) fn unwrap(
        &mut self,
        how: Mechanism,
        with: ObjectHandle,
        wrapped: &[u8],
        template: &mut Template,
    ) -> Result<ObjectHandle, Fault> {
        self.check_generation(with)?;
        let mut parameters;
        let mut mechanism = match how {
            Mechanism::Kwp(kind) => bare(kind),
            Mechanism::Oaep(hash) => {
                parameters = oaep(hash);
                with_parameters(&mut parameters)
            }
        };
        let mut attributes = template.attributes();
        let (handle, count) = (self.handle, attributes.len() as CK_ULONG);
        let mut object: CK_OBJECT_HANDLE = 0;
        self.call("C_UnwrapKey", |list| {
            // SAFETY: mechanism, template and what they point to live through the call; the wrapped key
            // is only read, although C says `*mut`; `object` is a valid place for the answer.
            list.C_UnwrapKey.map(|f| unsafe {
                f(
                    handle,
                    &mut mechanism,
                    with.number as CK_ULONG,
                    wrapped.as_ptr().cast_mut(),
                    wrapped.len() as CK_ULONG,
                    attributes.as_mut_ptr(),
                    count,
                    &mut object,
                )
            })
        })?;
        self.object("C_UnwrapKey", object)
    }

    fn object(
        &self,
        function: &'static str,
        object: CK_OBJECT_HANDLE,
    ) -> Result<ObjectHandle, Fault> {
        // CK_INVALID_HANDLE
        if object == 0 {
            return Err(Fault::nonsense(function, "the number of no object"));
        }
        Ok(ObjectHandle { generation: self.generation, number: object })
    }
}

/// A public key for wrapping, but for where it is kept.
pub(super) fn public_template(public: &RsaPublicKey) -> Template {
    Template::default()
        .number(CKA_CLASS, CKO_PUBLIC_KEY)
        .number(CKA_KEY_TYPE, CKK_RSA)
        .bytes(CKA_MODULUS, public.modulus())
        .bytes(CKA_PUBLIC_EXPONENT, public.exponent())
        .flag(CKA_WRAP, true)
        .flags(&[CKA_ENCRYPT, CKA_VERIFY], false)
}

fn bare(kind: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM { mechanism: kind, pParameter: ptr::null_mut(), ulParameterLen: 0 }
}

fn oaep(hash: OaepHash) -> CK_RSA_PKCS_OAEP_PARAMS {
    let (hash, mgf) = match hash {
        OaepHash::Sha1 => (CKM_SHA_1, CKG_MGF1_SHA1),
        OaepHash::Sha256 => (CKM_SHA256, CKG_MGF1_SHA256),
    };
    CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: hash,
        mgf,
        source: CKZ_DATA_SPECIFIED,
        pSourceData: ptr::null_mut(),
        ulSourceDataLen: 0,
    }
}

fn with_parameters(parameters: &mut CK_RSA_PKCS_OAEP_PARAMS) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism: CKM_RSA_PKCS_OAEP,
        pParameter: ptr::from_mut(parameters).cast(),
        ulParameterLen: size_of::<CK_RSA_PKCS_OAEP_PARAMS>() as CK_ULONG,
    }
}
