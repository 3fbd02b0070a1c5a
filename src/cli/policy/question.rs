//! Requests as they are written down to be put to policies: in test cases, and to be explained.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::{Config, policy_files};
use crate::names::{AccessKeyId, ExternalKeyId, KeystoreName, Region};
use crate::policy::{Authorization, Facts, PolicyFault, Settings, Source};
use crate::wire::metadata::RequestMetadata;
use crate::wire::route::KeyOperation;

/// What stands in `[request]` and in each `[[case]]`; a case says what differs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    keystore: Option<String>,
    key: Option<String>,
    operation: Option<String>,
    access_key_id: Option<String>,
    region: Option<String>,
    client_subject: Option<String>,
    /// `2026-03-02T10:30:00Z`; now, if it is not said.
    time: Option<String>,
    /// Members of `requestMetadata`.
    #[serde(default)]
    metadata: Map<String, Value>,
    /// Members of `[request]`'s metadata that the case does not have.
    #[serde(default)]
    without: Vec<String>,
}

impl Written {
    /// This case, with the rest as in `request`.
    pub(super) fn or(self, request: &Self) -> Self {
        let mut metadata = request.metadata.clone();
        metadata.retain(|name, _| !self.without.contains(name));
        metadata.extend(self.metadata);
        let Self { keystore, key, operation, access_key_id, region, client_subject, time, .. } =
            self;
        let or = |own: Option<String>, other: &Option<String>| own.or_else(|| other.clone());
        Self {
            keystore: or(keystore, &request.keystore),
            key: or(key, &request.key),
            operation: or(operation, &request.operation),
            access_key_id: or(access_key_id, &request.access_key_id),
            region: or(region, &request.region),
            client_subject: or(client_subject, &request.client_subject),
            time: or(time, &request.time),
            metadata,
            without: Vec::new(),
        }
    }

    /// The same caller, asking this. CreateKey has no KMS key yet.
    pub(super) fn of(self, keystore: &str, key: &str, operation: &str, kms: &str) -> Self {
        let mut metadata = self.metadata;
        metadata.insert("kmsOperation".to_owned(), kms.into());
        if kms == "CreateKey" {
            metadata.remove("kmsKeyArn");
        }
        let [keystore, key, operation] =
            [keystore, key, operation].map(|text| Some(text.to_owned()));
        Self { keystore, key, operation, metadata, ..self }
    }

    /// From a line of the audit log.
    pub(super) fn from_record(record: &Map<String, Value>) -> Self {
        let text = |name: &str| record.get(name).and_then(Value::as_str).map(str::to_owned);
        let members = [
            ("kmsRequestId", "kms_request_id"),
            ("kmsOperation", "kms_operation"),
            ("awsPrincipalArn", "principal"),
            ("kmsKeyArn", "kms_key_arn"),
            ("kmsViaService", "via_service"),
            ("awsSourceVpc", "vpc"),
            ("awsSourceVpce", "vpce"),
        ];
        let member = |(name, field): (&str, &str)| Some((name.to_owned(), text(field)?.into()));
        Self {
            keystore: text("keystore"),
            key: text("key"),
            operation: text("operation"),
            access_key_id: text("access_key_id"),
            region: text("region"),
            client_subject: text("client_subject"),
            time: text("time"),
            metadata: members.into_iter().filter_map(member).collect(),
            without: Vec::new(),
        }
    }

    /// What it asks, in the program's own types.
    pub(super) fn read(self) -> Result<Question, String> {
        let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
        let wrong = |member: &str, error: &dyn std::fmt::Display| format!("`{member}`: {error}");
        let operation = or(self.operation, "encrypt");
        let operation = operation_of(&operation)
            .ok_or_else(|| wrong("operation", &"must be `describe`, `encrypt` or `decrypt`"))?;
        let key = self.key.ok_or_else(|| wrong("key", &"is missing: the external key id"))?;
        let mut metadata = self.metadata;
        let kms = match operation {
            KeyOperation::Metadata => "DescribeKey",
            KeyOperation::Encrypt => "Encrypt",
            KeyOperation::Decrypt => "Decrypt",
        };
        metadata.entry("kmsOperation").or_insert(kms.into());
        metadata.entry("kmsRequestId").or_insert("policy".into());
        let raw = serde_json::value::to_raw_value(&metadata).map_err(|e| wrong("metadata", &e))?;
        let metadata = RequestMetadata::parse(&raw, operation.operation())
            .map_err(|error| wrong("metadata", &error))?;
        let time = match self.time {
            None => SystemTime::now(),
            Some(text) => OffsetDateTime::parse(&text, &Rfc3339)
                .map_err(|_| wrong("time", &"must be like 2026-03-02T10:30:00Z"))?
                .into(),
        };
        Ok(Question {
            operation,
            keystore: or(self.keystore, "test").parse().map_err(|e| wrong("keystore", &e))?,
            key: key.parse().map_err(|e| wrong("key", &e))?,
            metadata,
            access_key_id: or(self.access_key_id, "AAAAAAAAAAAAAAAAAAAA")
                .parse()
                .map_err(|e| wrong("access_key_id", &e))?,
            region: or(self.region, "us-east-1").parse().map_err(|e| wrong("region", &e))?,
            client_subject: self.client_subject,
            time,
        })
    }
}

/// Our own word, or the specification's.
fn operation_of(text: &str) -> Option<KeyOperation> {
    match text {
        "describe" | "GetKeyMetadata" => Some(KeyOperation::Metadata),
        "encrypt" | "Encrypt" => Some(KeyOperation::Encrypt),
        "decrypt" | "Decrypt" => Some(KeyOperation::Decrypt),
        _ => None,
    }
}

/// One request that is put to policies.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) operation: KeyOperation,
    pub(super) keystore: KeystoreName,
    pub(super) key: ExternalKeyId,
    pub(super) metadata: RequestMetadata,
    access_key_id: AccessKeyId,
    region: Region,
    client_subject: Option<String>,
    time: SystemTime,
}

impl Question {
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            operation: self.operation,
            keystore: &self.keystore,
            key: &self.key,
            metadata: &self.metadata,
            access_key_id: &self.access_key_id,
            region: &self.region,
            client_subject: self.client_subject.as_deref(),
            time: self.time,
        }
    }
}

/// `[authorization]` of a file with cases: the same keys as in the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnAuthorization {
    #[serde(default)]
    accounts: Vec<String>,
    #[serde(default)]
    policies: Vec<String>,
    entities: Option<String>,
}

/// Why policies can't be had.
#[derive(Debug)]
pub(super) enum Unusable {
    /// A file, or an account, is not as it should be.
    Setting(String),
    /// The policies are not.
    Policies(Vec<PolicyFault>),
}

impl OwnAuthorization {
    /// Reads the files, which lie beside the one with the cases.
    pub(super) fn read(&self, directory: &Path) -> Result<Authorization, Unusable> {
        let setting = |path: &Path| {
            let path = path.display().to_string();
            move |problem: String| Unusable::Setting(format!("{path}: {problem}"))
        };
        let one = |path: &Path| policy_files::read(path).map_err(setting(path));
        let accounts = self.accounts.iter().map(|account| {
            account.parse().map_err(|error| Unusable::Setting(format!("`{account}`: {error}")))
        });
        let mut policies: Vec<Source> = Vec::new();
        for pattern in &self.policies {
            let path: PathBuf = directory.join(pattern);
            for file in policy_files::find(&path).map_err(setting(&path))? {
                policies.push(one(&file)?);
            }
        }
        let entities = self.entities.as_ref().map(|path| one(&directory.join(path))).transpose()?;
        let accounts = accounts.collect::<Result<_, _>>()?;
        let settings = Settings { accounts, policies, entities, ..Settings::default() };
        let (authorization, _warnings) =
            Authorization::new(settings).map_err(Unusable::Policies)?;
        Ok(authorization)
    }
}

/// The authorization of a configured key store.
pub(super) fn configured<'a>(
    config: &'a Config,
    keystore: &KeystoreName,
) -> Result<&'a Authorization, String> {
    let found = config.keystores.iter().find(|settings| settings.name == *keystore);
    let names = || config.keystores.iter().map(|settings| settings.name.as_str());
    found.map(|settings| &settings.authorization).ok_or_else(|| {
        let names: Vec<_> = names().collect();
        format!("there is no key store `{keystore}`; key stores: {}", names.join(", "))
    })
}

/// A decision as JSON.
pub(super) fn in_json(decision: &crate::policy::Decision) -> Value {
    json!({
        "decision": decision.outcome().label(),
        "policies": decision.policies(),
        "reasons": decision.reasons(),
        "errors": decision.errors(),
    })
}
