//! The last question before a [`Permit`]: what the policies of the key store say (P-80).

use std::time::SystemTime;

use super::{KeyRule, Keystore, Permit, Refused};
use crate::limits::Admission;
use crate::names::ExternalKeyId;
use crate::policy::{Allowed, Decision, Denial, Facts};
use crate::sigv4::Verified;
use crate::wire::metadata::RequestMetadata;
use crate::wire::route::KeyOperation;

/// What a request asks of a key, and where it says to come from.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is to be done with the key.
    pub operation: KeyOperation,
    /// What KMS says of the request's origin.
    pub metadata: &'a RequestMetadata,
    /// Subject of the client's certificate, where one was asked for (P-16).
    pub client_subject: Option<&'a str>,
    /// The time now.
    pub time: SystemTime,
}

/// A request that was put to the policies of its key store.
#[derive(Debug)]
#[must_use]
pub struct Judged<'a> {
    rule: &'a KeyRule,
    decision: Option<Decision>,
    permit: Result<Permit<'a>, Denial>,
}

impl<'a> Judged<'a> {
    /// The key rule that allows the external key id.
    pub fn rule(&self) -> &'a KeyRule {
        self.rule
    }

    /// What the policies said, for the record; `None` where the key store has none.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// The permit, if they let the request pass.
    pub fn into_permit(self) -> Result<Permit<'a>, Denial> {
        self.permit
    }
}

impl Keystore {
    /// Judges whether a verified caller, whose request was admitted, may ask this of an external key:
    /// by the key rules first, and then by the policies. No key was looked for until then.
    ///
    /// # Errors
    /// What the key store refuses whatever its policies say.
    pub fn judge<'a>(
        &'a self,
        caller: &Verified,
        _admission: &Admission,
        id: &'a ExternalKeyId,
        asked: &Asked<'_>,
    ) -> Result<Judged<'a>, Refused> {
        self.open(caller)?;
        let mut rules = self.settings.keys.iter();
        let rule = rules.find(|rule| rule.allows(id)).ok_or(Refused::KeyNotAllowed)?;
        let Asked { operation, metadata, client_subject, time } = *asked;
        let facts = Facts {
            operation,
            keystore: &self.settings.name,
            key: id,
            metadata,
            access_key_id: caller.access_key_id(),
            region: caller.region(),
            client_subject,
            time,
        };
        let (decision, verdict) = self.settings.authorization.judge(&facts);
        let permit = verdict.map(|allowed| self.permit(id, allowed));
        Ok(Judged { rule, decision, permit })
    }

    fn permit<'a>(&'a self, id: &'a ExternalKeyId, allowed: Allowed) -> Permit<'a> {
        let (keystore, requests) = (&self.settings, &self.requests_by_key);
        Permit { id, keystore, requests, _allowed: allowed }
    }
}
