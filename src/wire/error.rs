//! The twelve errors of the protocol and the JSON that carries them (P-70).

use std::fmt;

use super::json::JsonWriter;
use super::response::ResponseBody;
use super::route::Operation;

/// An error name of the protocol. KMS decides by it what to tell its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorName {
    /// An input is invalid.
    Validation,
    /// The key or the key store is disabled, deactivated or blocked.
    InvalidState,
    /// Ciphertext, IV, AAD, tag or ciphertext metadata do not fit.
    InvalidCiphertext,
    /// The key does not permit the operation.
    InvalidKeyUsage,
    /// The SigV4 signature does not hold.
    AuthenticationFailed,
    /// Secondary authorization says no.
    AccessDenied,
    /// No such external key in this key store.
    KeyNotFound,
    /// No such path.
    InvalidUriPath,
    /// Over quota, or the proxy cannot keep up.
    Throttling,
    /// Not implemented, or larger than this proxy supports.
    UnsupportedOperation,
    /// The HSM did not answer in time.
    DependencyTimeout,
    /// The HSM, or the proxy itself, failed.
    Internal,
}

/// Which operations the specification lists an error for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    All,
    AllButHealth,
    EncryptAndDecrypt,
    Decrypt,
}

impl ErrorName {
    /// All twelve, in the order of the specification's table.
    pub const ALL: [Self; 12] = [
        Self::Validation,
        Self::InvalidState,
        Self::InvalidCiphertext,
        Self::InvalidKeyUsage,
        Self::AuthenticationFailed,
        Self::AccessDenied,
        Self::KeyNotFound,
        Self::InvalidUriPath,
        Self::Throttling,
        Self::UnsupportedOperation,
        Self::DependencyTimeout,
        Self::Internal,
    ];

    /// P-70: the table. It stands nowhere else in the code.
    const fn row(self) -> (u16, &'static str, Listed) {
        use Listed::{All, AllButHealth, Decrypt, EncryptAndDecrypt};
        match self {
            Self::Validation => (400, "ValidationException", AllButHealth),
            Self::InvalidState => (400, "InvalidStateException", All),
            Self::InvalidCiphertext => (400, "InvalidCiphertextException", Decrypt),
            Self::InvalidKeyUsage => (400, "InvalidKeyUsageException", EncryptAndDecrypt),
            Self::AuthenticationFailed => (401, "AuthenticationFailedException", All),
            Self::AccessDenied => (403, "AccessDeniedException", AllButHealth),
            Self::KeyNotFound => (404, "KeyNotFoundException", AllButHealth),
            Self::InvalidUriPath => (404, "InvalidUriPathException", All),
            Self::Throttling => (429, "ThrottlingException", All),
            Self::UnsupportedOperation => (501, "UnsupportedOperationException", All),
            Self::DependencyTimeout => (503, "DependencyTimeoutException", All),
            Self::Internal => (500, "InternalException", All),
        }
    }

    /// The HTTP status that goes with the name.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// The name as it stands in `errorName`; also its metric label.
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Whether the specification lists the error for an operation.
    ///
    /// xksd leaves the table in one point: a malformed body of GetHealthStatus is answered with
    /// [`ErrorName::Validation`] too (P-70), there being no other name for it.
    pub const fn is_listed_for(self, operation: Operation) -> bool {
        match self.row().2 {
            Listed::All => true,
            Listed::AllButHealth => !matches!(operation, Operation::GetHealthStatus),
            Listed::EncryptAndDecrypt => {
                matches!(operation, Operation::Encrypt | Operation::Decrypt)
            }
            Listed::Decrypt => matches!(operation, Operation::Decrypt),
        }
    }
}

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Longest `errorMessage`: it has to be under 512 characters (P-70).
pub const MAX_MESSAGE_LEN: usize = 511;

/// The body of every answer that is not 200: `{"errorName": ..., "errorMessage": ...}` (P-70).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    name: ErrorName,
    message: String,
}

impl ErrorBody {
    /// Whatever the message is, what is sent of it is printable ASCII of under 512 characters
    /// (P-70): other characters become `?`, the rest is cut off. KMS writes it to the customer's
    /// CloudWatch Logs, so it must hold no secret.
    pub fn new(name: ErrorName, message: impl fmt::Display) -> Self {
        let printable = |c| if matches!(c, ' '..='~') { c } else { '?' };
        let message = message.to_string().chars().map(printable).take(MAX_MESSAGE_LEN).collect();
        Self { name, message }
    }

    /// The error's name.
    pub fn name(&self) -> ErrorName {
        self.name
    }

    /// The message as it is sent.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The JSON.
    pub fn to_body(&self) -> ResponseBody {
        let mut json = JsonWriter::with_capacity(self.message.len().saturating_add(96));
        json.raw("{\"errorName\":").text(self.name.as_str());
        json.raw(",\"errorMessage\":").text(&self.message).raw("}");
        json.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The specification's own table, row by row, in its order.
    const SPECIFICATION: &str = include_str!("../../tests/vectors/xks-errors.csv");

    #[test]
    fn the_table_is_that_of_the_specification_p_70() {
        let lines = SPECIFICATION.lines().filter(|line| !line.starts_with('#'));
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.len(), ErrorName::ALL.len());
        for (row, name) in rows.iter().zip(ErrorName::ALL) {
            let [status, error_name, operations] = row[..] else { panic!("{row:?}") };
            assert_eq!(name.as_str(), error_name);
            assert_eq!(name.status().to_string(), status, "{name}");
            let expected: BTreeSet<&str> = operations.split(' ').collect();
            let listed = Operation::ALL.into_iter().filter(|&op| name.is_listed_for(op));
            assert_eq!(listed.map(Operation::name).collect::<BTreeSet<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn the_body_has_the_two_members_of_p_70() {
        let body = ErrorBody::new(ErrorName::KeyNotFound, "no key \"a\\b\" here").to_body();
        assert_eq!(
            body.as_ref(),
            br#"{"errorName":"KeyNotFoundException","errorMessage":"no key \"a\\b\" here"}"#
        );
    }

    #[test]
    fn messages_are_cut_under_512_p_70() {
        assert_eq!(ErrorBody::new(ErrorName::Internal, "m".repeat(511)).message().len(), 511);
        assert_eq!(ErrorBody::new(ErrorName::Internal, "m".repeat(512)).message().len(), 511);
        assert_eq!(ErrorBody::new(ErrorName::Internal, "a\nb\u{7f}é~").message(), "a?b??~");
    }

    proptest! {
        #[test]
        fn any_message_becomes_json_that_kms_reads_p_70(
            message in any::<String>(), repeat in 1usize..200
        ) {
            let error = ErrorBody::new(ErrorName::Throttling, message.repeat(repeat));
            let body = error.to_body();
            let json: serde_json::Value = serde_json::from_slice(body.as_ref()).unwrap();
            prop_assert_eq!(&json["errorName"], "ThrottlingException");
            prop_assert_eq!(&json["errorMessage"], error.message());
            prop_assert!(error.message().len() < 512);
            prop_assert!(error.message().bytes().all(|b| (0x20..=0x7e).contains(&b)));
        }
    }
}
