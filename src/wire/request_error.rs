//! Why a request body is refused.

use super::object::ObjectError;

/// What is wrong with a request body.
///
/// Holds names of members, lengths and positions, never anything that the request contained, so
/// its text may go to logs and into `errorMessage`, and through that to the customer's CloudWatch
/// Logs. The text is printable ASCII of well under 512 characters (P-70).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Something else than a JSON object, or nothing at all.
    #[error("the request body must be a JSON object in UTF-8, and it starts as something else")]
    NotAnObject,
    /// Not JSON, or something after the object.
    #[error(
        "the request body is not valid JSON, or goes on after its end: see line {line}, column {column}"
    )]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Byte in the line, near to where the fault is.
        column: usize,
    },
    /// A member that is in itself no valid JSON text, as far as the whole could be read.
    #[error("{member} is not valid JSON: look there for a broken escape sequence or deep nesting")]
    MalformedMember {
        /// Its name.
        member: &'static str,
    },
    /// A member that stands twice in one object, so that two readers may see two requests.
    #[error("{member} stands more than once in the same JSON object of the request")]
    Duplicate {
        /// Its name, if it is one of the protocol's.
        member: &'static str,
    },
    /// A required member that is absent or null.
    #[error(
        "{member} is missing: this operation requires it (XKS proxy API specification, request payload)"
    )]
    Missing {
        /// Its name.
        member: &'static str,
    },
    /// A required member without content.
    #[error("{member} is empty: this operation requires a value for it")]
    Empty {
        /// Its name.
        member: &'static str,
    },
    /// A member of another JSON type.
    #[error("{member} must be {expected}")]
    WrongType {
        /// Its name.
        member: &'static str,
        /// The JSON type it should have.
        expected: &'static str,
    },
    /// A string that is not strict Base64.
    #[error(
        "{member} is not Base64 of the standard alphabet (+ and /) with padding, without line breaks"
    )]
    NotBase64 {
        /// Its name.
        member: &'static str,
    },
    /// Too long or too short by the protocol.
    #[error("{member} must have {allowed}, not {actual}")]
    Length {
        /// Its name.
        member: &'static str,
        /// The lengths that are allowed, with their unit.
        allowed: &'static str,
        /// The length found, in the same unit.
        actual: usize,
    },
    /// An algorithm that version 1 of the protocol does not have.
    #[error("{member} must be {allowed}: version 1 of the XKS protocol has no other")]
    Algorithm {
        /// Its name.
        member: &'static str,
        /// The only one.
        allowed: &'static str,
    },
    /// Longer than this proxy supports, beyond what the protocol demands: not invalid, but 501.
    #[error(
        "{member} has {actual} bytes and this proxy supports at most {max}: encrypt a data key instead of the data, or shorten the encryption context"
    )]
    Unsupported {
        /// Its name.
        member: &'static str,
        /// Most bytes supported.
        max: usize,
        /// Bytes found, before Base64.
        actual: usize,
    },
}

impl RequestError {
    /// Whether the request is valid but larger than supported (501), rather than invalid (400).
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
}

/// The fault is in the body's own object.
impl From<ObjectError> for RequestError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::NotAnObject => Self::NotAnObject,
            ObjectError::Malformed { line, column } => Self::Malformed { line, column },
            ObjectError::Duplicate { member } => Self::Duplicate { member },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_into_an_error_message_p_70() {
        let member = "ciphertextDataIntegrityValueAlgorithm";
        let max = usize::MAX;
        for error in [
            RequestError::NotAnObject,
            RequestError::Malformed { line: max, column: max },
            RequestError::MalformedMember { member },
            RequestError::Duplicate { member },
            RequestError::Missing { member },
            RequestError::Empty { member },
            RequestError::WrongType { member, expected: "a JSON string" },
            RequestError::NotBase64 { member },
            RequestError::Length { member, allowed: "12 or 16 bytes", actual: max },
            RequestError::Algorithm { member, allowed: "AES_GCM" },
            RequestError::Unsupported { member, max, actual: max },
        ] {
            let text = error.to_string();
            assert!(text.len() < 300, "{text}");
            assert!(text.bytes().all(|b| (0x20..=0x7e).contains(&b)), "{text}");
        }
    }
}
