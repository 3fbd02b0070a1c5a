//! What was decided, and the proof that the answer was yes.

use std::sync::Arc;

use crate::wire::log_text::LogText;

/// Whether a denial is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// What is denied is refused.
    #[default]
    Enforce,
    /// What would be denied is written down and goes on.
    Shadow,
}

/// How a request fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A policy permits it and none forbids it.
    Allowed,
    /// A policy forbids it, or none permits it.
    Denied,
    /// The same in shadow mode: it goes on.
    ShadowDenied,
    /// A policy could not be evaluated, which denies.
    Error,
    /// The same in shadow mode: it goes on.
    ShadowError,
}

impl Outcome {
    /// Its word in log lines, metrics and audit records.
    pub fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::ShadowDenied => "shadow_denied",
            Self::Error | Self::ShadowError => "error",
        }
    }

    /// Whether the request goes on.
    pub fn passes(self) -> bool {
        matches!(self, Self::Allowed | Self::ShadowDenied | Self::ShadowError)
    }
}

/// What the policies said of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    outcome: Outcome,
    /// What is said of each request that is decided alike.
    said: Arc<Said>,
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    policies: Vec<String>,
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Decision {
    pub(super) fn new(
        outcome: Outcome,
        policies: Vec<String>,
        reasons: Vec<String>,
        errors: Vec<String>,
    ) -> Self {
        Self { outcome, said: Arc::new(Said { policies, reasons, errors }) }
    }

    /// The bytes that it takes, near enough.
    pub(super) fn weight(&self) -> usize {
        let Said { policies, reasons, errors } = &*self.said;
        let texts = [policies, reasons, errors].into_iter().flatten();
        let texts: usize = texts.map(|text| size_of::<String>() + text.len()).sum();
        size_of::<Self>() + size_of::<Said>() + texts
    }

    /// How the request fared.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether the policies allow it, whatever becomes of it in shadow mode.
    pub fn is_allowed(&self) -> bool {
        self.outcome == Outcome::Allowed
    }

    /// The `@id` of the policies that decided, in alphabetical order: those that permit, those that
    /// forbid, or those that failed. Empty where none permits.
    pub fn policies(&self) -> &[String] {
        &self.said.policies
    }

    /// The `@reason` of those policies, in their order.
    pub fn reasons(&self) -> &[String] {
        &self.said.reasons
    }

    /// Why policies could not be evaluated; for the operator.
    pub fn errors(&self) -> &[String] {
        &self.said.errors
    }

    /// What the policies said against the request.
    pub(super) fn denial(&self) -> Denial {
        Denial::because(self.said.reasons.first().map(String::as_str))
    }
}

/// A request that the policies do not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the authorization policies do not allow it")]
pub struct Denial {
    reason: Option<String>,
}

impl Denial {
    /// A denial with this `@reason`.
    pub(crate) fn because(reason: Option<&str>) -> Self {
        Self { reason: reason.map(|reason| LogText::new(reason).to_string()) }
    }

    /// The `@reason` of the first policy that denied it, fit for the caller: printable ASCII, 256
    /// characters at most.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// Proof that a request was put to the policies of its key store, where it has any, and may go on.
///
/// It cannot be made elsewhere:
/// ```compile_fail,E0423
/// let allowed = xksd::policy::Allowed(());
/// ```
#[derive(Debug)]
#[must_use]
pub struct Allowed(());

impl Allowed {
    pub(super) fn new() -> Self {
        Self(())
    }
}
