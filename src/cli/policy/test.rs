//! `xksd policy test`

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use hdrhistogram::Histogram;
use serde::Deserialize;

use super::question::{OwnAuthorization, Question, Written, configured};
use super::{read, unusable};
use crate::cli::failure::{print, say};
use crate::cli::startup::configuration;
use crate::cli::{ConfigFile, Exit, Failure};
use crate::config::Config;
use crate::policy::{Authorization, Authorizer, Decision, Facts};

#[derive(Debug, Args)]
#[command(after_help = "docs/policies.md has the format. Exit codes: 0 every case was decided as \
    expected, 1 one was not, 78 policies or cases are not valid.")]
pub(in crate::cli) struct Test {
    /// Files with test cases (TOML)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Decide each case so many times more, and say on stderr how long a decision took
    #[arg(long, value_name = "TIMES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    measure: u32,
    #[command(flatten)]
    config: ConfigFile,
}

/// A file with cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    /// The policies that the cases are put to; without it, those of the key stores that they name.
    authorization: Option<OwnAuthorization>,
    #[serde(default)]
    request: Written,
    #[serde(rename = "case")]
    cases: Vec<toml::Table>,
}

#[derive(Debug)]
struct Case {
    judgement: Judgement,
    request: Written,
}

/// What stands in a `[[case]]` besides the request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Judgement {
    name: String,
    expect: Expected,
    /// The policies that decide; not looked at if it is left out.
    policies: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

impl Test {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let mut config = None;
        let (mut passed, mut failed) = (0_usize, 0_usize);
        let mut times = Times::new();
        for path in &self.files {
            let cases: Cases = read(path)?;
            let own = match &cases.authorization {
                Some(own) => {
                    let directory = path.parent().unwrap_or(Path::new("."));
                    Some(own.read(directory).map_err(unusable)?)
                }
                None => {
                    if config.is_none() {
                        config = Some(configuration(&self.config)?);
                    }
                    None
                }
            };
            for (index, case) in cases.cases.into_iter().enumerate() {
                let case = Case::read(case).map_err(|problem| {
                    let number = index + 1;
                    let problem = format!("{}: case {number}: {problem}", path.display());
                    Failure::new(Exit::Config, problem)
                })?;
                let name = format!("{}: {}", path.display(), case.judgement.name);
                let invalid = |problem| Failure::new(Exit::Config, format!("{name}: {problem}"));
                let (question, authorization) = case
                    .read_request(&cases.request, own.as_ref(), config.as_ref())
                    .map_err(invalid)?;
                if let Some(authorizer) = authorization.authorizer() {
                    times.measure(self.measure, authorizer, &question);
                }
                match case.judgement.of(authorization, &question) {
                    Ok(()) => passed += 1,
                    Err(what) => {
                        failed += 1;
                        print(&format!("FAILED {name}: {what}\n"))?;
                    }
                }
            }
        }
        if !times.made.is_empty() {
            say(&times.to_string());
        }
        say(&format!("{passed} cases passed, {failed} failed"));
        Ok(ExitCode::from(if failed == 0 { 0 } else { Exit::Difference as u8 }))
    }
}

/// How long decisions took, in nanoseconds.
struct Times {
    made: Histogram<u64>,
    remembered: Histogram<u64>,
}

impl Times {
    fn new() -> Self {
        let empty = || Histogram::new(3).expect("three digits are few enough");
        Self { made: empty(), remembered: empty() }
    }

    fn measure(&mut self, times: u32, authorizer: &Authorizer, question: &Question) {
        let facts = question.facts();
        let took = |decide: fn(&Authorizer, &Facts<'_>) -> Decision| {
            let start = Instant::now();
            let _ = std::hint::black_box(decide(authorizer, &facts));
            u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
        };
        // Remembered from now on.
        let _ = authorizer.decide(&facts);
        for _ in 0..times {
            self.made.record(took(Authorizer::decide_anew)).expect("it grows as it must");
            self.remembered.record(took(Authorizer::decide)).expect("it grows as it must");
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} decisions; microseconds", self.made.len())?;
        for (name, times) in [("made", &self.made), ("remembered", &self.remembered)] {
            let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
            let (half, p99, p999) = (at(0.5), at(0.99), at(0.999));
            write!(f, "; {name}: p50 {half:.1}, p99 {p99:.1}, p99.9 {p999:.1}")?;
        }
        Ok(())
    }
}

impl Case {
    fn read(case: toml::Table) -> Result<Self, String> {
        let is_judgement = |name: &str| ["name", "expect", "policies"].contains(&name);
        let (judgement, request): (toml::Table, toml::Table) =
            case.into_iter().partition(|(name, _)| is_judgement(name));
        let failed = |error: toml::de::Error| error.message().to_owned();
        let judgement = judgement.try_into().map_err(failed)?;
        Ok(Self { judgement, request: request.try_into().map_err(failed)? })
    }

    /// What is asked, and whose policies it is put to.
    fn read_request<'a>(
        &self,
        request: &Written,
        own: Option<&'a Authorization>,
        config: Option<&'a Config>,
    ) -> Result<(Question, &'a Authorization), String> {
        let question = self.request.clone().or(request).read()?;
        let authorization = match (own, config) {
            (Some(own), _) => own,
            (None, Some(config)) => configured(config, &question.keystore)?,
            (None, None) => return Err("there are no policies".to_owned()),
        };
        Ok((question, authorization))
    }
}

impl Judgement {
    /// Puts the question to the policies; gives what is not as expected.
    fn of(&self, authorization: &Authorization, question: &Question) -> Result<(), String> {
        let (decision, said) = decide(authorization, question);
        if said != self.expect {
            return Err(format!(
                "expected {}, but it is {}",
                if self.expect == Expected::Allow { "allow" } else { "deny" },
                decision.as_ref().map_or("allowed without policies".to_owned(), shown)
            ));
        }
        let decided = decision.as_ref().map(Decision::policies).unwrap_or_default();
        match &self.policies {
            Some(policies) if policies != decided => {
                Err(format!("expected to be decided by {policies:?}, but it was by {decided:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// What would be decided if denials were enforced.
fn decide(authorization: &Authorization, question: &Question) -> (Option<Decision>, Expected) {
    let decision = authorization.authorizer().map(|policies| policies.decide(&question.facts()));
    let is_allowed = decision.as_ref().is_none_or(Decision::is_allowed);
    (decision, if is_allowed { Expected::Allow } else { Expected::Deny })
}

fn shown(decision: &Decision) -> String {
    let by = match decision.policies() {
        [] => "by no policy".to_owned(),
        policies => format!("by {}", policies.join(", ")),
    };
    let errors: String = decision.errors().iter().map(|error| format!(": {error}")).collect();
    format!("{} {by}{errors}", decision.outcome().label())
}
