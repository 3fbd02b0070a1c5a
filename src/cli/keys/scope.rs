//! Which tokens a command is about, and the way to them.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::super::ConfigFile;
use super::super::startup::{Surroundings, configuration, configuration_for_modules};
use super::clerk::Clerk;
use super::counts::Reading;
use super::{Exit, Failure};
use crate::config::{Config, Token};
use crate::hsm::codes;
use crate::hsm::fault::{Cause, Fault, FaultKind};
use crate::hsm::pkcs11::{Library, Pkcs11Backend};
use crate::hsm::transport::Officer;
use crate::keystore;
use crate::lifecycle::{Error, Office, Refusal};
use crate::metrics::Metrics;
use crate::names::{ExternalKeyId, KeystoreName, TokenName};
use crate::secret::Secret;
use crate::wire::ciphertext_format::Formats;

#[derive(Debug, Args)]
pub(in crate::cli) struct Scope {
    #[command(flatten)]
    config: ConfigFile,
    /// All tokens of this key store; may be left out if there is only one group of tokens
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    pub(super) keystore: Option<KeystoreName>,
    /// This token and no other
    #[arg(long, value_name = "NAME")]
    token: Option<TokenName>,
    /// What the configuration says: read once, since its secrets may come from commands.
    #[arg(skip)]
    read: OnceCell<Config>,
}

/// What to take where neither key store nor token is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Unnamed {
    /// Every token of the configuration.
    All,
    /// The only group of tokens that stand together.
    Group,
    /// The only token.
    One,
}

impl Scope {
    /// Where the daemon of this configuration can be told something, if anywhere.
    pub(super) fn control_socket(&self) -> Option<PathBuf> {
        self.configuration().ok()?.ops.control_socket.clone()
    }

    /// Connects to the tokens that are meant. Those that fail are noted by the office.
    pub(in crate::cli) fn open(&self, unnamed: Unnamed, clerk: &Clerk) -> Result<Office, Failure> {
        Ok(self.meant(unnamed, clerk)?.open(clerk))
    }

    /// The same for those who only look, and what is counted of their keys' encryptions, if that can be
    /// read.
    pub(super) fn open_with_counts(
        &self,
        unnamed: Unnamed,
    ) -> Result<(Office, Option<Reading>), Failure> {
        let (config, names) = self.config(unnamed)?;
        let office = Meant::new(&config, &names)?.open(&Clerk::idle());
        Ok((office, Reading::of(&config, &names)))
    }

    /// The tokens that are meant; that something is to be done there is recorded. The process may begin
    /// anew here, with their environment: what is read before, from standard input for one, is lost then.
    pub(super) fn meant(&self, unnamed: Unnamed, clerk: &Clerk) -> Result<Meant, Failure> {
        let (config, names) = self.config(unnamed)?;
        let meant = Meant::new(&config, &names)?;
        clerk.begin(config.audit.as_ref(), &names)?;
        Ok(meant)
    }

    fn config(&self, unnamed: Unnamed) -> Result<(Config, Vec<TokenName>), Failure> {
        let names = self.names(self.configuration()?, unnamed)?;
        let is_meant = |name: &TokenName, _: &Token| names.contains(name);
        let config = configuration_for_modules(&self.config, Surroundings::Ours, is_meant)?;
        Ok((config, names))
    }

    /// Refuses a second version of this key where a key store that has the tokens meant, and reaches the
    /// key, writes ciphertexts which can't name one.
    pub(super) fn expect_versions(&self, id: &ExternalKeyId) -> Result<(), Failure> {
        let config = self.configuration()?;
        let names = self.names(config, Unnamed::Group)?;
        let knows_none = |keystore: &&keystore::Settings| {
            matches!(keystore.formats, Formats::WriteAwsSample(_))
                && keystore.tokens.iter().any(|token| names.contains(token))
                && keystore.keys.iter().any(|rule| rule.allows(id))
        };
        let Some(keystore) = config.keystores.iter().find(knows_none) else { return Ok(()) };
        let name = &keystore.name;
        let failure = format!(
            "key store `{name}` writes the ciphertexts of AWS's sample proxy, which know no versions: \
             with a second one nothing could be encrypted under `{id}`"
        );
        let hint = format!("first take `encrypt_as` out of [keystores.{name}], for good");
        Err(Failure::new(Exit::CannotCreate, failure).hint(hint))
    }

    /// What the configuration says, before anything is connected to.
    pub(in crate::cli) fn configuration(&self) -> Result<&Config, Failure> {
        if let Some(config) = self.read.get() {
            return Ok(config);
        }
        let config = configuration(&self.config)?;
        Ok(self.read.get_or_init(|| config))
    }

    fn names(&self, config: &Config, unnamed: Unnamed) -> Result<Vec<TokenName>, Failure> {
        let all: Vec<&str> = config.tokens.keys().map(TokenName::as_str).collect();
        let known = format!("tokens of the configuration: {}", all.join(", "));
        if let Some(name) = &self.token {
            if config.tokens.contains_key(name) {
                return Ok(vec![name.clone()]);
            }
            let failure = format!("there is no token `{name}`");
            return Err(Failure::new(Exit::Usage, failure).hint(known));
        }
        let keystores: Vec<&str> = config.keystores.iter().map(|k| k.name.as_str()).collect();
        let known_stores = format!("key stores of the configuration: {}", keystores.join(", "));
        let tokens = match &self.keystore {
            Some(name) => match config.keystores.iter().find(|k| k.name == *name) {
                Some(keystore) => keystore.tokens.clone(),
                None => {
                    let failure = format!("there is no key store `{name}`");
                    return Err(Failure::new(Exit::Usage, failure).hint(known_stores));
                }
            },
            None => match (unnamed, only_group(config)) {
                (Unnamed::All, _) => config.tokens.keys().cloned().collect(),
                (_, Some(group)) => group,
                (Unnamed::Group, None) => {
                    let failure =
                        "--keystore or --token must say which of several tokens are meant";
                    return Err(Failure::new(Exit::Usage, failure).hint(known_stores).hint(known));
                }
                (Unnamed::One, None) => Vec::new(),
            },
        };
        if unnamed == Unnamed::One && tokens.len() != 1 {
            let failure = "--token must name one of several tokens";
            return Err(Failure::new(Exit::Usage, failure).hint(known));
        }
        Ok(tokens)
    }
}

/// The ways to the tokens that are meant.
pub(super) struct Meant(Vec<(TokenName, Pkcs11Backend)>);

impl Meant {
    fn new(config: &Config, names: &[TokenName]) -> Result<Self, Failure> {
        let tokens: Vec<_> =
            names.iter().filter_map(|name| config.tokens.get_key_value(name)).collect();
        let metrics = Metrics::new();
        let mut libraries: HashMap<&Path, (&TokenName, Arc<Library>)> = HashMap::new();
        let mut backends = Vec::with_capacity(tokens.len());
        for &(name, token) in &tokens {
            let (first, library) = libraries.entry(&token.module).or_insert_with(|| {
                let library = Library::new(&token.module);
                (name, Arc::new(library.with_initialization(token.initialization.clone())))
            });
            // A module is initialised once in a process: it would show the other's token.
            if config.tokens[*first].initialization != token.initialization {
                let failure = format!(
                    "tokens `{first}` and `{name}` want their module initialised differently"
                );
                let hint = "--token takes one of them at a time";
                return Err(Failure::new(Exit::Config, failure).hint(hint));
            }
            let (selector, pin) = (token.selector.clone(), token.pin.expose().clone());
            let metrics = metrics.token(name);
            let backend = Pkcs11Backend::new(library.clone(), selector, Secret::new(pin), metrics);
            backends.push((name.clone(), backend.with_profile(token.profile)));
        }
        Ok(Self(backends))
    }

    /// Their names, in the order of the group.
    pub(super) fn names(&self) -> impl Iterator<Item = &TokenName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Connects to them. Those that fail are noted by the office.
    pub(super) fn open(&self, clerk: &Clerk) -> Office {
        Office::new(self.0.iter().map(|(name, backend)| {
            let session = backend.administer();
            (name.clone(), session.map(|session| clerk.watch(session, name)))
        }))
    }

    /// Lets the clerk have a session once more with the token that signs, if it is one of them.
    pub(super) fn return_session(&self, clerk: &Clerk) {
        let signs = |(name, _): &&(TokenName, Pkcs11Backend)| clerk.is_signed_by(name);
        if let Some((name, backend)) = self.0.iter().find(signs)
            && let Ok(session) = backend.administer()
        {
            drop(clerk.watch(session, name));
        }
    }

    /// Connects to one of them as its security officer. A token knows one login of a process: none of
    /// the user's may be left.
    pub(super) fn officer(
        &self,
        token: &TokenName,
        pin: &Secret<String>,
        clerk: &Clerk,
    ) -> Result<Box<dyn Officer>, Fault> {
        let why = "it is none of the tokens that are meant";
        let unknown = Fault::refused(FaultKind::TokenLost, "C_GetSlotList", why);
        let meant = self.0.iter().find(|(name, _)| name == token);
        let (name, backend) = meant.ok_or(unknown)?;
        clerk.close_session();
        Ok(clerk.watch_officer(backend.officer(pin.expose())?, name))
    }
}

/// The tokens, if all of the configuration stand together in the key stores.
fn only_group(config: &Config) -> Option<Vec<TokenName>> {
    let stored = config.keystores.iter().map(|keystore| &keystore.tokens);
    match stored.clone().next() {
        Some(group) => {
            let is_in = |name: &TokenName| group.contains(name);
            config.tokens.keys().all(is_in).then(|| group.clone())
        }
        None if config.tokens.len() == 1 => Some(config.tokens.keys().cloned().collect()),
        None => None,
    }
}

/// What a command ends with. What it could do it has done, on the tokens that could be reached.
pub(super) fn conclude(
    office: &Office,
    id: &ExternalKeyId,
    outcome: Result<(), Error>,
) -> Result<(), Failure> {
    let needs_all = matches!(outcome, Err(Error::Refused(Refusal::Incomplete(_))));
    let failure = match outcome {
        Ok(()) | Err(Error::NoToken | Error::Refused(Refusal::Incomplete(_))) => None,
        // Told of below, unless it is about one object only.
        Err(Error::Token { token, .. })
            if office.failures().iter().any(|failed| failed.token == token) =>
        {
            None
        }
        Err(Error::Token { token, fault }) => Some(token_failure(fault, &token)),
        Err(error) => Some(Failure::new(Exit::CannotCreate, format!("key `{id}`: {error}"))),
    };
    match and_unreached(failure, office) {
        None => Ok(()),
        Some(failure) if needs_all && office.len() > 1 => {
            Err(failure.hint("nothing was done: this needs every token of the key store"))
        }
        Some(failure) => Err(failure),
    }
}

/// Adds the tokens that could not be reached, or failed.
pub(super) fn and_unreached(failure: Option<Failure>, office: &Office) -> Option<Failure> {
    office.failures().iter().fold(failure, |failure, failed| {
        Some(match failure {
            None => token_failure(failed.fault, &failed.token),
            Some(failure) => failure.and(format!("token `{}`: {}", failed.token, failed.fault)),
        })
    })
}

/// How a token failed, and what to look at.
pub(in crate::cli) fn token_failure(fault: Fault, token: &TokenName) -> Failure {
    let words = format!("token `{token}`: {fault}");
    let Fault { kind, cause, .. } = fault;
    let refused = |hint: &str| Failure::new(Exit::CannotCreate, &words).hint(hint);
    match cause {
        Cause::Returned(codes::TOKEN_WRITE_PROTECTED | codes::SESSION_READ_ONLY) => {
            refused("the token is write-protected: nothing was changed in it")
        }
        Cause::Returned(codes::DEVICE_MEMORY | codes::TOKEN_RESOURCE_EXCEEDED) => {
            refused("the token is full, or has no memory left for this")
        }
        Cause::Returned(
            codes::ATTRIBUTE_READ_ONLY
            | codes::ATTRIBUTE_TYPE_INVALID
            | codes::ATTRIBUTE_VALUE_INVALID
            | codes::TEMPLATE_INCONSISTENT
            | codes::TEMPLATE_INCOMPLETE
            | codes::ACTION_PROHIBITED,
        ) => {
            refused("the token forbids an attribute, or its change: docs/keys.md says what is set")
        }
        _ if kind == FaultKind::PinRefused => Failure::new(Exit::NoPermission, words)
            .hint(format!("the PIN is the one that tokens.{token}.pin names"))
            .hint("it was tried once; HSMs lock after three to ten wrong PINs"),
        _ if kind == FaultKind::Bug => Failure::new(Exit::Software, words),
        _ => Failure::new(Exit::Unavailable, words)
            .hint(format!("tokens.{token}.module and its label or serial say which token is meant"))
            .hint("`xksd doctor` looks at module, token and keys step by step"),
    }
}
