//! What doctor said.

use std::process::Output;

use serde_json::Value;
use support::site::Credential;
use support::token::PIN;

use crate::broken::is_of_the_machine;

/// What `xksd doctor --json` said.
pub(crate) struct Diagnosis {
    pub(crate) findings: Vec<Value>,
    pub(crate) code: i32,
    /// All that was written.
    pub(crate) text: String,
}

impl Diagnosis {
    pub(crate) fn read(output: &Output) -> Self {
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let findings = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {err}"));
        let code = output.status.code().expect("no signal ended it");
        Self { findings, code, text: format!("{out}{err}") }
    }

    /// Findings with this status.
    pub(crate) fn of<'a>(&'a self, status: &'a str) -> impl Iterator<Item = &'a Value> {
        self.findings.iter().filter(move |finding| finding["status"] == status)
    }

    /// Those that are not about the machine that runs the test.
    fn ours<'a>(&'a self, status: &'a str) -> impl Iterator<Item = &'a Value> {
        self.of(status).filter(|finding| !is_of_the_machine(finding))
    }

    /// Checks and messages of those.
    pub(crate) fn messages<'a>(&'a self, status: &'a str) -> Vec<(&'a str, &'a str)> {
        let pair = |f: &'a Value| (f["check"].as_str().unwrap(), f["message"].as_str().unwrap());
        self.ours(status).map(pair).collect()
    }

    /// That one check failed, and what its message and advice say.
    #[track_caller]
    pub(crate) fn expect_only(&self, check: &str, message: &str, advice: &str) {
        let failed: Vec<_> = self.ours("fail").collect();
        let [finding] = failed[..] else { panic!("{:#?}", self.findings) };
        assert_eq!(finding["check"], check);
        for (key, words) in [("message", message), ("advice", advice)] {
            let given = finding[key].as_str().unwrap();
            assert!(given.contains(words), "`{words}` is not in `{given}`");
        }
        assert_eq!(self.code, 1);
    }

    /// Nothing of PINs and secrets is in it.
    pub(crate) fn assert_no_secrets(&self) {
        let secret = Credential::of('A').secret;
        for hidden in [PIN, secret.as_str()] {
            assert!(!self.text.contains(hidden), "a secret is shown: {}", self.text);
        }
    }
}
