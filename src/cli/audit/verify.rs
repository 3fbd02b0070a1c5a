//! `xksd audit verify`

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::super::failure::print;
use super::super::keys::clerk::Clerk;
use super::super::keys::scope::{Scope, Unnamed};
use super::super::{Exit, Failure};
use super::key::failed;
use super::logs;
use crate::audit::chain::Head;
use crate::audit::checkpoint::{PublicKey, Sealed};
use crate::audit::verify::{Judgement, Report, Summary, Verifier};
use crate::hsm::backend::Signing;
use crate::lifecycle::{Office, hmac};

#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// Files of audit logs, or directories with them; without any, the configuration's
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// PEM file with a public key that signed checkpoints; may be given several times
    #[arg(long, value_name = "PEM")]
    public_key: Vec<PathBuf>,
    /// A record that was there, as `xksd audit head` printed it; may be given several times
    #[arg(long, value_name = "NUMBER:HASH")]
    expect_head: Vec<Head>,
    /// Have the token judge checkpoints that it sealed by HMAC
    #[arg(long)]
    with_hsm: bool,
    #[command(flatten)]
    scope: Scope,
    /// Print one object
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut office = match self.with_hsm {
            true => Some(self.scope.open(Unnamed::One, &Clerk::idle())?),
            false => None,
        };
        let keys = self.keys()?;
        let files = logs::files(&self.files, || self.scope.configuration())?;
        let mut trouble = None;
        let judge = |sealed: &Sealed| match (sealed.algorithm, &mut office) {
            (Signing::EcdsaP256, _) => by_public_key(&keys, sealed),
            (Signing::HmacSha256, None) => Judgement::Unjudged,
            (Signing::HmacSha256, Some(office)) => match by_hmac(office, sealed) {
                Ok(judgement) => judgement,
                Err(failure) => {
                    trouble.get_or_insert(failure);
                    Judgement::Unjudged
                }
            },
        };
        let mut verifier = Verifier::new(judge, &self.expect_head);
        for path in &files {
            verifier.file(&path.display().to_string());
            logs::each_line(path, |line| verifier.line(line))?;
        }
        let report = verifier.finish();
        if let Some(failure) = trouble {
            return Err(failure);
        }
        let is_judged = !keys.is_empty() || self.with_hsm;
        let text = match self.json {
            true => format!("{:#}\n", in_json(&report, is_judged)),
            false => in_text(&report, is_judged),
        };
        print(&text)?;
        verdict(&report, is_judged)
    }

    fn keys(&self) -> Result<Vec<PublicKey>, Failure> {
        let read = |path: &PathBuf| {
            PublicKey::from_pem(&logs::read(path)?).map_err(|error| {
                Failure::new(Exit::Usage, format!("`{}` {error}", path.display()))
                    .hint("`xksd audit public-key` prints it")
            })
        };
        self.public_key.iter().map(read).collect()
    }
}

fn by_public_key(keys: &[PublicKey], sealed: &Sealed) -> Judgement {
    let text = sealed.statement.text();
    let verifies = |key: &PublicKey| key.verifies(text.as_bytes(), &sealed.signature);
    match keys {
        [] => Judgement::Unjudged,
        keys if keys.iter().any(verifies) => Judgement::Good,
        _ => Judgement::Bad,
    }
}

fn by_hmac(office: &mut Office, sealed: &Sealed) -> Result<Judgement, Failure> {
    let made = hmac(office, sealed.statement.text().as_bytes());
    match made.map_err(|error| failed(office, error))? {
        Some(made) if made == sealed.signature => Ok(Judgement::Good),
        Some(_) => Ok(Judgement::Bad),
        None => {
            let failure = format!("token `{}` holds no key for HMAC", office.name(0));
            Err(Failure::new(Exit::CannotCreate, failure).hint("--token names the one that sealed"))
        }
    }
}

/// Chains of which no checkpoint was signed by a key that was given.
fn unsigned(report: &Report, is_judged: bool) -> impl Iterator<Item = &Summary> {
    report.chains.iter().filter(move |chain| is_judged && chain.signed.is_none())
}

fn verdict(report: &Report, is_judged: bool) -> Result<(), Failure> {
    let mut errors = Vec::new();
    if report.chains.is_empty() {
        errors.push("there are no records".to_owned());
    }
    match report.findings.len() {
        0 => {}
        1 => errors.push("1 place is not as it was written".to_owned()),
        number => errors.push(format!("{number} places are not as they were written")),
    }
    for head in &report.missing {
        let seq = head.seq;
        errors.push(format!(
            "there is no record {seq} with the hash that was kept: the log was cut, set back or rewritten"
        ));
    }
    for chain in unsigned(report, is_judged) {
        errors.push(format!("no checkpoint of chain {} is signed by this key", chain.chain));
    }
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Ok(()) };
    Err(errors.fold(Failure::new(Exit::Difference, first), Failure::and))
}

fn in_text(report: &Report, is_judged: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text += &format!("{}:{}: {}\n", finding.file, finding.line, finding.problem);
    }
    for chain in &report.chains {
        let Summary { chain: id, first, head, records, checkpoints, signed } = chain;
        text += &format!("chain {id}: {records} records, {first} to {}\n", head.seq);
        if *first > 1 {
            text += &format!("  records before {first} were not given\n");
        }
        text += &match (signed, is_judged) {
            (Some(signed), _) => {
                let rest = head.seq.saturating_sub(signed.seq);
                format!("  signed up to record {}; {rest} after it are not\n", signed.seq)
            }
            (None, true) => "  nothing is signed\n".to_owned(),
            (None, false) => {
                format!("  {checkpoints} checkpoints, not judged without --public-key\n")
            }
        };
        text += &format!("  head {head}\n");
    }
    text
}

fn in_json(report: &Report, is_judged: bool) -> Value {
    let findings = report.findings.iter().map(|finding| {
        json!({
            "file": finding.file,
            "line": finding.line,
            "problem": finding.problem.to_string(),
        })
    });
    let chains = report.chains.iter().map(|chain| {
        json!({
            "chain": chain.chain.to_string(),
            "first": chain.first,
            "last": chain.head.seq,
            "records": chain.records,
            "head": chain.head.to_string(),
            "checkpoints": chain.checkpoints,
            "signed": chain.signed.map(|head| head.to_string()),
        })
    });
    json!({
        "good": verdict(report, is_judged).is_ok(),
        "judged": is_judged,
        "findings": findings.collect::<Vec<_>>(),
        "chains": chains.collect::<Vec<_>>(),
        "missing_heads": report.missing.iter().map(Head::to_string).collect::<Vec<_>>(),
    })
}
