//! What is recorded. Never a plaintext, a ciphertext, a PIN or a secret: no field holds any.
//!
//! Requests are written down by whoever served them, out of what they have at hand; so the one thread
//! that numbers and hashes all records has little to do for each.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::checkpoint::Sealed;
use super::json::Object;
use crate::names::{AccessKeyId, ExternalKeyId, KeyVersion, KeystoreName, Region, TokenName};
use crate::wire::metadata::RequestMetadata;

/// A record as it will stand in the log, but for its number, time and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft<'a> {
    kind: &'static str,
    /// An object in canonical JSON, `type` first.
    text: Cow<'a, str>,
}

/// One thing that happened to the log or through an administrator.
#[derive(Debug, Clone)]
pub enum Event {
    /// A writer began, and says what it went on from.
    Opened(Opened),
    /// The writer ended in order. One that is missing before an `opened` tells of a crash.
    Closed,
    /// The end of the last file was no whole record and was cut off: a crash while writing, most
    /// likely.
    Repaired(Repaired),
    /// Records that could not be kept.
    Gap(Gap),
    /// A file with records is not there any more, or not as it was written.
    FileLost {
        /// Its name.
        file: String,
        /// What is the matter with it.
        reason: String,
    },
    /// Requests whose caller was not, counted.
    Refused(Refused),
    /// What an administrator did, or is about to do.
    Administration(Box<Administration>),
    /// The records up to here were signed in the HSM.
    Checkpoint(Box<Sealed>),
}

/// How a writer began.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The machine.
    pub host: String,
    /// What the writer is: `xksd serve`, or `xksd keys`.
    pub writer: &'static str,
    /// Why the chain does not go on from an earlier one, where there is one that it could not go on
    /// from: the name of its last file.
    pub instead_of: Option<String>,
}

/// What was cut off.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// The file.
    pub file: String,
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of them.
    pub hash: [u8; 32],
    /// Where they were put aside, if they could be.
    pub kept: Option<String>,
}

/// Records that are missing.
#[derive(Debug, Clone)]
pub struct Gap {
    /// How many.
    pub lost: u64,
    /// How many requests were refused meanwhile because of it.
    pub refused: u64,
    /// When the first was lost or refused.
    pub from: SystemTime,
    /// Why.
    pub reason: String,
}

/// Whether the caller was allowed to, and by what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Decision {
    /// It did not come to a decision, or none was needed: health has no secondary authorization.
    #[default]
    None,
    /// By these policies.
    Allowed(Vec<String>),
    /// By these policies; by none: nothing allowed it.
    Denied(Vec<String>),
}

impl Decision {
    fn write(&self, object: &mut Object) {
        let (word, policies) = match self {
            Self::None => ("none", None),
            Self::Allowed(policies) => ("allowed", Some(policies)),
            Self::Denied(policies) => ("denied", Some(policies)),
        };
        object.text("decision", word);
        if let Some(policies) = policies {
            object.list("policies", policies);
        }
    }
}

/// A request whose caller was authenticated, as it ended.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Of the XKS protocol: `Encrypt`.
    pub operation: &'static str,
    /// Whose key store.
    pub keystore: &'a KeystoreName,
    /// The external key id, unless it is a health check.
    pub key: Option<&'a ExternalKeyId>,
    /// The version that was used.
    pub version: Option<KeyVersion>,
    /// What KMS says of the request's origin.
    pub metadata: &'a RequestMetadata,
    /// Whose secret signed.
    pub access_key_id: &'a AccessKeyId,
    /// From which Region KMS called.
    pub region: &'a Region,
    /// Who sent it.
    pub peer: SocketAddr,
    /// Subject of the client's certificate, where one was asked for.
    pub client_subject: Option<&'a str>,
    /// Whether it was allowed.
    pub decision: &'a Decision,
    /// `OK`, or the error's name.
    pub outcome: &'static str,
    /// The token that it was last sent to.
    pub token: Option<&'a TokenName>,
    /// How often it was sent to one.
    pub attempts: u32,
    /// Time in queues.
    pub queued: Duration,
    /// Time in the HSM.
    pub hsm: Duration,
    /// From its head to its answer.
    pub total: Duration,
}

/// Refused authentications of one kind.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Whose key store the paths named.
    pub keystore: KeystoreName,
    /// Why, as in `xksd_authentication_failures_total`.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// Since when.
    pub from: SystemTime,
}

/// One step of an administrator's action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Administration {
    /// The command: `keys rotate`.
    pub action: &'static str,
    /// The key that it names.
    pub key: Option<String>,
    /// User id that it runs as.
    pub uid: u32,
    /// Who became that user by sudo, as sudo says.
    pub sudo_user: Option<String>,
    /// Which step.
    pub step: Step,
}

/// Of an administrative action. Each `begun` is followed by an `ended`, unless the command was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing is changed yet.
    Begun {
        /// The whole command line; nothing secret is ever in it.
        arguments: Vec<String>,
        /// The tokens that it uses.
        tokens: Vec<String>,
    },
    /// A token was asked to change something, or a credential's file was made or removed.
    Changed {
        /// Which one; `None`: a credential, which is in none.
        token: Option<String>,
        /// What was asked: the method of [`Administration`](crate::hsm::backend::Administration), of
        /// [`Transport`](crate::hsm::transport::Transport) or of
        /// [`Officer`](crate::hsm::transport::Officer); or `create_credential`, `remove_credential`.
        change: &'static str,
        /// What the object is after it, or was before it is destroyed: its label, `CKA_ID` or
        /// public key; or the access key id.
        object: String,
        /// `OK`, or how the token failed.
        outcome: String,
    },
    /// It has ended.
    Ended {
        /// `OK`, or what the command said.
        outcome: String,
    },
}

const CHECKPOINT: &str = "checkpoint";

/// Room for the record of an ordinary request, its number and hash included.
const ROOM: usize = 1024;

impl<'a> Draft<'a> {
    fn new(kind: &'static str, write: impl FnOnce(&mut Object)) -> Self {
        let mut object = Object::with_room(ROOM);
        object.text("type", kind);
        write(&mut object);
        Self { kind, text: object.finish().into() }
    }

    /// One whose text was put aside.
    pub(super) fn again(kind: &'static str, text: &'a str) -> Self {
        Self { kind, text: text.into() }
    }

    /// An object in canonical JSON.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Its `type`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// It is a checkpoint.
    pub(super) fn is_checkpoint(&self) -> bool {
        self.kind == CHECKPOINT
    }

    /// Adds what it says to an object that has its number and hash.
    pub(super) fn write(&self, object: &mut Object) {
        object.members_of(&self.text);
    }
}

impl From<&Event> for Draft<'_> {
    fn from(event: &Event) -> Self {
        Self::new(event.kind(), |object| event.write(object))
    }
}

impl From<Event> for Draft<'_> {
    fn from(event: Event) -> Self {
        Self::from(&event)
    }
}

impl From<Request<'_>> for Draft<'_> {
    fn from(request: Request<'_>) -> Self {
        Self::new("request", |object| request.write(object))
    }
}

impl Event {
    /// Its `type`.
    fn kind(&self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Closed => "closed",
            Self::Repaired(_) => "repaired",
            Self::Gap(_) => "gap",
            Self::FileLost { .. } => "file_lost",
            Self::Refused(_) => "refused",
            Self::Administration(_) => "administration",
            Self::Checkpoint(_) => CHECKPOINT,
        }
    }

    fn write(&self, object: &mut Object) {
        match self {
            Self::Opened(Opened { host, writer, instead_of }) => {
                object.text("host", host);
                object.text("writer", writer);
                object.text("release", env!("CARGO_PKG_VERSION"));
                object.optional("instead_of", instead_of.as_deref());
            }
            Self::Closed => {}
            Self::Repaired(Repaired { file, bytes, hash, kept }) => {
                object.text("file", file);
                object.number("bytes", *bytes);
                object.bytes("sha256", hash);
                object.optional("kept", kept.as_deref());
            }
            Self::Gap(Gap { lost, refused, from, reason }) => {
                object.number("lost", *lost);
                object.number("refused", *refused);
                object.time("from", *from);
                object.text("reason", reason);
            }
            Self::FileLost { file, reason } => {
                object.text("file", file);
                object.text("reason", reason);
            }
            Self::Refused(Refused { keystore, reason, count, from }) => {
                object.text("keystore", keystore.as_str());
                object.text("reason", reason);
                object.number("count", *count);
                object.time("from", *from);
            }
            Self::Administration(administration) => administration.write(object),
            Self::Checkpoint(sealed) => sealed.write(object),
        }
    }
}

impl Request<'_> {
    fn write(&self, object: &mut Object) {
        let metadata = self.metadata;
        object.text("kms_request_id", metadata.kms_request_id());
        object.text("kms_operation", metadata.kms_operation());
        object.text("operation", self.operation);
        object.text("keystore", self.keystore.as_str());
        object.optional("key", self.key.map(ExternalKeyId::as_str));
        if let Some(version) = self.version {
            object.number("version", version.number().into());
        }
        object.optional("principal", metadata.aws_principal_arn());
        object.optional("kms_key_arn", metadata.kms_key_arn());
        object.optional("via_service", metadata.kms_via_service());
        object.optional("vpc", metadata.aws_source_vpc());
        object.optional("vpce", metadata.aws_source_vpce());
        object.text("access_key_id", self.access_key_id.as_str());
        object.text("region", self.region.as_str());
        object.shown("peer", self.peer);
        object.optional("client_subject", self.client_subject);
        self.decision.write(object);
        object.text("outcome", self.outcome);
        object.optional("hsm", self.token.map(TokenName::as_str));
        object.number("attempts", self.attempts.into());
        object.number("queue_us", microseconds(self.queued));
        object.number("hsm_us", microseconds(self.hsm));
        object.number("total_us", microseconds(self.total));
    }
}

impl Administration {
    fn write(&self, object: &mut Object) {
        object.text("action", self.action);
        object.optional("key", self.key.as_deref());
        object.number("uid", self.uid.into());
        object.optional("sudo_user", self.sudo_user.as_deref());
        match &self.step {
            Step::Begun { arguments, tokens } => {
                object.text("step", "begun");
                object.list("arguments", arguments);
                object.list("tokens", tokens);
            }
            Step::Changed { token, change, object: changed, outcome } => {
                object.text("step", "changed");
                object.optional("token", token.as_deref());
                object.text("change", change);
                object.text("object", changed);
                object.text("outcome", outcome);
            }
            Step::Ended { outcome } => {
                object.text("step", "ended");
                object.text("outcome", outcome);
            }
        }
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_holds_what_p_81_asks_for() {
        let request = Request {
            operation: "Encrypt",
            keystore: &"demo".parse().unwrap(),
            key: Some(&"demo-key".parse().unwrap()),
            version: Some(KeyVersion::new(3)),
            metadata: &RequestMetadata::default(),
            access_key_id: &"ABCDEFGHIJKLMNOPQRST".parse().unwrap(),
            region: &"us-east-1".parse().unwrap(),
            peer: "10.0.0.1:1234".parse().unwrap(),
            client_subject: Some("CN=\"kms\""),
            decision: &Decision::Allowed(vec!["key-rule:demo-*".to_owned()]),
            outcome: "OK",
            token: Some(&"hsm".parse().unwrap()),
            attempts: 1,
            queued: Duration::from_nanos(1999),
            hsm: Duration::from_millis(2),
            total: Duration::MAX,
        };
        let expected = concat!(
            r#"{"type":"request","kms_request_id":"","kms_operation":"","operation":"Encrypt","#,
            r#""keystore":"demo","key":"demo-key","version":3,"#,
            r#""access_key_id":"ABCDEFGHIJKLMNOPQRST","region":"us-east-1","#,
            r#""peer":"10.0.0.1:1234","client_subject":"CN=\"kms\"","decision":"allowed","#,
            r#""policies":["key-rule:demo-*"],"outcome":"OK","hsm":"hsm","attempts":1,"#,
            r#""queue_us":1,"hsm_us":2000,"total_us":18446744073709551615}"#,
        );
        assert_eq!(Draft::from(request).text, expected);
    }

    #[test]
    fn a_denial_by_nothing_is_not_the_same_as_no_decision() {
        let shown = |decision: Decision| {
            let mut object = Object::new();
            decision.write(&mut object);
            object.finish()
        };
        assert_eq!(shown(Decision::None), r#"{"decision":"none"}"#);
        assert_eq!(shown(Decision::Denied(Vec::new())), r#"{"decision":"denied","policies":[]}"#);
    }
}
