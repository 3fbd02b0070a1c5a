//! Why a request is decided as it is: policy by policy.

use cedar_policy::{Effect, Policy, PolicySet};

use super::authorizer::Authorizer;
use super::decision::Decision;
use super::facts::Facts;
use super::question::Question;

/// What became of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Its scope and conditions hold.
    Applies,
    /// They do not.
    DoesNotApply,
    /// It could not be evaluated.
    Fails,
}

/// A decision, and how it came about.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// Principal, action, resource and context as policies see them; `None` if they can't be told.
    pub terms: Option<[String; 4]>,
    /// Every policy: its id, whether it permits (or forbids), and whether it applies.
    pub policies: Vec<(String, bool, Fit)>,
}

impl Authorizer {
    /// Decides, and tells of each policy by itself whether it applies. Much slower than deciding.
    pub fn explain(&self, facts: &Facts<'_>) -> Explanation {
        let decision = self.decide(facts);
        let Ok(Question { request, entities }) = self.question(facts) else {
            return Explanation { decision, terms: None, policies: Vec::new() };
        };
        let fit = |policy: &Policy| {
            let alone = PolicySet::from_policies([policy.clone()]).expect("one id is no two");
            let response = self.cedar.is_authorized(&request, &alone, &entities);
            if response.diagnostics().errors().next().is_some() {
                return Fit::Fails;
            }
            let applies = response.diagnostics().reason().next().is_some();
            if applies { Fit::Applies } else { Fit::DoesNotApply }
        };
        let mut policies: Vec<_> = self
            .policies
            .policies()
            .map(|policy| (policy.id().to_string(), policy.effect() == Effect::Permit, fit(policy)))
            .collect();
        policies.sort_by(|one, other| one.0.cmp(&other.0));
        let shown = |text: Option<String>| text.unwrap_or_default();
        let terms = [
            shown(request.principal().map(ToString::to_string)),
            shown(request.action().map(ToString::to_string)),
            shown(request.resource().map(ToString::to_string)),
            shown(request.context().map(ToString::to_string)),
        ];
        Explanation { decision, terms: Some(terms), policies }
    }
}
