//! The clock of this machine: a signature of KMS's is good for five minutes (P-12).

use std::io;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::DATE;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::{Check, Findings};
use crate::hsm::pkcs11::clock_is_kept;

/// From when on a signature is refused.
const REFUSED: Duration = Duration::from_secs(300);

/// From when on a difference is warned of: with a clock that is kept there is none to speak of.
const WARNED: Duration = Duration::from_secs(30);

const KEEP: &str = "run chrony, systemd-timesyncd or the like; in a virtual machine or container, on the \
    host";

pub(super) fn examine(findings: &mut Findings<'_>) {
    synchronised(clock_is_kept(), findings);
}

fn synchronised(kept: io::Result<bool>, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::ClockSynchronised;
    match kept {
        Ok(true) => findings.ok(CHECK, "the kernel's clock is synchronised"),
        Ok(false) => {
            let message = "the kernel says that nothing synchronises its clock; from 5 minutes on KMS's \
                signatures are refused";
            findings.warn(CHECK, message, KEEP);
        }
        Err(error) => {
            let message =
                format!("the kernel does not say whether its clock is synchronised: {error}");
            findings.ok(CHECK, message);
        }
    }
}

/// Compares it with the Date of an answer, which whoever ends HTTP has written.
pub(super) fn compare(answer: &HeaderMap, now: SystemTime, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::ClockDifference;
    let date = answer.get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    let Some(theirs) = date.map(SystemTime::from) else {
        return findings.ok(CHECK, "the endpoint's answers have no Date to compare with");
    };
    let difference = theirs.duration_since(now).or_else(|_| now.duration_since(theirs));
    let difference = difference.unwrap_or_default();
    let message = format!(
        "this clock and the Date of the endpoint's answers are {} seconds apart",
        difference.as_secs()
    );
    let advice = format!("look at the clocks of this machine and of the load balancer: {KEEP}");
    if difference >= REFUSED {
        findings.fail(CHECK, message, advice);
    } else if difference >= WARNED {
        findings.warn(CHECK, message, advice);
    } else {
        findings.ok(CHECK, message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Status};
    use super::*;

    fn status(of: impl FnOnce(&mut Findings<'_>)) -> Status {
        let mut all = Vec::new();
        let mut report = |finding: Finding| all.push(finding.status);
        of(&mut Findings { subject: String::new(), report: &mut report });
        assert_eq!(all.len(), 1);
        all[0]
    }

    #[test]
    fn a_clock_that_nobody_keeps_is_warned_of() {
        assert_eq!(status(|findings| synchronised(Ok(true), findings)), Status::Ok);
        assert_eq!(status(|findings| synchronised(Ok(false), findings)), Status::Warn);
        let forbidden = Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(status(|findings| synchronised(forbidden, findings)), Status::Ok);
    }

    #[test]
    fn clocks_are_compared_to_either_side_p_12() {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let mut answer = HeaderMap::new();
        answer.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        for (seconds, expected) in [
            (0, Status::Ok),
            (29, Status::Ok),
            (30, Status::Warn),
            (299, Status::Warn),
            (300, Status::Fail),
        ] {
            let difference = Duration::from_secs(seconds);
            for now in [date + difference, date - difference] {
                assert_eq!(
                    status(|findings| compare(&answer, now, findings)),
                    expected,
                    "{seconds}"
                );
            }
        }
        assert_eq!(status(|findings| compare(&HeaderMap::new(), date, findings)), Status::Ok);
    }
}
