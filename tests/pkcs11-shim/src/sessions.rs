//! The sessions that are open in the real module, as the answers of its functions tell.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki_sys::{CK_SESSION_HANDLE, CK_SLOT_ID};

use crate::iv::Appended;

/// The sessions of this process.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: HashMap<CK_SESSION_HANDLE, Session>,
    /// Calls of C_OpenSession under way. They count, or two at once could pass a limit of one.
    opening: u64,
}

#[derive(Debug)]
struct Session {
    slot: CK_SLOT_ID,
    /// What C_Encrypt is to add to its output.
    appended: Option<Appended>,
}

/// A call of C_OpenSession under way; it ends with this value, in a session or without one.
#[derive(Debug)]
pub(crate) struct Opening<'s> {
    sessions: &'s Sessions,
    /// How many sessions were open, or being opened, before.
    pub(crate) before: u64,
}

impl Sessions {
    /// A call of C_OpenSession begins.
    pub(crate) fn opening(&self) -> Opening<'_> {
        let mut state = self.state();
        let before = state.open.len() as u64 + state.opening;
        state.opening += 1;
        drop(state);
        Opening { sessions: self, before }
    }

    /// C_CloseSession has succeeded.
    pub(crate) fn closed(&self, session: CK_SESSION_HANDLE) {
        self.state().open.remove(&session);
    }

    /// C_CloseAllSessions has succeeded.
    pub(crate) fn all_closed(&self, slot: CK_SLOT_ID) {
        self.state().open.retain(|_, session| session.slot != slot);
    }

    /// C_Finalize has succeeded.
    pub(crate) fn finalized(&self) {
        self.state().open.clear();
    }

    /// An encryption begins in this session, or has ended: what C_Encrypt is to add from now on.
    pub(crate) fn append(&self, session: CK_SESSION_HANDLE, appended: Option<Appended>) {
        if let Some(session) = self.state().open.get_mut(&session) {
            session.appended = appended;
        }
    }

    /// What C_Encrypt is to add to its output in this session.
    pub(crate) fn appended(&self, session: CK_SESSION_HANDLE) -> Option<Appended> {
        self.state().open.get(&session)?.appended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening<'_> {
    /// The call has succeeded. In one step: nobody sees the session twice.
    pub(crate) fn opened(self, slot: CK_SLOT_ID, session: CK_SESSION_HANDLE) {
        let mut state = self.sessions.state();
        state.open.insert(session, Session { slot, appended: None });
        state.opening -= 1;
        drop(state);
        std::mem::forget(self);
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.sessions.state().opening -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_from_the_moment_they_are_being_opened() {
        let sessions = Sessions::default();
        let open = |slot, handle| {
            let opening = sessions.opening();
            let before = opening.before;
            opening.opened(slot, handle);
            before
        };
        assert_eq!((open(1, 10), open(1, 11), open(2, 12)), (0, 1, 2));
        let refused = sessions.opening();
        assert_eq!((refused.before, open(2, 13)), (3, 4));
        drop(refused);
        assert_eq!(sessions.opening().before, 4);
        sessions.closed(10);
        sessions.closed(10);
        assert_eq!(sessions.opening().before, 3);
        sessions.all_closed(2);
        assert_eq!(sessions.opening().before, 1);
        sessions.finalized();
        assert_eq!(sessions.opening().before, 0);
    }
}
