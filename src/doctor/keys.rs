//! The keys of a token, against what the key stores want of it.

use std::sync::Arc;

use crate::catalogue::{Catalogue, Reader};
use crate::hsm::backend::{Administration, Session};
use crate::hsm::key::{Key, KeyFault, KeyKind, Version};
use crate::keystore::KeyRule;
use crate::names::{ExternalKeyId, KeystoreName, TokenName};
use crate::wire::ciphertext_format::{AWS_SAMPLE, Formats};
use crate::wire::ciphertext_metadata::CiphertextMetadata;

use super::{Check, Findings};

/// What a key store wants of the token.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) keystore: KeystoreName,
    /// Which keys it may reach.
    pub(super) rules: Vec<KeyRule>,
    /// What it encrypts them for.
    pub(super) formats: Formats,
}

/// What the key stores' rules find in the token.
const CHECK: Check = Check::KeystoreKeys;

pub(super) fn examine(
    token: &TokenName,
    wanted: &[Wanted],
    (session, officer): (&mut dyn Session, Option<&mut (dyn Administration + 'static)>),
    findings: &mut Findings<'_>,
) {
    let catalogue = match Reader::default().read(session) {
        Ok(catalogue) => catalogue,
        Err(fault) => {
            let advice = "the user may lack the right to see keys: look at the HSM's policy";
            return findings.fail(Check::TokenKeys, fault.to_string(), advice);
        }
    };
    findings.ok(Check::TokenKeys, format!("{} keys have an external key id", catalogue.len()));
    for Wanted { keystore, rules, formats } in wanted {
        for rule in rules {
            findings.subject = format!("keystores.{keystore}.keys");
            match rule {
                KeyRule::Exact(id) => named_key(token, &catalogue, (id, formats), findings),
                KeyRule::Prefix(prefix) => pattern(&catalogue, prefix, formats, findings),
            }
        }
    }
    if let Some(officer) = officer {
        let all = catalogue.iter().filter(|(id, _)| {
            wanted.iter().flat_map(|wanted| &wanted.rules).any(|rule| rule.allows(id))
        });
        protection(all, officer, findings);
    }
    findings.subject = format!("tokens.{token}");
}

/// Whether keys can leave the token.
fn protection<'a>(
    keys: impl Iterator<Item = (&'a ExternalKeyId, &'a Result<Arc<Key>, KeyFault>)>,
    officer: &mut dyn Administration,
    findings: &mut Findings<'_>,
) {
    const CHECK: Check = Check::KeystoreProtection;
    let (mut good, mut all) = (0_usize, 0_usize);
    for (id, key) in keys {
        for version in key.as_ref().map_or(&[][..], |key| key.versions()) {
            // Destroyed by somebody meanwhile, or a token that does not tell.
            let Ok(protection) = officer.read_protection(version.at) else { continue };
            all += 1;
            if protection.sensitive == Some(false) && protection.extractable != Some(false) {
                let advice = "whoever has the PIN can copy it: make a key in the HSM by `xksd keys \
                    create`, and have KMS use that";
                let message = format!("`{id}` can be read in the clear: CKA_SENSITIVE is false");
                findings.fail(CHECK, message, advice);
            } else if protection.extractable == Some(true)
                && protection.wrap_with_trusted != Some(true)
            {
                let advice = "whoever has the PIN can take it out under a key of their own; keys made \
                    by `xksd keys create` never leave, or under trusted keys only";
                let message =
                    format!("`{id}` can be wrapped under any key: CKA_EXTRACTABLE is true");
                findings.warn(CHECK, message, advice);
            } else {
                good += 1;
            }
        }
    }
    findings
        .ok(CHECK, format!("{good} of {all} versions of keys cannot leave the token unprotected"));
}

fn named_key(
    token: &TokenName,
    catalogue: &Catalogue,
    (id, formats): (&ExternalKeyId, &Formats),
    findings: &mut Findings<'_>,
) {
    match catalogue.find(id) {
        None => {
            let advice = format!("`xksd keys create {id} --token {token}` makes it");
            findings.fail(CHECK, format!("the token has no key `{id}`"), advice);
        }
        Some(key) => {
            if judge(id, key.as_deref(), formats, findings) {
                findings.ok(CHECK, format!("`{id}` encrypts and decrypts"));
            }
        }
    }
}

fn pattern(catalogue: &Catalogue, prefix: &str, formats: &Formats, findings: &mut Findings<'_>) {
    let fits = |id: &ExternalKeyId| id.as_str().starts_with(prefix);
    let fitting: Vec<_> = catalogue.iter().filter(|(id, _)| fits(id)).collect();
    if fitting.is_empty() {
        let message = format!("the token has no key that fits `{prefix}*`");
        findings.warn(CHECK, message, "make one by `xksd keys create`, or drop the rule");
        return;
    }
    let mut good = 0;
    for (id, key) in &fitting {
        good += usize::from(judge(id, key.as_deref(), formats, findings));
    }
    let all = fitting.len();
    findings.ok(CHECK, format!("{good} of {all} keys of `{prefix}*` encrypt and decrypt"));
}

/// Reports what is wrong with a key; `true` if nothing is.
fn judge(
    id: &ExternalKeyId,
    key: Result<&Key, &KeyFault>,
    formats: &Formats,
    findings: &mut Findings<'_>,
) -> bool {
    let key = match key {
        Ok(key) => key,
        Err(fault) => {
            let advice = "only one object may bear the label, or objects that xksd made: relabel \
                or destroy the others by the vendor's own tool";
            findings.fail(CHECK, format!("`{id}`: {fault}"), advice);
            return false;
        }
    };
    let newest = key.newest();
    if !newest.kind.is_aes_256() {
        let kind = match &newest.kind {
            KeyKind::Aes { bits } => format!("AES of {bits} bits"),
            KeyKind::Other(name) => name.clone(),
        };
        let advice = "KMS takes only AES keys of 256 bits: make another key";
        findings.fail(CHECK, format!("`{id}` is {kind}"), advice);
        return false;
    }
    if !key.is_enabled() {
        let status = newest.status.as_str();
        let advice = "KMS gets InvalidStateException until it is enabled again";
        findings.warn(CHECK, format!("`{id}` is {status}"), advice);
        return false;
    }
    let missing = match (newest.usage.encrypt, newest.usage.decrypt) {
        (true, true) => {
            let Version { version, object_id, .. } = *newest;
            if formats.to_write(CiphertextMetadata { version, object_id }).is_some() {
                return true;
            }
            let advice = "KMS gets InvalidStateException for Encrypt: the sample proxy knows no \
                versions; leave `encrypt_as` out, or use a key that xksd did not make";
            let message = format!("`{id}` has versions, and `encrypt_as` is \"{AWS_SAMPLE}\"");
            findings.fail(CHECK, message, advice);
            return false;
        }
        (true, false) => "CKA_DECRYPT",
        (false, true) => "CKA_ENCRYPT",
        (false, false) => "CKA_ENCRYPT and CKA_DECRYPT",
    };
    let advice = "KMS wants both of a key that it creates; a key for one direction only may be \
        meant so";
    findings.warn(CHECK, format!("`{id}` is without {missing}"), advice);
    false
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Status};
    use super::*;
    use crate::hsm::backend::ObjectHandle;
    use crate::hsm::key::Usage;
    use crate::hsm::state::VersionStatus;
    use crate::names::{KeyVersion, ObjectId};
    use crate::wire::ciphertext_format::{SampleConstants, SampleMetadata};

    fn judged(
        (kind, status, usage): (KeyKind, VersionStatus, Usage),
        made_by: CiphertextMetadata,
        formats: &Formats,
    ) -> Option<Finding> {
        let version = Version {
            at: ObjectHandle { generation: 1, number: 1 },
            version: made_by.version,
            object_id: made_by.object_id,
            status,
            epoch: 1,
            created: None,
            kind,
            usage,
            check_value: None,
        };
        let id: ExternalKeyId = "k".parse().unwrap();
        let key = Key::new(id.clone(), vec![version]).unwrap();
        let mut found = Vec::new();
        let mut report = |finding| found.push(finding);
        let mut findings = Findings { subject: String::new(), report: &mut report };
        let is_good = judge(&id, Ok(&key), formats, &mut findings);
        assert_eq!(is_good, found.is_empty());
        found.pop()
    }

    const OURS: CiphertextMetadata =
        CiphertextMetadata { version: KeyVersion::FIRST, object_id: ObjectId::new([1; 8]) };
    const BOTH: Usage = Usage {
        encrypt: true,
        decrypt: true,
        sign: false,
        verify: false,
        wrap: false,
        unwrap: false,
        derive: false,
    };

    #[test]
    fn a_key_with_versions_is_not_for_the_sample_proxy() {
        let constants = SampleConstants { now: SampleMetadata::ABSENT, before: vec![] };
        let write = Formats::WriteAwsSample(constants.clone());
        let key = || (KeyKind::Aes { bits: 256 }, VersionStatus::Enabled, BOTH);
        assert_eq!(judged(key(), CiphertextMetadata::FOREIGN, &write), None);
        assert_eq!(judged(key(), OURS, &Formats::ReadAwsSample(constants)), None);
        let finding = judged(key(), OURS, &write).unwrap();
        assert_eq!(finding.status, Status::Fail);
        assert!(finding.message.contains("has versions"), "{}", finding.message);
    }

    #[test]
    fn keys_that_kms_would_refuse_fail_and_others_warn() {
        let aes = |bits| KeyKind::Aes { bits };
        let both = BOTH;
        let one = Usage { decrypt: false, ..both };
        let judged = |kind, status, usage| judged((kind, status, usage), OURS, &Formats::Own);
        let enabled = VersionStatus::Enabled;
        assert_eq!(judged(aes(256), enabled, both), None);
        for (kind, status, usage, expected, words) in [
            (aes(128), enabled, both, Status::Fail, "AES of 128 bits"),
            (KeyKind::Other("RSA_2048".into()), enabled, both, Status::Fail, "is RSA_2048"),
            (aes(256), VersionStatus::Disabled, both, Status::Warn, "is disabled"),
            (aes(256), enabled, one, Status::Warn, "without CKA_DECRYPT"),
            (aes(256), enabled, Usage::default(), Status::Warn, "CKA_ENCRYPT and CKA_DECRYPT"),
        ] {
            let finding = judged(kind, status, usage).unwrap();
            assert_eq!(finding.status, expected);
            assert!(finding.message.contains(words), "{}", finding.message);
        }
    }

    #[test]
    fn an_ambiguous_key_fails() {
        let mut found = Vec::new();
        let mut report = |finding: Finding| found.push(finding.status);
        let mut findings = Findings { subject: String::new(), report: &mut report };
        let id = "k".parse().unwrap();
        assert!(!judge(&id, Err(&KeyFault::Ambiguous), &Formats::Own, &mut findings));
        assert_eq!(found, [Status::Fail]);
    }
}
