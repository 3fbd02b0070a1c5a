//! P-4: each prefix is one isolated key store.

use super::super::exam::Exam;
use super::super::request::Ask;
use super::super::subject::{Facts, Neighbour, bare, bare_health, decryption, encryption};
use super::super::{Case, Letter, Need, Probe, Steps, Verdict};
use super::{KEY_NOT_FOUND, STRANGER};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "credentials-of-a-neighbour",
        rules: &[4, 14],
        letter: Letter::Must,
        why: "a credential is good for its own key store only",
        needs: &[Need::Neighbour],
        steps: Steps::Probes(credentials),
    },
    Case {
        name: "keys-of-a-neighbour",
        rules: &[4, 70],
        letter: Letter::Must,
        why: "a key of another key store does not exist in this one",
        needs: &[Need::Neighbour],
        steps: Steps::Scenario { requests: 4, run: |exam| Box::pin(keys(exam)) },
    },
];

fn of_neighbour(facts: &Facts, neighbour: &Neighbour, rest: &str, body: &serde_json::Value) -> Ask {
    let target = format!("{}/{rest}", neighbour.endpoint.prefix().uri_path());
    let by = (&neighbour.credential, facts.subject.region.as_str());
    Ask::post(facts.endpoint(), by, target, body)
}

fn credentials(facts: &Facts) -> Vec<Probe> {
    let Some(neighbour) = &facts.subject.neighbour else { return Vec::new() };
    let health = bare_health("KmsHealthCheck");
    let mut here = facts.request("health", &health);
    here.signing.credential = Some(neighbour.credential.clone());
    let mut there = of_neighbour(facts, neighbour, "health", &health);
    there.signing.credential = Some(facts.subject.credential.clone());
    vec![
        Probe::new("this key store by its neighbour's credential", here, STRANGER),
        Probe::new("the neighbour by this key store's credential", there, STRANGER),
    ]
}

async fn keys(exam: &mut Exam) -> Verdict {
    let subject = exam.facts.subject.clone();
    let Some(neighbour) = &subject.neighbour else { return Ok(()) };
    let key = neighbour.key.to_string();
    let body = encryption(b"of the neighbour");
    let ask = of_neighbour(&exam.facts, neighbour, &format!("keys/{key}/encrypt"), &body);
    let sealed = exam.accepted("the neighbour encrypts with its own key", &ask).await?;
    for (operation, body) in
        [("metadata", bare("DescribeKey")), ("encrypt", body), ("decrypt", decryption(&sealed))]
    {
        let ask = exam.facts.request(&format!("keys/{key}/{operation}"), &body);
        exam.refused(&format!("{operation} with its key"), &ask, KEY_NOT_FOUND).await?;
    }
    Ok(())
}
