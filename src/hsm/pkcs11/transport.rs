//! Key material that comes into a token, and leaves it for another.

use cryptoki_sys::{
    CK_MECHANISM_TYPE, CKA_ALWAYS_SENSITIVE, CKA_CLASS, CKA_DECRYPT, CKA_ENCRYPT, CKA_EXTRACTABLE,
    CKA_KEY_TYPE, CKA_NEVER_EXTRACTABLE, CKA_PRIVATE, CKA_SENSITIVE, CKA_SIGN, CKA_SIGN_RECOVER,
    CKA_TOKEN, CKA_TRUSTED, CKA_UNWRAP, CKA_VALUE, CKA_WRAP_WITH_TRUSTED, CKK_AES,
    CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY,
};

use super::objects::is_true;
use super::session::Pkcs11Session;
use super::template::Template;
use super::wrapping::Mechanism;
use crate::hsm::backend::{Administration, Leaves, NewKey, ObjectHandle, Session};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::transport::{
    Arrival, MATERIAL_LEN, OaepHash, PEER_LABEL, Pair, RsaPublicKey, Transport, WrappingAlgorithm,
    pair_label,
};
use crate::secret::Plaintext;

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
