//! Turns every failure along a request's path into one of the protocol's errors (P-70).
//!
//! This is the only place that knows both sides. What the caller may read is fixed text, which
//! lands in the customer's CloudWatch Logs; the operator's log gets the cause.

use std::borrow::Cow;

use crate::audit::log::Unrecorded;
use crate::counts::NotCounted;
use crate::hsm::fault::FaultKind;
use crate::hsm::key::KeyFault;
use crate::hsm::token::TokenError;
use crate::keystore::Refused;
use crate::limits::Exceeded;
use crate::metrics::QuotaOf;
use crate::operations::OperationError;
use crate::policy::Denial;
use crate::sigv4;
use crate::wire::error::{ErrorBody, ErrorName};
use crate::wire::request_error::RequestError;

/// Why a request got no answer of its operation.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The path is none of ours (P-5).
    #[error("no operation, or no key store, has this path")]
    Path,
    /// The path is ours, the method is not POST (P-3).
    #[error("the method is not POST")]
    Method,
    /// The body is larger than is read (P-23).
    #[error("the body is too large")]
    BodyTooLarge,
    /// The body did not arrive completely in time.
    #[error("the body did not arrive in time")]
    BodyLate,
    /// The connection or stream broke while the body was read.
    #[error("the body could not be read")]
    BodyBroken,
    /// The client's certificate is no longer accepted (P-16).
    #[error("the certificate that the client has shown is no longer accepted")]
    Barred,
    /// The signature does not hold (P-15).
    #[error("{0}")]
    Unauthenticated(#[from] sigv4::Failure),
    /// The caller is known and may not do this.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The policies of the key store deny it (P-80).
    #[error("{0}")]
    Denied(#[from] Denial),
    /// The body is no request.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// The operation failed.
    #[error("{0}")]
    Operation(#[from] OperationError),
    /// What is served must be recorded, and can't be.
    #[error("{0}")]
    Unrecorded(#[from] Unrecorded),
    /// A defect of ours.
    #[error("panicked while serving the request: this is a defect of xksd, please report it")]
    Panicked,
}

impl Failure {
    /// Whose quota the request was over, and which limit of it.
    pub fn over_quota(&self) -> Option<(QuotaOf, Exceeded)> {
        let (Self::Refused(refused) | Self::Operation(OperationError::Refused(refused))) = self
        else {
            return None;
        };
        match *refused {
            Refused::OverQuota(exceeded) => Some((QuotaOf::Keystore, exceeded)),
            Refused::OverKeyQuota(exceeded) => Some((QuotaOf::Key, exceeded)),
            _ => None,
        }
    }
}

/// Who has to look after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The caller.
    Caller,
    /// Nobody at once: xksd or its HSM serve less well than they should.
    Degraded,
    /// The operator.
    Act,
}

/// A failure in the protocol's words.
#[derive(Debug)]
pub struct Rescued {
    /// HTTP status.
    pub status: u16,
    /// Name and message for KMS.
    pub body: ErrorBody,
    /// For the operator.
    pub cause: String,
    /// Who has to look after it.
    pub severity: Severity,
    /// Whether the connection is of no further use.
    pub close: bool,
}

impl From<Failure> for Rescued {
    fn from(failure: Failure) -> Self {
        let (name, message, severity) = translate(&failure);
        let status = match failure {
            // P-3: no error of the protocol has this status; the body keeps to its names.
            Failure::Method => 405,
            _ => name.status(),
        };
        // P-23: what is left of such a body is not read.
        let close = matches!(
            failure,
            Failure::BodyTooLarge
                | Failure::BodyLate
                | Failure::BodyBroken
                | Failure::Barred
                | Failure::Panicked
        );
        let body = ErrorBody::new(name, message);
        Self { status, body, cause: failure.to_string(), severity, close }
    }
}

type Translation = (ErrorName, Cow<'static, str>, Severity);

fn translate(failure: &Failure) -> Translation {
    use ErrorName::*;
    use Severity::*;
    let (name, message, severity) = match failure {
        Failure::Path => (
            InvalidUriPath,
            "no key store of this external key store proxy has this URI path: compare \
             XksProxyUriPath of the custom key store with the prefix in the proxy's configuration",
            Caller,
        ),
        Failure::Method => (
            UnsupportedOperation,
            "the operations of an external key store proxy are called by POST only",
            Caller,
        ),
        Failure::BodyTooLarge => (
            Validation,
            "the request body is larger than 131072 bytes, more than any XKS request needs",
            Caller,
        ),
        Failure::BodyLate => (
            Validation,
            "the request body did not arrive completely in time: look at the network between \
             AWS KMS and the external key store proxy",
            Caller,
        ),
        Failure::BodyBroken => {
            (Validation, "the request body could not be read to its end", Caller)
        }
        Failure::Barred => (
            AuthenticationFailed,
            "the TLS client certificate that was shown when this connection began is no longer \
             accepted by the external key store proxy",
            Caller,
        ),
        Failure::Unauthenticated(failure) => {
            return (AuthenticationFailed, failure.advice().into(), Caller);
        }
        Failure::Refused(refused) => return refusal(*refused),
        Failure::Denied(denial) => {
            let denied = "the authorization policies of the external key store proxy do not allow \
                          this request";
            let message = match denial.reason() {
                Some(reason) => format!("{denied}: {reason}").into(),
                None => denied.into(),
            };
            return (AccessDenied, message, Caller);
        }
        Failure::Request(error) => {
            let name = if error.is_unsupported() { UnsupportedOperation } else { Validation };
            return (name, error.to_string().into(), Caller);
        }
        Failure::Operation(error) => return operation(*error),
        Failure::Unrecorded(Unrecorded::Failing) => (
            Internal,
            "the external key store proxy cannot write its audit log, and is configured to serve \
             nothing that it cannot record: its log has the details",
            Act,
        ),
        // P-8: another try, or another proxy, may find it in time.
        Failure::Unrecorded(Unrecorded::Behind) => (
            DependencyTimeout,
            "the external key store proxy did not write its audit log in time, and is configured \
             to serve nothing that it cannot record: its disk is slow",
            Act,
        ),
        Failure::Panicked => (
            Internal,
            "the external key store proxy met a defect of its own while serving this request: \
             its log has the details",
            Act,
        ),
    };
    (name, message.into(), severity)
}

const KEY_NOT_FOUND: &str = "this key store has no external key of this id: compare the XksKeyId \
    of the KMS key with the labels of the keys in the HSM and with the key rules of the key store \
    in the proxy's configuration";

fn refusal(refused: Refused) -> Translation {
    use ErrorName::*;
    let (name, message) = match refused {
        Refused::KeystoreDisabled => (
            InvalidState,
            "this key store is disabled in the configuration of the external key store proxy",
        ),
        Refused::Frozen => (
            InvalidState,
            "this key store is frozen: by the configuration of the external key store proxy, or by a \
             marker in the HSM",
        ),
        // Like a key that does not exist: another tenant's keys are none of this one's business.
        Refused::KeyNotAllowed => (KeyNotFound, KEY_NOT_FOUND),
        Refused::KeyDisabled => (
            InvalidState,
            "the external key is disabled in the HSM, or scheduled for deletion: enable it there",
        ),
        Refused::VersionDisabled => (
            InvalidState,
            "the version of the external key that made this ciphertext is disabled in the HSM: \
             enable it there",
        ),
        Refused::NotAes256 => (
            InvalidKeyUsage,
            "the external key is not a 256-bit AES key, the only kind that version 1 of the XKS \
             protocol uses",
        ),
        Refused::NoEncrypt => (
            InvalidKeyUsage,
            "the external key does not permit encryption: its attribute CKA_ENCRYPT is false",
        ),
        Refused::NoDecrypt => (
            InvalidKeyUsage,
            "the external key does not permit decryption: its attribute CKA_DECRYPT is false",
        ),
        Refused::NoDecryptForCdiv => (
            InvalidKeyUsage,
            "a ciphertext data integrity value promises that the ciphertext can be decrypted, and \
             the external key does not permit that: its attribute CKA_DECRYPT is false",
        ),
        Refused::UnknownVersion => (
            InvalidCiphertext,
            "the ciphertext was made by a version of the external key that the HSM does not hold, \
             or by another key",
        ),
        Refused::Versioned => (
            InvalidState,
            "the configuration of the external key store proxy has this key store write the \
             ciphertexts of AWS's sample proxy, which can't say which version of a key made them, \
             and the external key has versions: only one that was never rotated can be used so",
        ),
        Refused::OverQuota(Exceeded::Rate) => (
            Throttling,
            "more requests a second than the external key store proxy's quota for this key store",
        ),
        Refused::OverQuota(Exceeded::Concurrent) => (
            Throttling,
            "more requests at once than the external key store proxy's quota for this key store",
        ),
        Refused::OverKeyQuota(Exceeded::Rate) => (
            Throttling,
            "more requests a second than the external key store proxy's quota for each external key",
        ),
        Refused::OverKeyQuota(Exceeded::Concurrent) => (
            Throttling,
            "more requests at once than the external key store proxy's quota for each external key",
        ),
    };
    (name, message.into(), Severity::Caller)
}

fn operation(error: OperationError) -> Translation {
    use ErrorName::*;
    use Severity::*;
    let (name, message, severity) = match error {
        OperationError::Refused(refused) => return refusal(refused),
        OperationError::Token(error) => return token(error),
        OperationError::KeyNotFound => (KeyNotFound, KEY_NOT_FOUND, Caller),
        OperationError::Undescribed => (
            Internal,
            "the HSM refuses to describe some of its keys, so whether it holds this external key \
             is not known: the external key store proxy's log has the details",
            Act,
        ),
        OperationError::Key(KeyFault::Ambiguous) => (
            InvalidState,
            "two objects in the HSM have this external key id as their label, and the proxy does \
             not guess which one is meant: give one of them another label",
            Act,
        ),
        OperationError::Key(KeyFault::NoneReady) => (
            InvalidState,
            "the external key is being created and no version of it is enabled yet",
            Caller,
        ),
        OperationError::UnknownFormat => (
            InvalidCiphertext,
            "the ciphertext metadata are missing or not of a format that this key store reads: the \
             ciphertext was made by another external key store proxy, or was changed",
            Caller,
        ),
        OperationError::BadCiphertext => (
            InvalidCiphertext,
            "the ciphertext, its metadata, the initialization vector, the authentication tag or \
             the additional authenticated data (the encryption context) do not belong together",
            Caller,
        ),
        OperationError::Unproved => (
            Internal,
            "the HSM that could be asked refused the ciphertext, and its key could not be compared \
             yet with that of another HSM which cannot be asked: the external key store proxy's log \
             has the details",
            Act,
        ),
        OperationError::CheckFailed => (
            Internal,
            "the HSM did not decrypt its own ciphertext to the plaintext, so the ciphertext was \
             thrown away: look at the HSM",
            Act,
        ),
        OperationError::NotCounted(NotCounted::Exhausted) => (
            InvalidState,
            "this version of the external key has encrypted as often as it may under AES-GCM with \
             random initialization vectors (NIST SP 800-38D), by this proxy's share: rotate the \
             external key in the HSM",
            Act,
        ),
        OperationError::NotCounted(NotCounted::Unwritable) => (
            Internal,
            "the external key store proxy cannot count this encryption in its state directory, and is \
             told to refuse then: its log has the details",
            Act,
        ),
        OperationError::Frame(_) => (
            UnsupportedOperation,
            "the additional authenticated data is longer than this proxy supports",
            Caller,
        ),
    };
    (name, message.into(), severity)
}

fn token(error: TokenError) -> Translation {
    use ErrorName::*;
    use Severity::*;
    let busy = "the HSM has more to do than it can do in time: ask for fewer requests a second, \
                or give the external key store proxy more HSM capacity";
    let (name, message, severity) = match error {
        TokenError::QueueFull | TokenError::Overloaded => (Throttling, busy, Degraded),
        TokenError::Late => (
            DependencyTimeout,
            "the HSM did not answer within the time that AWS KMS waits",
            Degraded,
        ),
        TokenError::Down => {
            (Internal, "the HSM is not available: the external key store proxy's log says why", Act)
        }
        TokenError::Fault(fault) => match fault.kind {
            FaultKind::Busy => (Throttling, busy, Degraded),
            FaultKind::KeyUsage => (
                InvalidKeyUsage,
                "the HSM does not permit this operation with the external key: look at its \
                 attributes CKA_ENCRYPT and CKA_DECRYPT and at its type",
                Caller,
            ),
            FaultKind::BadCiphertext => return operation(OperationError::BadCiphertext),
            FaultKind::Ambiguous
            | FaultKind::HandleStale
            | FaultKind::SessionLost
            | FaultKind::LoginLost
            | FaultKind::TokenLost
            | FaultKind::LibraryLost
            | FaultKind::PinRefused
            | FaultKind::Bug => (
                Internal,
                "the HSM failed: the external key store proxy's log has the details",
                Act,
            ),
        },
    };
    (name, message.into(), severity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hsm::codes;
    use crate::hsm::fault::Fault;

    fn every_failure() -> Vec<Failure> {
        use super::Failure::{
            BodyBroken, BodyLate, BodyTooLarge, Method, Operation, Panicked, Path,
        };
        let refusals = [
            Refused::KeystoreDisabled,
            Refused::Frozen,
            Refused::KeyNotAllowed,
            Refused::KeyDisabled,
            Refused::VersionDisabled,
            Refused::NotAes256,
            Refused::NoEncrypt,
            Refused::NoDecrypt,
            Refused::NoDecryptForCdiv,
            Refused::UnknownVersion,
            Refused::Versioned,
            Refused::OverQuota(Exceeded::Rate),
            Refused::OverQuota(Exceeded::Concurrent),
            Refused::OverKeyQuota(Exceeded::Rate),
            Refused::OverKeyQuota(Exceeded::Concurrent),
        ];
        let operations = [
            OperationError::KeyNotFound,
            OperationError::Undescribed,
            OperationError::Key(KeyFault::Ambiguous),
            OperationError::Key(KeyFault::NoneReady),
            OperationError::UnknownFormat,
            OperationError::BadCiphertext,
            OperationError::Unproved,
            OperationError::CheckFailed,
            OperationError::NotCounted(NotCounted::Exhausted),
            OperationError::NotCounted(NotCounted::Unwritable),
            OperationError::Token(TokenError::QueueFull),
            OperationError::Token(TokenError::Overloaded),
            OperationError::Token(TokenError::Late),
            OperationError::Token(TokenError::Down),
        ];
        let faults = codes::ALL.iter().flat_map(|&(code, _)| {
            ["C_EncryptInit", "C_Decrypt"].map(|function| Fault::returned(function, code))
        });
        let unrecorded = [Unrecorded::Failing, Unrecorded::Behind].map(Failure::Unrecorded);
        let longest = "\u{e9}".repeat(1000);
        let denials = [None, Some("a reason"), Some(&*longest)].map(Denial::because);
        [Path, Method, BodyTooLarge, BodyLate, BodyBroken, Panicked]
            .into_iter()
            .chain(unrecorded)
            .chain(denials.map(Failure::Denied))
            .chain(refusals.map(Failure::Refused))
            .chain(operations.map(Operation))
            .chain(faults.map(|fault| Operation(OperationError::Token(fault.into()))))
            .collect()
    }

    #[test]
    fn messages_keep_p_70() {
        for failure in every_failure() {
            let (_, message, _) = translate(&failure);
            assert!(message.len() < 512, "{message}");
            assert!(message.bytes().all(|b| (0x20..=0x7e).contains(&b)), "{message}");
            assert!(!message.contains("  "), "{message}");
        }
    }

    #[test]
    fn the_status_is_that_of_the_name_except_for_p_3() {
        for failure in every_failure() {
            let is_method = matches!(failure, Failure::Method);
            let rescued = Rescued::from(failure);
            let expected = if is_method { 405 } else { rescued.body.name().status() };
            assert_eq!(rescued.status, expected);
        }
    }

    #[test]
    fn an_hsm_in_trouble_is_never_the_callers_fault() {
        for code in [codes::GENERAL_ERROR, codes::DEVICE_ERROR, codes::CRYPTOKI_NOT_INITIALIZED] {
            let fault = Fault::returned("C_DecryptInit", code);
            let rescued = Rescued::from(Failure::Operation(TokenError::from(fault).into()));
            assert_eq!(rescued.status, 500);
        }
    }
}
