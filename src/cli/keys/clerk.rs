//! Writes down in the audit log what a command changes. All sessions of all commands pass here: one that
//! is not said to change anything can't.

use std::cell::RefCell;
use std::rc::Rc;

use super::super::failure::say;
use super::{Exit, Failure};
use crate::audit::journal::Journal;
use crate::audit::log::{OnFailure, Settings};
use crate::audit::record::{Administration as Record, Event, Step};
use crate::hsm::backend::Administration;
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::transport::Officer;
use crate::lifecycle::{Observer, watched, watched_officer};
use crate::names::TokenName;

/// What a command is about to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Action {
    /// The command: `keys rotate`.
    pub(in crate::cli) name: &'static str,
    /// The key that it names.
    pub(in crate::cli) key: Option<String>,
}

/// See the module.
pub(in crate::cli) struct Clerk(Rc<Desk>);

struct Desk {
    /// `None`: nothing is to be changed.
    action: Option<Action>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Open if there is an audit log.
    journal: Option<Journal>,
    on_failure: Option<OnFailure>,
    /// The token that signs, and a session with it once the command does not need it any more.
    signer: Option<TokenName>,
    session: Option<Box<dyn Administration>>,
}

impl Clerk {
    /// For a command that changes nothing.
    pub(in crate::cli) fn idle() -> Self {
        Self::of(None)
    }

    /// For a command that changes what it says, or with `--dry-run` nothing.
    pub(in crate::cli) fn of(action: Option<Action>) -> Self {
        Self(Rc::new(Desk { action, state: RefCell::default() }))
    }

    /// Opens the audit log, if there is one, and records what is about to be done.
    pub(in crate::cli) fn begin(
        &self,
        settings: Option<&Settings>,
        tokens: &[TokenName],
    ) -> Result<(), Failure> {
        let (Some(settings), Some(_)) = (settings, &self.0.action) else { return Ok(()) };
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
        let tokens = tokens.iter().map(|token| token.as_str().to_owned()).collect();
        let opened = Journal::open(settings).map_err(|error| error.to_string());
        let opened = opened.and_then(|mut journal| {
            let begun = self.0.record(Step::Begun { arguments, tokens });
            journal.record(&begun).map_err(|error| error.to_string()).map(|()| journal)
        });
        let mut state = self.0.state.borrow_mut();
        state.on_failure = Some(settings.on_failure);
        state.signer = settings.checkpoints.as_ref().map(|checkpoints| checkpoints.token.clone());
        match (opened, settings.on_failure) {
            (Ok(journal), _) => state.journal = Some(journal),
            (Err(error), OnFailure::Warn) => say(&format!("warning: not recorded: {error}")),
            (Err(error), OnFailure::Refuse) => {
                let hint = "audit.on_failure is \"refuse\": nothing was changed";
                return Err(Failure::new(Exit::CannotCreate, error).hint(hint));
            }
        }
        Ok(())
    }

    /// The session, watched.
    pub(super) fn watch(
        &self,
        session: Box<dyn Administration>,
        token: &TokenName,
    ) -> Box<dyn Administration> {
        watched(session, token.clone(), self.0.clone())
    }

    /// The security officer, watched.
    pub(super) fn watch_officer(
        &self,
        officer: Box<dyn Officer>,
        token: &TokenName,
    ) -> Box<dyn Officer> {
        watched_officer(officer, token.clone(), self.0.clone())
    }

    /// Whether this token signs what is recorded.
    pub(super) fn is_signed_by(&self, token: &TokenName) -> bool {
        let state = self.0.state.borrow();
        state.journal.is_some() && state.signer.as_ref() == Some(token)
    }

    /// Ends the session that is kept for the signature.
    pub(super) fn close_session(&self) {
        self.0.state.borrow_mut().session = None;
    }

    /// Records a change that is in no token.
    pub(in crate::cli) fn note(
        &self,
        change: &'static str,
        object: &str,
        done: &Result<(), Failure>,
    ) {
        let outcome = words(done);
        self.0.changed(None, change, object.to_owned(), outcome);
    }

    /// Records how the command ended, and has the token sign that.
    pub(in crate::cli) fn end(&self, outcome: &Result<(), Failure>) {
        let ended = self.0.record(Step::Ended { outcome: words(outcome) });
        let mut state = self.0.state.borrow_mut();
        let State { journal: Some(journal), signer, session, .. } = &mut *state else { return };
        if let Err(error) = journal.record(&ended) {
            say(&format!("warning: the end of this command is not recorded: {error}"));
            return;
        }
        let (Some(token), Some(session)) = (signer, session) else { return };
        match journal.seal(session.as_mut(), token) {
            Ok(true) => {}
            Ok(false) => say(&format!(
                "warning: token `{token}` holds no key that signs the audit log: \
                 `xksd audit create-key` makes one"
            )),
            Err(error) => say(&format!("warning: the audit log is not signed: {error}")),
        }
    }
}

impl Desk {
    fn record(&self, step: Step) -> Event {
        let action = self.action.as_ref();
        Event::Administration(Box::new(Record {
            action: action.map_or("none", |action| action.name),
            key: action.and_then(|action| action.key.clone()),
            uid: rustix::process::getuid().as_raw(),
            sudo_user: std::env::var("SUDO_USER").ok(),
            step,
        }))
    }

    fn changed(
        &self,
        token: Option<String>,
        change: &'static str,
        object: String,
        outcome: String,
    ) {
        let changed = self.record(Step::Changed { token, change, object, outcome });
        let mut state = self.state.borrow_mut();
        let Some(journal) = &mut state.journal else { return };
        if let Err(error) = journal.record(&changed) {
            say(&format!("warning: a change is not recorded: {error}"));
            // With \"refuse\", no further change is made.
            state.journal = None;
        }
    }
}

impl Observer for Desk {
    fn before(&self) -> Result<(), Fault> {
        let why = "this command is one that changes nothing: this is a defect of xksd";
        let refused = |why| Fault::refused(FaultKind::Bug, "session", why);
        if self.action.is_none() {
            return Err(refused(why));
        }
        let state = self.state.borrow();
        match (&state.journal, state.on_failure) {
            (None, Some(OnFailure::Refuse)) => {
                Err(refused("the audit log cannot be written, and audit.on_failure is \"refuse\""))
            }
            _ => Ok(()),
        }
    }

    fn after(
        &self,
        token: &TokenName,
        change: &'static str,
        object: &str,
        done: Result<(), Fault>,
    ) {
        let outcome = done.map_or_else(|fault| fault.to_string(), |()| "OK".to_owned());
        self.changed(Some(token.as_str().to_owned()), change, object.to_owned(), outcome);
    }

    fn left(&self, token: &TokenName, session: Box<dyn Administration>) {
        let mut state = self.state.borrow_mut();
        if state.signer.as_ref() == Some(token) {
            state.session = Some(session);
        }
    }
}

fn words(outcome: &Result<(), Failure>) -> String {
    match outcome {
        Ok(()) => "OK".to_owned(),
        Err(failure) => failure.to_string(),
    }
}
