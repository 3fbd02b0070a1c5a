//! How keys are shown: the words of tables, and the fields of `--json`, which stay as they are.

use serde_json::{Value, json};

use crate::hsm::backend::Protection;
use crate::hsm::key::{CheckValue, KeyKind, Usage};
use crate::hsm::state::Origin;
use crate::lifecycle::{Failed, Held, Office, Write};

pub(super) fn spec(kind: &KeyKind) -> String {
    match kind {
        KeyKind::Aes { bits } => format!("AES_{bits}"),
        KeyKind::Other(name) => name.clone(),
    }
}

pub(super) fn usages(usage: Usage) -> Vec<&'static str> {
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

pub(super) fn usage_words(usage: Usage) -> String {
    match usages(usage).join(",") {
        nothing if nothing.is_empty() => "none".to_owned(),
        words => words,
    }
}

pub(super) fn check_value(value: Option<CheckValue>) -> Option<String> {
    value.map(|value| value.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// One version, in the newest state that any token knows.
pub(super) fn version(held: &Held) -> Value {
    let attributes = &held.objects[0].attributes;
    let state = held.state.as_ref();
    json!({
        "version": held.version.number(),
        "object_id": held.object_id.to_string(),
        "status": held.status().as_str(),
        "epoch": state.map(|state| state.epoch),
        "created": state.map(|state| state.created.iso()),
        "deletion": state.and_then(|state| state.deletion).map(|date| date.iso()),
        "origin": state.map(|state| state.origin.as_str()),
        "replicable": state.is_some_and(|state| state.origin == Origin::Replicable),
        "key_spec": spec(&attributes.kind),
        "usage": usages(attributes.usage),
        "check_value": check_value(attributes.check_value),
    })
}

pub(super) fn protection(protection: Protection) -> Value {
    let Protection {
        token,
        private,
        sensitive,
        always_sensitive,
        extractable,
        never_extractable,
        modifiable,
        wrap_with_trusted,
        value_len,
    } = protection;
    json!({
        "token": token,
        "private": private,
        "sensitive": sensitive,
        "always_sensitive": always_sensitive,
        "extractable": extractable,
        "never_extractable": never_extractable,
        "modifiable": modifiable,
        "wrap_with_trusted": wrap_with_trusted,
        "value_len": value_len,
    })
}

/// The names of all tokens that a command is about.
pub(super) fn tokens(office: &Office) -> Vec<&str> {
    (0..office.len()).map(|token| office.name(token).as_str()).collect()
}

/// The same for people.
pub(super) fn place(office: &Office) -> String {
    match tokens(office).as_slice() {
        [only] => format!("token `{only}`"),
        several => format!("tokens `{}`", several.join("`, `")),
    }
}

/// A state that was, or is to be, written.
pub(super) fn write(office: &Office, write: &Write) -> Value {
    json!({
        "token": office.name(write.token).as_str(),
        "version": write.to.version.number(),
        "object_id": write.to.object_id.to_string(),
        "from": write.from.to_string(),
        "to": write.to.to_string(),
    })
}

pub(super) fn failures(failures: &[Failed]) -> Vec<Value> {
    let failed = |failed: &Failed| json!({ "token": failed.token.as_str(), "error": failed.fault.to_string() });
    failures.iter().map(failed).collect()
}
