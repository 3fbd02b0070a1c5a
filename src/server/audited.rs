//! Requests and the audit log (P-81): room for a record before a request is served, the record when it
//! ends.

use std::sync::Arc;

use super::pipeline::Head;
use super::record::Record;
use super::rescue::{Failure, Rescued};
use crate::audit::log::{Log, Seat};
use crate::audit::record::Request;
use crate::clock::Deadline;
use crate::keystore::Keystore;
use crate::names::{AccessKeyId, ExternalKeyId, KeystoreName, Region};
use crate::operations::Part;
use crate::sigv4::Verified;
use crate::wire::response::ResponseBody;
use crate::wire::route::Route;

/// Leaves records of requests, where there is an audit log.
#[derive(Debug, Default)]
pub struct Auditor {
    log: Option<Log>,
}

/// A request whose caller is known, and for whose record there is room.
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    seat: Seat,
    /// When whoever sent it has to have the answer.
    deadline: Deadline,
    client_subject: Option<Arc<str>>,
    operation: &'static str,
    keystore: KeystoreName,
    key: Option<ExternalKeyId>,
    access_key_id: AccessKeyId,
    region: Region,
}

impl Auditor {
    /// Records in this log.
    pub fn new(log: Option<Log>) -> Self {
        Self { log }
    }

    /// Makes room for the record of an authenticated request.
    pub(super) fn admit(
        &self,
        head: &Head,
        keystore: &Keystore,
        caller: &Verified,
        (route, deadline): (&Route, Deadline),
    ) -> Result<Option<Admitted>, Failure> {
        let Some(log) = &self.log else { return Ok(None) };
        Ok(Some(Admitted {
            seat: log.admit()?,
            deadline,
            client_subject: head.client_subject.clone(),
            operation: route.operation().name(),
            keystore: keystore.name().clone(),
            key: route.key().cloned(),
            access_key_id: caller.access_key_id().clone(),
            region: caller.region().clone(),
        }))
    }

    /// Counts a request whose caller was not authenticated.
    pub(super) fn refused(&self, keystore: &KeystoreName, reason: &'static str) {
        if let Some(log) = &self.log {
            log.refused(keystore, reason);
        }
    }

    /// Records how a request ended. Where answers wait for their records, this waits, and what could
    /// not be recorded is not answered.
    pub(super) async fn record(
        &self,
        record: &mut Record,
        result: Result<ResponseBody, Failure>,
    ) -> Result<ResponseBody, Rescued> {
        let result = result.map_err(Rescued::from);
        let Some(admitted) = record.admitted.take() else { return result };
        let outcome = result.as_ref().map_or_else(|error| error.body.name().as_str(), |_| "OK");
        let receipt = admitted.seat.keep(Request {
            operation: admitted.operation,
            keystore: &admitted.keystore,
            key: admitted.key.as_ref(),
            version: record.trace.version,
            metadata: &record.metadata,
            access_key_id: &admitted.access_key_id,
            region: &admitted.region,
            peer: record.peer(),
            client_subject: admitted.client_subject.as_deref(),
            decision: &record.verdict,
            outcome,
            token: record.trace.token.as_ref(),
            attempts: record.trace.attempts,
            queued: record.trace.time(Part::Queue).unwrap_or_default(),
            hsm: record.trace.time(Part::Hsm).unwrap_or_default(),
            total: record.took(),
        });
        let Some(receipt) = receipt else { return result };
        match receipt.wait(admitted.deadline).await {
            Ok(()) => result,
            Err(why) => Err(Failure::Unrecorded(why).into()),
        }
    }
}
