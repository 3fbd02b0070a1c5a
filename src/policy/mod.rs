//! Secondary authorization (P-80): from what is known of a request to yes or no, by the operator's
//! policies in Cedar.
//!
//! [`Authorization::new`] reads the policies of one key store and validates them, strictly, against
//! the schema in `xks.cedarschema`; what can't be right is refused with its place. For a request,
//! [`Authorization::judge`] turns [`Facts`] into Cedar's principal, action, resource and context, and
//! gives a [`Decision`] for the log and, if the request may go on, an [`Allowed`], without which there
//! is no [`Permit`](crate::keystore::Permit).
//!
//! A question is made from a `Case`, which has what policies can see of the facts, and put to the `Slice`
//! of its action, the policies that can decide it. What was decided of a case is kept in a `Memory`.
//!
//! What Cedar answers is taken as it is, with one exception: where a policy can't be evaluated, Cedar
//! decides by the others, and here the request is denied.

pub mod arn;
mod authorizer;
mod case;
mod decision;
mod directory;
mod explain;
mod facts;
mod fault;
mod load;
mod memory;
mod question;
mod reads;
mod slice;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use authorizer::{Authorization, Authorizer, Settings};
pub use decision::{Allowed, Decision, Denial, Mode, Outcome};
pub use explain::{Explanation, Fit};
pub use facts::Facts;
pub use fault::{Place, PolicyFault};
pub use load::Source;
pub use vocabulary::SCHEMA;
