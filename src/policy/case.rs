//! What one decision is made from.

use std::borrow::Cow;

use time::OffsetDateTime;

use super::facts::Facts;
use super::reads::Reads;
use crate::names::{AccessKeyId, ExternalKeyId, KeystoreName, Region};
use crate::wire::other_members::OtherMembers;
use crate::wire::route::KeyOperation;

/// Of the facts of a request all that its policies can see, and nothing else.
///
/// INVARIANT: a question is made from a case alone, so that two equal cases are one question. That is
/// what lets a decision be remembered: the request's id, which no two requests share, is not in here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Case<'a> {
    pub(super) operation: KeyOperation,
    pub(super) keystore: Cow<'a, KeystoreName>,
    pub(super) key: Cow<'a, ExternalKeyId>,
    pub(super) access_key_id: Cow<'a, AccessKeyId>,
    pub(super) region: Cow<'a, Region>,
    pub(super) client_subject: Option<Cow<'a, str>>,
    pub(super) kms_operation: Cow<'a, str>,
    pub(super) principal_arn: Option<Cow<'a, str>>,
    pub(super) key_arn: Option<Cow<'a, str>>,
    pub(super) via_service: Option<Cow<'a, str>>,
    pub(super) source_vpc: Option<Cow<'a, str>>,
    pub(super) source_vpce: Option<Cow<'a, str>>,
    /// To the second; `None` where no policy looks at it.
    pub(super) time: Option<OffsetDateTime>,
    /// `None` where no policy looks at them.
    pub(super) others: Option<Cow<'a, OtherMembers>>,
}

impl<'a> Case<'a> {
    /// What policies that read this see of a request.
    pub(super) fn new(facts: &Facts<'a>, reads: Reads) -> Self {
        // A fact that is new does not compile before somebody has thought of it here.
        let Facts {
            operation,
            keystore,
            key,
            metadata,
            access_key_id,
            region,
            client_subject,
            time,
        } = *facts;
        let to_the_second = || {
            let time = OffsetDateTime::from(time);
            time.replace_nanosecond(0).unwrap_or(time)
        };
        Self {
            operation,
            keystore: Cow::Borrowed(keystore),
            key: Cow::Borrowed(key),
            access_key_id: Cow::Borrowed(access_key_id),
            region: Cow::Borrowed(region),
            client_subject: client_subject.map(Cow::Borrowed),
            kms_operation: metadata.kms_operation().into(),
            principal_arn: metadata.aws_principal_arn().map(Cow::Borrowed),
            key_arn: metadata.kms_key_arn().map(Cow::Borrowed),
            via_service: metadata.kms_via_service().map(Cow::Borrowed),
            source_vpc: metadata.aws_source_vpc().map(Cow::Borrowed),
            source_vpce: metadata.aws_source_vpce().map(Cow::Borrowed),
            time: reads.time.then(to_the_second),
            others: reads.others.then(|| Cow::Borrowed(metadata.others())),
        }
    }

    /// The same, to be kept.
    pub(super) fn into_owned(self) -> Case<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Case {
            operation: self.operation,
            keystore: Cow::Owned(self.keystore.into_owned()),
            key: Cow::Owned(self.key.into_owned()),
            access_key_id: Cow::Owned(self.access_key_id.into_owned()),
            region: Cow::Owned(self.region.into_owned()),
            client_subject: self.client_subject.map(own),
            kms_operation: own(self.kms_operation),
            principal_arn: self.principal_arn.map(own),
            key_arn: self.key_arn.map(own),
            via_service: self.via_service.map(own),
            source_vpc: self.source_vpc.map(own),
            source_vpce: self.source_vpce.map(own),
            time: self.time,
            others: self.others.map(|others| Cow::Owned(others.into_owned())),
        }
    }

    /// The bytes that keeping it takes, near enough.
    pub(super) fn weight(&self) -> usize {
        let texts = [
            Some(self.keystore.as_str()),
            Some(self.key.as_str()),
            Some(self.access_key_id.as_str()),
            Some(self.region.as_str()),
            self.client_subject.as_deref(),
            Some(&self.kms_operation),
            self.principal_arn.as_deref(),
            self.key_arn.as_deref(),
            self.via_service.as_deref(),
            self.source_vpc.as_deref(),
            self.source_vpce.as_deref(),
        ];
        let texts: usize = texts.into_iter().flatten().map(str::len).sum();
        let others = self.others.iter().flat_map(|others| others.iter());
        let others: usize = others.map(|(name, text)| 2 * MEMBER + name.len() + text.len()).sum();
        size_of::<Self>() + texts + others
    }
}

/// A text in a list: where it is and how long.
const MEMBER: usize = size_of::<Box<str>>();
