//! A case in Cedar's terms.

use cedar_policy::{Context, Entities, EntityUid, Request, RestrictedExpression as Value};
use time::OffsetDateTime;

use super::arn::{AccountId, KeyArn, Principal};
use super::case::Case;
use super::directory::Directory;
use super::vocabulary::{Described, Kind, Vocabulary, action_id, text};

/// What is known of entities, whoever asks.
#[derive(Debug)]
pub(super) struct World {
    pub(super) vocabulary: Vocabulary,
    pub(super) directory: Directory,
    /// Of the key store.
    pub(super) accounts: Vec<AccountId>,
}

/// What is put to policies.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) request: Request,
    pub(super) entities: Entities,
}

impl World {
    /// The question that is this case, where these entities are there in every request.
    pub(super) fn question(&self, case: &Case<'_>, base: &Entities) -> Result<Question, String> {
        let words = &self.vocabulary;
        let principal = Principal::parse(case.principal_arn.as_deref().unwrap_or_default());
        let key_arn = case.key_arn.as_deref().map(KeyArn::parse);
        let action = words.action(action_id(case.operation, &case.kms_operation));
        let accounts = [principal.home(), key_arn.iter().flatten().map(|arn| &arn.home).next()];
        let accounts: Vec<_> = accounts.into_iter().flatten().map(|home| &home.account).collect();

        let principal = self.directory.complete(words.principal(&principal));
        let resource = self.directory.complete(words.external_key(&case.keystore, &case.key));
        let (principal_uid, resource_uid) = (principal.uid(), resource.uid());
        let members = words.uid(Kind::Metadata, "");
        let context = self.context(case, key_arn.as_ref(), members.clone())?;
        let request = Request::new(principal_uid, action, resource_uid, context, None)
            .map_err(|error| error.to_string())?;

        let keystore = words.keystore(&case.keystore, &self.accounts);
        let accounts =
            accounts.iter().filter_map(|account| words.describe(Kind::Account, account.as_str()));
        let others = [keystore].into_iter().chain(accounts);
        let members = case.others.iter().map(|others| {
            let uid = members.clone();
            Described { uid, parents: vec![], attributes: vec![] }.entity([], others.iter())
        });
        let entities = [principal, resource]
            .into_iter()
            .chain(others.map(|described| self.directory.complete(described)))
            // Those of the base are complete, and the same.
            .filter(|entity| base.get(&entity.uid()).is_none())
            .chain(members);
        let entities =
            base.clone().add_entities(entities, None).map_err(|error| error.to_string())?;
        Ok(Question { request, entities })
    }

    fn context(
        &self,
        case: &Case<'_>,
        key_arn: Option<&Option<KeyArn>>,
        members: EntityUid,
    ) -> Result<Context, String> {
        let key = key_arn.and_then(Option::as_ref).map(|KeyArn { home, region, id }| {
            let account = Value::new_entity_uid(self.vocabulary.account(&home.account));
            let members = [
                ("partition", text(&home.partition)),
                ("region", text(region.as_str())),
                ("account", account),
                ("id", text(id)),
            ];
            Value::new_record(members.map(|(name, value)| (name.to_owned(), value)))
                .expect("no name is there twice")
        });
        let weekday = |time: OffsetDateTime| time.weekday().number_from_monday().into();
        let pairs = [
            ("kmsOperation", Some(text(&case.kms_operation))),
            ("kmsKey", key),
            ("kmsKeyUnreadable", Some(Value::new_bool(matches!(key_arn, Some(None))))),
            ("kmsViaService", case.via_service.as_deref().map(text)),
            ("sourceVpc", case.source_vpc.as_deref().map(text)),
            ("sourceVpce", case.source_vpce.as_deref().map(text)),
            ("accessKeyId", Some(text(case.access_key_id.as_str()))),
            ("region", Some(text(case.region.as_str()))),
            ("clientSubject", case.client_subject.as_deref().map(text)),
            ("time", case.time.map(|time| Value::new_datetime(datetime(time)))),
            ("weekday", case.time.map(|time| Value::new_long(weekday(time)))),
            ("metadata", case.others.as_ref().map(|_| Value::new_entity_uid(members))),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Context::from_pairs(pairs).map_err(|error| error.to_string())
    }
}

/// A time as Cedar reads it.
fn datetime(time: OffsetDateTime) -> String {
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
    )
}
