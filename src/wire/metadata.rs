//! What a request says about its origin (P-20), for logs and for secondary authorization.

use serde_json::value::RawValue;

use super::fields;
use super::limits::MAX_ARN_LEN;
use super::object::{Object, ObjectError};
use super::other_members::OtherMembers;
use super::request_error::RequestError;
use super::route::Operation;

/// The `requestMetadata` of a request (P-20). Opaque strings: log them as
/// [`LogText`](super::log_text::LogText) only (P-22).
///
/// In a request that was accepted, [`kms_operation`](Self::kms_operation) is not empty,
/// [`kms_request_id`](Self::kms_request_id) was there, and so were the ARNs that the operation
/// requires. Of a request that was refused, it holds what could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestMetadata {
    kms_request_id: String,
    kms_operation: String,
    aws_principal_arn: Option<String>,
    kms_key_arn: Option<String>,
    kms_via_service: Option<String>,
    aws_source_vpc: Option<String>,
    aws_source_vpce: Option<String>,
    others: OtherMembers,
}

impl RequestMetadata {
    /// Ties the log line to CloudTrail. May be empty (P-22); nothing about it is checked (P-21).
    pub fn kms_request_id(&self) -> &str {
        &self.kms_request_id
    }

    /// The call to KMS that led to this request. Any value is valid (P-21).
    pub fn kms_operation(&self) -> &str {
        &self.kms_operation
    }

    /// Who called KMS: an ARN, a service principal or `AWS Internal`. Health has none.
    pub fn aws_principal_arn(&self) -> Option<&str> {
        self.aws_principal_arn.as_deref()
    }

    /// The KMS key of the call. Required for Encrypt and Decrypt; CreateKey has none yet.
    pub fn kms_key_arn(&self) -> Option<&str> {
        self.kms_key_arn.as_deref()
    }

    /// The AWS service that called KMS on someone's behalf.
    pub fn kms_via_service(&self) -> Option<&str> {
        self.kms_via_service.as_deref()
    }

    /// The VPC that the call to KMS came from.
    pub fn aws_source_vpc(&self) -> Option<&str> {
        self.aws_source_vpc.as_deref()
    }

    /// The VPC endpoint that the call to KMS came through.
    pub fn aws_source_vpce(&self) -> Option<&str> {
        self.aws_source_vpce.as_deref()
    }

    /// What version 1 of the protocol does not know of (P-21).
    pub fn others(&self) -> &OtherMembers {
        &self.others
    }

    /// Reads metadata that stand by themselves, outside of a request.
    ///
    /// # Errors
    /// What `json` lacks that `operation` requires, or holds that no request may.
    pub fn parse(json: &RawValue, operation: Operation) -> Result<Self, RequestError> {
        let (metadata, said) = Self::read(Some(json), operation);
        said.map(|()| metadata)
    }

    /// Reads the member `requestMetadata`; with a fault in it, what could be read and the fault.
    pub(super) fn read(
        value: Option<&RawValue>,
        operation: Operation,
    ) -> (Self, Result<(), RequestError>) {
        let Some(value) = value else {
            let missing = RequestError::Missing { member: REQUEST_METADATA };
            return (Self::default(), Err(missing));
        };
        let (object, whole) = Object::read(value.get().as_bytes(), MEMBERS);
        // All members are read before the first fault is reported: a log line wants what there is.
        let others = match whole {
            Ok(()) if object.has_others() => OtherMembers::read(value.get(), &MEMBERS),
            _ => OtherMembers::default(),
        };
        let mut fault = whole.err().map(in_metadata);
        let mut read = |member, rule: Rule| {
            let text = fields::text(&object, member).unwrap_or_else(|error| {
                fault.get_or_insert(error);
                None
            });
            if let Err(error) = rule.check(member, text.as_deref()) {
                fault.get_or_insert(error);
            }
            text
        };
        let (principal_arn, key_arn) = arn_rules(operation);
        let metadata = Self {
            kms_request_id: read(KMS_REQUEST_ID, Rule::Opaque).unwrap_or_default(),
            kms_operation: read(KMS_OPERATION, Rule::NotEmpty).unwrap_or_default(),
            aws_principal_arn: read(AWS_PRINCIPAL_ARN, principal_arn),
            kms_key_arn: read(KMS_KEY_ARN, key_arn),
            kms_via_service: read(KMS_VIA_SERVICE, Rule::Optional),
            aws_source_vpc: read(AWS_SOURCE_VPC, Rule::Optional),
            aws_source_vpce: read(AWS_SOURCE_VPCE, Rule::Optional),
            others,
        };
        (metadata, fault.map_or(Ok(()), Err))
    }
}

/// What a member of the metadata has to be (P-20, P-22).
#[derive(Clone, Copy)]
enum Rule {
    /// There, whatever it is, even empty.
    Opaque,
    /// There and not empty.
    NotEmpty,
    /// There, not empty, and not longer than an ARN.
    Arn,
    /// If there, not longer than an ARN.
    OptionalArn,
    /// Whatever it is.
    Optional,
}

impl Rule {
    fn check(self, member: &'static str, text: Option<&str>) -> Result<(), RequestError> {
        match (self, text) {
            (Self::Opaque | Self::NotEmpty | Self::Arn, None) => {
                Err(RequestError::Missing { member })
            }
            (Self::NotEmpty | Self::Arn, Some("")) => Err(RequestError::Empty { member }),
            (Self::Arn | Self::OptionalArn, Some(text)) => {
                let actual = text.chars().count();
                let allowed = "at most 2048 characters";
                let error = RequestError::Length { member, allowed, actual };
                if actual > MAX_ARN_LEN { Err(error) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

/// P-20: which operation requires the ARNs of principal and KMS key.
fn arn_rules(operation: Operation) -> (Rule, Rule) {
    match operation {
        Operation::Encrypt | Operation::Decrypt => (Rule::Arn, Rule::Arn),
        Operation::GetKeyMetadata => (Rule::Arn, Rule::OptionalArn),
        Operation::GetHealthStatus => (Rule::OptionalArn, Rule::OptionalArn),
    }
}

fn in_metadata(error: ObjectError) -> RequestError {
    let member = REQUEST_METADATA;
    match error {
        ObjectError::NotAnObject => RequestError::WrongType { member, expected: "a JSON object" },
        // Its position would be one within the member, which says little about the body.
        ObjectError::Malformed { .. } => RequestError::MalformedMember { member },
        ObjectError::Duplicate { member } => RequestError::Duplicate { member },
    }
}

/// The member of a request that holds the metadata.
pub(super) const REQUEST_METADATA: &str = "requestMetadata";

const KMS_REQUEST_ID: &str = "kmsRequestId";
const KMS_OPERATION: &str = "kmsOperation";
const AWS_PRINCIPAL_ARN: &str = "awsPrincipalArn";
const KMS_KEY_ARN: &str = "kmsKeyArn";
const KMS_VIA_SERVICE: &str = "kmsViaService";
const AWS_SOURCE_VPC: &str = "awsSourceVpc";
const AWS_SOURCE_VPCE: &str = "awsSourceVpce";

const MEMBERS: [&str; 7] = [
    KMS_REQUEST_ID,
    KMS_OPERATION,
    AWS_PRINCIPAL_ARN,
    KMS_KEY_ARN,
    KMS_VIA_SERVICE,
    AWS_SOURCE_VPC,
    AWS_SOURCE_VPCE,
];

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value, operation: Operation) -> (RequestMetadata, Result<(), RequestError>) {
        let raw = serde_json::value::to_raw_value(value).unwrap();
        RequestMetadata::read(Some(&raw), operation)
    }

    fn full() -> Value {
        json!({
            "awsPrincipalArn": "arn:aws:iam::123456789012:user/Alice",
            "awsSourceVpc": "vpc-1",
            "awsSourceVpce": "vpce-1",
            "kmsKeyArn": "arn:aws:kms:us-east-2:111122223333:key/1",
            "kmsOperation": "BulkEncrypt",
            "kmsRequestId": "any \u{1F600} string",
            "kmsViaService": "ebs",
            "sourceIdentity": {"from": ["the", "future"]},
        })
    }

    #[test]
    fn all_members_are_read_p_20_p_21() {
        for operation in Operation::ALL {
            let (metadata, result) = read(&full(), operation);
            assert_eq!(result, Ok(()));
            assert_eq!(metadata.kms_request_id(), "any \u{1F600} string");
            assert_eq!(metadata.kms_operation(), "BulkEncrypt");
            assert_eq!(metadata.aws_principal_arn(), Some("arn:aws:iam::123456789012:user/Alice"));
            assert_eq!(metadata.kms_key_arn(), Some("arn:aws:kms:us-east-2:111122223333:key/1"));
            assert_eq!(metadata.kms_via_service(), Some("ebs"));
            assert_eq!(metadata.aws_source_vpc(), Some("vpc-1"));
            assert_eq!(metadata.aws_source_vpce(), Some("vpce-1"));
            let others: Vec<_> = metadata.others().iter().collect();
            assert_eq!(others, [("sourceIdentity", r#"{"from":["the","future"]}"#)]);
        }
    }

    #[test]
    fn each_operation_requires_its_members_p_20() {
        let required = |operation| match operation {
            Operation::Encrypt | Operation::Decrypt => &MEMBERS[..4],
            Operation::GetKeyMetadata => &MEMBERS[..3],
            Operation::GetHealthStatus => &MEMBERS[..2],
        };
        for operation in Operation::ALL {
            for member in MEMBERS {
                let is_required = required(operation).contains(&member);
                let missing =
                    if is_required { Err(RequestError::Missing { member }) } else { Ok(()) };
                let mut value = full();
                value[member] = Value::Null;
                assert_eq!(read(&value, operation).1, missing, "{operation} {member} null");
                value.as_object_mut().unwrap().remove(member);
                assert_eq!(read(&value, operation).1, missing, "{operation} {member} absent");

                // P-22: an empty kmsRequestId is one.
                let may_be_empty = !is_required || member == KMS_REQUEST_ID;
                let empty = if may_be_empty { Ok(()) } else { Err(RequestError::Empty { member }) };
                value[member] = json!("");
                assert_eq!(read(&value, operation).1, empty, "{operation} {member} empty");

                for other in [json!(1), json!(true), json!([]), json!({"a": "b"})] {
                    value[member] = other;
                    let wrong = RequestError::WrongType { member, expected: "a JSON string" };
                    assert_eq!(read(&value, operation).1, Err(wrong), "{operation} {member}");
                }
            }
        }
    }

    #[test]
    fn arns_have_up_to_2048_characters_p_20() {
        for member in [AWS_PRINCIPAL_ARN, KMS_KEY_ARN] {
            let mut value = full();
            value[member] = json!("é".repeat(2048));
            assert_eq!(read(&value, Operation::Decrypt).1, Ok(()));
            value[member] = json!("a".repeat(2049));
            let allowed = "at most 2048 characters";
            let error = RequestError::Length { member, allowed, actual: 2049 };
            for operation in Operation::ALL {
                assert_eq!(read(&value, operation).1, Err(error.clone()));
            }
        }
        // P-21: the others are opaque, and as long as the body allows.
        for member in [KMS_REQUEST_ID, KMS_OPERATION, KMS_VIA_SERVICE] {
            let mut value = full();
            value[member] = json!("a".repeat(100_000));
            assert_eq!(read(&value, Operation::Decrypt).1, Ok(()));
        }
    }

    #[test]
    fn with_a_fault_the_rest_is_there_for_the_log() {
        let mut value = full();
        value[KMS_OPERATION] = json!(5);
        value[AWS_PRINCIPAL_ARN] = Value::Null;
        let (metadata, result) = read(&value, Operation::Encrypt);
        let expected = "a JSON string";
        assert_eq!(result, Err(RequestError::WrongType { member: KMS_OPERATION, expected }));
        assert_eq!(metadata.kms_request_id(), "any \u{1F600} string");
        assert_eq!(metadata.kms_operation(), "");
        assert_eq!(metadata.kms_via_service(), Some("ebs"));
    }

    #[test]
    fn what_is_no_object_or_broken_is_refused_p_22() {
        let member = REQUEST_METADATA;
        let missing = RequestMetadata::read(None, Operation::Encrypt);
        assert_eq!(missing, (RequestMetadata::default(), Err(RequestError::Missing { member })));
        for value in [json!("text"), json!(1), json!([full()])] {
            let wrong = RequestError::WrongType { member, expected: "a JSON object" };
            assert_eq!(read(&value, Operation::GetHealthStatus).1, Err(wrong));
        }
        for (json, error) in [
            (r#"{"kmsRequestId": "r", "x": "\ud800"}"#, RequestError::MalformedMember { member }),
            (
                r#"{"kmsRequestId": "r", "kmsOperation": "\ud800"}"#,
                RequestError::MalformedMember { member: KMS_OPERATION },
            ),
            (
                r#"{"kmsRequestId": "r", "kmsRequestId": "s"}"#,
                RequestError::Duplicate { member: KMS_REQUEST_ID },
            ),
        ] {
            let raw = serde_json::from_str::<&RawValue>(json).unwrap();
            let (metadata, result) = RequestMetadata::read(Some(raw), Operation::GetHealthStatus);
            assert_eq!(result, Err(error), "{json}");
            assert_eq!(metadata.kms_request_id(), "r", "{json}");
        }
    }
}
