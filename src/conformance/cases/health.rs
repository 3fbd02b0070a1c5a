//! P-60, P-62, P-63: GetHealthStatus.

use serde_json::{Value, json};

use super::super::answer::shown;
use super::super::exam::Exam;
use super::super::subject::{Facts, bare_health};
use super::super::{Case, Deviation, Expect, Letter, Probe, Steps, Verdict};
use super::VALIDATION;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "health",
        rules: &[60, 63],
        letter: Letter::Must,
        why: "KMS shows proxies and one to ten HSMs, each ACTIVE, DEGRADED or UNAVAILABLE",
        needs: &[],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(health(exam)) },
    },
    Case {
        name: "health-serves",
        rules: &[60],
        letter: Letter::Should,
        why: "an HSM that encrypts is not UNAVAILABLE",
        needs: &[],
        steps: Steps::Scenario { requests: 2, run: |exam| Box::pin(serves(exam)) },
    },
    Case {
        name: "health-operations",
        rules: &[62, 21],
        letter: Letter::Must,
        why: "health is answered whatever KMS asks it for",
        needs: &[],
        steps: Steps::Probes(operations),
    },
    Case {
        name: "health-malformed",
        rules: &[70, 22],
        letter: Letter::Must,
        why: "a malformed request of health is a ValidationException: AWS's test client asks for it",
        needs: &[],
        steps: Steps::Probes(malformed),
    },
];

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

async fn status(exam: &mut Exam) -> Result<Value, Deviation> {
    let ask = exam.facts.health();
    exam.accepted("GetHealthStatus", &ask).await
}

async fn health(exam: &mut Exam) -> Verdict {
    let members = status(exam).await?;
    let unlike = |wanted: &str, got: &Value| {
        Err(Deviation::new("GetHealthStatus", wanted, shown(&got.to_string())))
    };
    let size = &members["xksProxyFleetSize"];
    if size.as_u64().is_none_or(|size| size == 0) {
        return unlike("a xksProxyFleetSize over 0", size);
    }
    for name in ["xksProxyVendor", "xksProxyModel", "ekmVendor"] {
        if !is_text(&members[name]) {
            return unlike(&format!("a text for {name}"), &members[name]);
        }
    }
    let fleet = members["ekmFleetDetails"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !(1..=10).contains(&fleet.len()) {
        return unlike("one to ten ekmFleetDetails", &fleet.len().into());
    }
    for hsm in fleet {
        if !is_text(&hsm["id"]) || !is_text(&hsm["model"]) {
            return unlike("id and model of each HSM", hsm);
        }
        let status = hsm["healthStatus"].as_str();
        if !matches!(status, Some("ACTIVE" | "DEGRADED" | "UNAVAILABLE")) {
            return unlike("ACTIVE, DEGRADED or UNAVAILABLE", &hsm["healthStatus"]);
        }
    }
    Ok(())
}

async fn serves(exam: &mut Exam) -> Verdict {
    let encryption = exam.facts.encryption();
    exam.accepted("Encrypt", &encryption).await?;
    let members = status(exam).await?;
    let fleet = members["ekmFleetDetails"].as_array().map(Vec::as_slice).unwrap_or_default();
    if fleet.iter().any(|hsm| hsm["healthStatus"] != "UNAVAILABLE") {
        return Ok(());
    }
    let wanted = "an HSM that is not UNAVAILABLE, since something was encrypted";
    Err(Deviation::new("GetHealthStatus", wanted, "UNAVAILABLE"))
}

fn operations(facts: &Facts) -> Vec<Probe> {
    [
        "KmsHealthCheck",
        "CreateCustomKeyStore",
        "ConnectCustomKeyStore",
        "UpdateCustomKeyStore",
        "OperationOfTomorrow",
    ]
    .map(|operation| {
        let ask = facts.request("health", &bare_health(operation));
        Probe::new(operation, ask, Expect::Served)
    })
    .into()
}

fn malformed(facts: &Facts) -> Vec<Probe> {
    let mut none = facts.health();
    none.body.clear();
    vec![
        Probe::new("no body", none, VALIDATION),
        Probe::new("an empty object", facts.request("health", &json!({})), VALIDATION),
        Probe::new(
            "an empty requestMetadata",
            facts.request("health", &json!({"requestMetadata": {}})),
            VALIDATION,
        ),
    ]
}
