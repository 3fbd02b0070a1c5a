//! A record of the audit log: drafted by the request, numbered and hashed by the log.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use xksd::audit::chain::{Chain, ChainId};
use xksd::audit::record::{Decision, Draft, Request};
use xksd::names::KeyVersion;
use xksd::wire::metadata::RequestMetadata;
use xksd::wire::route::KeyOperation;

use crate::timing::compare;
use crate::wire::metadata;

/// The floor is the SHA-256 of a record as long and the copy of it to where there is room.
pub(crate) fn measure() {
    let said = serde_json::value::to_raw_value(&metadata("GenerateDataKey")).expect("it is JSON");
    let said = RequestMetadata::parse(&said, KeyOperation::Encrypt.operation());
    let said = said.expect("it is a request's");
    let keystore = "demo".parse().expect("it is a name");
    let key = "demo-key".parse().expect("it is a key's id");
    let access_key_id = "ABCDEFGHIJKLMNOPQRST".parse().expect("it is an access key id");
    let region = "us-east-1".parse().expect("it is a Region");
    let token = "hsm".parse().expect("it is a name");
    let decision = Decision::Allowed(vec!["payments.writers".to_owned()]);
    let draft = || {
        Draft::from(Request {
            operation: "Encrypt",
            keystore: &keystore,
            key: Some(&key),
            version: Some(KeyVersion::new(3)),
            metadata: &said,
            access_key_id: &access_key_id,
            region: &region,
            peer: ([10, 0, 0, 1], 41234).into(),
            client_subject: None,
            decision: &decision,
            outcome: "OK",
            token: Some(&token),
            attempts: 1,
            queued: Duration::from_micros(17),
            hsm: Duration::from_micros(2042),
            total: Duration::from_micros(2317),
        })
    };
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_772_447_400);
    let mut chain = Chain::begin(ChainId::new([7; 16]));
    let line = chain.append(time, draft()).into_bytes();
    let mut room = line.clone();
    let floor = || {
        room.copy_from_slice(black_box(&line));
        digest(&SHA256, black_box(&room))
    };
    let name = format!("audit: record of {} bytes", line.len());
    compare(&name, || chain.append(time, draft()), floor);
}
