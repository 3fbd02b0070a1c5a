//! File and environment as one tree of values, and which variable each override came from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use config::{ConfigError, File, FileFormat, Map, Source, Value};

use super::fault::{ConfigErrors, Fault, Origin};

/// What overriding variables begin with.
const PREFIX: &str = "XKSD_";

/// What stands between the levels of a key in a variable's name.
const SEPARATOR: &str = "__";

/// The tree, not yet looked into.
#[derive(Debug)]
pub(super) struct Tree {
    /// The top level of the file, with overrides put in.
    pub(super) values: BTreeMap<String, Value>,
    /// Variable by the key path that it overrides.
    pub(super) variables: BTreeMap<String, String>,
}

/// Reads the file and puts the overrides of the environment in.
///
/// A variable is an override if its name is `XKSD_` and a key path with `__` between the levels:
/// `XKSD_SERVER__DRAIN__DELAY`. Names without `__` are no settings.
pub(super) fn read(
    path: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<Tree, ConfigErrors> {
    let errors = |problem: String, hint: &str| {
        let (origin, hint) = (Origin::File(path.to_owned()), Some(hint.to_owned()));
        let fault = Fault { origin, key: String::new(), value: None, problem, hint };
        let files = BTreeSet::from([path.to_owned()]);
        ConfigErrors { faults: vec![fault], warnings: Vec::new(), files }
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = "name the file by --config or XKSD_CONFIG; `xksd config template` prints one";
        errors(format!("cannot be read: {error}"), hint)
    })?;
    let overrides: Vec<Override> = environment
        .iter()
        .filter_map(|(name, value)| Override::parse(name, value.clone()))
        .collect();
    let variables = overrides.iter().map(|o| (o.path.join("."), o.variable.clone())).collect();
    let file = config::Config::builder().add_source(File::from_str(&text, FileFormat::Toml));
    let merged = overrides.into_iter().fold(file, |builder, o| builder.add_source(o)).build();
    let values = merged.and_then(|merged| merged.collect()).map_err(|error| {
        let hint = "a string must stand in quotes, and a key must not come twice in a section";
        errors(syntax_error(&error), hint)
    })?;
    Ok(Tree { values: values.into_iter().collect(), variables })
}

/// One variable, as a source that holds nothing else.
#[derive(Debug, Clone)]
struct Override {
    variable: String,
    path: Vec<String>,
    value: String,
}

impl Override {
    fn parse(name: &str, value: String) -> Option<Self> {
        let key = name.strip_prefix(PREFIX)?;
        if !key.contains(SEPARATOR) {
            return None;
        }
        // Keys are in lower case; but what `tokens.NAME.environment` holds are names of variables.
        let path = match key.splitn(4, SEPARATOR).collect::<Vec<_>>()[..] {
            [tokens, token, environment, variable]
                if tokens.eq_ignore_ascii_case("tokens")
                    && environment.eq_ignore_ascii_case("environment") =>
            {
                let below = [tokens, token, environment].map(str::to_ascii_lowercase);
                below.into_iter().chain([variable.to_owned()]).collect()
            }
            _ => key.split(SEPARATOR).map(str::to_ascii_lowercase).collect(),
        };
        Some(Self { variable: name.to_owned(), path, value })
    }
}

impl Source for Override {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let [root, below @ ..] = self.path.as_slice() else {
            return Ok(Map::new());
        };
        let value = below.iter().rfold(Value::from(self.value.clone()), |value, key| {
            Value::from(Map::from([(key.clone(), value)]))
        });
        Ok(Map::from([(root.clone(), value)]))
    }
}

/// The parser's message and position, without the line that it quotes: a secret may stand in it.
fn syntax_error(error: &ConfigError) -> String {
    let ConfigError::FileParse { cause, .. } = error else {
        return "cannot be put together with the environment".to_owned();
    };
    let text = cause.to_string();
    let mut lines = text.lines();
    match lines.next().and_then(|line| line.strip_prefix("TOML parse error at ")) {
        // The line, quoted between two others, and then the parser's own words.
        Some(position) => {
            format!("is not TOML at {position}: {}", lines.nth(3).unwrap_or_default())
        }
        None => "is not TOML: it holds a number that is none, or one too large".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Option<String> {
        Override::parse(name, String::new()).map(|o| o.path.join("."))
    }

    #[test]
    fn a_variable_names_a_key() {
        assert_eq!(path("XKSD_SERVER__LISTEN").as_deref(), Some("server.listen"));
        assert_eq!(path("XKSD_SERVER__DRAIN__DELAY").as_deref(), Some("server.drain.delay"));
        assert_eq!(path("XKSD_TOKENS__MY-HSM__PIN__ENV").as_deref(), Some("tokens.my-hsm.pin.env"));
        assert_eq!(
            path("XKSD_TOKENS__HSM__ENVIRONMENT__Some__Name").as_deref(),
            Some("tokens.hsm.environment.Some__Name")
        );
    }

    #[test]
    fn other_variables_are_no_settings() {
        for name in ["XKSD_CONFIG", "XKSD_LOG", "XKSD", "OTHER__NAME", "xksd_server__listen"] {
            assert_eq!(path(name), None, "{name}");
        }
    }
}
