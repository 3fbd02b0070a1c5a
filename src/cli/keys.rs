//! `xksd keys create` and `xksd keys list`

use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::{print, say};
use super::startup::{Surroundings, configuration_for_modules};
use super::{ConfigFile, Exit, Failure};
use crate::catalogue::{Catalogue, Reader};
use crate::config::{Config, Token};
use crate::hsm::backend::Backend;
use crate::hsm::fault::{Fault, FaultKind};
use crate::hsm::key::{Key, KeyFault, KeyKind, Usage};
use crate::hsm::pkcs11::admin::{Admin, AdminError, NewKeyUsage};
use crate::hsm::pkcs11::{Library, Pkcs11Backend, exit_now};
use crate::metrics::Metrics;
use crate::names::{ExternalKeyId, TokenName};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make an AES-256 key in an HSM token; it never leaves it
    Create(Create),
    /// List the external keys of all tokens, or of one; the daemon may be running
    List(List),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// External key id: 1 to 128 characters of A-Z a-z 0-9 - . _
    id: ExternalKeyId,
    #[command(flatten)]
    config: ConfigFile,
    /// Token to make it in; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    token: Option<TokenName>,
    /// What it is for: encrypt,decrypt or one of them or none
    #[arg(long, default_value = "encrypt,decrypt")]
    usage: KeyUsage,
    /// Print the new key as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigFile,
    /// Only the keys of this token
    #[arg(long, value_name = "NAME")]
    token: Option<TokenName>,
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

/// `--usage`
#[derive(Debug, Clone, Copy)]
struct KeyUsage(NewKeyUsage);

impl FromStr for KeyUsage {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let usage = match text {
            "encrypt,decrypt" | "decrypt,encrypt" => NewKeyUsage { encrypt: true, decrypt: true },
            "encrypt" => NewKeyUsage { encrypt: true, decrypt: false },
            "decrypt" => NewKeyUsage { encrypt: false, decrypt: true },
            "none" => NewKeyUsage { encrypt: false, decrypt: false },
            _ => return Err("must be `encrypt,decrypt`, `encrypt`, `decrypt` or `none`"),
        };
        Ok(Self(usage))
    }
}

impl Keys {
    /// Does not return after an HSM was used: modules do not survive an ordinary exit.
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let outcome = match self {
            Self::Create(create) => {
                let of = |name: &TokenName, _: &Token| {
                    create.token.as_ref().is_none_or(|one| one == name)
                };
                let config = configuration_for_modules(&create.config, Surroundings::Ours, of)?;
                create.run(&config)
            }
            Self::List(list) => {
                let of =
                    |name: &TokenName, _: &Token| list.token.as_ref().is_none_or(|one| one == name);
                let config = configuration_for_modules(&list.config, Surroundings::Ours, of)?;
                list.run(&config)
            }
        };
        let code = match outcome {
            Ok(()) => 0,
            Err(failure) => {
                failure.report();
                failure.code()
            }
        };
        exit_now(code.into())
    }
}

impl Create {
    fn run(&self, config: &Config) -> Result<(), Failure> {
        let (name, token) = one_token(config, self.token.as_ref())?;
        let created = Admin::login(
            &token.module,
            &token.selector,
            &token.pin,
            token.initialization.as_deref(),
        )
        .and_then(|admin| admin.create(&self.id, self.usage.0));
        let state = created.map_err(|error| admin_failure(&error, name))?;
        let KeyUsage(NewKeyUsage { encrypt, decrypt }) = self.usage;
        let usage = Usage { encrypt, decrypt, ..Usage::default() };
        if self.json {
            let key = json!({
                "id": self.id.as_str(),
                "token": name.as_str(),
                "version": state.version.number(),
                "object_id": state.object_id.to_string(),
                "key_spec": spec(&KeyKind::Aes { bits: 256 }),
                "usage": usages(usage),
            });
            return print(&format!("{key:#}\n"));
        }
        let usage = usage_words(usage);
        say(&format!("made the AES-256 key `{}` in token `{name}` (usage {usage})", self.id));
        Ok(())
    }
}

impl List {
    fn run(&self, config: &Config) -> Result<(), Failure> {
        let mut listed = Vec::new();
        let chosen: Vec<(&TokenName, &Token)> = match &self.token {
            Some(name) => vec![one_token(config, Some(name))?],
            None => config.tokens.iter().collect(),
        };
        let metrics = Metrics::new();
        for (name, token) in chosen {
            let catalogue =
                read(&metrics, name, token).map_err(|fault| hsm_failure(fault, name))?;
            listed.extend(catalogue.iter().map(|(id, key)| (id.clone(), name, key.clone())));
        }
        listed.sort_by(|(a, token_a, _), (b, token_b, _)| (a, token_a).cmp(&(b, token_b)));
        if self.json {
            let keys: Vec<Value> =
                listed.iter().map(|(id, token, key)| in_json(id, token, key)).collect();
            return print(&format!("{:#}\n", Value::from(keys)));
        }
        let mut table = String::new();
        for (id, token, key) in &listed {
            table.push_str(&in_text(id, token, key));
        }
        print(&table)
    }
}

/// The token that is named, or the only one.
fn one_token<'a>(
    config: &'a Config,
    name: Option<&TokenName>,
) -> Result<(&'a TokenName, &'a Token), Failure> {
    let names: Vec<&str> = config.tokens.keys().map(TokenName::as_str).collect();
    let known = format!("tokens of the configuration: {}", names.join(", "));
    match name {
        Some(name) => config.tokens.get_key_value(name).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("there is no token `{name}`")).hint(known)
        }),
        None if config.tokens.len() == 1 => {
            Ok(config.tokens.first_key_value().expect("there is one"))
        }
        None => {
            Err(Failure::new(Exit::Usage, "--token must name one of several tokens").hint(known))
        }
    }
}

/// What the daemon would see, in a session of our own.
fn read(metrics: &Metrics, name: &TokenName, token: &Token) -> Result<Catalogue, Fault> {
    let library = Library::new(&token.module).with_initialization(token.initialization.clone());
    let library = Arc::new(library);
    let (selector, pin) = (token.selector.clone(), token.pin.expose().clone());
    let pin = crate::secret::Secret::new(pin);
    let backend = Pkcs11Backend::new(library, selector, pin, metrics.token(name));
    let backend = backend.with_profile(token.profile);
    let mut session = backend.connect()?;
    Reader::default().read(&mut *session)
}

fn admin_failure(error: &AdminError, token: &TokenName) -> Failure {
    let words = format!("token `{token}`: {error}");
    match error {
        AdminError::Exists(_) => Failure::new(Exit::CannotCreate, words)
            .hint("`xksd keys list` shows it; a second one would make the key id ambiguous"),
        AdminError::PinRefused(_) => pin_refused(words, token),
        AdminError::TwoTokens => Failure::new(Exit::Config, words)
            .hint(format!("set tokens.{token}.serial in place of label")),
        AdminError::NoToken | AdminError::Pkcs11(_) => unavailable(words, token),
    }
}

fn hsm_failure(fault: Fault, token: &TokenName) -> Failure {
    let words = format!("token `{token}`: {fault}");
    match fault.kind {
        FaultKind::PinRefused => pin_refused(words, token),
        FaultKind::Bug => Failure::new(Exit::Software, words),
        _ => unavailable(words, token),
    }
}

fn pin_refused(words: String, token: &TokenName) -> Failure {
    Failure::new(Exit::NoPermission, words)
        .hint(format!("the PIN is the one that tokens.{token}.pin names"))
        .hint("it was tried once; HSMs lock after three to ten wrong PINs")
}

fn unavailable(words: String, token: &TokenName) -> Failure {
    Failure::new(Exit::Unavailable, words)
        .hint(format!("tokens.{token}.module and its label or serial say which token is meant"))
        .hint("`xksd doctor` looks at module, token and keys step by step")
}

/// A key as it is listed, or why its label names no usable one.
type Listed = Result<Arc<Key>, KeyFault>;

fn fault_word(fault: KeyFault) -> &'static str {
    match fault {
        KeyFault::Ambiguous => "ambiguous",
        KeyFault::NoneReady => "pending",
    }
}

fn spec(kind: &KeyKind) -> String {
    match kind {
        KeyKind::Aes { bits } => format!("AES_{bits}"),
        KeyKind::Other(name) => name.clone(),
    }
}

fn usages(usage: Usage) -> Vec<&'static str> {
    let Usage { encrypt, decrypt, sign, verify, wrap, unwrap, derive } = usage;
    let all = [
        (encrypt, "encrypt"),
        (decrypt, "decrypt"),
        (sign, "sign"),
        (verify, "verify"),
        (wrap, "wrap"),
        (unwrap, "unwrap"),
        (derive, "derive"),
    ];
    all.into_iter().filter_map(|(may, word)| may.then_some(word)).collect()
}

fn usage_words(usage: Usage) -> String {
    match usages(usage).join(",") {
        nothing if nothing.is_empty() => "none".to_owned(),
        words => words,
    }
}

fn in_json(id: &ExternalKeyId, token: &TokenName, key: &Listed) -> Value {
    let (id, token) = (id.as_str(), token.as_str());
    let key = match key {
        Ok(key) => key,
        Err(fault) => {
            let (status, fault) = (fault_word(*fault), fault.to_string());
            return json!({ "id": id, "token": token, "status": status, "fault": fault });
        }
    };
    let versions: Vec<Value> = key
        .versions()
        .iter()
        .map(|version| {
            json!({
                "version": version.version.number(),
                "object_id": version.object_id.to_string(),
                "status": version.status.as_str(),
                "key_spec": spec(&version.kind),
                "usage": usages(version.usage),
            })
        })
        .collect();
    let newest = key.newest();
    json!({
        "id": id,
        "token": token,
        "status": newest.status.as_str(),
        "key_spec": spec(&newest.kind),
        "usage": usages(newest.usage),
        "versions": versions,
    })
}

fn in_text(id: &ExternalKeyId, token: &TokenName, key: &Listed) -> String {
    let (id, token) = (id.as_str(), token.as_str());
    let (status, rest) = match key {
        Err(fault) => (fault_word(*fault), fault.to_string()),
        Ok(key) => {
            let newest = key.newest();
            let (version, spec) = (newest.version.to_string(), spec(&newest.kind));
            let usage = usage_words(newest.usage);
            (newest.status.as_str(), format!("v{version} {spec} {usage}"))
        }
    };
    format!("{id:<32} {token:<16} {status:<9} {rest}\n")
}
