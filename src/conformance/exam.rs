//! Sends the requests of an examination, one at a time, and watches over every answer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::answer::{self, described};
use super::request::Ask;
use super::subject::{AAD, Facts, decryption, with_aad};
use super::{Deviation, Unreachable};
use crate::client::{CallError, Connection, Connector, RawAnswer};

/// Requests before the first case: one to see who is there, one for a ciphertext.
pub(super) const PREPARATION: u32 = 2;

/// How often a proxy that is too busy is asked.
const TRIES: u32 = 4;

/// Pause before a busy proxy is asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// Most deviations that are kept of what is watched over.
const KEPT: usize = 20;

/// What every answer is held to, whatever was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watch {
    /// P-1
    ContentType,
    /// P-70: an object with one of the twelve names.
    ErrorForm,
    /// P-70: the status that belongs to the name.
    ErrorStatus,
    /// P-70: printable and short.
    ErrorMessage,
    /// Nothing else is told.
    OtherMembers,
}

/// Whether an answer is as it should be; if not, how it is.
type Check = fn(&RawAnswer) -> Result<(), String>;

/// An examination that is going on.
pub(super) struct Exam {
    pub(super) facts: Facts,
    connection: Option<Connection>,
    watched: BTreeMap<Watch, Vec<Deviation>>,
    sent: u32,
    most: u32,
    end: Instant,
    slowest: Duration,
}

impl Exam {
    /// Sees that there is somebody, and has something encrypted to be decrypted later.
    pub(super) async fn begin(facts: Facts, most: u32, end: Instant) -> Result<Self, Unreachable> {
        let (watched, slowest) = (BTreeMap::new(), Duration::ZERO);
        let mut exam = Self { facts, connection: None, watched, sent: 0, most, end, slowest };
        let health = exam.facts.health();
        exam.ask(&health).await.map_err(Unreachable)?;
        // Where that fails, the cases of Encrypt and Decrypt will say so.
        let encryption = exam.facts.encryption();
        if let Ok(sealed) = exam.accepted("Encrypt", &encryption).await {
            exam.facts.decrypt = with_aad(decryption(&sealed), AAD);
        }
        Ok(exam)
    }

    /// How many requests were sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// How long the slowest answer took, without the making of its connection.
    pub(super) fn slowest(&self) -> Duration {
        self.slowest
    }

    /// Whether no more may be asked.
    pub(super) fn is_over(&self) -> bool {
        self.sent >= self.most || Instant::now() >= self.end
    }

    /// What was seen of this so far.
    pub(super) fn watched(&mut self, watch: Watch) -> Vec<Deviation> {
        self.watched.remove(&watch).unwrap_or_default()
    }

    /// Sends a request over the connection that is kept, made again where it was lost. An answer that
    /// says only that the proxy or its HSM is too busy says nothing about a rule: it is asked again.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) async fn ask(&mut self, ask: &Ask) -> Result<RawAnswer, String> {
        let mut tries = 1;
        loop {
            let answer = self.ask_once(ask).await?;
            if tries == TRIES || self.is_over() || !answer::is_busy(&answer) {
                return Ok(answer);
            }
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask_once(&mut self, ask: &Ask) -> Result<RawAnswer, String> {
        if let Some(connection) = self.connection.take().filter(|open| !open.is_closed()) {
            match self.send(connection, ask).await? {
                Ok(answer) => return Ok(answer),
                // Closed while nobody was looking: that is no answer, and no fault.
                Err(CallError::Connection(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let connector = self.facts.subject.connector.clone();
        let connection = connector.connect().await.map_err(|error| error.to_string())?;
        self.send(connection, ask).await?.map_err(|error| error.to_string())
    }

    /// Sends a request over a connection of its own, made in another way.
    pub(super) async fn ask_over(
        &mut self,
        connector: &Connector,
        ask: &Ask,
    ) -> Result<RawAnswer, String> {
        let connection = connector.connect().await.map_err(|error| error.to_string())?;
        let kept = self.connection.take();
        let answer = self.send(connection, ask).await;
        self.connection = kept;
        answer?.map_err(|error| error.to_string())
    }

    async fn send(
        &mut self,
        mut connection: Connection,
        ask: &Ask,
    ) -> Result<Result<RawAnswer, CallError>, String> {
        if self.is_over() {
            return Err("not asked: time or requests are used up".to_owned());
        }
        self.sent += 1;
        let request = ask.to_http(self.facts.endpoint(), connection.http())?;
        let start = Instant::now();
        let answer = connection.send(request).await;
        if let Ok(answer) = &answer {
            self.slowest = self.slowest.max(start.elapsed());
            self.connection = Some(connection);
            self.watch(ask, answer);
        }
        Ok(answer)
    }

    fn watch(&mut self, ask: &Ask, answer: &RawAnswer) {
        // A GET is answered by whoever understands it; P-3 asks for its status only.
        if ask.method != "POST" {
            return;
        }
        let refusal: [(Watch, Check); 3] = [
            (Watch::ErrorForm, answer::is_an_error),
            (Watch::ErrorStatus, answer::has_its_status),
            (Watch::ErrorMessage, answer::has_a_sound_message),
        ];
        let refusal = if answer.status == 200 { &[][..] } else { &refusal };
        let every: [(Watch, Check); 2] = [
            (Watch::ContentType, answer::is_json_by_type),
            (Watch::OtherMembers, answer::has_no_other_members),
        ];
        for (watch, check) in every.iter().chain(refusal) {
            if let Err(got) = check(answer) {
                let seen = self.watched.entry(*watch).or_default();
                if seen.len() < KEPT {
                    let asked = format!("POST {}", answer::shown(&ask.target));
                    seen.push(Deviation::new(asked, watch.wanted(), got));
                }
            }
        }
    }

    /// Asks for what has to be answered with 200; gives the members of the answer.
    pub(super) async fn accepted(&mut self, asked: &str, ask: &Ask) -> Result<Value, Deviation> {
        let unlike = |got: String| Deviation::new(asked, "200", got);
        let answer = self.ask(ask).await.map_err(unlike)?;
        match answer::object(&answer) {
            Some(members) if answer.status == 200 => Ok(Value::Object(members)),
            Some(_) => Err(unlike(described(&answer))),
            None => Err(unlike(format!("{} without a JSON object", described(&answer)))),
        }
    }

    /// Asks for what has to be refused in this way.
    pub(super) async fn refused(
        &mut self,
        asked: &str,
        ask: &Ask,
        expect: super::Expect,
    ) -> super::Verdict {
        let unlike = |got: String| Deviation::new(asked, expect.to_string(), got);
        let answer = self.ask(ask).await.map_err(unlike)?;
        answer::judge(&answer, &expect).map_err(unlike)
    }
}

impl Watch {
    const fn wanted(self) -> &'static str {
        match self {
            Self::ContentType => "Content-Type: application/json",
            Self::ErrorForm => "a JSON object with an errorName of the specification",
            Self::ErrorStatus => "the status of its errorName",
            Self::ErrorMessage => "printable ASCII of less than 512 characters",
            Self::OtherMembers => "members of the specification only",
        }
    }
}
