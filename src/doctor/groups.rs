//! The keys of tokens that stand together: whether they are the same (docs/hsm.md).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Check, Findings, keys::Wanted};
use crate::config::Token;
use crate::hsm::pkcs11::{Library, Pkcs11Backend};
use crate::lifecycle::{Agreement, Office, Verified, verify};
use crate::metrics::Metrics;
use crate::names::{ExternalKeyId, TokenName};
use crate::secret::Secret;

/// Tokens that key stores name together, whose PINs were all accepted a moment ago.
pub(super) struct Group {
    backends: Vec<(TokenName, Pkcs11Backend)>,
    wanted: Vec<Wanted>,
}

impl Group {
    pub(super) fn new<'a>(
        tokens: impl Iterator<Item = (&'a TokenName, &'a Token)>,
        wanted: Vec<Wanted>,
    ) -> Self {
        let metrics = Metrics::new();
        let backend = |(name, token): (&TokenName, &Token)| {
            let library = Library::new(&token.module);
            let library = Arc::new(library.with_initialization(token.initialization.clone()));
            let pin = Secret::new(token.pin.expose().clone());
            let selector = token.selector.clone();
            let backend = Pkcs11Backend::new(library, selector, pin, metrics.token(name));
            (name.clone(), backend.with_profile(token.profile))
        };
        Self { backends: tokens.map(backend).collect(), wanted }
    }

    /// Compares every key that a key store may reach.
    pub(super) fn examine(&self, findings: &mut Findings<'_>) {
        const CHECK: Check = Check::GroupKeys;
        let sessions = self.backends.iter();
        let mut office =
            Office::new(sessions.map(|(name, backend)| (name.clone(), backend.administer())));
        let ids = self.ids(&mut office);
        let (mut same, mut is_good) = (0_usize, true);
        for id in &ids {
            let compared = office.survey(id).and_then(|survey| verify(&mut office, &survey));
            match compared {
                Ok(objects) => {
                    let bad = objects.iter().filter(|object| !object.agreement.is_good());
                    let bad: Vec<_> = bad.collect();
                    bad.iter().for_each(|object| differs(id, object, &office, findings));
                    same += usize::from(bad.is_empty());
                    is_good &= bad.is_empty();
                }
                Err(error) => {
                    let advice = "what is said of the token above may be why; `xksd keys verify` \
                        compares again";
                    findings.warn(CHECK, format!("`{id}` was not compared: {error}"), advice);
                    is_good = false;
                }
            }
        }
        if is_good {
            findings.ok(CHECK, format!("{same} keys are the same on {} tokens", office.len()));
        }
    }

    /// All ids that the key stores may reach and a token has.
    fn ids(&self, office: &mut Office) -> BTreeSet<ExternalKeyId> {
        let mut ids = BTreeSet::new();
        for token in office.reached() {
            // One that fails is in the office's list, and lacks everything.
            let Ok((surveys, _unread)) = office.keys(token) else { continue };
            ids.extend(surveys.into_iter().map(|survey| survey.id));
        }
        let is_wanted = |id: &ExternalKeyId| {
            self.wanted.iter().flat_map(|wanted| &wanted.rules).any(|rule| rule.allows(id))
        };
        ids.retain(is_wanted);
        ids
    }
}

fn differs(id: &ExternalKeyId, object: &Verified, office: &Office, findings: &mut Findings<'_>) {
    const CHECK: Check = Check::GroupKeys;
    let token = office.name(object.token);
    let version = object.version;
    let what = match object.agreement {
        Agreement::Missing => format!("`{token}` lacks it"),
        Agreement::Differs => format!("`{token}` has another key under this label"),
        Agreement::OtherAttributes => format!("`{token}` has it with another state or usage"),
        _ => format!("that of `{token}` cannot be compared"),
    };
    let message = format!("`{id}` version {version}: {what}");
    let replicate = format!("`xksd keys replicate {id}` copies what a token lacks");
    match object.agreement {
        Agreement::Differs => {
            let advice = format!(
                "half of what is encrypted could not be decrypted, so xksd will use one of the two only: \
                 find out which one made the ciphertexts, destroy the other by the vendor's tool, and \
                 copy; {replicate}"
            );
            findings.fail(CHECK, message, advice);
        }
        Agreement::Unproved => {
            let advice = "xksd does not use it there: permit encryption and decryption, or a token that \
                shows CKA_CHECK_VALUE";
            findings.warn(CHECK, message, advice);
        }
        _ => findings.warn(CHECK, message, format!("the token does not serve it: {replicate}")),
    }
}
