//! The sections `keystores.NAME`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::authorization::authorization;
use super::credentials::{SeenIds, credentials};
use super::limits;
use super::parse::{alternatives, flag, number_within};
use super::reader::{Section, Shape, parsed};
use super::report::Wrong;
use crate::counts::limit::EncryptionLimit;
use crate::keystore::{KeyRule, Rotation, Settings, VerifyWrites};
use crate::limits::Rate;
use crate::names::{KeystoreName, PathPrefix, Region, TokenName};
use crate::wire::ciphertext_format::{AWS_SAMPLE, Formats, SampleConstants, SampleMetadata};

/// What no two key stores may have in common, or must have in common, and where it was seen first.
#[derive(Debug, Default)]
struct Seen {
    prefixes: BTreeMap<PathPrefix, String>,
    access_key_ids: SeenIds,
    /// By token: the first key store that has it, and all tokens of that.
    groups: BTreeMap<TokenName, (String, Vec<TokenName>)>,
}

/// Reads all of `keystores`; those at fault are left out.
pub(super) fn keystores(
    root: &mut Section<'_>,
    tokens: &[String],
    has_state: bool,
) -> Vec<Settings> {
    let sections = root.named("keystores");
    let mut seen = Seen::default();
    let read = |(name, mut section): (String, Section<'_>)| {
        let parsed = name.parse::<KeystoreName>();
        if let Err(error) = &parsed {
            section.report.fault(&format!("keystores.{name}"), None, error.into());
        }
        let settings = keystore(parsed.ok(), &name, &mut section, tokens, &mut seen);
        let limit = limits::encryption_limit(&mut section, has_state);
        let formats = settings.as_ref().map(|settings| &settings.formats);
        let rotation = limits::rotation(&mut section, formats, has_state);
        Some(Settings { encryption_limit: limit?, rotation: rotation?, ..settings? })
    };
    sections.into_iter().filter_map(read).collect()
}

fn keystore(
    name: Option<KeystoreName>,
    name_text: &str,
    section: &mut Section<'_>,
    tokens: &[String],
    seen: &mut Seen,
) -> Option<Settings> {
    let prefix = section.required("prefix", Shape::Text, |text| {
        let prefix: PathPrefix = text.parse().map_err(|error| {
            Wrong::from(error).hint("it is what stands before /kms/xks/v1; \"\" for nothing")
        })?;
        match seen.prefixes.insert(prefix.clone(), name_text.to_owned()) {
            None => Ok(prefix),
            Some(other) => Err(format!("is the prefix of key store `{other}` as well").into()),
        }
    });
    let regions = section.required_list("regions", parsed::<Region>);
    let tokens = token_names(name_text, section, tokens, seen);
    let keys = section.required_list("keys", parsed::<KeyRule>);
    let enabled = section.or("enabled", "true", Shape::Flag, flag);
    let frozen = section.or("frozen", "false", Shape::Flag, flag);
    let verify_writes = section.or("verify_writes", "always", Shape::Text, verify_writes);
    let formats = formats(section);
    let quota = self::quota(section, "quota");
    let key_quota = self::quota(section, "key_quota");
    let authorization = authorization(section);
    let credentials = credentials(name.as_ref(), name_text, section, &mut seen.access_key_ids);
    Some(Settings {
        name: name?,
        prefix: prefix?,
        enabled: enabled?,
        frozen: frozen?,
        regions: regions?,
        credentials: credentials?,
        keys: keys?,
        tokens: tokens?,
        verify_writes: verify_writes?,
        formats: formats?,
        quota: quota?,
        key_quota: key_quota?,
        authorization: authorization?,
        encryption_limit: EncryptionLimit::default(),
        rotation: Rotation::default(),
    })
}

/// The tokens of the key store, in order. Tokens that stand together once stand together everywhere:
/// what is said of a token's keys is said beside those of the same other tokens.
fn token_names(
    name: &str,
    section: &mut Section<'_>,
    known: &[String],
    seen: &mut Seen,
) -> Option<Vec<TokenName>> {
    let mut names = Vec::new();
    let tokens = section.required_list("tokens", |text| {
        if !known.iter().any(|token| token == text) {
            let mut known: Vec<&str> = known.iter().map(String::as_str).collect();
            known.sort_unstable();
            let wrong = Wrong::from(format!("there is no [tokens.{text}]"));
            return Err(if known.is_empty() {
                wrong
            } else {
                wrong.hint(format!("tokens: {}", known.join(", ")))
            });
        }
        if names.iter().any(|name| name == text) {
            return Err(format!("`{text}` is there twice").into());
        }
        names.push(text.to_owned());
        parsed::<TokenName>(text)
    })?;
    for token in &tokens {
        let (owner, first) =
            seen.groups.entry(token.clone()).or_insert_with(|| (name.to_owned(), tokens.clone()));
        if *first != tokens {
            let problem = format!(
                "`{token}` stands with other tokens, or in another order, in key store `{owner}`"
            );
            let hint = "key stores that share a token share all of them; a token may have two \
                        sections [tokens.NAME]";
            section.fault("tokens", None, Wrong::from(problem).hint(hint));
            return None;
        }
    }
    Some(tokens)
}

fn verify_writes(text: &str) -> Result<VerifyWrites, Wrong> {
    const NAMES: [&str; 2] = ["always", "when_asked"];
    match text {
        "always" => Ok(VerifyWrites::Always),
        "when_asked" => Ok(VerifyWrites::WhenAsked),
        _ => Err(format!("must be {}", alternatives(&NAMES)).into()),
    }
}

/// Whether ciphertexts of AWS's sample proxy are read, or even written: writing them wants that they
/// are read.
fn formats(section: &mut Section<'_>) -> Option<Formats> {
    const ACCEPT: &str = "accept_ciphertexts_of";
    const METADATA: &str = "aws_sample_metadata";
    const ENCRYPT: &str = "encrypt_as";
    let only = |text: &str| match text {
        AWS_SAMPLE => Ok(()),
        _ => Err(Wrong::from(format!("must be {}", alternatives(&[AWS_SAMPLE])))),
    };
    let has_metadata = section.has(METADATA);
    let accept = section.optional(ACCEPT, Shape::Text, only);
    let mut constants: Vec<SampleMetadata> = Vec::new();
    let constants = section.list(METADATA, |text| {
        let constant = parsed::<SampleMetadata>(text)?;
        if constants.contains(&constant) {
            return Err(format!("`{text}` is there twice").into());
        }
        constants.push(constant);
        Ok(constant)
    });
    let writes_sample = section.or(ENCRYPT, "xksd", Shape::Text, |text| match text {
        "xksd" => Ok(false),
        AWS_SAMPLE => Ok(true),
        _ => Err(format!("must be {}", alternatives(&["xksd", AWS_SAMPLE])).into()),
    });
    let (accept, constants, writes_sample) = (accept?, constants?, writes_sample?);
    if accept.is_none() {
        let without = |key: &str, what: &str| {
            let wrong = Wrong::from(format!("{what} and `{ACCEPT}` is not set"));
            section.fault(key, None, wrong.hint(format!("{ACCEPT} = \"{AWS_SAMPLE}\"")));
        };
        if has_metadata {
            without(METADATA, "says what the sample proxy's ciphertexts are known by,");
        }
        if writes_sample {
            without(ENCRYPT, "what is written must be read as well,");
        }
        return (!has_metadata && !writes_sample).then_some(Formats::Own);
    }
    let mut constants = constants.into_iter();
    // Left out, the sample proxy's settings have none.
    let now = constants.next().unwrap_or(SampleMetadata::ABSENT);
    let constants = SampleConstants { now, before: constants.collect() };
    Some(match writes_sample {
        true => Formats::WriteAwsSample(constants),
        false => Formats::ReadAwsSample(constants),
    })
}

/// A section with what is allowed of requests; nothing is limited that it does not name.
fn quota(section: &mut Section<'_>, key: &'static str) -> Option<crate::limits::Settings> {
    const RATE: &str = "requests_per_second";
    const BURST: &str = "burst";
    let mut section = section.section(key);
    let number = number_within(1..=1_000_000);
    let per_second = section.optional(RATE, Shape::Number, &number);
    let burst = section.optional(BURST, Shape::Number, &number);
    let concurrent = section.optional("concurrent", Shape::Number, &number);
    let (per_second, burst, concurrent) = (per_second?, burst?, concurrent?);
    let at_least_one = |number: u32| NonZeroU32::new(number).expect("it is within its bounds");
    let rate = match (per_second, burst) {
        (Some(per_second), burst) => {
            let burst = at_least_one(burst.unwrap_or(per_second));
            Some(Rate { per_second: at_least_one(per_second), burst })
        }
        (None, None) => None,
        (None, Some(_)) => {
            let wrong = Wrong::from(format!("means nothing without `{RATE}`"));
            section.fault(BURST, None, wrong.hint(format!("{RATE} = 1800")));
            return None;
        }
    };
    Some(crate::limits::Settings { rate, concurrent: concurrent.map(at_least_one) })
}
