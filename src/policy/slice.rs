//! The policies that can decide requests of one action.

use std::collections::{BTreeSet, HashMap};

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer as Cedar, Decision, Entities, Entity,
    EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint, ResourceConstraint,
};

use super::question::{Question, World};
use super::reads::{Reads, Sight};
use super::vocabulary::{ACTIONS, Kind, schema};

/// All policies but those whose scope no request of the action meets. A scope can't fail, and what does
/// not meet it is neither satisfied nor in error: Cedar answers as if such a policy were not there.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// Those whose scope names neither a principal nor a resource.
    open: PolicySet,
    /// The others, each by one entity that its scope wants the principal, or the resource, to be or to
    /// be in.
    scoped: HashMap<EntityUid, PolicySet>,
    /// What is put to them in every request: the action with its groups, and those entities that they
    /// name of which it may matter what they are in or have.
    pub(super) base: Entities,
    /// What differs from request to request and is looked at.
    pub(super) reads: Reads,
}

/// What policies say together.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Those that permit; not all of them where one forbids.
    pub(super) permits: Vec<PolicyId>,
    pub(super) forbids: Vec<PolicyId>,
    /// Those that could not be evaluated, and why.
    pub(super) errors: Vec<(PolicyId, String)>,
}

impl Slice {
    /// The slice of each action, by its id.
    pub(super) fn all(world: &World, policies: &PolicySet) -> HashMap<&'static str, Self> {
        let actions = schema().action_entities().expect("the schema is a constant, and tested");
        let seen: Vec<_> = policies.policies().map(|policy| (policy, Sight::of(policy))).collect();
        let slice = |id| {
            let action = world.vocabulary.action(id);
            let mut slice = Self::default();
            let mut named = BTreeSet::from([action.clone()]);
            for (policy, sight) in &seen {
                if applies(policy, &action, &actions) {
                    slice.add(policy);
                    slice.reads = slice.reads.or(sight.reads);
                    named.extend(sight.entities.iter().cloned());
                }
            }
            let of_actions: Vec<_> = named.iter().filter_map(|uid| actions.get(uid)).collect();
            let entities = of_actions.into_iter().cloned().chain(world.named(&named));
            slice.base = Entities::from_entities(entities, None)
                .expect("groups do not turn in circles, and nothing is there twice");
            slice
        };
        ACTIONS.into_iter().map(|(_, _, id)| (id, slice(id))).collect()
    }

    fn add(&mut self, policy: &Policy) {
        let set = match scope(policy) {
            Some(uid) => self.scoped.entry(uid).or_default(),
            None => &mut self.open,
        };
        set.add(policy.clone()).expect("each id is there once, and no policy is a template");
    }

    /// Puts a question to those policies that can decide it.
    pub(super) fn ask(&self, cedar: &Cedar, question: &Question) -> Answer {
        let Question { request, entities } = question;
        let ends = [request.principal(), request.resource()].into_iter().flatten();
        let within = |end| [end].into_iter().chain(entities.ancestors(end).into_iter().flatten());
        // Each once, also what both are in.
        let around: BTreeSet<&EntityUid> = ends.flat_map(within).collect();
        let scoped = around.into_iter().filter_map(|uid| self.scoped.get(uid));
        let mut answer = Answer::default();
        for policies in [&self.open].into_iter().chain(scoped) {
            let response = cedar.is_authorized(request, policies, entities);
            let reasons = response.diagnostics().reason().cloned();
            match response.decision() {
                Decision::Allow => answer.permits.extend(reasons),
                Decision::Deny => answer.forbids.extend(reasons),
            }
            answer.errors.extend(response.diagnostics().errors().map(|error| match error {
                AuthorizationError::PolicyEvaluationError(error) => {
                    (error.policy_id().clone(), error.inner().to_string())
                }
            }));
        }
        let Answer { permits, forbids, errors } = &mut answer;
        permits.sort();
        forbids.sort();
        errors.sort();
        answer
    }
}

impl World {
    /// Of the entities that policies name, what is known of them.
    pub(super) fn named(&self, named: &BTreeSet<EntityUid>) -> Vec<Entity> {
        let named = named.iter().filter_map(|uid| {
            let kind = Kind::named(&uid.type_name().to_string())?;
            // A key store has attributes that are not told by its name: each request brings its own.
            let described = self.vocabulary.describe(kind, uid.id().unescaped());
            described.filter(|_| kind != Kind::Keystore)
        });
        named.map(|described| self.directory.complete(described)).collect()
    }
}

/// Whether a policy's scope lets requests of this action pass.
fn applies(policy: &Policy, action: &EntityUid, actions: &Entities) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid == *action,
        ActionConstraint::In(uids) => {
            uids.iter().any(|uid| uid == action || actions.is_ancestor_of(uid, action))
        }
    }
}

/// What a policy's scope wants the principal to be or to be in; or else the resource.
fn scope(policy: &Policy) -> Option<EntityUid> {
    let principal = match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        PrincipalConstraint::Eq(uid)
        | PrincipalConstraint::In(uid)
        | PrincipalConstraint::IsIn(_, uid) => Some(uid),
    };
    principal.or_else(|| match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        ResourceConstraint::Eq(uid)
        | ResourceConstraint::In(uid)
        | ResourceConstraint::IsIn(_, uid) => Some(uid),
    })
}
