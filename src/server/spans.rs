//! The record of a finished request as the spans of a trace.
//!
//! P-45: what is in them is in the request's line of the log as well: names, no contents.

use super::record::Record;
use super::rescue::Rescued;
use crate::operations::{Part, Step};
use crate::traces::span::{Attribute, Kind, Span, Spans, TraceId, Value, WallClock};
use crate::wire::log_text::LogText;
use crate::wire::route::Route;

impl Record {
    /// The spans of the request, and of each of its steps below it.
    pub(super) fn spans(&self, trace: TraceId, outcome: Result<(), &Rescued>) -> Spans {
        let end = self.trace.steps().last().map_or(self.arrived(), |step| step.end);
        let operation = self.route.as_ref().map_or("unknown", |route| route.operation().name());
        let error = outcome.err();
        // The request ended in the step before its answer.
        let failed = self.trace.steps().iter().rposition(|step| step.part != Part::Respond);
        let failed = failed.filter(|_| error.is_some());
        let kms_request_id = self.kms_request_id();
        let steps = self.trace.steps().iter().enumerate().map(|(number, step)| {
            let error = error.filter(|_| failed == Some(number));
            step_span(step, &kms_request_id, error)
        });
        Spans {
            trace,
            request: Span {
                name: operation,
                kind: Kind::Server,
                start: self.arrived(),
                end,
                attributes: self.attributes(operation, kms_request_id.clone(), error),
                error: error.map(|rescued| rescued.cause.to_string()),
            },
            steps: steps.collect(),
            clock: WallClock::now(),
        }
    }

    fn attributes(
        &self,
        operation: &str,
        kms_request_id: Value,
        error: Option<&Rescued>,
    ) -> Vec<Attribute> {
        let text = |value: &dyn std::fmt::Display| Value::Text(value.to_string());
        let trace = &self.trace;
        let outcome = if error.is_none() { "ok" } else { "refused" };
        let mut attributes = vec![
            ("kms.request_id", kms_request_id),
            ("kms.operation", text(&LogText::new(self.metadata.kms_operation()))),
            ("xks.operation", text(&operation)),
            ("xks.outcome", text(&outcome)),
            ("http.response.status_code", Value::Number(error.map_or(200, status))),
        ];
        let mut known = |name: &'static str, value: Option<Value>| {
            attributes.extend(value.map(|value| (name, value)));
        };
        known("xks.keystore", self.keystore.as_ref().map(|keystore| text(keystore)));
        let key = self.route.as_ref().and_then(Route::key);
        known("xks.key", key.map(|key| text(key)));
        known("xks.key_version", trace.version.map(|version| text(&version)));
        known("xks.attempts", (trace.attempts > 0).then_some(Value::Number(trace.attempts.into())));
        known("hsm.token", trace.token.as_ref().map(|token| text(token)));
        known("error.type", error.map(|rescued| text(&rescued.body.name().as_str())));
        attributes
    }

    fn kms_request_id(&self) -> Value {
        Value::Text(LogText::new(self.metadata.kms_request_id()).to_string())
    }
}

fn status(rescued: &Rescued) -> i64 {
    rescued.status.into()
}

fn step_span(step: &Step, kms_request_id: &Value, error: Option<&Rescued>) -> Span {
    let Step { part, start, end, job } = step;
    let mut attributes = vec![("kms.request_id", kms_request_id.clone())];
    let mut failure = error.map(|rescued| rescued.cause.to_string());
    if let Some(job) = job {
        attributes.push(("hsm.token", Value::Text(job.token.to_string())));
        attributes.push(("hsm.work", Value::Text(job.work.name().to_owned())));
        attributes.push(("xks.attempt", Value::Number(job.attempt.into())));
        failure = job.error.map(|error| error.to_string()).or(failure);
    }
    // Where the HSM works, somebody else does.
    let kind = if *part == Part::Hsm { Kind::Client } else { Kind::Internal };
    Span { name: part.name(), kind, start: *start, end: *end, attributes, error: failure }
}
