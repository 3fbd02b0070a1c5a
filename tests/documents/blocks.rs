//! Blocks of code by language, and commands within the text.

use std::collections::BTreeMap;
use std::process::Command;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use support::tool::{Promtool, ask, python, terraform};

use crate::markdown::{Block, pages, root};
use crate::{none, shell};

/// What a block may be.
const LANGUAGES: [&str; 9] =
    ["sh", "console", "toml", "json", "yaml", "ini", "promql", "hcl", "text"];

/// All blocks of these languages.
pub(crate) fn blocks(languages: &[&str]) -> Vec<Block> {
    let all = pages().into_iter().flat_map(|page| page.blocks);
    all.filter(|block| languages.contains(&block.language.as_str())).collect()
}

/// What of a block a shell would read.
pub(crate) fn script(block: &Block) -> String {
    match block.language.as_str() {
        "console" => shell::typed(&block.text),
        _ => block.text.clone(),
    }
}

/// Every command of all shell blocks, and the place of its block.
fn commands() -> Vec<(String, Vec<String>)> {
    let of_block = |block: Block| {
        let commands = shell::commands(&script(&block));
        commands.into_iter().map(move |words| (block.place.clone(), words))
    };
    blocks(&["sh", "console"]).into_iter().flat_map(of_block).collect()
}

/// The commands of one program, without its name.
fn commands_of(program: &str) -> Vec<(String, Vec<String>)> {
    let is_program = |word: &str| word == program || word.ends_with(&format!("/{program}"));
    let all = commands().into_iter().filter(|(_, words)| is_program(&words[0]));
    all.map(|(place, words)| (place, words[1..].to_vec())).collect()
}

#[test]
fn every_block_says_what_it_is() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for block in pages().iter().flat_map(|page| &page.blocks) {
        count += 1;
        if !LANGUAGES.contains(&block.language.as_str()) {
            let language = &block.language;
            wrong.push(format!("{}: a block of `{language}` is not checked", block.place));
        }
    }
    none(&wrong);
    assert!(count > 60, "{count}");
}

#[test]
fn shell_blocks_are_scripts() {
    let check = |block: &Block| {
        let said = ask(Command::new("bash").arg("-n"), &script(block)).err()?;
        Some(format!("{}: {said}", block.place))
    };
    none(&blocks(&["sh", "console"]).iter().filter_map(check).collect::<Vec<_>>());
    let empty =
        |block: &Block| shell::commands(&script(block)).is_empty().then(|| block.place.clone());
    none(&blocks(&["console"]).iter().filter_map(empty).collect::<Vec<_>>());
}

/// What the command line's own definition says of a command.
fn judge(words: &[String]) -> Result<(), String> {
    let mut given = words.to_vec();
    loop {
        let line = std::iter::once("xksd").chain(given.iter().map(String::as_str));
        let error = match xksd::cli::definition().try_get_matches_from(line) {
            Err(error) if error.use_stderr() => error,
            // `--help` and `--version` are errors to clap.
            _ => return command(words).map(drop),
        };
        if is_filled_in(&error, words) {
            return command(words).map(drop);
        }
        // An expansion that stands alone may be any number of words: `$SECURE`.
        match (error.kind(), error.get(ContextKind::InvalidArg)) {
            (ErrorKind::UnknownArgument, Some(ContextValue::String(word)))
                if word.starts_with('$') =>
            {
                given.retain(|it| it != word);
            }
            _ => return Err(error.to_string()),
        }
    }
}

/// Whether only a value is wrong that the shell or the reader puts there, or nothing but what comes from the
/// environment is missing.
fn is_filled_in(error: &clap::Error, words: &[String]) -> bool {
    match (error.kind(), error.get(ContextKind::InvalidValue), error.get(ContextKind::InvalidArg)) {
        (
            ErrorKind::ValueValidation | ErrorKind::InvalidValue,
            Some(ContextValue::String(value)),
            _,
        ) => {
            let is_it = |word: &&String| word.ends_with(value.as_str());
            let is_placeholder = |word: &String| {
                word.contains('$') || word.chars().all(|c| c.is_ascii_uppercase() || c == '-')
            };
            words.iter().find(is_it).is_some_and(is_placeholder)
        }
        (ErrorKind::MissingRequiredArgument, _, Some(ContextValue::Strings(missing))) => {
            let command = command(words).unwrap();
            let has_variable = |missing: &String| {
                let long = missing.trim_start_matches('-').split(' ').next();
                let mut arguments = command.get_arguments();
                arguments.any(|it| it.get_long() == long && it.get_env().is_some())
            };
            missing.iter().all(has_variable)
        }
        _ => false,
    }
}

/// The innermost command that is named, whose options exist; what it needs may be missing.
fn command(words: &[String]) -> Result<clap::Command, String> {
    let mut command = xksd::cli::definition();
    command.build();
    for word in words {
        let is_verb = word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap();
            let mut known = command.get_arguments().filter_map(|argument| argument.get_long());
            if !name.is_empty() && !known.any(|known| known == name) {
                return Err(format!("`{}` has no option --{name}", command.get_name()));
            }
        } else if command.has_subcommands() && is_verb {
            let name = command.get_name().to_owned();
            let below = command.find_subcommand(word).cloned();
            command = below.ok_or_else(|| format!("`{name}` has no command `{word}`"))?;
        }
    }
    Ok(command)
}

#[test]
fn commands_of_xksd_are_those_that_exist() {
    let commands = commands_of("xksd");
    assert!(commands.len() > 30, "{}", commands.len());
    let check = |(place, words): &(String, Vec<String>)| {
        let said = judge(words).err()?;
        Some(format!("{place}: xksd {}: {said}", words.join(" ")))
    };
    none(&commands.iter().filter_map(check).collect::<Vec<_>>());
    let judge = |line: &str| judge(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    assert!(
        judge(
            "bench https://$HOST:$PORT $SECURE --rate 5 --key a --region $REGION --access-key-id BCDEFGHIJKLMNOPQRSTU"
        )
        .is_ok()
    );
    assert!(
        judge("bench https://$HOST --rate 5 --key a --region b --access-key-id BCDEFGHIJKLMNOPQRSTU --fast").is_err()
    );
    assert!(judge("credentials revoke OLD-ID --keystore demo").is_ok());
    assert!(judge("bench https://h").is_ok(), "the rest is from the environment");
    assert!(judge("keys rotate").is_err() && judge("keys turn a").is_err());
    assert!(
        judge(
            "bench https://h --rate much --key a --region b --access-key-id BCDEFGHIJKLMNOPQRSTU"
        )
        .is_err()
    );
}

#[test]
fn commands_within_the_text_are_those_that_exist() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        for (line, text) in &page.spans {
            let Some(words) = text.strip_prefix("xksd ") else { continue };
            let words = words.split(['[', '|', '&']).next().unwrap();
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            count += 1;
            if let Err(said) = command(&words) {
                wrong.push(format!("{}:{line}: `{text}`: {said}", page.path));
            }
        }
    }
    none(&wrong);
    assert!(count > 60, "{count}");
}

#[test]
fn programs_and_files_of_the_repository_are_there() {
    let mut wrong = Vec::new();
    for (place, words) in commands() {
        for word in &words {
            let folders = ["deploy/", "softhsm-setup/", "tests/", "docs/"];
            let is_ours = folders.iter().any(|folder| word.starts_with(folder));
            if is_ours && !word.contains(['$', '*']) && !root().join(word).exists() {
                wrong.push(format!("{place}: there is no {word}"));
            }
        }
    }
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for (place, words) in commands_of("make") {
        let targets = words.iter().filter(|word| !word.contains('=') && !word.starts_with('-'));
        for target in targets {
            if !makefile.lines().any(|line| line.starts_with(&format!("{target}:"))) {
                wrong.push(format!("{place}: make has no {target}"));
            }
        }
    }
    none(&wrong);
}

#[test]
fn json_blocks_are_json() {
    let check = |block: &Block| {
        let values =
            serde_json::Deserializer::from_str(&block.text).into_iter::<serde_json::Value>();
        let error = values.filter_map(Result::err).next()?;
        Some(format!("{}: {error}", block.place))
    };
    none(&blocks(&["json"]).iter().filter_map(check).collect::<Vec<_>>());
}

#[test]
fn yaml_blocks_are_yaml() {
    let blocks = blocks(&["yaml"]);
    if blocks.is_empty() {
        return;
    }
    let Some(python) = python("yaml", "the documents' YAML blocks") else { return };
    let script = "import sys, yaml; list(yaml.safe_load_all(sys.stdin))";
    let check = |block: &Block| {
        let said = ask(Command::new(&python).args(["-c", script]), &block.text).err()?;
        Some(format!("{}: {said}", block.place))
    };
    none(&blocks.iter().filter_map(check).collect::<Vec<_>>());
}

/// Sections and assignments: units of systemd, and configurations of vendors' libraries.
#[test]
fn ini_blocks_are_sections_and_assignments() {
    let is_line = |line: &&str| {
        let line = line.trim();
        let is_section = line.starts_with('[') && line.ends_with(']');
        let is_assignment = line.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty());
        line.is_empty() || line.starts_with('#') || is_section || is_assignment
    };
    let mut wrong = Vec::new();
    for block in blocks(&["ini"]) {
        let lines = block.text.lines().filter(|line| !is_line(line));
        wrong.extend(lines.map(|line| format!("{}: {line}", block.place)));
    }
    none(&wrong);
}

#[test]
fn hcl_blocks_are_formatted_as_terraform_does() {
    let blocks = blocks(&["hcl"]);
    if blocks.is_empty() {
        return;
    }
    let Some(terraform) = terraform("the documents' HCL blocks") else { return };
    let check = |block: &Block| match ask(Command::new(&terraform).args(["fmt", "-"]), &block.text)
    {
        Ok(text) if text == block.text => None,
        Ok(text) => Some(format!("{}: to be formatted as\n{text}", block.place)),
        Err(said) => Some(format!("{}: {said}", block.place)),
    };
    none(&blocks.iter().filter_map(check).collect::<Vec<_>>());
}

/// An expression begins at the margin, and goes on where a line is further in.
fn expressions(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match found.last_mut() {
            Some(last) if line.starts_with(' ') => last.push_str(&format!("\n{line}")),
            _ => found.push(line.to_owned()),
        }
    }
    found
}

#[test]
fn promql_blocks_are_understood_by_prometheus() {
    let mut rules: BTreeMap<String, String> = BTreeMap::new();
    for block in blocks(&["promql"]) {
        for expression in expressions(&block.text) {
            let place =
                format!("docs:{}:{}", block.place.replace(['/', '.', '-'], "_"), rules.len());
            rules.insert(place, expression);
        }
    }
    assert!(rules.len() >= 8, "{rules:?}");
    let Some(promtool) = Promtool::find("the documents' PromQL") else { return };
    let rules: Vec<_> = rules
        .iter()
        .map(|(name, expression)| serde_json::json!({ "record": name, "expr": expression }))
        .collect();
    // JSON is YAML.
    let rules = serde_json::json!({ "groups": [{ "name": "documents", "rules": rules }] });
    assert_eq!(promtool.check_rules(&rules.to_string()), Ok(()));
}
