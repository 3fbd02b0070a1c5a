//! Starting the tokens: in this process, or each in one of its own.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::{self, Isolation, SecretPlaces};
use crate::hsm::backend::Backend;
use crate::hsm::fleet::{Group, Keeper};
use crate::hsm::pkcs11::{Library, Pkcs11Backend};
use crate::hsm::process::{self, Launch, ProcessBackend};
use crate::hsm::token::Token;
use crate::keystore::{Keystore, Keystores};
use crate::metrics::{Metrics, TokenMetrics};
use crate::names::{KeystoreName, TokenName};
use crate::telemetry;

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

/// Every token of the configuration, started.
pub(super) struct Tokens {
    pub(super) tokens: HashMap<TokenName, Arc<Token>>,
    /// Those whose libraries run in processes of their own.
    pub(super) children: Vec<Arc<ProcessBackend>>,
}

impl Tokens {
    pub(super) fn start(
        tokens: BTreeMap<TokenName, config::Token>,
        log: &telemetry::Settings,
        secrets: &SecretPlaces,
        metrics: &Metrics,
    ) -> Self {
        let mut all = Self { tokens: HashMap::new(), children: Vec::new() };
        // One library per module, however many of its tokens are used.
        let mut libraries: HashMap<PathBuf, Arc<Library>> = HashMap::new();
        for (name, token) in tokens {
            let metrics = metrics.token(&name);
            let settings = token.settings.clone();
            let backend: Arc<dyn Backend> = match token.isolation {
                Isolation::Thread => {
                    let config::Token { module, selector, pin, profile, initialization, .. } =
                        token;
                    let library = libraries
                        .entry(module.clone())
                        .or_insert_with(|| {
                            Arc::new(Library::new(module).with_initialization(initialization))
                        })
                        .clone();
                    let backend = Pkcs11Backend::new(library, selector, pin, metrics.clone());
                    Arc::new(backend.with_profile(profile))
                }
                Isolation::Process => {
                    let child = Arc::new(isolated(&name, token, log, secrets, metrics.clone()));
                    all.children.push(child.clone());
                    child
                }
            };
            let token = Token::start(name.clone(), settings, backend, metrics);
            all.tokens.insert(name, Arc::new(token));
        }
        all
    }
}

/// The tokens of each key store, those with the same tokens in one group, and its keeper at work.
pub(super) fn groups(
    tokens: &HashMap<TokenName, Arc<Token>>,
    keystores: &Keystores,
    tasks: &mut JoinSet<()>,
) -> HashMap<KeystoreName, Arc<Group>> {
    let mut by_tokens: HashMap<&[TokenName], Vec<&Keystore>> = HashMap::new();
    for keystore in keystores.iter() {
        by_tokens.entry(keystore.tokens()).or_default().push(keystore);
    }
    let mut groups = HashMap::new();
    for (names, keystores) in by_tokens {
        let members = names.iter().map(|name| tokens[name].clone()).collect();
        let group = Arc::new(Group::new(members));
        let rules = keystores.iter().flat_map(|keystore| keystore.key_rules()).cloned();
        tasks.spawn(Keeper::new(group.clone(), rules.collect()).run());
        groups.extend(keystores.iter().map(|k| (k.name().clone(), group.clone())));
    }
    groups
}

fn isolated(
    name: &TokenName,
    token: config::Token,
    log: &telemetry::Settings,
    secrets: &SecretPlaces,
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
    let arguments = [
        "hsm-worker",
        "--token",
        name.as_str(),
        "--log-format",
        log.format.name(),
        "--log-level",
        &log.level,
    ];
    let launch = Launch {
        program: "/proc/self/exe".into(),
        arguments: arguments.map(OsString::from).into(),
        environment: inherited.chain(own).collect(),
    };
    let settings = process::Settings {
        token: name.clone(),
        module,
        selector,
        profile,
        initialization,
        hidden: secrets.files.iter().cloned().collect(),
        launch,
        call_limit,
    };
    ProcessBackend::new(settings, Box::new(move || pin_source.read()), metrics)
}
