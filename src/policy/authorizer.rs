//! Puts facts to the policies of one key store (P-80).

use std::collections::HashMap;

use cedar_policy::{Authorizer as Cedar, Entities, PolicyId, PolicySet};

use super::arn::AccountId;
use super::case::Case;
use super::decision::{Allowed, Decision, Denial, Mode, Outcome};
use super::directory::Directory;
use super::facts::Facts;
use super::fault::PolicyFault;
use super::load::{Loaded, Source, load};
use super::memory::Memory;
use super::question::{Question, World};
use super::reads::Reads;
use super::slice::{Answer, Slice};
use super::vocabulary::{Vocabulary, action_id, schema};

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
    /// What can decide a request, by its action.
    slices: HashMap<&'static str, Slice>,
    world: World,
    memory: Memory,
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
        let world = World { vocabulary, directory, accounts: accounts.clone() };
        let authorizer = Authorizer {
            cedar: Cedar::new(),
            base: base(&world, &policies),
            slices: Slice::all(&world, &policies),
            policies,
            world,
            memory: Memory::default(),
            settings,
        };
        Ok((Self::Policies(Box::new(authorizer)), warnings))
    }

    /// Puts facts to the policies. The decision is for the log; there is none where there are no
    /// policies.
    pub fn judge(&self, facts: &Facts<'_>) -> (Option<Decision>, Result<Allowed, Denial>) {
        match self {
            Self::Open => (None, Ok(Allowed::new())),
            Self::Policies(authorizer) => {
                let decision = authorizer.decide(facts);
                let passes = decision.outcome().passes();
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
        self.world.directory.external_keys()
    }

    /// What the policies say. The same question is not put to them twice, if its answer is remembered.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        self.decided_of(facts, Some(&self.memory))
    }

    /// What the policies say, whatever is remembered: for measurements.
    pub fn decide_anew(&self, facts: &Facts<'_>) -> Decision {
        self.decided_of(facts, None)
    }

    /// Whether a decision is remembered.
    #[cfg(test)]
    pub(super) fn remembers(&self, facts: &Facts<'_>) -> bool {
        let case = Case::new(facts, self.slice(facts).reads);
        self.memory.recall(&case).is_some()
    }

    /// The policies that can decide it.
    fn slice(&self, facts: &Facts<'_>) -> &Slice {
        let action = action_id(facts.operation, facts.metadata.kms_operation());
        self.slices.get(action).expect("each action has one")
    }

    fn decided_of(&self, facts: &Facts<'_>, memory: Option<&Memory>) -> Decision {
        // What was left out might have been forbidden.
        if facts.metadata.others().left_out() {
            let error = "requestMetadata has more, or longer, unknown members than are looked at";
            return self.failed(Vec::new(), vec![error.to_owned()]);
        }
        let slice = self.slice(facts);
        let case = Case::new(facts, slice.reads);
        if let Some(decision) = memory.and_then(|memory| memory.recall(&case)) {
            return decision;
        }
        let decision = match self.world.question(&case, &slice.base) {
            Ok(question) => self.conclude(slice.ask(&self.cedar, &question)),
            Err(error) => self.failed(Vec::new(), vec![error]),
        };
        // What went wrong might go right another time.
        let is_sound = !matches!(decision.outcome(), Outcome::Error | Outcome::ShadowError);
        if let (true, Some(memory)) = (is_sound, memory) {
            memory.keep(case, decision.clone());
        }
        decision
    }

    /// What the answer comes to. Cedar leaves out a policy that can't be evaluated, be it one that
    /// forbids; here it denies.
    fn conclude(&self, answer: Answer) -> Decision {
        let Answer { permits, forbids, errors } = answer;
        if !errors.is_empty() {
            let (failed, errors) = errors.into_iter().unzip();
            return self.failed(failed, errors);
        }
        let is_allowed = forbids.is_empty() && !permits.is_empty();
        let outcome = match (is_allowed, self.settings.mode) {
            (true, _) => Outcome::Allowed,
            (false, Mode::Enforce) => Outcome::Denied,
            (false, Mode::Shadow) => Outcome::ShadowDenied,
        };
        self.decided(outcome, if is_allowed { permits } else { forbids }, Vec::new())
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
        Decision::new(outcome, policies, reasons, errors)
    }

    /// The facts in Cedar's terms, for all policies.
    pub(super) fn question(&self, facts: &Facts<'_>) -> Result<Question, String> {
        self.world.question(&Case::new(facts, Reads::ALL), &self.base)
    }
}

/// What is put to all policies in every request: the actions with their groups, and those entities
/// that policies name, with theirs.
fn base(world: &World, policies: &PolicySet) -> Entities {
    let named = policies.policies().flat_map(|policy| policy.entity_literals()).collect();
    Entities::from_entities(world.named(&named), Some(&schema()))
        .expect("entities are made as the schema wants them, and groups do not turn in circles")
}
