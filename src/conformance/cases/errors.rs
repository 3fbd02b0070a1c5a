//! P-1, P-70: what every answer of the whole run was held to.

use super::super::exam::Watch;
use super::super::{Case, Letter, Steps};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "content-type",
        rules: &[1],
        letter: Letter::Must,
        why: "every answer of the run is application/json",
        needs: &[],
        steps: Steps::Watch(Watch::ContentType),
    },
    Case {
        name: "error-form",
        rules: &[70],
        letter: Letter::Must,
        why: "every refusal of the run is JSON with an errorName that KMS knows",
        needs: &[],
        steps: Steps::Watch(Watch::ErrorForm),
    },
    Case {
        name: "error-status",
        rules: &[70],
        letter: Letter::Must,
        why: "every refusal of the run has the status of its errorName",
        needs: &[],
        steps: Steps::Watch(Watch::ErrorStatus),
    },
    Case {
        name: "error-message",
        rules: &[70],
        letter: Letter::Must,
        why: "KMS writes the message to CloudWatch Logs: printable ASCII, under 512 characters",
        needs: &[],
        steps: Steps::Watch(Watch::ErrorMessage),
    },
    Case {
        name: "no-other-members",
        rules: &[70, 41],
        letter: Letter::Decided,
        why: "no answer of the run tells what the specification does not name",
        needs: &[],
        steps: Steps::Watch(Watch::OtherMembers),
    },
];
