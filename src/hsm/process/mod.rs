//! A token whose PKCS#11 module runs in a process of its own.
//!
//! The child is `xksd hsm-worker`. It holds the vendor's library and the PIN, and nothing else of
//! the daemon's: what it must know comes over a socket. The parent holds neither; a library that
//! crashes, or a call that does not return within its limit, costs one child, which is replaced
//! when the token is connected to again.
//!
//! [`ProcessBackend`] is the parent's side (`child`, `session`), [`host`] the child's; between them
//! are frames (`frame`) of messages (`message`, `words`), on one socket for each session.

mod child;
mod frame;
mod hidden;
mod host;
mod message;
mod session;
mod words;

use std::ffi::{CString, OsString};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

pub use child::Launch;
pub use host::host;

use super::backend::{Backend, OnLost, Session, TokenIdentity};
use super::fault::{Fault, FaultKind};
use super::pkcs11::{TokenSelector, distrusted};
use super::profile::Profile;
use crate::metrics::TokenMetrics;
use crate::names::TokenName;
use crate::secret::Secret;
use child::Child;
use message::{Hello, Request};
use session::{Line, ProcessSession};
use words::Words;

/// How long a child that was told to end may take before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// The longest that [`ProcessBackend::end`] takes: as long again for one that was killed.
pub const END_LIMIT: Duration = END_PATIENCE.saturating_mul(2);

/// Which token, and how its child is started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name in the configuration.
    pub token: TokenName,
    /// The PKCS#11 module.
    pub module: PathBuf,
    /// How the token is told from others of the module.
    pub selector: TokenSelector,
    /// What kind of module it is; `None`: that is recognised.
    pub profile: Option<&'static Profile>,
    /// What the module's C_Initialize is given in its reserved argument.
    pub initialization: Option<CString>,
    /// Files that the child can't read, where the kernel sees to it.
    pub hidden: Vec<PathBuf>,
    /// The child.
    pub launch: Launch,
    /// How long one call may take before the child is killed. Connecting, and a search, are many
    /// calls and may take six times as long.
    pub call_limit: Duration,
}

/// Fetches the PIN from where it is kept, each time a child is started: none is kept here.
pub type PinSource = Box<dyn Fn() -> Option<Secret<String>> + Send + Sync>;

/// A token reached through a child process.
pub struct ProcessBackend {
    settings: Mutex<Settings>,
    pin: PinSource,
    metrics: Arc<TokenMetrics>,
    words: Arc<Words>,
    /// Who wants to know of a child that ends by itself.
    on_lost: Arc<OnceLock<OnLost>>,
    /// Outlives the child that found it out.
    distrusted: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    line: Option<Line>,
    children: u64,
    identity: TokenIdentity,
    /// No child is started any more.
    ending: bool,
    /// That a connection failed was said, and none has succeeded since.
    failing: bool,
}

impl std::fmt::Debug for ProcessBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessBackend").field("settings", &self.settings()).finish_non_exhaustive()
    }
}

impl ProcessBackend {
    /// Describes the way to a token; nothing is started yet.
    pub fn new(settings: Settings, pin: PinSource, metrics: Arc<TokenMetrics>) -> Self {
        let (words, on_lost, distrusted, state) = Default::default();
        let settings = Mutex::new(settings);
        Self { settings, pin, metrics, words, on_lost, distrusted, state }
    }

    /// Ends the child, and starts no other. Says whether it has ended.
    pub fn end(&self) -> bool {
        let line = {
            let mut state = self.state();
            state.ending = true;
            state.line.take()
        };
        line.is_none_or(|line| line.child.end(END_PATIENCE))
    }

    /// Gives the next child other arguments, and hides other files from it. One that runs stays as it
    /// is.
    pub fn prepare_next(&self, arguments: Vec<OsString>, hidden: Vec<PathBuf>) {
        let mut settings = self.settings.lock().expect("nothing panics while holding this lock");
        settings.launch.arguments = arguments;
        settings.hidden = hidden;
    }

    fn settings(&self) -> Settings {
        self.settings.lock().expect("nothing panics while holding this lock").clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding this lock")
    }

    /// A module without the variables that lead it to its configuration finds no token, and says
    /// nothing of the kind.
    fn hint_at_environment(&self, fault: Fault) {
        let is_known = fault.kind == FaultKind::PinRefused || fault == distrusted();
        if is_known || std::mem::replace(&mut self.state().failing, true) {
            return;
        }
        let Settings { token, launch, .. } = self.settings();
        let names: Vec<_> = launch.environment.keys().map(|name| name.to_string_lossy()).collect();
        let environment = names.join(", ");
        tracing::warn!(
            %token, %fault, environment,
            "cannot connect; the module has these environment variables and no others: whatever \
             else it needs must be named in [tokens.NAME.environment]"
        );
    }

    /// The child, or another where that one is gone.
    fn line_or_start(&self) -> Result<Line, Fault> {
        let refused = |why| Fault::refused(FaultKind::TokenLost, "connection", why);
        let alive = self.state().line.clone().filter(|line| line.child.is_alive());
        if let Some(line) = alive {
            return Ok(line);
        }
        let pin = (self.pin)().ok_or(refused("the PIN cannot be read from where it is kept"))?;
        let settings = self.settings();
        let Settings { token, launch, call_limit, .. } = &settings;
        let on_lost = self.on_lost.clone();
        let lost = move || {
            if let Some(on_lost) = on_lost.get() {
                on_lost();
            }
        };
        let started = Child::start(launch, token, *call_limit, lost).and_then(|child| {
            child.tell(Hello::write(&settings, &pin))?;
            Ok(child)
        });
        let child = started.map_err(|error| {
            tracing::error!(%token, %error, "cannot start a process for the HSM library");
            refused("no process can be started for the HSM library")
        })?;
        self.metrics.process_started();
        let mut state = self.state();
        if state.ending {
            return Err(refused("xksd is ending"));
        }
        state.children += 1;
        let line = Line {
            child: Arc::new(child),
            number: state.children,
            words: self.words.clone(),
            distrusted: self.distrusted.clone(),
            metrics: self.metrics.clone(),
            call_limit: *call_limit,
        };
        state.line = Some(line.clone());
        Ok(line)
    }
}

impl Backend for ProcessBackend {
    fn connect(&self) -> Result<Box<dyn Session>, Fault> {
        if self.distrusted.load(Ordering::Acquire) {
            return Err(distrusted());
        }
        let line = self.line_or_start()?;
        match ProcessSession::open(line.clone(), &Request::Connect) {
            Ok((session, identity)) => {
                let mut state = self.state();
                state.identity = identity;
                state.failing = false;
                Ok(Box::new(session))
            }
            Err(fault) => {
                self.hint_at_environment(fault);
                // The next attempt begins with a fresh library: some find no slots for ever after
                // their HSM was away.
                line.child.discard();
                Err(fault)
            }
        }
    }

    fn open_session(&self) -> Result<Box<dyn Session>, Fault> {
        let Some(line) = self.state().line.clone() else {
            let why = "the token has not been connected to yet";
            return Err(Fault::refused(FaultKind::TokenLost, "C_OpenSession", why));
        };
        let (session, _identity) = ProcessSession::open(line, &Request::Open)?;
        Ok(Box::new(session))
    }

    fn on_lost(&self, hook: OnLost) {
        let is_first = self.on_lost.set(hook).is_ok();
        debug_assert!(is_first, "a backend has one owner");
    }

    fn identity(&self) -> TokenIdentity {
        self.state().identity.clone()
    }
}
