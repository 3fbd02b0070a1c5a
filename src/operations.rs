//! The four XKS operations, as plain functions over a token.
//!
//! They know nothing of HTTP. Where an answer is final for KMS (no such key, no such version), it
//! is given only when the token was read completely after the request arrived.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalogue::Catalogue;
use crate::clock::Deadline;
use crate::hsm::backend::Sealed;
use crate::hsm::fault::FaultKind;
use crate::hsm::key::{Key, KeyFault, KeyKind, Usage};
use crate::hsm::lanes::Lane;
use crate::hsm::token::{Opening, Timed, Token, TokenError, TokenState};
use crate::keystore::{AuthorizedKey, Permit, Refused, WriteCheck};
use crate::names::KeyVersion;
use crate::secret::Plaintext;
use crate::wire::aad::{FrameError, frame};
use crate::wire::cdiv::CdivInput;
use crate::wire::ciphertext_metadata::CiphertextMetadata;
use crate::wire::gcm::{Iv, Tag};
use crate::wire::health::{Ekm, EkmFleet, HealthResponse, HealthStatus};
use crate::wire::request::{DecryptRequest, EncryptRequest, IntegrityValue};
use crate::wire::response::{
    DecryptResponse, EncryptResponse, KeySpec, KeyStatus, KeyUsage, MetadataResponse,
};

/// How often an operation is tried on the token: once more when the first session turned out to
/// be lost or the key's handle stale. The retry has another IV and the same deadline.
const ATTEMPTS: usize = 2;

/// A result of GetHealthStatus is never older than this (P-61, P-63).
const HEALTH_MAX_AGE: Duration = Duration::from_secs(60);

/// Why an operation gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// The token holds no key of this id.
    #[error("the token holds no key with this label")]
    KeyNotFound,
    /// No key of this id was found among those that the token describes, and it refuses to
    /// describe all of them: that it holds none is not proved.
    #[error("the token does not describe all of its keys, and this one is not among the others")]
    Undescribed,
    /// Objects of the token bear the label, and are no usable key.
    #[error("{0}")]
    Key(#[from] KeyFault),
    /// The key may not be used so.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The ciphertext was not made by a version of this key, or not by xksd.
    #[error("the ciphertext metadata is missing, or not of a format that this release knows")]
    UnknownFormat,
    /// The HSM says that ciphertext, IV, AAD or tag do not fit.
    #[error("the HSM refused ciphertext, IV, AAD or tag")]
    BadCiphertext,
    /// The HSM did not decrypt its own output to the plaintext (P-43).
    #[error("the HSM did not decrypt its own ciphertext to the plaintext")]
    CheckFailed,
    /// AAD or metadata do not fit into the frame; the parser's limits exclude it.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The token did not do it.
    #[error("{0}")]
    Token(TokenError),
}

impl From<TokenError> for OperationError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Fault(fault) => match fault.kind {
                FaultKind::BadCiphertext => Self::BadCiphertext,
                _ => Self::Token(error),
            },
            _ => Self::Token(error),
        }
    }
}

/// What an operation leaves for the record of its request, however it ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trace {
    /// The version of the key that was used.
    pub version: Option<KeyVersion>,
    /// Time that the jobs waited for a session, together.
    pub queued: Duration,
    /// Time that the jobs spent in the HSM, together.
    pub hsm: Duration,
    /// Encryptions that the HSM made, retries included.
    pub encryptions: u64,
}

/// One request's way to its token.
#[derive(Debug)]
pub struct Call<'a> {
    /// Where the keys are.
    pub token: &'a Token,
    /// For whom the token works.
    pub lane: Lane,
    /// When the head of the request had arrived.
    pub arrived: Instant,
    /// When the answer is of no use any more.
    pub deadline: Deadline,
    /// What is to be recorded.
    pub trace: &'a mut Trace,
}

/// GetKeyMetadata (P-30).
pub async fn describe(
    call: &mut Call<'_>,
    permit: &Permit<'_>,
) -> Result<MetadataResponse, OperationError> {
    let key = call.key(permit, call.arrived).await?;
    let newest = key.newest();
    call.trace.version = Some(newest.version);
    let key_status = if key.is_enabled() { KeyStatus::Enabled } else { KeyStatus::Disabled };
    let key_usage = usages(newest.usage).collect();
    Ok(MetadataResponse { key_spec: spec(&newest.kind), key_usage, key_status })
}

/// Encrypt (P-40 to P-46).
pub async fn encrypt(
    call: &mut Call<'_>,
    permit: &Permit<'_>,
    request: EncryptRequest,
) -> Result<EncryptResponse, OperationError> {
    let EncryptRequest { plaintext, aad, integrity, .. } = request;
    let (plaintext, aad) = (Arc::new(plaintext), aad.unwrap_or_default());
    let mut known_since = call.arrived;
    let mut attempt = 1;
    loop {
        let key = call.key(permit, known_since).await?;
        let (key, check) = permit.to_encrypt(&key, integrity)?;
        match encrypt_once(call, &key, &plaintext, &aad, (integrity, check)).await {
            Err(error) if attempt < ATTEMPTS && may_retry(error) => {
                attempt += 1;
                known_since = after(error, known_since);
            }
            answer => return answer,
        }
    }
}

/// One attempt, with an IV of its own.
async fn encrypt_once(
    call: &mut Call<'_>,
    key: &AuthorizedKey,
    plaintext: &Arc<Plaintext>,
    aad: &[u8],
    (integrity, check): (IntegrityValue, WriteCheck),
) -> Result<EncryptResponse, OperationError> {
    call.trace.version = Some(key.version());
    let metadata = CiphertextMetadata { version: key.version(), object_id: key.object_id() };
    let encoded = metadata.encode();
    // P-42: the HSM authenticates the metadata together with the AAD.
    let framed: Arc<[u8]> = frame(aad, &encoded)?.into();
    let sealed = call
        .token
        .encrypt(&call.lane, key.handle(), framed.clone(), plaintext.clone(), call.deadline)
        .await;
    // An answer that is late or lost may have been an encryption all the same: better one too many
    // against the key's bound than one too few.
    let refused = [TokenError::QueueFull, TokenError::Overloaded, TokenError::Down];
    if !sealed.as_ref().is_err_and(|error| refused.contains(error)) {
        call.trace.encryptions += 1;
    }
    let Sealed { iv, ciphertext, tag } = call.time(sealed?);
    let tag = Tag::new(tag);
    // P-43: the CDIV first, from the HSM's output; then that output is decrypted again.
    let cdiv = (integrity == IntegrityValue::Sha256).then(|| {
        let ciphertext = &*ciphertext;
        let input =
            CdivInput { aad, ciphertext_metadata: &encoded, iv: &iv, ciphertext, tag: &tag };
        input.digest()
    });
    let ciphertext = match check {
        WriteCheck::Skip => ciphertext,
        WriteCheck::Impossible => {
            call.token.metrics().write_check_skipped();
            ciphertext
        }
        WriteCheck::Decrypt => prove(call, key, framed, plaintext, ciphertext, &iv, &tag).await?,
    };
    Ok(EncryptResponse { ciphertext, iv, tag, ciphertext_metadata: metadata, cdiv })
}

/// Decrypts what is about to be sent, and compares it with what was to be encrypted (P-43).
async fn prove(
    call: &mut Call<'_>,
    key: &AuthorizedKey,
    aad: Arc<[u8]>,
    plaintext: &Plaintext,
    ciphertext: Vec<u8>,
    iv: &Iv,
    tag: &Tag,
) -> Result<Vec<u8>, OperationError> {
    let (iv, tag) = (iv.as_bytes().to_vec(), *tag.as_bytes());
    let opening = Arc::new(Opening { iv, aad, ciphertext, tag });
    let opened = call.token.decrypt(&call.lane, key.handle(), opening.clone(), call.deadline).await;
    let proved = match opened {
        Ok(opened) => call.time(opened) == *plaintext,
        // The token refuses what it has just made: that is no caller's mistake.
        Err(TokenError::Fault(fault)) if fault.kind == FaultKind::BadCiphertext => false,
        Err(error) => return Err(error.into()),
    };
    if !proved {
        call.token.metrics().write_check_failed();
        return Err(OperationError::CheckFailed);
    }
    // What was decrypted is what is sent. The worker may still hold its share of it.
    Ok(Arc::try_unwrap(opening).map_or_else(|shared| shared.ciphertext.clone(), |o| o.ciphertext))
}

/// Decrypt (P-50, P-51).
pub async fn decrypt(
    call: &mut Call<'_>,
    permit: &Permit<'_>,
    request: DecryptRequest,
) -> Result<DecryptResponse, OperationError> {
    let DecryptRequest { ciphertext, iv, tag, aad, ciphertext_metadata, .. } = request;
    let encoded = ciphertext_metadata.unwrap_or_default();
    let made_by = CiphertextMetadata::decode(&encoded);
    let framed: Arc<[u8]> = frame(&aad.unwrap_or_default(), &encoded)?.into();
    let iv = iv.as_bytes().to_vec();
    let opening = Arc::new(Opening { iv, aad: framed, ciphertext, tag: *tag.as_bytes() });
    let mut known_since = call.arrived;
    let mut attempt = 1;
    loop {
        let key = call.key(permit, known_since).await?;
        let made_by = made_by.map_err(|_unknown| OperationError::UnknownFormat)?;
        let key = call.version(permit, key, made_by).await?;
        call.trace.version = Some(key.version());
        let opened =
            call.token.decrypt(&call.lane, key.handle(), opening.clone(), call.deadline).await;
        match opened.map_err(OperationError::from) {
            Ok(opened) => return Ok(DecryptResponse { plaintext: call.time(opened) }),
            Err(error) if attempt < ATTEMPTS && may_retry(error) => {
                attempt += 1;
                known_since = after(error, known_since);
            }
            Err(error) => return Err(error),
        }
    }
}

/// GetHealthStatus (P-60 to P-63): from what the steward found out in the background.
pub fn health(token: &Token, fleet_size: NonZeroU32) -> HealthResponse {
    let proved_lately = token.last_proved().is_some_and(|at| at.elapsed() < HEALTH_MAX_AGE);
    // P-63: down, not yet probed, or a result older than a minute.
    let health_status = match token.state() {
        TokenState::Up if proved_lately => HealthStatus::Active,
        TokenState::Suspect if proved_lately => HealthStatus::Degraded,
        _ => HealthStatus::Unavailable,
    };
    let identity = token.identity();
    let known = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
    let ekm = Ekm { id: token.name().to_string(), model: known(identity.model), health_status };
    HealthResponse {
        fleet_size,
        proxy_vendor: "xksd".to_owned(),
        proxy_model: concat!("xksd ", env!("CARGO_PKG_VERSION")).to_owned(),
        ekm_vendor: known(identity.manufacturer),
        ekm_fleet: EkmFleet::new(ekm, []),
    }
}

impl Call<'_> {
    /// The key, as the catalogue knew it at `known_since` or later. A key that the last reading
    /// did not find is looked for in one that began after this request arrived.
    async fn key(
        &mut self,
        permit: &Permit<'_>,
        known_since: Instant,
    ) -> Result<Arc<Key>, OperationError> {
        // What was known of a token that is down says nothing of what it holds now.
        if let TokenState::Down(_) | TokenState::PinRefused = self.token.state() {
            return Err(TokenError::Down.into());
        }
        // A refused key may have been mended since, so it is looked for anew like an unknown one.
        if known_since <= self.arrived
            && let Some(Ok(key)) = self.token.catalogue().and_then(|c| c.find(permit.id()))
        {
            return Ok(key);
        }
        let catalogue = self.token.catalogue_since(known_since, self.deadline).await?;
        find(&catalogue, permit)
    }

    /// The version that made a ciphertext; one that is not known may have been made since.
    async fn version(
        &mut self,
        permit: &Permit<'_>,
        key: Arc<Key>,
        made_by: CiphertextMetadata,
    ) -> Result<AuthorizedKey, OperationError> {
        let CiphertextMetadata { version, object_id } = made_by;
        match permit.to_decrypt(&key, version, object_id) {
            Err(Refused::UnknownVersion) => {}
            answer => return Ok(answer?),
        }
        let catalogue = self.token.catalogue_since(self.arrived, self.deadline).await?;
        Ok(permit.to_decrypt(&*find(&catalogue, permit)?, version, object_id)?)
    }

    /// Adds a job's times to the record.
    fn time<T>(&mut self, timed: Timed<T>) -> T {
        self.trace.queued += timed.queued;
        self.trace.hsm += timed.hsm;
        timed.value
    }
}

/// Looks a key up in a reading that may have the last word.
fn find(catalogue: &Catalogue, permit: &Permit<'_>) -> Result<Arc<Key>, OperationError> {
    match catalogue.find(permit.id()) {
        Some(key) => Ok(key?),
        None if catalogue.unread() > 0 => Err(OperationError::Undescribed),
        None => Err(OperationError::KeyNotFound),
    }
}

/// Whether another session, another reading of the keys or another IV may help.
fn may_retry(error: OperationError) -> bool {
    match error {
        OperationError::CheckFailed => true,
        OperationError::Token(TokenError::Fault(fault)) => matches!(
            fault.kind,
            FaultKind::HandleStale
                | FaultKind::SessionLost
                | FaultKind::LoginLost
                | FaultKind::TokenLost
                | FaultKind::Ambiguous
        ),
        _ => false,
    }
}

/// From when on the catalogue must have been read for the next attempt.
fn after(error: OperationError, known_since: Instant) -> Instant {
    match error {
        OperationError::Token(TokenError::Fault(fault)) if fault.kind == FaultKind::HandleStale => {
            Instant::now()
        }
        _ => known_since,
    }
}

fn spec(kind: &KeyKind) -> KeySpec {
    match kind {
        KeyKind::Aes { bits } => KeySpec::Aes { bits: *bits },
        KeyKind::Other(name) => KeySpec::Other(name.clone()),
    }
}

fn usages(usage: Usage) -> impl Iterator<Item = KeyUsage> {
    let Usage { encrypt, decrypt, sign, verify, wrap, unwrap, derive } = usage;
    let all = [
        (encrypt, KeyUsage::Encrypt),
        (decrypt, KeyUsage::Decrypt),
        (sign, KeyUsage::Sign),
        (verify, KeyUsage::Verify),
        (wrap, KeyUsage::Wrap),
        (unwrap, KeyUsage::Unwrap),
        (derive, KeyUsage::Derive),
    ];
    all.into_iter().filter_map(|(permitted, usage)| permitted.then_some(usage))
}
