//! The four XKS operations, as plain functions over the tokens of a key store.
//!
//! They know nothing of HTTP. Where an answer is final for KMS (no such key, no such version), it
//! is given only when every token was read completely after the request arrived.

mod tally;
mod trace;
mod way;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Deadline;
use crate::counts::{Counts, NotCounted};
use crate::hsm::backend::Sealed;
use crate::hsm::fault::FaultKind;
use crate::hsm::fleet::{Attempt, Enough, Group, GroupCatalogue};
use crate::hsm::key::{Holders, Key, KeyFault, KeyKind, Standing, Usage};
use crate::hsm::lanes::Lane;
use crate::hsm::token::{Opening, Token, TokenError, TokenState};
use crate::keystore::{AuthorizedKey, Permit, Refused, WriteCheck, Writing};
use crate::secret::Plaintext;
use crate::wire::aad::FrameError;
use crate::wire::cdiv::CdivInput;
use crate::wire::gcm::{Iv, Tag};
use crate::wire::health::{Ekm, EkmFleet, HealthResponse, HealthStatus};
use crate::wire::request::{DecryptRequest, EncryptRequest, IntegrityValue};
use crate::wire::response::{
    DecryptResponse, EncryptResponse, KeySpec, KeyStatus, KeyUsage, MetadataResponse,
};
use tally::Tally;
pub use trace::{Part, Step, Trace, Work};
use way::Way;

/// A result of GetHealthStatus is never older than this (P-61, P-63).
const HEALTH_MAX_AGE: Duration = Duration::from_secs(60);

/// Why an operation gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// No token holds a key of this id.
    #[error("no token of the key store holds a key with this label")]
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
    /// Nothing that the key store reads has such metadata.
    #[error("the ciphertext metadata are missing, or not of a format that this key store reads")]
    UnknownFormat,
    /// The HSM says that ciphertext, IV, AAD or tag do not fit.
    #[error("the HSM refused ciphertext, IV, AAD or tag")]
    BadCiphertext,
    /// The HSM says so, and it is not proved that its key is that of another token of the key store,
    /// which cannot be asked.
    #[error(
        "the HSM refused ciphertext, IV, AAD or tag, and its key could not be compared with \
             that of another token of the key store, which may have made the ciphertext"
    )]
    Unproved,
    /// The HSM did not decrypt its own output to the plaintext (P-43).
    #[error("the HSM did not decrypt its own ciphertext to the plaintext")]
    CheckFailed,
    /// AAD or metadata do not fit into the frame; the parser's limits exclude it.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The encryption would not be counted, or would be one too many.
    #[error("{0}")]
    NotCounted(#[from] NotCounted),
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

/// One request's way to the tokens of its key store.
#[derive(Debug)]
pub struct Call<'a> {
    /// Where the keys are.
    pub group: &'a Group,
    /// For whom the tokens work.
    pub lane: Lane,
    /// When the head of the request had arrived.
    pub arrived: Instant,
    /// When the answer is of no use any more.
    pub deadline: Deadline,
    /// Where encryptions are counted against the limit of their key, if they are.
    pub counts: Option<&'a Counts>,
    /// What is to be recorded.
    pub trace: &'a mut Trace,
}

/// GetKeyMetadata (P-30).
pub async fn describe(
    call: &mut Call<'_>,
    permit: &Permit<'_>,
) -> Result<MetadataResponse, OperationError> {
    let Found { key, is_frozen, .. } = call.key(permit, call.arrived, |_key| Enough::Yes).await?;
    let _admission = permit.admit(&key)?;
    let newest = key.newest();
    call.trace.version = Some(newest.version);
    let is_enabled = key.is_enabled() && !is_frozen;
    let key_status = if is_enabled { KeyStatus::Enabled } else { KeyStatus::Disabled };
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
    let plaintext = Arc::new(plaintext);
    let group = call.group;
    let mut way = Way::new(group, call.arrived, call.deadline);
    // Charged once, however many attempts there are, and held until the last has ended.
    let mut admission = None;
    loop {
        let ready = |key: &Key<Holders>| group.readiness(key.newest());
        let found = call.key(permit, way.known_since(), ready).await?;
        let (key, writing) = permit.to_encrypt(found.usable()?, integrity)?;
        if admission.is_none() {
            admission = Some(permit.admit(&found.key)?);
        }
        let attempt = way.next(&key)?;
        let aad = aad.as_deref();
        // Before any call to the HSM, and for each attempt: a retry is an encryption like any other.
        let tally = Tally::take(call, permit, &key).await?;
        match encrypt_once(call, &attempt, (&key, tally), &plaintext, aad, (integrity, writing))
            .await
        {
            Ok(answer) => return Ok(answer),
            Err(error) => way.failed(&attempt, &key, error)?,
        }
    }
}

/// One attempt, with an IV of its own.
async fn encrypt_once(
    call: &mut Call<'_>,
    attempt: &Attempt<'_>,
    (key, tally): (&AuthorizedKey, Tally<'_>),
    plaintext: &Arc<Plaintext>,
    aad: Option<&[u8]>,
    (integrity, Writing { format, check }): (IntegrityValue, Writing),
) -> Result<EncryptResponse, OperationError> {
    call.trace.sent(attempt, key, format);
    // P-42: the HSM authenticates the metadata together with the AAD.
    let framed: Arc<[u8]> = format.frame(aad)?.into();
    let Attempt { token, handle, .. } = *attempt;
    let sealed = token
        .encrypt(&call.lane, handle, framed.clone(), plaintext.clone(), attempt.deadline())
        .await;
    let sealed = call.trace.job(token, Work::Encrypt, sealed);
    // An answer that is late or lost may have been an encryption all the same: better one too many
    // against the key's bound than one too few.
    let refused = [TokenError::QueueFull, TokenError::Overloaded, TokenError::Down];
    if sealed.as_ref().is_err_and(|error| refused.contains(error)) {
        tally.give_back();
    } else {
        call.trace.encryptions += 1;
    }
    let Sealed { iv, ciphertext, tag } = sealed?;
    let tag = Tag::new(tag);
    // P-43: the CDIV first, from the HSM's output; then that output is decrypted again.
    let cdiv = (integrity == IntegrityValue::Sha256).then(|| {
        let metadata = format.metadata();
        let input = CdivInput {
            aad: aad.unwrap_or_default(),
            ciphertext_metadata: metadata.as_bytes(),
            iv: &iv,
            ciphertext: &ciphertext,
            tag: &tag,
        };
        input.digest()
    });
    let ciphertext = match check {
        WriteCheck::Skip => ciphertext,
        WriteCheck::Impossible => {
            token.metrics().write_check_skipped();
            ciphertext
        }
        WriteCheck::Decrypt => {
            prove(call, attempt, framed, plaintext, ciphertext, &iv, &tag).await?
        }
    };
    Ok(EncryptResponse { ciphertext, iv, tag, format, cdiv })
}

/// Decrypts what is about to be sent, and compares it with what was to be encrypted (P-43).
async fn prove(
    call: &mut Call<'_>,
    attempt: &Attempt<'_>,
    aad: Arc<[u8]>,
    plaintext: &Plaintext,
    ciphertext: Vec<u8>,
    iv: &Iv,
    tag: &Tag,
) -> Result<Vec<u8>, OperationError> {
    let Attempt { token, handle, .. } = *attempt;
    let (iv, tag) = (iv.as_bytes().to_vec(), *tag.as_bytes());
    let opening = Arc::new(Opening { iv, aad, ciphertext, tag });
    let opened = token.decrypt(&call.lane, handle, opening.clone(), attempt.deadline()).await;
    let proved = match call.trace.job(token, Work::Check, opened) {
        Ok(opened) => opened == *plaintext,
        // The token refuses what it has just made: that is no caller's mistake.
        Err(TokenError::Fault(fault)) if fault.kind == FaultKind::BadCiphertext => false,
        Err(error) => return Err(error.into()),
    };
    if !proved {
        token.metrics().write_check_failed();
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
    let Some(format) = permit.format_of(&ciphertext_metadata.unwrap_or_default()) else {
        // Whether there is such a key is told first, as it is of every other ciphertext.
        call.key(permit, call.arrived, |_key| Enough::Yes).await?;
        return Err(OperationError::UnknownFormat);
    };
    let made_by = format.made_by();
    let framed: Arc<[u8]> = format.frame(aad.as_deref())?.into();
    let iv = iv.as_bytes().to_vec();
    let opening = Arc::new(Opening { iv, aad: framed, ciphertext, tag: *tag.as_bytes() });
    let group = call.group;
    let mut way = Way::new(group, call.arrived, call.deadline);
    let mut admission = None;
    loop {
        // A version that is not known may have been made since.
        let ready = |key: &Key<Holders>| {
            key.version(made_by.version, made_by.object_id)
                .map_or(Enough::No, |version| group.readiness(version))
        };
        let found = call.key(permit, way.known_since(), ready).await?;
        let key = match permit.to_decrypt(found.usable()?, made_by) {
            // One of those that could not be read may hold it.
            Err(Refused::UnknownVersion) if !found.is_complete => {
                return Err(TokenError::Down.into());
            }
            key => key?,
        };
        if admission.is_none() {
            admission = Some(permit.admit(&found.key)?);
        }
        let attempt = way.next(&key)?;
        call.trace.sent(&attempt, &key, format);
        let Attempt { token, handle, standing, .. } = attempt;
        let opened = token.decrypt(&call.lane, handle, opening.clone(), attempt.deadline()).await;
        let opened = call.trace.job(token, Work::Decrypt, opened);
        let error = match opened.map_err(OperationError::from) {
            Ok(plaintext) => return Ok(DecryptResponse { plaintext }),
            Err(OperationError::BadCiphertext) if standing == Standing::Trusted => {
                OperationError::Unproved
            }
            Err(error) => error,
        };
        way.failed(&attempt, &key, error)?;
    }
}

/// GetHealthStatus (P-60 to P-63): from what the stewards found out in the background.
pub fn health(group: &Group, fleet_size: NonZeroU32) -> HealthResponse {
    let known = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
    let tokens = group.tokens().iter().zip(statuses(group));
    let mut ekms = tokens.map(|(token, health_status)| Ekm {
        id: token.name().to_string(),
        model: known(token.identity().model),
        health_status,
    });
    let first = ekms.next().expect("a group has a token");
    let ekm_fleet = EkmFleet::new(first, ekms);
    let manufacturers = group.tokens().iter().map(|token| token.identity().manufacturer);
    HealthResponse {
        fleet_size,
        proxy_vendor: "xksd".to_owned(),
        proxy_model: concat!("xksd ", env!("CARGO_PKG_VERSION")).to_owned(),
        ekm_vendor: known(manufacturers.into_iter().find(|m| !m.is_empty()).unwrap_or_default()),
        ekm_fleet,
    }
}

/// The status of each token of a key store, in their order (P-63).
pub fn statuses(group: &Group) -> impl Iterator<Item = HealthStatus> {
    let catalogue = group.catalogue();
    let tokens = group.tokens().iter().enumerate();
    tokens.map(move |(number, token)| health_of(token, catalogue.lacking(number)))
}

fn health_of(token: &Token, lacking: usize) -> HealthStatus {
    let proved_lately = token.last_proved().is_some_and(|at| at.elapsed() < HEALTH_MAX_AGE);
    let is_whole = lacking == 0 && token.has_all_sessions();
    // P-63: down, not yet probed, or a result older than a minute.
    match token.state() {
        TokenState::Up if proved_lately && is_whole => HealthStatus::Active,
        TokenState::Up | TokenState::Suspect if proved_lately => HealthStatus::Degraded,
        _ => HealthStatus::Unavailable,
    }
}

/// A key, and whether the last word about it has been said.
#[derive(Debug)]
struct Found {
    key: Arc<Key<Holders>>,
    /// It may be described and nothing else.
    is_frozen: bool,
    /// Every token was read since the request arrived.
    is_complete: bool,
}

impl Found {
    /// The key, if it may be used.
    fn usable(&self) -> Result<&Key<Holders>, Refused> {
        if self.is_frozen { Err(Refused::Frozen) } else { Ok(&self.key) }
    }
}

impl Call<'_> {
    /// The key, as it was known at `known_since` or later, once it is `ready`. A key that the last
    /// readings did not find is looked for in those that began after this request arrived.
    async fn key(
        &mut self,
        permit: &Permit<'_>,
        known_since: Instant,
        ready: impl Fn(&Key<Holders>) -> Enough,
    ) -> Result<Found, OperationError> {
        let group = self.group;
        self.trace.begin(Part::Catalogue);
        // What was known of tokens that are down says nothing of what they hold now.
        if group.is_down() {
            return Err(TokenError::Down.into());
        }
        let judge = |catalogue: &GroupCatalogue| {
            if known_since > self.arrived && !group.is_read_since(catalogue, known_since) {
                return Enough::No;
            }
            // A refused key may have been mended since, so it is looked for anew like an unknown one.
            match catalogue.find(permit.id()) {
                Some(Ok(key)) => ready(&key),
                Some(Err(_)) | None => Enough::No,
            }
        };
        let known = group.catalogue();
        let catalogue = match judge(&known) {
            Enough::Yes => known,
            _ => group.catalogue_since(known_since, self.deadline, judge).await?,
        };
        let is_complete = group.is_complete_since(&catalogue, self.arrived);
        let is_frozen = permit.is_frozen(catalogue.freezes());
        match catalogue.find(permit.id()) {
            Some(key) => Ok(Found { key: key?, is_frozen, is_complete }),
            None if catalogue.unread() > 0 => Err(OperationError::Undescribed),
            None if !is_complete => Err(TokenError::Down.into()),
            None => Err(OperationError::KeyNotFound),
        }
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
