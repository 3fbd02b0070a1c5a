//! What a decision is made from.

use std::time::SystemTime;

use crate::names::{AccessKeyId, ExternalKeyId, KeystoreName, Region};
use crate::wire::metadata::RequestMetadata;
use crate::wire::route::KeyOperation;

/// All that is known of one request for a key. Whoever signed it has said it: it is KMS's word.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What is asked.
    pub operation: KeyOperation,
    /// Of which key store.
    pub keystore: &'a KeystoreName,
    /// For which key.
    pub key: &'a ExternalKeyId,
    /// What KMS says of the request's origin.
    pub metadata: &'a RequestMetadata,
    /// Whose secret signed.
    pub access_key_id: &'a AccessKeyId,
    /// For which Region.
    pub region: &'a Region,
    /// Subject of the client's certificate, where one was asked for.
    pub client_subject: Option<&'a str>,
    /// The time now.
    pub time: SystemTime,
}
