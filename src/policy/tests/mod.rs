mod decisions;
mod faults;
mod properties;
mod sameness;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{Authorization, Decision, Facts, Mode, Settings, Source};
use crate::names::{AccessKeyId, ExternalKeyId, KeystoreName, Region};
use crate::wire::metadata::RequestMetadata;
use crate::wire::route::KeyOperation;

const OURS: &str = "111122223333";
const THEIRS: &str = "444455556666";

/// 2026-03-02, a Monday, 10:30 in UTC.
const MONDAY: Duration = Duration::from_secs(1_772_447_400);

/// A request, of which a test changes what it is about.
#[derive(Debug, Clone)]
struct Asked {
    operation: KeyOperation,
    key: ExternalKeyId,
    metadata: Value,
    client_subject: Option<String>,
    time: SystemTime,
}

impl Asked {
    /// Alice of our account asks to encrypt with a key of our account.
    fn new(operation: KeyOperation) -> Self {
        let metadata = json!({
            "awsPrincipalArn": format!("arn:aws:iam::{OURS}:user/Alice"),
            "kmsKeyArn": format!("arn:aws:kms:us-east-1:{OURS}:key/1234abcd"),
            "kmsOperation": match operation {
                KeyOperation::Metadata => "DescribeKey",
                KeyOperation::Encrypt => "Encrypt",
                KeyOperation::Decrypt => "Decrypt",
            },
            "kmsRequestId": "r",
        });
        let key = "payments-1".parse().unwrap();
        let time = SystemTime::UNIX_EPOCH + MONDAY;
        Self { operation, key, metadata, client_subject: None, time }
    }

    /// With a member of the metadata, or without if it is null.
    fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.metadata[member] = value.into();
        self
    }

    fn by(self, principal: &str) -> Self {
        self.with("awsPrincipalArn", principal)
    }

    /// What is known of the request.
    fn facts<T>(&self, of: impl FnOnce(&Facts<'_>) -> T) -> T {
        let raw = serde_json::value::to_raw_value(&self.metadata).unwrap();
        let metadata = RequestMetadata::parse(&raw, self.operation.operation()).unwrap();
        let keystore: KeystoreName = "demo".parse().unwrap();
        let access_key_id: AccessKeyId = "ABCDEFGHIJKLMNOPQRST".parse().unwrap();
        let region: Region = "us-east-1".parse().unwrap();
        of(&Facts {
            operation: self.operation,
            keystore: &keystore,
            key: &self.key,
            metadata: &metadata,
            access_key_id: &access_key_id,
            region: &region,
            client_subject: self.client_subject.as_deref(),
            time: self.time,
        })
    }

    fn of(authorization: &Authorization, asked: &Self) -> (Option<Decision>, bool) {
        let (decision, verdict) = asked.facts(|facts| authorization.judge(facts));
        (decision, verdict.is_ok())
    }

    /// What the policies say.
    fn put_to(&self, authorization: &Authorization) -> Decision {
        let (decision, passes) = Self::of(authorization, self);
        let decision = decision.unwrap();
        assert_eq!(passes, decision.outcome().passes());
        decision
    }
}

fn source(name: &str, text: &str) -> Source {
    Source { path: PathBuf::from(name), text: text.to_owned() }
}

/// Policies and nothing else.
fn policies(text: &str) -> Settings {
    Settings { policies: vec![source("p.cedar", text)], ..Settings::default() }
}

fn guard() -> Settings {
    Settings { accounts: vec![OURS.parse().unwrap()], ..Settings::default() }
}

/// The authorization, of which nothing may be doubtful.
fn authorization(settings: Settings) -> Authorization {
    let (authorization, warnings) = Authorization::new(settings).unwrap();
    assert_eq!(warnings, []);
    authorization
}

fn shadow(settings: Settings) -> Settings {
    Settings { mode: Mode::Shadow, ..settings }
}
