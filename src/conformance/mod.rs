//! An examination of any XKS proxy, ours or another: the protocol, good and bad, as KMS would
//! speak it, rule by rule of `docs/conformance.md`.
//!
//! ```text
//! Subject ── who is examined, with what key and credential
//! cases   ── data: a name, its rules, what is sent, what has to come back, and why
//! Exam    ── sends, one request at a time, and watches over every answer
//! Report  ── for people, as JSON, as JUnit XML
//! ```
//!
//! It makes no keys and changes nothing. How many requests it sends is known beforehand
//! ([`Examination::requests`]), and time is bounded.

mod answer;
mod cases;
mod exam;
pub mod report;
mod request;
mod subject;
mod tls;
mod unseen;

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use exam::{Exam, Watch};
pub use report::Report;
use report::{CaseReport, Outcome};
use request::Ask;
pub use request::Credential;
use subject::Facts;
pub use subject::{Keys, Need, Neighbour, Subject};
pub use unseen::UNSEEN;

/// How binding a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letter {
    /// A MUST of the specification.
    Must,
    /// A SHOULD of it.
    Should,
    /// Left open by it, and decided for xksd; another proxy may do otherwise.
    Decided,
}

impl Letter {
    /// As `docs/conformance.md` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Must => "M",
            Self::Should => "S",
            Self::Decided => "D",
        }
    }
}

/// One thing that is examined.
pub struct Case {
    /// Its name, unique among all cases.
    pub name: &'static str,
    /// The numbers of its rules, the most important one first.
    pub rules: &'static [u32],
    /// How binding they are in this.
    pub letter: Letter,
    /// What it asks for, and what for.
    pub why: &'static str,
    /// What it can't be examined without.
    pub needs: &'static [Need],
    steps: Steps,
}

/// What is done for a case.
enum Steps {
    /// Requests that each have to get one answer.
    Probes(fn(&Facts) -> Vec<Probe>),
    /// Requests that depend on each other's answers.
    Scenario {
        /// How many at most.
        requests: u32,
        run: Scenario,
    },
    /// Nothing: what all answers of the run have to keep to.
    Watch(Watch),
}

type Scenario = for<'a> fn(&'a mut Exam) -> Pin<Box<dyn Future<Output = Verdict> + 'a>>;

type Verdict = Result<(), Deviation>;

/// One request and what has to come back.
struct Probe {
    name: String,
    ask: Ask,
    expect: Expect,
}

/// What has to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// 200 and a JSON object.
    Served,
    /// One of these statuses, each with its `errorName`.
    Refused(&'static [(u16, &'static str)]),
    /// This status, whatever comes with it.
    Status(u16),
    /// P-3: 405 with `Allow: POST` and UnsupportedOperationException.
    NotAllowed,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served => write!(f, "200"),
            Self::Refused(wanted) => {
                let wanted: Vec<_> =
                    wanted.iter().map(|(status, name)| format!("{status} {name}")).collect();
                write!(f, "{}", wanted.join(" or "))
            }
            Self::Status(status) => write!(f, "{status}"),
            Self::NotAllowed => {
                write!(f, "405 UnsupportedOperationException with Allow: POST")
            }
        }
    }
}

/// Where a proxy did something else than its rule says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Deviation {
    /// What was asked.
    pub asked: String,
    /// What should have come.
    pub wanted: String,
    /// What came. Nothing of a body but an error's name (P-45).
    pub got: String,
}

impl Deviation {
    fn new(asked: impl Into<String>, wanted: impl Into<String>, got: impl Into<String>) -> Self {
        Self { asked: asked.into(), wanted: wanted.into(), got: got.into() }
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} instead of {}", self.asked, self.got, self.wanted)
    }
}

/// All cases, in the order in which they are examined.
pub fn all() -> impl Iterator<Item = &'static Case> {
    cases::ALL.iter().flat_map(|group| group.iter())
}

/// A rule by number, `P-43`, or a case by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only {
    /// All cases of this rule.
    Rule(u32),
    /// This case.
    Case(&'static str),
}

/// Neither a rule that is examined nor a case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a rule that can be examined (P-43) nor a case; --list names them")]
pub struct OnlyError(String);

impl FromStr for Only {
    type Err = OnlyError;

    fn from_str(text: &str) -> Result<Self, OnlyError> {
        let number = text.strip_prefix("P-").or_else(|| text.strip_prefix("p-"));
        let rule = number.and_then(|number| number.parse().ok());
        if let Some(rule) = rule.filter(|rule| all().any(|case| case.rules.contains(rule))) {
            return Ok(Self::Rule(rule));
        }
        let case = all().find(|case| case.name == text);
        case.map(|case| Self::Case(case.name)).ok_or_else(|| OnlyError(text.to_owned()))
    }
}

impl Only {
    fn chooses(&self, case: &Case) -> bool {
        match self {
            Self::Rule(rule) => case.rules.contains(rule),
            Self::Case(name) => case.name == *name,
        }
    }
}

/// What a deviation from a SHOULD, or from what xksd decided, counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A note: another proxy may have its reasons.
    Lenient,
    /// A failure: the proxy is meant to be like xksd.
    Strict,
}

/// Why there was nobody to examine.
#[derive(Debug, thiserror::Error)]
#[error("the proxy does not answer a GetHealthStatus: {0}")]
pub struct Unreachable(String);

/// An examination that is about to begin.
pub struct Examination {
    facts: Facts,
    cases: Vec<&'static Case>,
    severity: Severity,
    time: Duration,
}

impl Examination {
    /// Of these cases, all of them where nothing is chosen; it ends after `time`.
    pub fn new(subject: Subject, only: &[Only], severity: Severity, time: Duration) -> Self {
        let is_chosen =
            |case: &&Case| only.is_empty() || only.iter().any(|only| only.chooses(case));
        let cases = all().filter(is_chosen).collect();
        Self { facts: Facts::new(subject), cases, severity, time }
    }

    /// How many cases there are.
    pub fn cases(&self) -> usize {
        self.cases.len()
    }

    /// How many requests its cases have at most. One that finds the proxy too busy, or a connection
    /// that was just closed, is sent again; [`Examination::most`] bounds all of them.
    pub fn requests(&self) -> u32 {
        let of = |case: &&&Case| match case.steps {
            Steps::Probes(probes) => u32::try_from(probes(&self.facts).len()).unwrap_or(u32::MAX),
            Steps::Scenario { requests, .. } => requests,
            Steps::Watch(_) => 0,
        };
        let first = exam::PREPARATION;
        self.cases
            .iter()
            .filter(|case| self.lacks(case).is_none())
            .map(|case| of(&case))
            .sum::<u32>()
            + first
    }

    /// Most requests that will be sent, whatever happens.
    pub fn most(&self) -> u32 {
        self.requests().saturating_mul(2)
    }

    fn lacks(&self, case: &Case) -> Option<Need> {
        case.needs.iter().copied().find(|need| !self.facts.subject.has(*need))
    }

    /// Examines; `progress` hears of each case as soon as it is through.
    ///
    /// # Errors
    /// [`Unreachable`] where the very first request gets no answer of HTTP.
    pub async fn run(self, mut progress: impl FnMut(&CaseReport)) -> Result<Report, Unreachable> {
        let start = Instant::now();
        let most = self.most();
        let mut exam = Exam::begin(self.facts.clone(), most, start + self.time).await?;
        let mut cases = Vec::with_capacity(self.cases.len());
        for &case in &self.cases {
            let began = Instant::now();
            let outcome = match self.lacks(case) {
                Some(need) => Outcome::Skipped(format!("needs {}", need.option())),
                None => self.judge(case, examine(&mut exam, case).await, exam.is_over()),
            };
            let report = CaseReport::new(case, outcome, began.elapsed());
            progress(&report);
            cases.push(report);
        }
        Ok(Report::new(&exam, self.severity, start.elapsed(), cases))
    }

    fn judge(&self, case: &Case, deviations: Vec<Deviation>, is_over: bool) -> Outcome {
        let may_differ = case.letter != Letter::Must && self.severity == Severity::Lenient;
        if deviations.is_empty() {
            Outcome::Passed
        } else if may_differ && !is_over {
            Outcome::Noted(deviations)
        } else {
            // What could not be asked any more counts as not held, too.
            Outcome::Failed(deviations)
        }
    }
}

async fn examine(exam: &mut Exam, case: &Case) -> Vec<Deviation> {
    match case.steps {
        Steps::Probes(probes) => {
            let mut deviations = Vec::new();
            for Probe { name, ask, expect } in probes(&exam.facts) {
                let judged = match exam.ask(&ask).await {
                    Ok(answer) => answer::judge(&answer, &expect),
                    Err(words) => Err(words),
                };
                if let Err(got) = judged {
                    deviations.push(Deviation::new(name, expect.to_string(), got));
                }
            }
            deviations
        }
        Steps::Scenario { run, .. } => run(exam).await.err().into_iter().collect(),
        Steps::Watch(watch) => exam.watched(watch),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn cases_have_names_of_their_own_and_reasons() {
        let mut names = BTreeSet::new();
        for case in all() {
            assert!(names.insert(case.name), "{} twice", case.name);
            assert!(!case.rules.is_empty() && !case.why.is_empty(), "{}", case.name);
        }
        assert!(names.len() >= 60, "{}", names.len());
    }

    #[test]
    fn a_choice_is_a_rule_or_a_case() {
        assert_eq!("P-43".parse(), Ok(Only::Rule(43)));
        assert_eq!("cdiv".parse(), Ok(Only::Case("cdiv")));
        for wrong in ["P-45", "P-", "43", "nothing", ""] {
            assert!(wrong.parse::<Only>().is_err(), "{wrong}");
        }
    }

    /// What no client sees is said to be so, and nothing is both.
    #[test]
    fn a_rule_is_examined_or_unseen() {
        let examined: BTreeSet<u32> = all().flat_map(|case| case.rules).copied().collect();
        for (rule, why) in UNSEEN {
            assert!(!examined.contains(&rule), "P-{rule}");
            assert!(!why.is_empty());
        }
    }
}
