//! The tokens that run: in this process, or each in one of its own.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::origin::Origin;
use crate::config::{self, Isolation, SecretPlaces};
use crate::hsm::backend::Backend;
use crate::hsm::pkcs11::{Library, Pkcs11Backend};
use crate::hsm::process::{self, Launch, ProcessBackend};
use crate::hsm::token::Token;
use crate::metrics::{Metrics, TokenMetrics};
use crate::names::TokenName;
use crate::telemetry;

/// How long the threads of a token may take to leave the HSM library.
const PATIENCE: Duration = Duration::from_secs(5);

/// The variables by which known modules find their configuration. A process of a module's own has
/// these, if we have them, and those that its token names: ours may hold secrets.
const FOR_MODULES: [&str; 7] = [
    "SOFTHSM2_CONF",
    "KRYOPTIC_CONF",
    "ChrystokiConfigurationPath",
    "NFAST_HOME",
    "NFAST_KMDATA",
    "CKNFAST_LOADSHARING",
    "P11_KIT_SERVER_ADDRESS",
];

/// Whether a process of a module's own has this variable of ours without its being named.
pub(crate) fn is_for_modules(variable: &OsStr) -> bool {
    FOR_MODULES.iter().any(|name| variable == *name)
}

/// A token that was started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) token: Arc<Token>,
    /// What it was started from.
    pub(super) origin: Origin,
    metrics: Arc<TokenMetrics>,
    /// Where its library runs in a process of its own.
    child: Option<Arc<ProcessBackend>>,
}

/// What the processes of libraries are started with, besides what their tokens say.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) log: &'a telemetry::Settings,
    pub(super) secrets: &'a SecretPlaces,
}

/// Starts tokens and ends them, and knows all that run, whether or not they are served.
#[derive(Debug)]
pub(super) struct Tokens {
    metrics: Arc<Metrics>,
    /// One library per module, however many of its tokens are used, for the life of this process: it
    /// is neither unloaded nor finalised.
    libraries: Mutex<HashMap<PathBuf, Arc<Library>>>,
    running: Mutex<Vec<Arc<Started>>>,
}

impl Tokens {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, libraries: Mutex::default(), running: Mutex::default() }
    }

    /// Starts a token. It is on its way up when this returns, and its gauges are not shown yet.
    ///
    /// # Errors
    /// If the operating system has no threads for it.
    pub(super) fn start(
        &self,
        name: &TokenName,
        token: config::Token,
        origin: Origin,
        surroundings: &Surroundings<'_>,
    ) -> io::Result<Arc<Started>> {
        let metrics = self.metrics.candidate(name);
        let settings = token.settings.clone();
        let (backend, child): (Arc<dyn Backend>, _) = match token.isolation {
            Isolation::Thread => (Arc::new(self.inside(token, metrics.clone())), None),
            Isolation::Process => {
                let child = Arc::new(isolated(name, token, surroundings, metrics.clone()));
                (child.clone(), Some(child))
            }
        };
        let token = Token::try_start(name.clone(), settings, backend, metrics.clone())?;
        let token = Arc::new(token);
        let started = Arc::new(Started { token, origin, metrics, child });
        self.running().push(started.clone());
        Ok(started)
    }

    /// Shows the gauges of this token, in the place of those of another one of its name.
    pub(super) fn show(&self, started: &Started) {
        self.metrics.show(&started.metrics);
    }

    /// Ends a token; blocks until its threads have left the library, if they do within a time.
    pub(super) fn stop(&self, started: &Arc<Started>) {
        if !started.token.stop(PATIENCE) {
            let token = started.token.name().as_str();
            tracing::warn!(token, "a call into the HSM library has not returned");
        }
        if let Some(child) = &started.child
            && !child.end()
        {
            let token = started.token.name().as_str();
            tracing::warn!(token, "a process of an HSM library does not end");
        }
        self.running().retain(|other| !Arc::ptr_eq(other, started));
    }

    /// Ends a token that nobody has used, without waiting for it.
    pub(super) fn give_up(self: &Arc<Self>, started: &Arc<Started>) {
        let (tokens, started) = (self.clone(), started.clone());
        tokio::task::spawn_blocking(move || tokens.stop(&started));
    }

    /// The longest that [`Self::stop_all`] takes.
    pub(super) fn patience(&self) -> Duration {
        let of = |started: &Arc<Started>| {
            PATIENCE + started.child.as_ref().map_or(Duration::ZERO, |_| process::END_LIMIT)
        };
        self.running().iter().map(of).sum()
    }

    /// Ends every token that runs.
    pub(super) fn stop_all(&self) {
        let running = self.running().clone();
        for started in running {
            self.stop(&started);
        }
    }

    fn inside(&self, token: config::Token, metrics: Arc<TokenMetrics>) -> Pkcs11Backend {
        let config::Token { module, selector, pin, profile, initialization, .. } = token;
        let mut libraries = self.libraries.lock().expect("nothing panics while holding this lock");
        let library = libraries
            .entry(module.clone())
            .or_insert_with(|| Arc::new(Library::new(module).with_initialization(initialization)))
            .clone();
        Pkcs11Backend::new(library, selector, pin, metrics).with_profile(profile)
    }

    fn running(&self) -> MutexGuard<'_, Vec<Arc<Started>>> {
        self.running.lock().expect("nothing panics while holding this lock")
    }
}

impl Started {
    /// Has the next process of its library started like this; the one that runs stays as it is.
    pub(super) fn prepare_next(&self, surroundings: &Surroundings<'_>) {
        if let Some(child) = &self.child {
            let arguments = arguments(self.token.name(), surroundings.log);
            child.prepare_next(arguments, hidden(surroundings));
        }
    }
}

fn arguments(name: &TokenName, log: &telemetry::Settings) -> Vec<OsString> {
    let arguments = [
        "hsm-worker",
        "--token",
        name.as_str(),
        "--log-format",
        log.format.name(),
        "--log-level",
        &log.level,
    ];
    arguments.map(OsString::from).into()
}

fn hidden(surroundings: &Surroundings<'_>) -> Vec<PathBuf> {
    surroundings.secrets.files.iter().cloned().collect()
}

fn isolated(
    name: &TokenName,
    token: config::Token,
    surroundings: &Surroundings<'_>,
    metrics: Arc<TokenMetrics>,
) -> ProcessBackend {
    let config::Token {
        module,
        selector,
        pin,
        pin_source,
        profile,
        initialization,
        call_limit,
        environment,
        ..
    } = token;
    // Read again when a child is started; here it is not kept.
    drop(pin);
    let inherited =
        FOR_MODULES.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
    let own = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
    let launch = Launch {
        program: "/proc/self/exe".into(),
        arguments: arguments(name, surroundings.log),
        environment: inherited.chain(own).collect(),
    };
    let settings = process::Settings {
        token: name.clone(),
        module,
        selector,
        profile,
        initialization,
        hidden: hidden(surroundings),
        launch,
        call_limit,
    };
    ProcessBackend::new(settings, Box::new(move || pin_source.read()), metrics)
}
