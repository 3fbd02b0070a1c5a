//! The calls of a session on a token in memory.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use xksd::hsm::backend::{
    ChangeableAttributes, IV_LEN, ObjectHandle, Sealed, Session, Signing, TAG_LEN,
};
use xksd::hsm::codes;
use xksd::hsm::fault::Fault;
use xksd::hsm::key::{KeyAttributes, KeyKind, Usage};
use xksd::secret::Plaintext;
use xksd::wire::gcm::Iv;

use super::{Act, MemoryBackend, MemoryKey, fill};

/// One session. The state of its token is locked for moments only, never while it hangs.
pub(super) struct MemorySession {
    pub(super) token: MemoryBackend,
    pub(super) number: u64,
    pub(super) generation: u64,
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.token.state().objects.retain(|_, object| object.session != Some(self.number));
    }
}

impl MemorySession {
    /// Enters a function on this session.
    fn enter(&self, function: &'static str) -> Result<Option<Act>, Fault> {
        let act = self.token.enter(function)?;
        if self.token.state().generation == self.generation {
            return Ok(act);
        }
        Err(Fault::returned(function, codes::SESSION_HANDLE_INVALID))
    }

    /// What the object's key is, to this function.
    fn key(&self, function: &'static str, handle: ObjectHandle) -> Result<MemoryKey, Fault> {
        let state = self.token.state();
        let object = state.objects.get(&handle.number);
        match object.filter(|_| handle.generation == self.generation) {
            Some(object) => Ok(object.key.clone()),
            None => Err(Fault::returned(function, codes::OBJECT_HANDLE_INVALID)),
        }
    }

    /// The AES-GCM key of an object whose usage permits the function.
    fn cipher(
        &self,
        function: &'static str,
        handle: ObjectHandle,
        permitted: fn(&Usage) -> bool,
        iv_len: usize,
    ) -> Result<LessSafeKey, Fault> {
        let key = self.key(function, handle)?;
        let code = if !permitted(&key.usage) {
            codes::KEY_FUNCTION_NOT_PERMITTED
        } else if !key.kind.is_aes_256() {
            codes::KEY_TYPE_INCONSISTENT
        } else if iv_len != IV_LEN {
            codes::MECHANISM_PARAM_INVALID
        } else {
            let key = UnboundKey::new(&AES_256_GCM, &key.value).expect("it has 32 bytes");
            return Ok(LessSafeKey::new(key));
        };
        Err(Fault::returned(function, code))
    }
}

impl Session for MemorySession {
    fn random(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        match self.enter("C_GenerateRandom")? {
            Some(Act::StandStill) => {
                for (number, chunk) in (1_u32..).zip(buffer.chunks_mut(4)) {
                    let bytes = number.to_be_bytes();
                    chunk.copy_from_slice(&bytes[..chunk.len()]);
                }
            }
            Some(Act::WriteNothing) => {}
            _ => fill(buffer),
        }
        Ok(())
    }

    fn encrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8; IV_LEN],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<Sealed, Fault> {
        self.enter("C_EncryptInit")?;
        let cipher = self.cipher("C_EncryptInit", key, |usage| usage.encrypt, iv.len())?;
        let act = self.enter("C_Encrypt")?;
        let mut ciphertext = plaintext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*iv);
        let tag = cipher
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut ciphertext)
            .expect("no plaintext of a test is too long for AES-GCM");
        let mut tag: [u8; TAG_LEN] = tag.as_ref().try_into().expect("a tag has 16 bytes");
        match (act, ciphertext.first_mut()) {
            (Some(Act::FlipBit), Some(byte)) => *byte ^= 1,
            (Some(Act::FlipTagBit), _) => tag[TAG_LEN - 1] ^= 1,
            _ => {}
        }
        Ok(Sealed { iv: Iv::Twelve(*iv), ciphertext, tag })
    }

    fn decrypt(
        &mut self,
        key: ObjectHandle,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<Plaintext, Fault> {
        self.enter("C_DecryptInit")?;
        let cipher = self.cipher("C_DecryptInit", key, |usage| usage.decrypt, iv.len())?;
        let act = self.enter("C_Decrypt")?;
        let mut bytes = [ciphertext, tag].concat();
        let nonce = Nonce::try_assume_unique_for_key(iv).expect("its length was checked");
        let opened = cipher.open_in_place(nonce, Aad::from(aad), &mut bytes).map(|p| p.len());
        let Ok(length) = opened else {
            let code = self.token.state().bad_tag.unwrap_or(codes::ENCRYPTED_DATA_INVALID);
            return Err(Fault::returned("C_Decrypt", code));
        };
        bytes.truncate(length);
        if let (Some(Act::FlipBit), Some(byte)) = (act, bytes.first_mut()) {
            *byte ^= 1;
        }
        Ok(Plaintext::new(bytes))
    }

    fn objects(&mut self) -> Result<Vec<ObjectHandle>, Fault> {
        self.enter("C_FindObjects")?;
        let generation = self.generation;
        let state = self.token.state();
        Ok(state.objects.keys().map(|&number| ObjectHandle { generation, number }).collect())
    }

    fn read_changeable(&mut self, object: ObjectHandle) -> Result<ChangeableAttributes, Fault> {
        self.enter("C_GetAttributeValue")?;
        let MemoryKey { label, id, usage, unreadable, .. } =
            self.key("C_GetAttributeValue", object)?;
        if let Some(code) = unreadable {
            return Err(Fault::returned("C_GetAttributeValue", code));
        }
        Ok(ChangeableAttributes { label, id, encrypt: usage.encrypt, decrypt: usage.decrypt })
    }

    fn read_attributes(&mut self, object: ObjectHandle) -> Result<KeyAttributes, Fault> {
        let changeable = self.read_changeable(object)?;
        self.enter("C_GetAttributeValue")?;
        let MemoryKey { kind, usage, check_value, .. } = self.key("C_GetAttributeValue", object)?;
        Ok(KeyAttributes { changeable, kind, usage, check_value })
    }

    fn make_probe_key(&mut self) -> Result<ObjectHandle, Fault> {
        self.enter("C_GenerateKey")?;
        let key = MemoryKey::aes_256("xksd:probe");
        let (number, _) = self.token.state().add(key, Some(self.number));
        Ok(ObjectHandle { generation: self.generation, number })
    }

    fn sign(&mut self, key: ObjectHandle, how: Signing, input: &[u8]) -> Result<Vec<u8>, Fault> {
        self.enter("C_SignInit")?;
        let MemoryKey { kind, usage, value, pair, .. } = self.key("C_SignInit", key)?;
        let fits = match how {
            Signing::EcdsaP256 => kind == KeyKind::Other("EC".into()),
            Signing::HmacSha256 => kind == KeyKind::Other("GENERIC_SECRET".into()),
        };
        let code = if !usage.sign {
            codes::KEY_FUNCTION_NOT_PERMITTED
        } else if !fits {
            codes::KEY_TYPE_INCONSISTENT
        } else {
            self.enter("C_Sign")?;
            let Some(pair) = pair else {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &value);
                return Ok(hmac::sign(&key, input).as_ref().to_vec());
            };
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pair).expect("a test made it");
            let digest = Digest::import_less_safe(input, &SHA256).expect("it is a hash");
            let signature = pair.sign_digest(&digest).expect("it can sign");
            return Ok(signature.as_ref().to_vec());
        };
        Err(Fault::returned("C_SignInit", code))
    }
}
