//! Puts facts to the policies of one key store (P-80).

use cedar_policy::{
    Authorizer as Cedar, Context, Decision as CedarDecision, Entities, EntityUid, PolicyId,
    PolicySet, Request, RestrictedExpression as Value,
};
use time::OffsetDateTime;

use super::arn::{AccountId, KeyArn, Principal};
use super::decision::{Allowed, Decision, Denial, Mode, Outcome};
use super::directory::Directory;
use super::facts::Facts;
use super::fault::PolicyFault;
use super::load::{Loaded, Source, load};
use super::vocabulary::{Kind, Vocabulary, schema, text};

/// What the configuration says of the authorization of one key store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Accounts that the built-in guard lets pass; empty: it is not there.
    pub accounts: Vec<AccountId>,
    /// Policy files.
    pub policies: Vec<Source>,
    /// Groups and tags.
    pub entities: Option<Source>,
    /// Whether a denial is one.
    pub mode: Mode,
}

/// The authorization of one key store.
#[derive(Debug, Default, PartialEq)]
pub enum Authorization {
    /// Nothing is configured: what the key rules allow may be done.
    #[default]
    Open,
    /// Policies decide.
    Policies(Box<Authorizer>),
}

/// The policies of one key store, valid, with all that is put to them besides the request.
#[derive(Debug)]
pub struct Authorizer {
    pub(super) cedar: Cedar,
    pub(super) policies: PolicySet,
    /// Actions, and what policies name.
    base: Entities,
    directory: Directory,
    vocabulary: Vocabulary,
    /// What all of it was made from.
    settings: Settings,
}

impl PartialEq for Authorizer {
    /// Made from the same texts, and so the same.
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

const GUARD: &str = include_str!("guard.cedar");
const PERMIT: &str = include_str!("permit.cedar");

impl Authorization {
    /// Reads and validates; gives what is doubtful, too.
    ///
    /// # Errors
    /// Every fault in policies and entities at once.
    pub fn new(settings: Settings) -> Result<(Self, Vec<PolicyFault>), Vec<PolicyFault>> {
        let Settings { accounts, policies: sources, entities, .. } = &settings;
        if accounts.is_empty() && sources.is_empty() {
            return Ok((Self::Open, Vec::new()));
        }
        let vocabulary = Vocabulary::new();
        let directory = match entities {
            Some(Source { path, text }) => Directory::read(&vocabulary, path, text),
            None => Ok(Directory::default()),
        };
        let (directory, mut faults) = match directory {
            Ok(directory) => (directory, Vec::new()),
            Err(faults) => (Directory::default(), faults),
        };
        let mut own = Vec::new();
        own.extend((!accounts.is_empty()).then_some(GUARD));
        own.extend(sources.is_empty().then_some(PERMIT));
        let Loaded { set: policies, faults: of_policies, warnings } =
            load(&vocabulary, &directory, sources, &own);
        faults.extend(of_policies);
        if !faults.is_empty() {
            return Err(faults);
        }
        let base = base(&vocabulary, &directory, &policies);
        let cedar = Cedar::new();
        let authorizer = Authorizer { cedar, policies, base, directory, vocabulary, settings };
        Ok((Self::Policies(Box::new(authorizer)), warnings))
    }

    /// Puts facts to the policies. The decision is for the log; there is none where there are no
    /// policies.
    pub fn judge(&self, facts: &Facts<'_>) -> (Option<Decision>, Result<Allowed, Denial>) {
        match self {
            Self::Open => (None, Ok(Allowed::new())),
            Self::Policies(authorizer) => {
                let decision = authorizer.decide(facts);
                let passes = decision.outcome.passes();
                let verdict = if passes { Ok(Allowed::new()) } else { Err(decision.denial()) };
                (Some(decision), verdict)
            }
        }
    }

    /// The policies, if there are any.
    pub fn authorizer(&self) -> Option<&Authorizer> {
        match self {
            Self::Open => None,
            Self::Policies(authorizer) => Some(authorizer),
        }
    }
}

impl Authorizer {
    /// Whether a denial is one.
    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// The `@id` of every policy, in alphabetical order.
    pub fn policies(&self) -> Vec<String> {
        let mut ids: Vec<_> =
            self.policies.policies().map(|policy| policy.id().to_string()).collect();
        ids.sort();
        ids
    }

    /// External keys that the entities file names, as (key store, external key id).
    pub fn external_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.directory.external_keys()
    }

    /// What the policies say.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        // What was left out might have been forbidden.
        if facts.metadata.others().left_out() {
            let error = "requestMetadata has more, or longer, unknown members than are looked at";
            return self.failed(Vec::new(), vec![error.to_owned()]);
        }
        let (request, entities) = match self.question(facts) {
            Ok(question) => question,
            Err(error) => return self.failed(Vec::new(), vec![error]),
        };
        let response = self.cedar.is_authorized(&request, &self.policies, &entities);
        let diagnostics = response.diagnostics();
        // Cedar leaves out a policy that can't be evaluated, be it one that forbids.
        let (mut failed, errors): (Vec<_>, Vec<_>) = diagnostics
            .errors()
            .map(|error| match error {
                cedar_policy::AuthorizationError::PolicyEvaluationError(error) => {
                    (error.policy_id().clone(), error.inner().to_string())
                }
            })
            .unzip();
        if !failed.is_empty() {
            failed.sort();
            return self.failed(failed, errors);
        }
        let mut policies: Vec<PolicyId> = diagnostics.reason().cloned().collect();
        policies.sort();
        let outcome = match (response.decision(), self.settings.mode) {
            (CedarDecision::Allow, _) => Outcome::Allowed,
            (CedarDecision::Deny, Mode::Enforce) => Outcome::Denied,
            (CedarDecision::Deny, Mode::Shadow) => Outcome::ShadowDenied,
        };
        self.decided(outcome, policies, Vec::new())
    }

    fn failed(&self, policies: Vec<PolicyId>, errors: Vec<String>) -> Decision {
        let outcome = match self.settings.mode {
            Mode::Enforce => Outcome::Error,
            Mode::Shadow => Outcome::ShadowError,
        };
        self.decided(outcome, policies, errors)
    }

    fn decided(&self, outcome: Outcome, ids: Vec<PolicyId>, errors: Vec<String>) -> Decision {
        let reason = |id: &PolicyId| self.policies.annotation(id, "reason").map(str::to_owned);
        let reasons = match outcome {
            Outcome::Error | Outcome::ShadowError => Vec::new(),
            _ => ids.iter().filter_map(reason).collect(),
        };
        let policies = ids.iter().map(ToString::to_string).collect();
        Decision { outcome, policies, reasons, errors }
    }

    /// The facts in Cedar's terms.
    pub(super) fn question(&self, facts: &Facts<'_>) -> Result<(Request, Entities), String> {
        let Facts { operation, keystore, key, metadata, .. } = *facts;
        let words = &self.vocabulary;
        let principal = Principal::parse(metadata.aws_principal_arn().unwrap_or_default());
        let key_arn = metadata.kms_key_arn().map(KeyArn::parse);
        let action = words.action(operation, metadata.kms_operation());
        let accounts = [principal.home(), key_arn.iter().flatten().map(|arn| &arn.home).next()];
        let accounts: Vec<_> = accounts.into_iter().flatten().map(|home| &home.account).collect();

        let principal = words.principal(&principal);
        let resource = words.external_key(keystore, key);
        let members = words.uid(Kind::Metadata, "");
        let (principal_uid, resource_uid) = (principal.uid.clone(), resource.uid.clone());
        let context = self.context(facts, key_arn.as_ref(), members.clone())?;
        let request = Request::new(principal_uid, action, resource_uid, context, None)
            .map_err(|error| error.to_string())?;

        let mut entities =
            vec![principal, resource, words.keystore(keystore, &self.settings.accounts)];
        entities.extend(
            accounts.iter().filter_map(|account| words.describe(Kind::Account, account.as_str())),
        );
        let members =
            super::vocabulary::Described { uid: members, parents: vec![], attributes: vec![] };
        let entities = entities
            .into_iter()
            // Those of the base are complete, and the same.
            .filter(|described| self.base.get(&described.uid).is_none())
            .map(|described| self.directory.complete(described))
            .chain([members.entity([], metadata.others().iter())]);
        let entities = self.base.clone().add_entities(entities, None);
        Ok((request, entities.map_err(|error| error.to_string())?))
    }

    fn context(
        &self,
        facts: &Facts<'_>,
        key_arn: Option<&Option<KeyArn>>,
        members: EntityUid,
    ) -> Result<Context, String> {
        let (metadata, time) = (facts.metadata, OffsetDateTime::from(facts.time));
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
        let pairs = [
            ("kmsOperation", Some(text(metadata.kms_operation()))),
            ("kmsKey", key),
            ("kmsKeyUnreadable", Some(Value::new_bool(matches!(key_arn, Some(None))))),
            ("kmsViaService", metadata.kms_via_service().map(text)),
            ("sourceVpc", metadata.aws_source_vpc().map(text)),
            ("sourceVpce", metadata.aws_source_vpce().map(text)),
            ("accessKeyId", Some(text(facts.access_key_id.as_str()))),
            ("region", Some(text(facts.region.as_str()))),
            ("clientSubject", facts.client_subject.map(text)),
            ("time", Some(Value::new_datetime(datetime(time)))),
            ("weekday", Some(Value::new_long(time.weekday().number_from_monday().into()))),
            ("metadata", Some(Value::new_entity_uid(members))),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Context::from_pairs(pairs).map_err(|error| error.to_string())
    }
}

/// What is put to the policies in every request: the actions with their groups, and those entities
/// that policies name, with theirs.
fn base(vocabulary: &Vocabulary, directory: &Directory, policies: &PolicySet) -> Entities {
    let mut named: Vec<EntityUid> =
        policies.policies().flat_map(|policy| policy.entity_literals()).collect();
    named.sort();
    named.dedup();
    let named = named.iter().filter_map(|uid| {
        let kind = Kind::named(&uid.type_name().to_string())?;
        // A key store has attributes that are not told by its name: each request brings its own.
        let described = vocabulary.describe(kind, uid.id().unescaped());
        described.filter(|_| kind != Kind::Keystore)
    });
    let named: Vec<_> = named.map(|described| directory.complete(described)).collect();
    let schema = schema();
    Entities::from_entities(named, Some(&schema))
        .expect("entities are made as the schema wants them, and groups do not turn in circles")
}

/// A time as Cedar reads it, to a millisecond.
fn datetime(time: OffsetDateTime) -> String {
    let (date, clock) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond(),
    )
}
