use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use proptest::prelude::*;

use super::super::chain::Chain;
use super::super::checkpoint::{PublicKey, Statement, der_signature};
use super::super::record::{Event, Refused};
use super::*;
use crate::hsm::backend::Signing;

/// An HSM with an audit key.
struct Hsm(EcdsaKeyPair);

impl Hsm {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn checkpoint(&self, chain: &Chain) -> Event {
        let time = SystemTime::UNIX_EPOCH;
        let statement = Statement::new(chain.id(), chain.head(), time, "host");
        let raw = self.0.sign(&SystemRandom::new(), statement.text().as_bytes()).unwrap();
        let signature = der_signature(raw.as_ref().try_into().unwrap());
        let algorithm = Signing::EcdsaP256;
        Event::Checkpoint(Box::new(Sealed { statement, token: "hsm".into(), algorithm, signature }))
    }

    fn judge(&self) -> impl FnMut(&Sealed) -> Judgement {
        let key = PublicKey::from_point(self.0.public_key().as_ref()).unwrap();
        move |sealed| {
            let text = sealed.statement.text();
            if key.verifies(text.as_bytes(), &sealed.signature) {
                Judgement::Good
            } else {
                Judgement::Bad
            }
        }
    }
}

fn event(number: u64) -> Event {
    Event::Refused(Refused {
        keystore: "demo".parse().unwrap(),
        reason: "signature",
        count: number,
        from: SystemTime::UNIX_EPOCH,
    })
}

/// A log of so many records, each `every`th of them a checkpoint of the one before.
fn log(hsm: &Hsm, records: u64, every: u64, id: u8) -> Vec<String> {
    let mut chain = Chain::begin(ChainId::new([id; 16]));
    let line = |number: u64| {
        let event =
            if number.is_multiple_of(every) { hsm.checkpoint(&chain) } else { event(number) };
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(number);
        chain.append(time, &event)
    };
    (1..=records).map(line).collect()
}

fn joined(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

fn verify_files(hsm: &Hsm, files: &[Vec<u8>], expect: &[Head]) -> Report {
    let mut verifier = Verifier::new(hsm.judge(), expect);
    for (number, file) in files.iter().enumerate() {
        verifier.file(&format!("file-{number}"));
        file.split_inclusive(|byte| *byte == b'\n').for_each(|line| verifier.line(line));
    }
    verifier.finish()
}

fn verify(hsm: &Hsm, log: &[u8]) -> Report {
    verify_files(hsm, &[log.to_vec()], &[])
}

fn head(lines: &[String], seq: usize) -> Head {
    Head { seq: seq as u64, hash: Hash::of(lines[seq - 1].as_bytes()) }
}

/// Whether a report says that all records to the last checkpoint are as they were.
fn is_good(report: &Report, signed: u64) -> bool {
    report.findings.is_empty()
        && report.chains.iter().all(|chain| chain.signed.map(|head| head.seq) == Some(signed))
}

#[test]
fn a_good_log_is_good() {
    let hsm = Hsm::new();
    let lines = log(&hsm, 30, 10, 1);
    let report = verify(&hsm, &joined(&lines));
    assert_eq!(report.findings, []);
    let summary = Summary {
        chain: ChainId::new([1; 16]),
        first: 1,
        head: head(&lines, 30),
        records: 30,
        checkpoints: 3,
        signed: Some(head(&lines, 29)),
    };
    assert_eq!(report.chains, [summary]);
    assert_eq!(report.missing, []);
}

#[test]
fn every_bit_that_is_flipped_is_found() {
    let hsm = Hsm::new();
    let lines = log(&hsm, 8, 4, 1);
    let good = joined(&lines);
    // The last record is the checkpoint that covers all others, and is covered by its signature.
    assert!(is_good(&verify(&hsm, &good), 7));
    let unsigned = good.len() - lines[7].len() - 1;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let report = verify(&hsm, &bad);
            let missing = verify_files(&hsm, &[bad], &[head(&lines, 8)]).missing;
            // What a checkpoint's own record holds beside statement and signature (number, hash of the
            // one before, time, token) is covered by the next one, or by a head that is kept.
            let is_found = !is_good(&report, 7);
            assert!(is_found || at >= unsigned && !missing.is_empty(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn the_place_of_a_change_is_named() {
    let hsm = Hsm::new();
    let lines = log(&hsm, 30, 10, 1);
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        verify(&hsm, &joined(&lines)).findings
    };
    let finding = |line, problem| Finding { file: "file-0".to_owned(), line, problem };
    let edited = changed(&|lines| lines[11] = lines[11].replace("\"count\":12", "\"count\":13"));
    assert_eq!(edited, [finding(12, Problem::Changed { seq: 12 })]);
    let removed = changed(&|lines| drop(lines.remove(11)));
    assert_eq!(removed, [finding(12, Problem::Missing { from: 12, to: 12 })]);
    let several = changed(&|lines| drop(lines.drain(11..14)));
    assert_eq!(several, [finding(12, Problem::Missing { from: 12, to: 14 })]);
    let doubled = changed(&|lines| lines.insert(11, lines[11].clone()));
    assert_eq!(doubled, [finding(13, Problem::OutOfOrder { seq: 12, expected: 13 })]);
    let swapped = changed(&|lines| lines.swap(11, 12));
    let [missing, order] = [
        finding(12, Problem::Missing { from: 12, to: 12 }),
        finding(13, Problem::OutOfOrder { seq: 12, expected: 14 }),
    ];
    assert_eq!(swapped, [missing, order]);
    let garbled = changed(&|lines| lines[11].insert(0, ' '));
    assert_eq!(garbled, [finding(12, Problem::NoRecord)]);
    let put_in = changed(&|lines| lines.insert(11, "{}".to_owned()));
    assert_eq!(put_in, [finding(12, Problem::NoRecord)]);
    let other = log(&hsm, 1, 10, 2);
    let foreign = changed(&|lines| lines.insert(11, other[0].clone()));
    assert_eq!(foreign, [finding(12, Problem::OtherChain)]);
}

#[test]
fn a_log_that_was_rewritten_without_the_key_is_found() {
    let (hsm, forger) = (Hsm::new(), Hsm::new());
    let lines = log(&hsm, 30, 10, 1);
    // From scratch, with a key of the forger's.
    let forged = verify(&hsm, &joined(&log(&forger, 30, 10, 1)));
    let is_signature = |finding: &Finding| matches!(finding.problem, Problem::BadSignature { .. });
    assert!(forged.findings.iter().all(is_signature));
    assert_eq!((forged.findings.len(), forged.chains[0].signed), (3, None));
    // With the true checkpoints over other records.
    let mut chain = Chain::begin(ChainId::new([1; 16]));
    let rewrite = |(number, line): (usize, &String)| {
        let event = match Sealed::read(line) {
            Some(sealed) => Event::Checkpoint(Box::new(sealed)),
            None => event(number as u64 + 100),
        };
        chain.append(SystemTime::UNIX_EPOCH, &event)
    };
    let rewritten: Vec<_> = lines.iter().enumerate().map(rewrite).collect();
    let report = verify(&hsm, &joined(&rewritten));
    let problems: Vec<_> = report.findings.into_iter().map(|finding| finding.problem).collect();
    assert_eq!(problems, [9, 19, 29].map(|seq| Problem::Rewritten { head: head(&lines, seq) }));
    assert_eq!(report.chains[0].signed, None);
    // Without any checkpoint: nothing is signed.
    let bare = verify(&hsm, &joined(&log(&hsm, 9, 10, 1)));
    assert_eq!((bare.findings, bare.chains[0].signed), (Vec::new(), None));
}

#[test]
fn a_log_that_was_cut_is_found_by_a_head_that_was_kept() {
    let hsm = Hsm::new();
    let lines = log(&hsm, 30, 10, 1);
    let kept = [head(&lines, 25), head(&lines, 10)];
    let missing = |lines: &[String]| verify_files(&hsm, &[joined(lines)], &kept).missing;
    assert_eq!(missing(&lines), []);
    assert_eq!(missing(&lines[..25]), []);
    assert_eq!(missing(&lines[..24]), kept[..1]);
    assert_eq!(missing(&log(&hsm, 30, 7, 1)), kept);
    assert_eq!(missing(&log(&hsm, 30, 10, 2)), kept);
}

#[test]
fn a_chain_goes_on_from_file_to_file() {
    let hsm = Hsm::new();
    let lines = log(&hsm, 40, 10, 1);
    let files = [&lines[..15], &lines[15..20], &lines[20..]].map(joined);
    assert!(is_good(&verify_files(&hsm, &files, &[]), 39));
    // A file is missing in the middle.
    let report = verify_files(&hsm, &[files[0].clone(), files[2].clone()], &[]);
    let problem = Problem::Missing { from: 16, to: 20 };
    assert_eq!(report.findings, [Finding { file: "file-1".to_owned(), line: 1, problem }]);
    // The oldest are not there: nothing is said of them, and the rest is good.
    let report = verify_files(&hsm, &files[1..], &[]);
    assert!(is_good(&report, 39));
    assert_eq!(report.chains[0].first, 16);
    // Two proxies' logs, one file after the other of each.
    let other = joined(&log(&hsm, 20, 10, 2));
    let report = verify_files(&hsm, &[files[0].clone(), other, files[1].clone()], &[]);
    assert_eq!(report.findings, []);
    assert_eq!(report.chains.len(), 2);
}

#[test]
fn a_torn_end_is_found() {
    let hsm = Hsm::new();
    let lines = log(&hsm, 10, 5, 1);
    let good = joined(&lines);
    let report = verify(&hsm, &good[..good.len() - 1]);
    let problems: Vec<_> = report.findings.into_iter().map(|finding| finding.problem).collect();
    assert_eq!(problems, [Problem::NoLineEnd]);
    let report = verify(&hsm, &good[..good.len() - 20]);
    let problems: Vec<_> = report.findings.into_iter().map(|finding| finding.problem).collect();
    assert_eq!(problems, [Problem::NoLineEnd, Problem::NoRecord]);
}

/// As many records as an auditor may be given, each kind of change once, anywhere.
#[test]
fn one_change_among_a_hundred_thousand_records_is_found() {
    const RECORDS: usize = 100_000;
    let hsm = Hsm::new();
    let mut lines = log(&hsm, RECORDS as u64, 10_000, 1);
    assert!(is_good(&verify(&hsm, &joined(&lines)), 99_999));
    let mut bytes = joined(&lines);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert_ne!(verify(&hsm, &bytes).findings, []);
    let first = lines.remove(67_890);
    let problem = Problem::Missing { from: 67_891, to: 67_891 };
    let finding = Finding { file: "file-0".to_owned(), line: 67_891, problem };
    assert_eq!(verify(&hsm, &joined(&lines)).findings, [finding]);
    lines.insert(67_890, first);
    lines.swap(12_345, 98_765);
    assert_ne!(verify(&hsm, &joined(&lines)).findings, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_removed_swapped_doubled_or_put_in_is_found(
        a in 0_usize..29,
        b in 0_usize..29,
        kind in 0..4,
    ) {
        let hsm = Hsm::new();
        let good = log(&hsm, 30, 10, 1);
        let mut lines = good.clone();
        match kind {
            0 => drop(lines.remove(a)),
            1 => lines.swap(a, b),
            2 => lines.insert(b, lines[a].clone()),
            _ => lines.insert(b, log(&hsm, 30, 7, 1)[a].clone()),
        }
        let is_same = lines == good;
        let report = verify_files(&hsm, &[joined(&lines)], &[head(&good, 30)]);
        // The oldest records may have been archived; that the log does not begin with the first is said.
        let is_whole = report.chains[0].first == 1 && report.chains[0].records == 30;
        prop_assert_eq!(is_good(&report, 29) && is_whole, is_same);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let report = verify(&Hsm::new(), &bytes);
        prop_assert_eq!(report.findings.is_empty(), bytes.is_empty());
    }
}
