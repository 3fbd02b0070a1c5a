//! The four requests, parsed from their bodies (P-20 to P-23, P-40, P-50, P-51).
//!
//! Each request type has one constructor, `parse`; the route says which to call. The body has
//! passed the signature check by then, and has [`MAX_BODY_LEN`](super::limits::MAX_BODY_LEN) bytes
//! at most. The request's `Content-Type` is not looked at (P-22).

use super::fields;
use super::gcm::{Iv, LengthError, Tag};
use super::limits::{Limits, MAX_CIPHERTEXT_METADATA_LEN};
use super::metadata::{REQUEST_METADATA, RequestMetadata};
use super::object::Object;
use super::request_error::RequestError;
use super::route::Operation;
use crate::secret::Plaintext;

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Rejected {
    /// What could be read of the metadata, for the log line; empty where nothing could.
    pub metadata: Box<RequestMetadata>,
    /// Why.
    #[source]
    pub error: RequestError,
}

/// GetKeyMetadata (P-30).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataRequest {
    /// Where the request comes from.
    pub metadata: RequestMetadata,
}

/// GetHealthStatus (P-60).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthRequest {
    /// Where the request comes from.
    pub metadata: RequestMetadata,
}

/// Encrypt (P-40).
#[derive(Debug, PartialEq)]
pub struct EncryptRequest {
    /// Where the request comes from.
    pub metadata: RequestMetadata,
    /// What to encrypt: one byte at least.
    pub plaintext: Plaintext,
    /// What to authenticate with it. Absent and empty are kept apart, though P-42 treats them
    /// alike, for the sake of other layouts.
    pub aad: Option<Vec<u8>>,
    /// Whether the answer needs a CDIV.
    pub integrity: IntegrityValue,
}

/// Whether Encrypt answers with a ciphertext data integrity value (P-43).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrityValue {
    /// No algorithm was named.
    NotAsked,
    /// `ciphertextDataIntegrityValueAlgorithm` is `SHA_256`.
    Sha256,
}

/// Decrypt (P-50).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecryptRequest {
    /// Where the request comes from.
    pub metadata: RequestMetadata,
    /// What to decrypt, without tag: one byte at least.
    pub ciphertext: Vec<u8>,
    /// The vector that Encrypt answered with.
    pub iv: Iv,
    /// The tag that Encrypt answered with.
    pub tag: Tag,
    /// The AAD of the Encrypt request. Absent and empty are kept apart.
    pub aad: Option<Vec<u8>>,
    /// The metadata that Encrypt answered with: 20 bytes at most, of a format yet to be read.
    pub ciphertext_metadata: Option<Vec<u8>>,
}

impl MetadataRequest {
    /// Parses the body of a request to `.../metadata`.
    pub fn parse(body: &[u8]) -> Result<Self, Rejected> {
        let (metadata, _) = open(body, [REQUEST_METADATA], Operation::GetKeyMetadata)?;
        Ok(Self { metadata })
    }
}

impl HealthRequest {
    /// Parses the body of a request to `.../health`.
    pub fn parse(body: &[u8]) -> Result<Self, Rejected> {
        let (metadata, _) = open(body, [REQUEST_METADATA], Operation::GetHealthStatus)?;
        Ok(Self { metadata })
    }
}

impl EncryptRequest {
    /// Parses the body of a request to `.../encrypt`.
    pub fn parse(body: &[u8], limits: Limits) -> Result<Self, Rejected> {
        let members = [REQUEST_METADATA, ALGORITHM, CDIV_ALGORITHM, PLAINTEXT, AAD];
        let (metadata, object) = open(body, members, Operation::Encrypt)?;
        let parts = || {
            aes_gcm(&object)?;
            let integrity = integrity(&object)?;
            let mut plaintext = fields::required_bytes(&object, PLAINTEXT)?;
            within(PLAINTEXT, plaintext.len(), limits.text())?;
            let aad = aad(&object, limits)?;
            // P-45: the buffer that was decoded into is handed over, not copied.
            Ok((Plaintext::new(std::mem::take(&mut *plaintext)), aad, integrity))
        };
        match parts() {
            Ok((plaintext, aad, integrity)) => Ok(Self { metadata, plaintext, aad, integrity }),
            Err(error) => Err(Rejected { metadata: Box::new(metadata), error }),
        }
    }
}

impl DecryptRequest {
    /// Parses the body of a request to `.../decrypt`.
    pub fn parse(body: &[u8], limits: Limits) -> Result<Self, Rejected> {
        let members = [REQUEST_METADATA, ALGORITHM, CIPHERTEXT, IV, TAG, CIPHERTEXT_METADATA, AAD];
        let (metadata, object) = open(body, members, Operation::Decrypt)?;
        let parts = || {
            aes_gcm(&object)?;
            let mut ciphertext = fields::required_bytes(&object, CIPHERTEXT)?;
            within(CIPHERTEXT, ciphertext.len(), limits.text())?;
            // P-51: IV and tag are judged each by its own length.
            let iv = fields::required_bytes(&object, IV)?;
            let iv = Iv::try_from(&iv[..]).map_err(length(IV, "12 or 16 bytes"))?;
            let tag = fields::required_bytes(&object, TAG)?;
            let tag = Tag::try_from(&tag[..]).map_err(length(TAG, "16 bytes"))?;
            let ciphertext_metadata = ciphertext_metadata(&object)?;
            let aad = aad(&object, limits)?;
            Ok((std::mem::take(&mut *ciphertext), iv, tag, ciphertext_metadata, aad))
        };
        match parts() {
            Ok((ciphertext, iv, tag, ciphertext_metadata, aad)) => {
                Ok(Self { metadata, ciphertext, iv, tag, aad, ciphertext_metadata })
            }
            Err(error) => Err(Rejected { metadata: Box::new(metadata), error }),
        }
    }
}

/// Takes the body apart and reads its metadata, with which it is logged even if it is refused.
fn open<'a, const N: usize>(
    body: &'a [u8],
    members: [&'static str; N],
    operation: Operation,
) -> Result<(RequestMetadata, Object<'a, N>), Rejected> {
    let (object, whole) = Object::read(body, members);
    let (metadata, said) = RequestMetadata::read(object.member(REQUEST_METADATA), operation);
    // A fault in the body comes first: it may be why there are no metadata.
    match whole.map_err(RequestError::from).and(said) {
        Ok(()) => Ok((metadata, object)),
        Err(error) => Err(Rejected { metadata: Box::new(metadata), error }),
    }
}

/// P-40, P-50: there is one algorithm, and it must be named.
fn aes_gcm<const N: usize>(object: &Object<'_, N>) -> Result<(), RequestError> {
    let algorithm = fields::text(object, ALGORITHM)?;
    match algorithm.ok_or(RequestError::Missing { member: ALGORITHM })?.as_str() {
        AES_GCM => Ok(()),
        _ => Err(RequestError::Algorithm { member: ALGORITHM, allowed: AES_GCM }),
    }
}

fn integrity<const N: usize>(object: &Object<'_, N>) -> Result<IntegrityValue, RequestError> {
    match fields::text(object, CDIV_ALGORITHM)?.as_deref() {
        None => Ok(IntegrityValue::NotAsked),
        Some(SHA_256) => Ok(IntegrityValue::Sha256),
        Some(_) => Err(RequestError::Algorithm { member: CDIV_ALGORITHM, allowed: SHA_256 }),
    }
}

fn aad<const N: usize>(
    object: &Object<'_, N>,
    limits: Limits,
) -> Result<Option<Vec<u8>>, RequestError> {
    let Some(mut aad) = fields::bytes(object, AAD)? else { return Ok(None) };
    within(AAD, aad.len(), limits.aad())?;
    Ok(Some(std::mem::take(&mut *aad)))
}

fn ciphertext_metadata<const N: usize>(
    object: &Object<'_, N>,
) -> Result<Option<Vec<u8>>, RequestError> {
    let Some(mut metadata) = fields::bytes(object, CIPHERTEXT_METADATA)? else { return Ok(None) };
    let actual = metadata.len();
    if actual > MAX_CIPHERTEXT_METADATA_LEN {
        return Err(length(CIPHERTEXT_METADATA, "at most 20 bytes")(LengthError { actual }));
    }
    Ok(Some(std::mem::take(&mut *metadata)))
}

/// P-23: what is longer than supported is refused as such, not as invalid.
fn within(member: &'static str, actual: usize, max: usize) -> Result<(), RequestError> {
    if actual > max { Err(RequestError::Unsupported { member, max, actual }) } else { Ok(()) }
}

fn length(member: &'static str, allowed: &'static str) -> impl Fn(LengthError) -> RequestError {
    move |LengthError { actual }| RequestError::Length { member, allowed, actual }
}

const ALGORITHM: &str = "encryptionAlgorithm";
const CDIV_ALGORITHM: &str = "ciphertextDataIntegrityValueAlgorithm";
const PLAINTEXT: &str = "plaintext";
const CIPHERTEXT: &str = "ciphertext";
const AAD: &str = "additionalAuthenticatedData";
const IV: &str = "initializationVector";
const TAG: &str = "authenticationTag";
const CIPHERTEXT_METADATA: &str = "ciphertextMetadata";

const AES_GCM: &str = "AES_GCM";
const SHA_256: &str = "SHA_256";

#[cfg(test)]
mod tests;
