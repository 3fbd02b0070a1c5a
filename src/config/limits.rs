//! The section `state`, and what needs it: `keystores.NAME.encryption_limit` and `.rotation`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use super::parse::{alternatives, duration_within, filled, number_within};
use super::reader::{Section, Shape};
use super::report::Wrong;
use crate::counts::limit::{AtLimit, EncryptionLimit, MOST};
use crate::keystore::Rotation;
use crate::wire::ciphertext_format::{AWS_SAMPLE, Formats};

/// Set by systemd to the directories that `StateDirectory=` of the unit names.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Reads `[state]`: where the daemon keeps what it has to remember, if anywhere.
pub(super) fn state_directory(root: &mut Section<'_>) -> Option<Option<PathBuf>> {
    let mut section = root.section("state");
    let report = section.report;
    let path = |text: &str| Ok(report.path(&filled(text)?));
    let configured = section.optional("directory", Shape::Text, path)?;
    let systemd = || {
        let directories = report.environment.get(STATE_DIRECTORY)?;
        directories.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
    };
    Some(configured.or_else(systemd))
}

/// Reads `encryption_limit` of a key store.
pub(super) fn encryption_limit(
    keystore: &mut Section<'_>,
    has_state: bool,
) -> Option<EncryptionLimit> {
    let mut section = keystore.section("encryption_limit");
    for key in ["warn_percent", "at_limit"] {
        if section.has(key) && !has_state {
            section.fault(key, None, wants_state());
        }
    }
    let percent = number_within(1..=100_u8);
    let warn_percent = section.or("warn_percent", "80", Shape::Number, percent);
    let at_limit = section.or("at_limit", "warn", Shape::Text, |text| match text {
        "warn" => Ok(AtLimit::Warn),
        "refuse" => Ok(AtLimit::Refuse),
        _ => Err(format!("must be {}", alternatives(&["warn", "refuse"])).into()),
    });
    Some(EncryptionLimit { warn_percent: warn_percent?, at_limit: at_limit? })
}

/// Reads `rotation` of a key store.
pub(super) fn rotation(
    keystore: &mut Section<'_>,
    formats: Option<&Formats>,
    has_state: bool,
) -> Option<Rotation> {
    let mut section = keystore.section("rotation");
    let every = section.optional("every", Shape::Text, |text| {
        duration_within("1d", "3650d")(text)
            .map_err(|wrong| wrong.hint("the date of a key's creation is all that is known: days"))
    });
    let most = NonZeroU64::new(MOST).expect("it is not zero");
    let before = section.optional("before", Shape::Number, number_within(NonZeroU64::MIN..=most));
    if before.flatten().is_some() && !has_state {
        section.fault("before", None, wants_state());
    }
    let rotation = Rotation { every: every?, before: before? };
    if rotation.is_on() && matches!(formats, Some(Formats::WriteAwsSample(_))) {
        let wrong = Wrong::from(format!("cannot stand beside encrypt_as = \"{AWS_SAMPLE}\""));
        let hint = "that format cannot say which version of a key made a ciphertext";
        keystore.fault("rotation", None, wrong.hint(hint));
        return None;
    }
    Some(rotation)
}

fn wants_state() -> Wrong {
    Wrong::from("needs a directory where encryptions are counted, and there is none")
        .hint("directory = \"/var/lib/xksd\" in [state]; systemd's StateDirectory= is seen by the daemon only")
}
