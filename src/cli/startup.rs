//! What commands do before their work: read the configuration, and set the environment of modules.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{ConfigFile, Exit, Failure};
use crate::config::{self, Config, ConfigErrors};

/// Reads the configuration.
pub(super) fn configuration(file: &ConfigFile) -> Result<Config, ConfigErrors> {
    // Names and values that are not UTF-8 are no settings of ours.
    let variables = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    config::load(&file.path, variables)
}

/// Reads the configuration for a command that loads PKCS#11 modules. If they are to see another
/// environment than this process has, it starts anew in that one, and this call does not return.
///
/// Changing the environment of a running process is not sound: C code of another thread may be
/// reading it. After starting anew nothing differs any more, so that happens once.
pub(super) fn configuration_for_modules(file: &ConfigFile) -> Result<Config, Failure> {
    let config = configuration(file)?;
    let differs = |(name, value): (&String, &String)| env::var_os(name) != Some(value.into());
    if !config.environment.iter().any(differs) {
        return Ok(config);
    }
    let mut arguments = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).envs(&config.environment).exec();
    let failure = format!("cannot start anew with the environment of the modules: {error}");
    let hint = format!("set these before xksd starts: {}", names(&config));
    Err(Failure::new(Exit::OsError, failure).hint(hint))
}

fn names(config: &Config) -> String {
    config.environment.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}
