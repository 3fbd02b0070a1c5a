//! P-1 to P-3, P-9, P-16: how a proxy is reached.

use rustls::CipherSuite;
use serde_json::Value;

use super::super::answer::described;
use super::super::exam::Exam;
use super::super::request::Ask;
use super::super::subject::{Facts, Subject, bare, bare_health};
use super::super::tls::{Said, offer_tls_1_1};
use super::super::{Case, Deviation, Expect, Letter, Need, Probe, Steps, Verdict};
use crate::client::{ClientIdentity, Connector, HttpVersion, RawAnswer, Trust};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "four-operations",
        rules: &[1, 20],
        letter: Letter::Must,
        why: "the four operations are POSTs of JSON, answered with 200 and JSON",
        needs: &[],
        steps: Steps::Probes(four_operations),
    },
    Case {
        name: "http-1.1",
        rules: &[2],
        letter: Letter::Must,
        why: "HTTP/1.1 works, whatever else does",
        needs: &[],
        steps: Steps::Scenario {
            requests: 1,
            run: |exam| Box::pin(http(exam, HttpVersion::Http1)),
        },
    },
    Case {
        name: "http-2",
        rules: &[2],
        letter: Letter::Decided,
        why: "HTTP/2 is spoken where ALPN asks for it",
        needs: &[Need::Tls],
        steps: Steps::Scenario {
            requests: 1,
            run: |exam| Box::pin(http(exam, HttpVersion::Http2)),
        },
    },
    Case {
        name: "tls-suites",
        rules: &[2],
        letter: Letter::Must,
        why: "at least one of the suites that KMS offers is accepted",
        needs: &[Need::Tls],
        steps: Steps::Scenario { requests: 4, run: |exam| Box::pin(tls_suites(exam)) },
    },
    Case {
        name: "tls-1.1",
        rules: &[2],
        letter: Letter::Must,
        why: "nothing older than TLS 1.2 is accepted",
        needs: &[Need::Tls],
        steps: Steps::Scenario { requests: 0, run: |exam| Box::pin(tls_1_1(exam)) },
    },
    Case {
        name: "tls-other-suites",
        rules: &[2],
        letter: Letter::Decided,
        why: "suites that the specification does not name are refused",
        needs: &[Need::Tls],
        steps: Steps::Scenario { requests: 4, run: |exam| Box::pin(tls_other_suites(exam)) },
    },
    Case {
        name: "mutual-tls",
        rules: &[16],
        letter: Letter::Must,
        why: "where a client certificate is asked for, nobody is served without one",
        needs: &[Need::Tls, Need::ClientCertificate],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(mutual_tls(exam)) },
    },
    Case {
        name: "get",
        rules: &[3],
        letter: Letter::Must,
        why: "GET on one of the four operations is 405",
        needs: &[],
        steps: Steps::Probes(get),
    },
    Case {
        name: "other-methods",
        rules: &[3, 71],
        letter: Letter::Decided,
        why: "every method but POST is 405 with Allow: POST, signed or not",
        needs: &[],
        steps: Steps::Probes(other_methods),
    },
    Case {
        name: "balancer",
        rules: &[9],
        letter: Letter::Must,
        why: "load balancers hear 200 to a plain GET while the proxy serves",
        needs: &[Need::Balancer],
        steps: Steps::Scenario { requests: 1, run: |exam| Box::pin(balancer(exam)) },
    },
];

/// Each operation with a good body.
fn operations(facts: &Facts) -> [(String, Value); 4] {
    [
        ("health".to_owned(), bare_health("KmsHealthCheck")),
        (facts.rest("metadata"), bare("DescribeKey")),
        (facts.rest("encrypt"), facts.encrypt.clone()),
        (facts.rest("decrypt"), facts.decrypt.clone()),
    ]
}

fn four_operations(facts: &Facts) -> Vec<Probe> {
    let probe = |(rest, body): (String, Value)| {
        Probe::new(format!("POST .../{rest}"), facts.request(&rest, &body), Expect::Served)
    };
    operations(facts).map(probe).into()
}

fn get(facts: &Facts) -> Vec<Probe> {
    let probe = |(rest, body): (String, Value)| {
        let mut ask = facts.request(&rest, &body);
        ask.method = "GET".to_owned();
        Probe::new(format!("GET .../{rest}"), ask, Expect::Status(405))
    };
    operations(facts).map(probe).into()
}

fn other_methods(facts: &Facts) -> Vec<Probe> {
    let mut probes = Vec::new();
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post", "PROPFIND"] {
        for signed in [true, false] {
            let name = format!("{method}, {}", if signed { "signed" } else { "not signed" });
            probes.push(Probe::spoiled(facts, name, Expect::NotAllowed, |ask| {
                ask.method = method.to_owned();
                if !signed {
                    ask.signing.credential = None;
                }
            }));
        }
    }
    probes
}

/// Another way to the same proxy.
fn connector(
    subject: &Subject,
    trust: Option<&Trust>,
    identity: Option<&ClientIdentity>,
    http: HttpVersion,
) -> Result<Connector, String> {
    let endpoint = subject.connector.endpoint().clone();
    let patience = subject.connector.patience();
    let Some(trust) = trust else { return Ok(Connector::plain(endpoint, http, patience)) };
    Connector::new(endpoint, trust, identity, http, patience).map_err(|error| error.to_string())
}

/// The answer to a GetHealthStatus over another way; words, where that leads to nobody.
async fn reach(exam: &mut Exam, connector: Result<Connector, String>) -> Result<RawAnswer, String> {
    let health = exam.facts.health();
    exam.ask_over(&connector?, &health).await
}

async fn http(exam: &mut Exam, version: HttpVersion) -> Verdict {
    let subject = exam.facts.subject.clone();
    let way = connector(&subject, subject.trust.as_ref(), subject.identity.as_ref(), version);
    let asked = format!("GetHealthStatus over {:?}", version.version());
    let unlike = |got: String| Deviation::new(asked, "200", got);
    match reach(exam, way).await {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(unlike(described(&answer))),
        Err(words) => Err(unlike(words)),
    }
}

/// A way on which nothing but this suite is offered.
fn by_suite(subject: &Subject, suite: CipherSuite) -> Result<Connector, String> {
    let trust = subject.trust.clone().map(|trust| trust.only(suite));
    let http = subject.connector.http();
    connector(subject, trust.as_ref(), subject.identity.as_ref(), http)
}

/// The suites of the specification.
const SUITES: [CipherSuite; 4] = [
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
];

async fn tls_suites(exam: &mut Exam) -> Verdict {
    let subject = exam.facts.subject.clone();
    let mut refusals = Vec::new();
    for suite in SUITES {
        match reach(exam, by_suite(&subject, suite)).await {
            // Whatever it says: it says it within TLS.
            Ok(_answer) => return Ok(()),
            Err(got) => refusals.push(format!("{suite:?}: {got}")),
        }
    }
    Err(Deviation::new("each suite by itself", "one that is accepted", refusals.join("; ")))
}

async fn tls_other_suites(exam: &mut Exam) -> Verdict {
    let subject = exam.facts.subject.clone();
    for suite in [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ] {
        if let Ok(answer) = reach(exam, by_suite(&subject, suite)).await {
            let got = described(&answer);
            return Err(Deviation::new(format!("{suite:?}"), "a failed handshake", got));
        }
    }
    Ok(())
}

async fn tls_1_1(exam: &mut Exam) -> Verdict {
    let endpoint = exam.facts.endpoint().clone();
    let unlike = |got: String| Deviation::new("a hello of TLS 1.1", "the end of it", got);
    match offer_tls_1_1(endpoint.host(), endpoint.port()).await.map_err(unlike)? {
        Said::Refused => Ok(()),
        Said::Accepted => Err(unlike("a hello in return".to_owned())),
    }
}

async fn mutual_tls(exam: &mut Exam) -> Verdict {
    let subject = exam.facts.subject.clone();
    let way = connector(&subject, subject.trust.as_ref(), None, subject.connector.http());
    match reach(exam, way).await {
        Ok(answer) => {
            let got = described(&answer);
            Err(Deviation::new("no client certificate", "a failed handshake", got))
        }
        Err(_refused) => Ok(()),
    }
}

async fn balancer(exam: &mut Exam) -> Verdict {
    let subject = exam.facts.subject.clone();
    let Some(endpoint) = subject.balancer.clone() else { return Ok(()) };
    let unlike = |got: String| Deviation::new("GET for load balancers", "200", got);
    let path = format!("/{}", endpoint.prefix());
    let http = HttpVersion::Http1;
    let way = match &subject.trust {
        Some(trust) if endpoint.scheme() == crate::client::Scheme::Https => {
            Connector::new(endpoint.clone(), trust, None, http, subject.connector.patience())
                .map_err(|error| unlike(error.to_string()))?
        }
        _ if endpoint.scheme() == crate::client::Scheme::Http => {
            Connector::plain(endpoint.clone(), http, subject.connector.patience())
        }
        _ => return Err(unlike("nobody to trust: give --cacert".to_owned())),
    };
    let by = (&subject.credential, subject.region.as_str());
    let mut ask = Ask::post(&endpoint, by, path, &Value::Null);
    // Plain: no signature and no body.
    ask.method = "GET".to_owned();
    ask.signing.credential = None;
    ask.body.clear();
    let answer = exam.ask_over(&way, &ask).await.map_err(unlike)?;
    if answer.status == 200 { Ok(()) } else { Err(unlike(described(&answer))) }
}
