//! Bits flipped in what C_Encrypt gives: whether anything is answered that cannot be decrypted.

use support::load::{Load, Operation};

use crate::figures::Row;
use crate::world::{Isolation, Scale, World};

/// What is asked of a key store, and how it is set.
struct Case {
    verify_writes: &'static str,
    mix: &'static [Operation],
    what: &'static str,
}

const CDIV: Case = Case {
    verify_writes: "when_asked",
    mix: &[Operation::EncryptCdiv],
    what: "a CDIV asked for each time",
};

const ALWAYS: Case = Case {
    verify_writes: "always",
    mix: &[Operation::Encrypt],
    what: "no CDIV, verify_writes = \"always\"",
};

const UNASKED: Case = Case {
    verify_writes: "when_asked",
    mix: &[Operation::Encrypt],
    what: "no CDIV, verify_writes = \"when_asked\"",
};

/// Encrypts with bits flipped in a share of the calls; gives the row and how many were lost.
fn flipped(scale: Scale, case: &Case) -> (Row, usize) {
    let environment = [("XKSD_KEYSTORES__DEMO__VERIFY_WRITES", case.verify_writes)];
    let world = World::with(scale, Isolation::Process, &[], &environment);
    let share = scale.pick("10%", "1%");
    world.script(&format!("C_Encrypt share {share} flip\n"));
    let load = Load { mix: case.mix, ..world.load() };
    let report = load.send(&world.vault, scale.pick(150, 5000));
    assert_eq!(report.wrong(), [""; 0]);
    world.script("");
    world.wait_recovered();
    let proof = world.vault.prove(&world.kms);
    let what = format!("{share} of C_Encrypt with a bit flipped: {}", case.what);
    (Row::new(&what, &report, &proof), proof.lost.len())
}

/// What is checked is never lost.
pub(crate) fn checked(scale: Scale) -> Vec<Row> {
    let rows = [CDIV, ALWAYS].map(|case| {
        let (row, lost) = flipped(scale, &case);
        assert_eq!(lost, 0, "{row}");
        row
    });
    rows.into()
}

/// What nobody checks is lost: this is what `verify_writes` is about.
pub(crate) fn unchecked(scale: Scale) -> Row {
    let (row, lost) = flipped(scale, &UNASKED);
    assert!(lost > 0, "the shim flips bits: {row}");
    row.remark("what is lost is what was flipped: nobody asked for a check")
}

/// A key that may not decrypt can't be checked: it encrypts, and that is counted.
pub(crate) fn uncheckable(scale: Scale) -> Row {
    let environment = [("XKSD_KEYSTORES__DEMO__VERIFY_WRITES", "always")];
    let mut world = World::with(scale, Isolation::Process, &[], &environment);
    world.daemon.site.create_key("demo-encrypt-only", "encrypt");
    let keys = vec!["demo-encrypt-only".to_owned()];
    let vault = support::load::Vault::new();
    let load = Load { mix: &[Operation::Encrypt], keys, ..world.load() };
    let report = load.send(&vault, scale.pick(50, 1000));
    let served = report.records.len() - report.failed().values().sum::<usize>();
    assert_eq!(vault.len(), served);
    let sample = "xksd_write_checks_skipped_total{token=\"softhsm\"}";
    world.daemon.wait_for_metric(sample, served as f64);
    let row = world.finish("a key without CKA_DECRYPT, verify_writes = \"always\"", &report);
    row.remark(format!("{served} counted as unchecked"))
}

#[test]
fn what_is_checked_can_be_decrypted() {
    checked(Scale::Short);
}

#[test]
fn what_nobody_checks_is_as_good_as_the_token() {
    unchecked(Scale::Short);
}

#[test]
fn what_cannot_be_checked_is_counted() {
    uncheckable(Scale::Short);
}
