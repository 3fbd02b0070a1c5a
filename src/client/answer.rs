//! Answers of a proxy, checked as KMS would check them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::connection::{CallError, RawAnswer};
use super::request::{Encrypt, IntegrityValue};
use crate::secret::Plaintext;
use crate::wire::cdiv::CdivInput;
use crate::wire::gcm::{Iv, Tag};

/// Longest ciphertextMetadata (P-41), in bytes.
const MAX_CIPHERTEXT_METADATA: usize = 20;

/// Answer of GetKeyMetadata (P-30).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataAnswer {
    /// `AES_256`, if KMS is to take the key.
    pub key_spec: String,
    /// `ENCRYPT`, `DECRYPT` and others.
    pub key_usage: Vec<String>,
    /// `ENABLED` or `DISABLED`.
    pub key_status: String,
}

/// Answer of GetHealthStatus (P-60).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthAnswer {
    /// How many proxies there are.
    pub xks_proxy_fleet_size: u64,
    /// Who made the proxy.
    pub xks_proxy_vendor: String,
    /// Which proxy.
    pub xks_proxy_model: String,
    /// Who made the HSMs.
    pub ekm_vendor: String,
    /// The HSMs.
    pub ekm_fleet_details: Vec<EkmAnswer>,
}

/// One HSM of [`HealthAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EkmAnswer {
    /// Its name.
    pub id: String,
    /// Its model.
    pub model: String,
    /// `ACTIVE`, `DEGRADED` or `UNAVAILABLE`.
    pub health_status: String,
}

/// Answer of Encrypt (P-41). Lengths have been checked, and the CDIV if one was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptAnswer {
    /// As long as the plaintext.
    pub ciphertext: Vec<u8>,
    /// 12 or 16 bytes.
    pub iv: Iv,
    /// 16 bytes.
    pub tag: Tag,
    /// At most 20 bytes; empty where the proxy sends none.
    pub ciphertext_metadata: Vec<u8>,
}

/// Reads the answer of GetKeyMetadata.
///
/// # Errors
/// [`CallError::Refused`] for an error of the protocol, [`CallError::Malformed`] for what KMS
/// could not read.
pub fn metadata(answer: &RawAnswer) -> Result<MetadataAnswer, CallError> {
    parse(answer)
}

/// Reads the answer of GetHealthStatus.
///
/// # Errors
/// As for [`metadata`].
pub fn health(answer: &RawAnswer) -> Result<HealthAnswer, CallError> {
    let health: HealthAnswer = parse(answer)?;
    if !(1..=10).contains(&health.ekm_fleet_details.len()) || health.xks_proxy_fleet_size == 0 {
        return Err(CallError::Malformed("fleet sizes are not those of P-60"));
    }
    Ok(health)
}

/// Reads the answer of an encryption, and checks all that can be checked without the key.
///
/// # Errors
/// As for [`metadata`].
pub fn encrypt(answer: &RawAnswer, input: &Encrypt<'_>) -> Result<EncryptAnswer, CallError> {
    let body: EncryptBody = parse(answer)?;
    if body.ciphertext.0.len() != input.plaintext.len() {
        return Err(CallError::Malformed("the ciphertext is not as long as the plaintext"));
    }
    let malformed = |_| CallError::Malformed("IV or tag has a length that P-41 does not allow");
    let sealed = EncryptAnswer {
        iv: Iv::try_from(&*body.initialization_vector.0).map_err(malformed)?,
        tag: Tag::try_from(&*body.authentication_tag.0).map_err(malformed)?,
        ciphertext: body.ciphertext.0,
        ciphertext_metadata: body.ciphertext_metadata.map(|bytes| bytes.0).unwrap_or_default(),
    };
    if sealed.ciphertext_metadata.len() > MAX_CIPHERTEXT_METADATA {
        return Err(CallError::Malformed("ciphertextMetadata is longer than 20 bytes"));
    }
    if input.integrity_value == IntegrityValue::Sha256 {
        let expected = CdivInput {
            aad: input.aad,
            ciphertext_metadata: &sealed.ciphertext_metadata,
            iv: &sealed.iv,
            ciphertext: &sealed.ciphertext,
            tag: &sealed.tag,
        };
        match body.ciphertext_data_integrity_value {
            Some(cdiv) if cdiv.0 == expected.digest().as_bytes() => {}
            Some(_) => return Err(CallError::Malformed("the CDIV does not fit (P-43)")),
            None => return Err(CallError::Malformed("the CDIV that was asked for is missing")),
        }
    }
    Ok(sealed)
}

/// Reads the answer of a decryption.
///
/// # Errors
/// As for [`metadata`].
pub fn decrypt(answer: &RawAnswer) -> Result<Plaintext, CallError> {
    let body: DecryptBody = parse(answer)?;
    let encoded = Zeroizing::new(body.plaintext);
    let plaintext = STANDARD.decode(encoded.as_bytes());
    let plaintext = plaintext.map_err(|_| CallError::Malformed("the plaintext is not Base64"))?;
    Ok(Plaintext::new(plaintext))
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a RawAnswer) -> Result<T, CallError> {
    if answer.status != StatusCode::OK {
        return Err(refusal(answer));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|_| CallError::Malformed("the body is not the JSON of this operation"))
}

/// The error of an answer that is not 200 (P-70).
fn refusal(answer: &RawAnswer) -> CallError {
    let status = answer.status.as_u16();
    match serde_json::from_slice::<ErrorBody>(&answer.body) {
        Ok(ErrorBody { error_name, error_message }) => CallError::Refused {
            status,
            name: error_name,
            message: error_message.unwrap_or_default(),
        },
        Err(_) => CallError::Uninterpretable { status },
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EncryptBody {
    ciphertext: Bytes64,
    initialization_vector: Bytes64,
    authentication_tag: Bytes64,
    ciphertext_metadata: Option<Bytes64>,
    ciphertext_data_integrity_value: Option<Bytes64>,
}

#[derive(Deserialize)]
struct DecryptBody {
    plaintext: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody {
    error_name: String,
    error_message: Option<String>,
}

/// Bytes that stand in Base64 with padding.
struct Bytes64(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(status: u16, body: &str) -> RawAnswer {
        RawAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.to_owned().into(),
        }
    }

    /// The worked example of P-44, as an answer.
    fn worked_example(replace: &[(&str, &str)]) -> RawAnswer {
        let mut body = r#"{"ciphertext":"ghxkK1txeDNn3q8Y","initializationVector":"HMrlRw85cAJUd5Ax","authenticationTag":"vBxN2ncH1oEkR8WVXpmyYQ==","ciphertextMetadata":"a2V5X3ZlcnNpb249MQ==","ciphertextDataIntegrityValue":"qHA/ImC9h5HsLRXqCyPmWgYx7tzyoTplzILbP0fPXsc="}"#.to_owned();
        for (from, to) in replace {
            assert!(body.contains(from));
            body = body.replace(from, to);
        }
        raw(200, &body)
    }

    const INPUT: Encrypt<'_> = Encrypt {
        plaintext: b"Hello World!",
        aad: b"project=nile,department=marketing",
        integrity_value: IntegrityValue::Sha256,
    };

    #[test]
    fn an_encryption_is_checked_by_its_cdiv_p_44() {
        let sealed = encrypt(&worked_example(&[]), &INPUT).unwrap();
        assert_eq!(sealed.ciphertext_metadata, b"key_version=1");
        let wrong = worked_example(&[("qHA/", "qHA+")]);
        assert!(matches!(encrypt(&wrong, &INPUT), Err(CallError::Malformed(_))));
        let missing = worked_example(&[("ciphertextDataIntegrityValue", "other")]);
        assert!(matches!(encrypt(&missing, &INPUT), Err(CallError::Malformed(_))));
        let not_asked = Encrypt { integrity_value: IntegrityValue::Off, ..INPUT };
        assert!(encrypt(&missing, &not_asked).is_ok());
    }

    #[test]
    fn lengths_are_those_of_p_41() {
        let longer = Encrypt { plaintext: b"Hello World!!", ..INPUT };
        assert!(matches!(encrypt(&worked_example(&[]), &longer), Err(CallError::Malformed(_))));
        for (from, to) in
            [("HMrlRw85cAJUd5Ax", "HMrlRw85cAJUdw=="), ("vBxN2ncH1oEkR8WVXpmyYQ==", "vBxN2ncH")]
        {
            let answer = worked_example(&[(from, to)]);
            assert!(matches!(encrypt(&answer, &INPUT), Err(CallError::Malformed(_))), "{to}");
        }
        let url_safe = worked_example(&[("qHA/", "qHA_")]);
        assert!(matches!(encrypt(&url_safe, &INPUT), Err(CallError::Malformed(_))));
    }

    #[test]
    fn errors_are_known_by_name_p_70() {
        let body = r#"{"errorName":"KeyNotFoundException","errorMessage":"no"}"#;
        let Err(CallError::Refused { status, name, message }) = metadata(&raw(404, body)) else {
            panic!("not refused");
        };
        assert_eq!((status, &*name, &*message), (404, "KeyNotFoundException", "no"));
        let no_json = metadata(&raw(502, "<html>"));
        assert!(matches!(no_json, Err(CallError::Uninterpretable { status: 502 })));
    }

    #[test]
    fn a_health_answer_has_one_to_ten_hsms_p_60() {
        let hsm = r#"{"id":"1","model":"m","healthStatus":"ACTIVE"}"#;
        let body = |count: usize| {
            let hsms = vec![hsm; count].join(",");
            format!(
                r#"{{"xksProxyFleetSize":1,"xksProxyVendor":"v","xksProxyModel":"m","ekmVendor":"e","ekmFleetDetails":[{hsms}]}}"#
            )
        };
        for count in [1, 10] {
            assert!(health(&raw(200, &body(count))).is_ok());
        }
        for count in [0, 11] {
            assert!(health(&raw(200, &body(count))).is_err());
        }
    }

    #[test]
    fn a_plaintext_is_not_shown() {
        let plaintext = decrypt(&raw(200, r#"{"plaintext":"aHVudGVyMg=="}"#)).unwrap();
        assert_eq!(plaintext.expose(), b"hunter2");
        let answer = raw(200, r#"{"plaintext":"hunter2"}"#);
        assert!(!format!("{answer:?} {:?}", decrypt(&answer)).contains("hunter2"));
    }
}
