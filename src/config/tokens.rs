//! The sections `tokens.NAME`.

use std::collections::BTreeMap;
use std::ffi::CString;

use super::parse::{alternatives, duration_within, filled, number_within};
use super::reader::{Section, Shape};
use super::report::Wrong;
use super::secrets::located_secret;
use super::{Isolation, Token};
use crate::hsm::pkcs11::TokenSelector;
use crate::hsm::profile::{self, Initialization, Profile};
use crate::hsm::token;
use crate::names::TokenName;

/// Every token.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Those that are without fault.
    pub(super) tokens: BTreeMap<TokenName, Token>,
    /// The names of all, with and without fault.
    pub(super) names: Vec<String>,
}

/// Reads all of `tokens`.
pub(super) fn tokens(root: &mut Section<'_>) -> Tokens {
    let sections = root.named("tokens");
    let names = sections.iter().map(|(name, _)| name.clone()).collect();
    let mut all = Tokens { tokens: BTreeMap::new(), names };
    // What modules inside this process want of its environment, and which token wanted it first.
    let mut shared: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut initializations = BTreeMap::new();
    for (name, mut section) in sections {
        let token_name = name.parse::<TokenName>();
        if let Err(error) = &token_name {
            section.report.fault(&root.path(&format!("tokens.{name}")), None, error.into());
        }
        let isolation = isolation(&mut section);
        let environment = environment(&mut section);
        let is_inside = isolation == Some(Isolation::Thread);
        for (variable, value) in environment.iter().filter(|_| is_inside) {
            let key = format!("environment.{variable}");
            let mine = (name.clone(), value.clone());
            let (owner, first) = shared.entry(variable.clone()).or_insert(mine);
            if first != value {
                let problem = format!("has another value in [tokens.{owner}.environment]");
                let hint = "modules with isolation = \"thread\" share one process, and thereby \
                            one environment";
                section.fault(&key, None, Wrong::from(problem).hint(hint));
            }
        }
        let token = token(&mut section, environment);
        if let (Some(token), Some(isolation), Ok(name)) = (token, isolation, token_name) {
            // A module is initialised once in a process.
            if isolation == Isolation::Thread {
                let (module, text) = (token.module.clone(), token.initialization.clone());
                let first = initializations.entry(module).or_insert_with(|| text.clone());
                if *first != text {
                    let problem = "differs from that of another token of the same module";
                    section.fault("initialization", None, Wrong::from(problem));
                }
            }
            all.tokens.insert(name, Token { isolation, ..token });
        }
    }
    all
}

fn isolation(section: &mut Section<'_>) -> Option<Isolation> {
    section.or("isolation", "process", Shape::Text, |text| match text {
        "process" => Ok(Isolation::Process),
        "thread" => Ok(Isolation::Thread),
        _ => Err("must be `process` or `thread`".into()),
    })
}

fn token(section: &mut Section<'_>, environment: BTreeMap<String, String>) -> Option<Token> {
    let report = section.report;
    let module = section.required("module", Shape::Text, |text| {
        let module = report.path(&filled(text)?);
        match std::fs::metadata(&module) {
            Ok(metadata) if metadata.is_file() => Ok(module),
            Ok(_) => Err(format!("`{}` is not a file", module.display()).into()),
            Err(error) => Err(format!("`{}`: {error}", module.display()).into()),
        }
    });
    let label = section.optional("label", Shape::Text, filled);
    let serial = section.optional("serial", Shape::Text, filled);
    let selector = match (label, serial) {
        (Some(Some(label)), Some(None)) => Some(TokenSelector::Label(label)),
        (Some(None), Some(Some(serial))) => Some(TokenSelector::Serial(serial)),
        (Some(Some(_)), Some(Some(_))) => {
            let wrong = Wrong::from("cannot stand beside `label`: one of them chooses the token");
            section.fault("serial", None, wrong);
            None
        }
        (Some(None), Some(None)) => {
            let wrong = Wrong::from("is missing: `label` or `serial` chooses the token");
            section.missing("label", wrong.hint("`pkcs11-tool --module ... -L` lists both"));
            None
        }
        _ => None,
    };
    let pin = located_secret(section, "pin");
    let profile = section.optional("profile", Shape::Text, profile);
    // What a mistyped profile wants is not known.
    let (sessions_default, sessions_max) = match profile {
        Some(Some(profile)) => (profile.sessions, profile.sessions_max),
        _ => (profile::GENERIC.sessions, profile::GENERIC.sessions_max),
    };
    let sessions = section.optional("sessions", Shape::Number, number_within(1..=sessions_max));
    let initialization = section.optional("initialization", Shape::Text, |text| {
        CString::new(text).map_err(|_| "cannot hold a NUL".into())
    });
    check_initialization(section, profile.flatten(), initialization.as_ref());
    let queue = section.or("queue", "128", Shape::Number, number_within(1..=100_000));
    let interval = duration_within("100ms", "10m");
    let catalogue_interval = section.or("catalogue_interval", "5s", Shape::Text, interval);
    let probe_interval = section.or("probe_interval", "5s", Shape::Text, |text| {
        duration_within("100ms", "30s")(text)
            .map_err(|wrong| wrong.hint("what KMS is told of health is never older than a minute"))
    });
    let attempt_limit =
        section.or("attempt_limit", "40ms", Shape::Text, duration_within("1ms", "250ms"));
    let call_limit = section.or("call_limit", "5s", Shape::Text, duration_within("1s", "5m"));
    let (pin, pin_source) = pin?;
    Some(Token {
        isolation: Isolation::Process,
        call_limit: call_limit?,
        module: module?,
        selector: selector?,
        pin,
        pin_source,
        environment,
        profile: profile?,
        initialization: initialization?,
        settings: token::Settings {
            sessions: sessions?.unwrap_or(sessions_default),
            queue: queue?,
            catalogue_interval: catalogue_interval?,
            probe_interval: probe_interval?,
            attempt_limit: attempt_limit?,
        },
    })
}

fn profile(text: &str) -> Result<&'static Profile, Wrong> {
    let names = profile::ALL.map(|profile| profile.name);
    Profile::named(text).ok_or_else(|| format!("must be {}", alternatives(&names)).into())
}

/// Some modules can't do without a text for C_Initialize, and no others may be given one.
fn check_initialization(
    section: &Section<'_>,
    profile: Option<&Profile>,
    text: Option<&Option<CString>>,
) {
    let (Some(profile), Some(text)) = (profile, text) else { return };
    match (profile.initialization, text) {
        (Initialization::Text, None) => {
            let wrong = Wrong::from(format!("is missing: modules of profile {profile} need it"));
            section.missing("initialization", wrong.hint("docs/hsm/nss.md has an example"));
        }
        (Initialization::Nothing, Some(_)) => {
            let problem = format!("is nothing that modules of profile {profile} take");
            section.fault("initialization", None, Wrong::from(problem));
        }
        (Initialization::Text, Some(_)) | (Initialization::Nothing, None) => {}
    }
}

/// The variables that the module reads.
fn environment(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut section = section.section("environment");
    // A module may read a password so.
    let mut variables = section.all(Shape::Hidden);
    variables.retain(|name, value| {
        let problem = if name.is_empty() || name.contains(['=', '\0']) {
            "is no name of an environment variable"
        } else if name.starts_with("XKSD_") {
            "is for xksd itself, not for a module"
        } else if value.contains('\0') {
            "cannot hold a NUL"
        } else {
            return true;
        };
        section.fault(name, None, problem);
        false
    });
    variables
}
