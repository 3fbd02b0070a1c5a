//! RSA pairs for wrapping, keys that are wrapped and unwrapped, and material that comes in.

use std::ptr;

use cryptoki_sys::{
    CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_RSA_PKCS_OAEP_PARAMS, CK_ULONG,
    CKA_ALWAYS_SENSITIVE, CKA_CLASS, CKA_DECRYPT, CKA_DERIVE, CKA_ENCRYPT, CKA_EXTRACTABLE, CKA_ID,
    CKA_KEY_TYPE, CKA_LABEL, CKA_MODIFIABLE, CKA_MODULUS, CKA_MODULUS_BITS, CKA_NEVER_EXTRACTABLE,
    CKA_PRIVATE, CKA_PUBLIC_EXPONENT, CKA_SENSITIVE, CKA_SIGN, CKA_SIGN_RECOVER, CKA_TOKEN,
    CKA_TRUSTED, CKA_UNWRAP, CKA_UNWRAP_TEMPLATE, CKA_VALUE, CKA_VALUE_LEN, CKA_VERIFY,
    CKA_VERIFY_RECOVER, CKA_WRAP, CKA_WRAP_WITH_TRUSTED, CKG_MGF1_SHA1, CKG_MGF1_SHA256, CKK_AES,
    CKK_RSA, CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD, CKM_RSA_PKCS_KEY_PAIR_GEN,
    CKM_RSA_PKCS_OAEP, CKM_SHA_1, CKM_SHA256, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY,
    CKZ_DATA_SPECIFIED,
};

use super::objects::{is_true, number};
use super::session::Pkcs11Session;
use super::template::Template;
use crate::hsm::backend::{Administration, Leaves, NewKey, ObjectHandle, Session};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::transport::{
    Arrival, MATERIAL_LEN, OaepHash, PEER_LABEL, Pair, RSA_BITS, RsaPublicKey, Transport,
    WrappingAlgorithm, pair_label,
};
use crate::secret::Plaintext;

/// Room for a wrapped key: the longest modulus that is taken.
const WRAPPED_MAX: usize = 1024;

/// C_GenerateKey of SoftHSM fails for no reason in about 3% of calls under load.
const GENERATE_ATTEMPTS: usize = 5;

/// AES-KWP (RFC 5649) since PKCS#11 3.0, and as SoftHSM2 calls it. A module that means another padding
/// by the second refuses what is not in it: either has a check of its own.
const KWP: [CK_MECHANISM_TYPE; 2] = [CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD];

impl Transport for Pkcs11Session {
    fn pairs(&mut self, leaves: Leaves) -> Result<Vec<Pair>, Fault> {
        let mut pairs = Vec::new();
        for (object, public) in self.rsa_keys(pair_label(leaves), CKO_PRIVATE_KEY)? {
            let types = [
                CKA_SENSITIVE,
                CKA_ALWAYS_SENSITIVE,
                CKA_NEVER_EXTRACTABLE,
                CKA_UNWRAP,
                CKA_EXTRACTABLE,
                CKA_DECRYPT,
                CKA_SIGN,
                CKA_SIGN_RECOVER,
            ];
            let [
                sensitive,
                always_sensitive,
                never_extractable,
                unwrap,
                extractable,
                decrypt,
                sign,
                recover,
            ] = self.read(object, types)?.map(|value| is_true(&value));
            // A token sets CKA_NEVER_EXTRACTABLE and CKA_ALWAYS_SENSITIVE of what was brought into it
            // to false (PKCS#11 2.40, 4.9); NSS does not tell CKA_LOCAL of what it generated.
            let is_own = sensitive && always_sensitive && never_extractable && !extractable;
            let is_sound = is_own && unwrap && !decrypt && !sign && !recover;
            pairs.push(Pair { private: object, public, is_sound });
        }
        // The same one for every run.
        pairs.sort_by(|a, b| a.public.modulus().cmp(b.public.modulus()));
        Ok(pairs)
    }

    fn make_pair(&mut self, leaves: Leaves) -> Result<(), Fault> {
        self.check_connection()?;
        let mut random = [0; 8];
        self.random(&mut random)?;
        let label = pair_label(leaves);
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!("{label}:{hex}");
        let bound = Template::default().flag(CKA_SENSITIVE, true);
        let bound = match leaves {
            Leaves::Never => bound.flag(CKA_EXTRACTABLE, false),
            Leaves::UnderTrusted => bound.flag(CKA_WRAP_WITH_TRUSTED, true),
        };
        match self.generate_pair(label, &id, Some(bound)) {
            // No failure for no reason: that must not cost the binding.
            Err(fault) if is_refusal(&fault) && fault.kind == FaultKind::Bug => {
                self.generate_pair(label, &id, None)
            }
            made => made,
        }
    }

    fn unwraps(&mut self, pair: &Pair, leaves: Leaves, hash: OaepHash) -> Result<bool, Fault> {
        let mut material = vec![0; MATERIAL_LEN];
        self.random(&mut material)?;
        let wrapped = pair.public.encrypt(hash, &Plaintext::new(material));
        let mut template = passing(leaves).flag(CKA_UNWRAP, false);
        match self.unwrap(Mechanism::Oaep(hash), pair.private, &wrapped, &mut template) {
            Ok(object) => self.destroy(object).map(|()| true),
            Err(fault) if is_refusal(&fault) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    fn generate_wrapped(
        &mut self,
        recipients: &[(&RsaPublicKey, OaepHash)],
    ) -> Result<Vec<Vec<u8>>, Fault> {
        self.check_connection()?;
        let key = self.generate_for_wrapping()?;
        let wrap = |(public, hash): &(&RsaPublicKey, OaepHash)| {
            self.with_public(public, |session, with| session.wrap(with, key, *hash))
        };
        let wrapped: Result<Vec<_>, Fault> = recipients.iter().map(wrap).collect();
        let destroyed = self.destroy(key);
        let wrapped = wrapped?;
        destroyed.map(|()| wrapped)
    }

    fn receive(&mut self, arrival: &Arrival<'_>, new: &NewKey<'_>) -> Result<ObjectHandle, Fault> {
        self.check_connection()?;
        let template = Template::of(new).number(CKA_KEY_TYPE, CKK_AES);
        let (private, algorithm, bytes, modulus) = match *arrival {
            Arrival::Plain(material) => {
                return self.create(template.bytes(CKA_VALUE, material.expose()));
            }
            Arrival::Wrapped { private, algorithm, bytes, modulus } => {
                (private, algorithm, bytes, modulus)
            }
        };
        let mut template = template;
        let oaep = Mechanism::Oaep(algorithm.hash());
        let WrappingAlgorithm::AesKeyWrap(_) = algorithm else {
            return self.unwrap(oaep, private, bytes, &mut template);
        };
        let Some((first, second)) = bytes.split_at_checked(modulus) else {
            let why = "it is shorter than the modulus of the wrapping key";
            return Err(Fault::refused(FaultKind::Bug, "C_UnwrapKey", why));
        };
        let mut between = passing(new.leaves).flag(CKA_UNWRAP, true);
        let between = self.unwrap(oaep, private, first, &mut between)?;
        let mut received = self.unwrap(Mechanism::Kwp(KWP[0]), between, second, &mut template);
        if matches!(received, Err(Fault { cause: Cause::Returned(codes::MECHANISM_INVALID), .. })) {
            received = self.unwrap(Mechanism::Kwp(KWP[1]), between, second, &mut template);
        }
        let destroyed = self.destroy(between);
        let received = received?;
        destroyed.map(|()| received)
    }

    fn trusted(&mut self, public: &RsaPublicKey) -> Result<Option<ObjectHandle>, Fault> {
        for (object, found) in self.rsa_keys(PEER_LABEL, CKO_PUBLIC_KEY)? {
            let [_, trusted] = self.read(object, [CKA_CLASS, CKA_TRUSTED])?;
            if found == *public && is_true(&trusted) {
                return Ok(Some(object));
            }
        }
        Ok(None)
    }

    fn wrap_under_trusted(
        &mut self,
        key: ObjectHandle,
        trusted: ObjectHandle,
        hash: OaepHash,
    ) -> Result<Vec<u8>, Fault> {
        self.check_generation(key)?;
        self.wrap(trusted, key, hash)
    }

    fn refuses_untrusted(
        &mut self,
        key: ObjectHandle,
        public: &RsaPublicKey,
        hash: OaepHash,
    ) -> Result<bool, Fault> {
        self.check_generation(key)?;
        match self.with_public(public, |session, with| session.wrap(with, key, hash)) {
            Ok(_) => Ok(false),
            Err(fault) if is_refusal(&fault) => Ok(true),
            Err(fault) => Err(fault),
        }
    }
}

/// What unwraps.
#[derive(Clone, Copy)]
enum Mechanism {
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

    fn generate_pair(
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
    fn generate_for_wrapping(&mut self) -> Result<ObjectHandle, Fault> {
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
    fn with_public<T>(
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

    fn wrap(
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

    fn unwrap(
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

/// An AES key of this session that comes by in unwrapping; the caller says whether it unwraps others.
fn passing(leaves: Leaves) -> Template {
    let may_leave = leaves == Leaves::UnderTrusted;
    let template = Template::default()
        .number(CKA_CLASS, CKO_SECRET_KEY)
        .number(CKA_KEY_TYPE, CKK_AES)
        .flags(&[CKA_PRIVATE, CKA_SENSITIVE], true)
        .flags(&[CKA_TOKEN, CKA_EXTRACTABLE, CKA_ENCRYPT, CKA_DECRYPT], false);
    if may_leave { template.flag(CKA_WRAP_WITH_TRUSTED, true) } else { template }
}

/// Whether the token refused what it was asked for, and is otherwise well.
fn is_refusal(fault: &Fault) -> bool {
    let is_answer = matches!(fault.cause, Cause::Returned(_));
    let is_well = matches!(
        fault.kind,
        FaultKind::Bug | FaultKind::KeyUsage | FaultKind::Ambiguous | FaultKind::HandleStale
    );
    is_answer && is_well
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
