//! What came of asking, in words: which of daemon, load balancer and configuration is at fault.

use std::net::SocketAddr;
use std::time::Duration;

use super::way::{Outcome, Seen};
use super::{Check, Findings};
use crate::client::{CallError, ConnectError, HealthAnswer};

/// KMS gives up after this time, the making of a connection included (P-8).
const BUDGET: Duration = Duration::from_millis(250);

/// What AWS asks a round trip between KMS and the proxy to stay below.
const ROUND_TRIP: Duration = Duration::from_millis(35);

/// `errorName` where the signature does not hold.
const UNSIGNED: &str = "AuthenticationFailedException";

/// `errorName` where no key store has the path.
const NO_PATH: &str = "InvalidUriPathException";

/// Answers that the running daemon gives itself.
pub(super) fn of_daemon(seen: &Seen, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::DaemonCredentials;
    match &seen.outcome {
        Outcome::Answered(..) => {
            findings.ok(CHECK, "the running daemon accepts its first credential");
        }
        Outcome::Refused(error, _) => {
            let advice = "it runs with another configuration than this one: `xksd reload`, or a \
                restart; if it does already, look at the line of the request in its log";
            let message = format!(
                "the running daemon refuses a request signed by its first credential: {error}"
            );
            findings.fail(CHECK, message, advice);
        }
        Outcome::Unconnected(error) => {
            let advice = "it runs, and does not serve there: it may listen elsewhere by another \
                configuration, or be draining";
            findings.fail(CHECK, format!("the running daemon cannot be asked: {error}"), advice);
        }
    }
}

/// There is no connection to the endpoint.
pub(super) fn of_connection(
    address: SocketAddr,
    error: &ConnectError,
    is_running: bool,
    findings: &mut Findings<'_>,
) {
    let (check, advice) = match error {
        ConnectError::Tls(_) | ConnectError::Version(_) | ConnectError::Http(_) => (
            Check::EndpointTls,
            "TLS 1.2 or 1.3 must be spoken there, with HTTP/1.1: a load balancer may have a plain \
             listener at this port, wait for another protocol, or have no target",
        ),
        _ => (
            Check::EndpointReach,
            "look at firewall, security groups, listener and target group of the load balancer; KMS \
             comes from outside, or through the VPC endpoint service",
        ),
    };
    let message = format!("{address}: {error}");
    if is_running {
        findings.fail(check, message, format!("the daemon runs here: {advice}"));
    } else {
        let advice = "no xksd runs here, which may be why: start it, and run doctor again";
        findings.warn(check, message, advice);
    }
}

/// Answers from the endpoint, beside those of the daemon where it could be asked.
pub(super) fn of_endpoint(
    address: SocketAddr,
    seen: &Seen,
    direct: Option<&Seen>,
    findings: &mut Findings<'_>,
) {
    let error = match &seen.outcome {
        Outcome::Answered(_, health, _) => return of_health(health, findings),
        Outcome::Refused(error, _) => error,
        Outcome::Unconnected(error) => {
            let advice = "the connection ended after the certificate was shown: look at the log of \
                whoever ends TLS there";
            return findings.fail(Check::EndpointTls, format!("{address}: {error}"), advice);
        }
    };
    let name = match error {
        CallError::Refused { name, .. } => name.as_str(),
        _ => "",
    };
    let daemon_accepts = direct.map(|seen| matches!(seen.outcome, Outcome::Answered(..)));
    if daemon_accepts == Some(false) {
        let message = format!("{address}: {error}, as the daemon itself");
        let advice = "mend what is said of the daemon above first";
        return findings.fail(Check::EndpointAnswer, message, advice);
    }
    let unlike = match daemon_accepts {
        Some(_) => "asked directly, the daemon accepts the same request",
        None => "the daemon could not be asked directly, so its credentials may be others as well",
    };
    let (check, what, advice) = match name {
        UNSIGNED => (
            Check::EndpointHost,
            "something on the way changes Host, the path or the body, which are signed",
            "have the load balancer leave Host as it came (nginx: proxy_set_header Host $http_host; \
             HAProxy: no http-request set-header Host), or pass TCP through",
        ),
        NO_PATH => (
            Check::EndpointPath,
            "something on the way changes the path",
            "have the load balancer leave the path as it came: no prefix is taken away or added, and \
             nothing is decoded (nginx: proxy_pass without a path)",
        ),
        _ => (
            Check::EndpointAnswer,
            "what answers is perhaps not xksd",
            "look at listener rules, target group and health of the load balancer, and at a firewall \
             that judges requests",
        ),
    };
    findings.fail(check, format!("{address}: {error}: {what}; {unlike}"), advice);
}

fn of_health(health: &HealthAnswer, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::EndpointHealth;
    let bad = health.ekm_fleet_details.iter().filter(|hsm| hsm.health_status != "ACTIVE");
    let bad: Vec<String> = bad.map(|hsm| format!("{} is {}", hsm.id, hsm.health_status)).collect();
    if bad.is_empty() {
        return findings.ok(CHECK, "GetHealthStatus from the endpoint: every HSM is ACTIVE");
    }
    let all = bad.len() == health.ekm_fleet_details.len();
    let message = format!("GetHealthStatus from the endpoint: {}", bad.join(", "));
    let advice =
        "`xksd status` has the last error of each token; what is said of tokens below may be why";
    let is_down = health.ekm_fleet_details.iter().all(|hsm| hsm.health_status == "UNAVAILABLE");
    if all && is_down {
        findings.fail(CHECK, message, advice);
    } else {
        findings.warn(CHECK, message, advice);
    }
}

/// P-16: clients without a certificate must be refused where it is configured.
pub(super) fn of_clients(seen: &Seen, is_own: bool, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::EndpointClients;
    let advice = "xksd itself must end TLS: have the load balancer pass TCP through; else take \
        client_ca and client_subject out, and have the load balancer ask for KMS's certificate";
    match &seen.outcome {
        Outcome::Answered(..) | Outcome::Refused(CallError::Refused { .. }, _) => {
            let message = "a client without a certificate is served, and client_ca is configured";
            findings.fail(CHECK, message, advice);
        }
        _ if !is_own => {
            let message = "client_ca is configured, and TLS ends before xksd, which sees no certificate \
                of KMS's then";
            findings.fail(CHECK, message, advice);
        }
        _ => {
            let message = "a client without a certificate is refused, as configured; for want of KMS's \
                the way was not looked at further";
            findings.ok(CHECK, message);
        }
    }
}

/// P-8: the time that KMS would wait, from this machine.
pub(super) fn of_time(seen: &Seen, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::EndpointTime;
    let Outcome::Answered(times, ..) = &seen.outcome else { return };
    let (connect, whole) = (times.connect, times.whole());
    let message = format!(
        "new connection: TCP {:.1?}, TLS {:.1?}, first answer {:.1?}, together {whole:.1?} of {BUDGET:?}; \
         then {:.1?} of {ROUND_TRIP:?}",
        connect.tcp, connect.tls, times.first, times.again
    );
    let advice = "measured from this machine, the fastest of several: look at the way to the load balancer \
        and to xksd; a proxy should be near its AWS Region";
    if whole > BUDGET {
        findings.fail(CHECK, message, advice);
    } else if times.again > ROUND_TRIP {
        findings.warn(CHECK, message, advice);
    } else {
        findings.ok(CHECK, message);
    }
}
