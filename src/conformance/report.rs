//! What an examination found: for people, as JSON, as JUnit XML.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::exam::Exam;
use super::{Case, Deviation, Severity, UNSEEN};

/// Most deviations of one case that people are shown.
const SHOWN: usize = 5;

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "details", rename_all = "lowercase")]
pub enum Outcome {
    /// As its rules say.
    Passed,
    /// Otherwise than a SHOULD or a decision of xksd has it.
    Noted(Vec<Deviation>),
    /// A rule is broken.
    Failed(Vec<Deviation>),
    /// Not examined, and what that would take.
    Skipped(String),
}

/// One case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: &'static str,
    /// Its rules, `P-43`.
    pub rules: Vec<String>,
    /// `M`, `S` or `D`.
    pub letter: &'static str,
    /// What it asks for.
    pub why: &'static str,
    /// Seconds that it took.
    pub seconds: f64,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl CaseReport {
    pub(super) fn new(case: &Case, outcome: Outcome, took: Duration) -> Self {
        let rules = case.rules.iter().map(|rule| format!("P-{rule}")).collect();
        let Case { name, letter, why, .. } = *case;
        let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
        Self { name, rules, letter: letter.as_str(), why, seconds, outcome }
    }
}

/// For people: `FAIL P-43 cdiv`, and below it what came instead of what.
impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rules, letter, why, outcome, .. } = self;
        let (word, deviations): (_, &[Deviation]) = match outcome {
            Outcome::Passed => ("ok  ", &[]),
            Outcome::Noted(deviations) => ("note", deviations),
            Outcome::Failed(deviations) => ("FAIL", deviations),
            Outcome::Skipped(_) => ("skip", &[]),
        };
        write!(f, "{word} {:<15} {letter} {name}", rules.join(" "))?;
        if let Outcome::Skipped(reason) = outcome {
            write!(f, ": {reason}")?;
        }
        if !deviations.is_empty() {
            write!(f, "\n     {why}")?;
        }
        for deviation in deviations.iter().take(SHOWN) {
            write!(f, "\n     - {deviation}")?;
        }
        if deviations.len() > SHOWN {
            write!(f, "\n     - and {} more", deviations.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// The whole examination.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Who was examined.
    pub url: String,
    /// Whether deviations from S and D count as failures.
    pub strict: bool,
    /// Requests sent.
    pub requests: u32,
    /// Seconds in all.
    pub elapsed_s: f64,
    /// How long the slowest answer took, in milliseconds. KMS waits 250 (P-8).
    pub slowest_ms: f64,
    /// Cases that went well.
    pub passed: usize,
    /// Cases with notes only.
    pub noted: usize,
    /// Cases of broken rules.
    pub failed: usize,
    /// Cases that were not examined.
    pub skipped: usize,
    /// All cases.
    pub cases: Vec<CaseReport>,
    /// Rules that can't be examined from outside.
    pub unseen: Vec<UnseenRule>,
}

/// A rule that can't be examined from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnseenRule {
    /// `P-45`
    pub rule: String,
    /// Why not.
    pub why: &'static str,
}

impl Report {
    pub(super) fn new(
        exam: &Exam,
        severity: Severity,
        took: Duration,
        cases: Vec<CaseReport>,
    ) -> Self {
        let count = |is: fn(&Outcome) -> bool| cases.iter().filter(|c| is(&c.outcome)).count();
        let unseen = UNSEEN.iter().map(|(rule, why)| UnseenRule { rule: format!("P-{rule}"), why });
        Self {
            url: exam.facts.endpoint().to_string(),
            strict: severity == Severity::Strict,
            requests: exam.sent(),
            elapsed_s: (took.as_secs_f64() * 1000.0).round() / 1000.0,
            slowest_ms: (exam.slowest().as_secs_f64() * 1_000_000.0).round() / 1000.0,
            passed: count(|outcome| *outcome == Outcome::Passed),
            noted: count(|outcome| matches!(outcome, Outcome::Noted(_))),
            failed: count(|outcome| matches!(outcome, Outcome::Failed(_))),
            skipped: count(|outcome| matches!(outcome, Outcome::Skipped(_))),
            unseen: unseen.collect(),
            cases,
        }
    }

    /// The cases of broken rules.
    pub fn failures(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Failed(_)))
    }

    /// One JSON object on several lines, without a line's end.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings always have a JSON form")
    }

    /// JUnit XML, as build servers read it: notes are in `system-out`.
    pub fn to_junit(&self) -> String {
        let Self { failed, skipped, elapsed_s, .. } = self;
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"xksd conformance {}\" \
             tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\" \
             time=\"{elapsed_s}\">\n",
            escaped(&self.url),
            self.cases.len(),
        );
        for case in &self.cases {
            let CaseReport { name, rules, seconds, why, outcome, .. } = case;
            let class = rules.join(" ");
            write!(xml, "  <testcase classname=\"{class}\" name=\"{name}\" time=\"{seconds}\"")
                .expect("strings grow");
            let list = |deviations: &[Deviation]| {
                let lines: Vec<String> = deviations.iter().map(Deviation::to_string).collect();
                escaped(&lines.join("\n"))
            };
            let inner = match outcome {
                Outcome::Passed => String::new(),
                Outcome::Noted(notes) => format!("<system-out>{}</system-out>", list(notes)),
                Outcome::Failed(faults) => {
                    format!("<failure message=\"{}\">{}</failure>", escaped(why), list(faults))
                }
                Outcome::Skipped(reason) => format!("<skipped message=\"{}\"/>", escaped(reason)),
            };
            let end = if inner.is_empty() { "/>".into() } else { format!(">{inner}</testcase>") };
            xml.push_str(&end);
            xml.push('\n');
        }
        xml.push_str("</testsuite>\n");
        xml
    }
}

/// For people, after the cases: the sums.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, noted, failed, skipped, requests, elapsed_s, slowest_ms, .. } = self;
        writeln!(f, "{passed} passed, {failed} failed, {noted} noted, {skipped} skipped")?;
        write!(
            f,
            "{requests} requests in {elapsed_s:.1} s, the slowest answer after {slowest_ms:.0} ms \
             (KMS waits 250)"
        )
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML 1.0 has no way to write most of the control characters.
            '\n' => escaped.push_str("&#10;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let deviation = Deviation::new("a <b>", "\"200\"", "500 & more\u{1}");
        let case = |name, outcome| CaseReport {
            name,
            rules: vec!["P-43".into(), "P-41".into()],
            letter: "M",
            why: "because",
            seconds: 0.25,
            outcome,
        };
        Report {
            url: "https://h/p".into(),
            strict: false,
            requests: 9,
            elapsed_s: 1.5,
            slowest_ms: 3.25,
            passed: 1,
            noted: 1,
            failed: 1,
            skipped: 1,
            cases: vec![
                case("one", Outcome::Passed),
                case("two", Outcome::Noted(vec![deviation.clone()])),
                case("three", Outcome::Failed(vec![deviation; 7])),
                case("four", Outcome::Skipped("needs --http2".into())),
            ],
            unseen: vec![UnseenRule { rule: "P-45".into(), why: "unseen" }],
        }
    }

    #[test]
    fn people_read_what_came_instead() {
        let report = report();
        let text: Vec<String> = report.cases.iter().map(CaseReport::to_string).collect();
        assert_eq!(text[0], "ok   P-43 P-41       M one");
        assert!(text[1].starts_with("note P-43 P-41       M two\n     because\n     - a <b>: "));
        assert!(text[2].contains("500 & more") && text[2].ends_with("- and 2 more"));
        assert_eq!(text[3], "skip P-43 P-41       M four: needs --http2");
        assert!(report.to_string().starts_with("1 passed, 1 failed, 1 noted, 1 skipped\n9 req"));
    }

    #[test]
    fn programs_read_json() {
        let value: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();
        assert_eq!(value["failed"], 1);
        assert_eq!(value["cases"][2]["outcome"], "failed");
        assert_eq!(value["cases"][2]["rules"][0], "P-43");
        assert_eq!(value["cases"][2]["details"][6]["wanted"], "\"200\"");
        assert_eq!(value["cases"][0]["outcome"], "passed");
        assert_eq!(value["cases"][3]["details"], "needs --http2");
        assert_eq!(value["unseen"][0]["rule"], "P-45");
    }

    #[test]
    fn build_servers_read_junit() {
        let xml = report().to_junit();
        assert!(xml.contains(r#"tests="4" failures="1" errors="0" skipped="1" time="1.5">"#));
        let case = r#"<testcase classname="P-43 P-41" name="one" time="0.25"/>"#;
        assert!(xml.contains(case), "{xml}");
        assert!(xml.contains(r#"<failure message="because">a &lt;b&gt;: 500 &amp; more"#));
        assert!(xml.contains(r#"<skipped message="needs --http2"/></testcase>"#));
        assert!(xml.contains("<system-out>a &lt;b&gt;"));
        assert!(!xml.contains('\u{1}'));
    }
}
