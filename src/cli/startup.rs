//! What commands do before their work: read the configuration, and set the environment of modules.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::{ConfigFile, Exit, Failure};
use crate::config::{self, Config, ConfigErrors, Isolation, Token};
use crate::daemon::is_for_modules;
use crate::names::{KeystoreName, TokenName};

/// Reads the configuration.
pub(super) fn configuration(file: &ConfigFile) -> Result<Config, ConfigErrors> {
    config::load(&file.path, variables())
}

/// The key stores of a configuration, sound or not, and the directories of their credentials.
pub(super) fn credentials_directories(
    file: &ConfigFile,
) -> Result<BTreeMap<KeystoreName, Option<PathBuf>>, ConfigErrors> {
    config::credentials_directories(&file.path, variables())
}

/// Where health checks are answered by a configuration, sound or not.
pub(super) fn ops_address(file: &ConfigFile) -> Result<SocketAddr, ConfigErrors> {
    config::ops_address(&file.path, variables())
}

fn variables() -> impl Iterator<Item = (String, String)> {
    // Names and values that are not UTF-8 are no settings of ours.
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What modules see of our environment besides the variables that their tokens name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surroundings {
    /// All of it.
    Ours,
    /// What the daemon would give them: little, where each has a process of its own.
    AsServed,
}

/// Reads the configuration for a command that loads PKCS#11 modules of these tokens. If they are to
/// see another environment than this process has, it starts anew in that one, and this call does
/// not return.
///
/// Changing the environment of a running process is not sound: C code of another thread may be
/// reading it. After starting anew nothing differs any more, so that happens once.
pub(super) fn configuration_for_modules(
    file: &ConfigFile,
    surroundings: Surroundings,
    of: impl Fn(&TokenName, &Token) -> bool,
) -> Result<Config, Failure> {
    let config = configuration(file)?;
    let tokens = || config.tokens.iter().filter(|(name, token)| of(name, token));
    let environment = environment(tokens())?;
    let differs = |(name, value): (&&String, &&String)| env::var_os(name) != Some(value.into());
    let all_isolated = tokens().all(|(_, token)| token.isolation == Isolation::Process);
    let hidden = match surroundings {
        Surroundings::AsServed if all_isolated => hidden(&config, &environment),
        _ => Vec::new(),
    };
    if hidden.is_empty() && !environment.iter().any(differs) {
        return Ok(config);
    }
    let mut arguments = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    for variable in hidden {
        command.env_remove(variable);
    }
    let error = command.args(arguments).envs(&environment).exec();
    let failure = format!("cannot start anew with the environment of the modules: {error}");
    let names = environment.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let hint = format!("set these before xksd starts: {names}");
    Err(Failure::new(Exit::OsError, failure).hint(hint))
}

/// The variables of ours that a process of these modules would not have; those that the
/// configuration is read from are left out, since it will be read again.
fn hidden(config: &Config, environment: &BTreeMap<&String, &String>) -> Vec<OsString> {
    let is_kept = |variable: &OsString| {
        let is_of_configuration = |name: &str| {
            name.starts_with("XKSD_")
                || name == config::CREDENTIALS_DIRECTORY
                || config.secret_places.variables.contains(name)
                || environment.keys().any(|named| *named == name)
        };
        is_for_modules(variable) || variable.to_str().is_some_and(is_of_configuration)
    };
    env::vars_os().map(|(name, _value)| name).filter(|name| !is_kept(name)).collect()
}

/// What all of these tokens want together.
fn environment<'a>(
    tokens: impl Iterator<Item = (&'a TokenName, &'a Token)>,
) -> Result<BTreeMap<&'a String, &'a String>, Failure> {
    let mut environment = BTreeMap::new();
    for (name, token) in tokens {
        for (variable, value) in &token.environment {
            if environment.insert(variable, value).is_some_and(|other| other != value) {
                let failure = format!(
                    "token `{name}` wants another value for the environment variable `{variable}` \
                     than a token before it"
                );
                let hint = "--token takes one of them at a time";
                return Err(Failure::new(Exit::Config, failure).hint(hint));
            }
        }
    }
    Ok(environment)
}
