//! Takes values out of the tree by key, and collects what is wrong on the way.
//!
//! Nothing ends at the first fault: a value that can't be read is `None`, its fault is in the
//! [`Report`], and reading goes on. What nobody took from a [`Section`] is an unknown key.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use config::{Value, ValueKind};

use super::report::{Report, Wrong};

/// What a key takes in TOML. An environment variable can only hold text, which is read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string.
    Text,
    /// A string that is not to be seen if something is wrong with it.
    Hidden,
    /// An integer.
    Number,
    /// A number, with decimals or without.
    Decimal,
    /// `true` or `false`.
    Flag,
}

/// A table of the configuration.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) report: &'a Report,
    path: String,
    values: BTreeMap<String, Value>,
    known: Vec<&'static str>,
    /// It is no table, or has names of the operator's: nothing is missing and nothing is unknown.
    is_closed: Cell<bool>,
}

impl<'a> Section<'a> {
    /// The top of the configuration.
    pub(super) fn root(report: &'a Report, values: BTreeMap<String, Value>) -> Self {
        Self { report, path: String::new(), values, known: Vec::new(), is_closed: Cell::new(false) }
    }

    fn new(report: &'a Report, path: String, value: Option<Value>) -> Self {
        let mut section = Self::root(report, BTreeMap::new());
        section.path = path;
        match value.map(|value| value.kind) {
            None => {}
            Some(ValueKind::Table(values)) => section.values = values.into_iter().collect(),
            Some(_) => {
                report.fault(&section.path, None, "must be a section".into());
                section.is_closed.set(true);
            }
        }
        section
    }

    /// The path of one of its keys.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Records a fault of one of its keys.
    pub(super) fn fault(&self, key: &str, value: Option<String>, wrong: impl Into<Wrong>) {
        self.report.fault(&self.path(key), value, wrong.into());
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// A key that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        shape: Shape,
        parse: impl FnMut(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.optional(key, shape, parse)?;
        if value.is_none() {
            let what = match shape {
                Shape::Text | Shape::Hidden => "a string",
                Shape::Number => "an integer",
                Shape::Decimal => "a number",
                Shape::Flag => "true or false",
            };
            self.missing(key, format!("is missing; it takes {what}"));
        }
        value
    }

    /// Records that a key is not there, unless nothing could be.
    pub(super) fn missing(&self, key: &str, wrong: impl Into<Wrong>) {
        if !self.is_closed.get() {
            self.fault(key, None, wrong);
        }
    }

    /// A key that need not be there: `Some(None)` if it is not, `None` if it is at fault.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        shape: Shape,
        parse: impl FnMut(&str) -> Result<T, Wrong>,
    ) -> Option<Option<T>> {
        match self.take(key, None) {
            None => Some(None),
            Some(value) => self.scalar(&self.path(key), value, shape, parse).map(Some),
        }
    }

    /// A key with a default, written as it would be in the file.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: &'static str,
        shape: Shape,
        mut parse: impl FnMut(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match self.take(key, Some(default)) {
            Some(value) => self.scalar(&self.path(key), value, shape, parse),
            None => {
                Some(parse(default).unwrap_or_else(|wrong| panic!("default of {key}: {wrong:?}")))
            }
        }
    }

    /// A list of strings; a single string is a list of one, and a variable's is split at commas.
    /// `None` if it is at fault; empty if it is not there.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        mut parse: impl FnMut(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let path = self.path(key);
        let items = match self.take(key, None).map(|value| value.kind) {
            None => return Some(Vec::new()),
            Some(ValueKind::Array(items)) => items,
            Some(ValueKind::String(text)) if self.report.is_override(&path) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(Value::from)
                .collect(),
            Some(kind @ ValueKind::String(_)) => vec![kind.into()],
            Some(kind) => {
                self.fault(key, Some(kind.to_string()), "must be a list of strings");
                return None;
            }
        };
        let mut read = Vec::with_capacity(items.len());
        let wanted = items.len();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            read.extend(self.scalar(&path, item, Shape::Text, &mut parse));
        }
        (read.len() == wanted).then_some(read)
    }

    /// A list that must be there and hold something.
    pub(super) fn required_list<T>(
        &mut self,
        key: &'static str,
        parse: impl FnMut(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let is_there = self.has(key);
        let list = self.list(key, parse)?;
        if !list.is_empty() {
            return Some(list);
        }
        if is_there {
            self.fault(key, Some("[]".to_owned()), "must hold at least one");
        } else {
            self.missing(key, "is missing; it takes a list of strings");
        }
        None
    }

    /// A section below; an absent one is an empty one.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let value = self.take(key, None);
        Section::new(self.report, self.path(key), value)
    }

    /// The sections below `key`, which the operator has named; there must be one.
    pub(super) fn named(&mut self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let mut names = self.section(key);
        if names.values.is_empty() && !names.is_closed.get() {
            self.missing(key, format!("is missing: there must be at least one [{key}.NAME]"));
        }
        names.is_closed.set(true);
        let values = std::mem::take(&mut names.values);
        let section = |(name, value): (String, Value)| {
            let path = names.path(&name);
            (name, Section::new(names.report, path, Some(value)))
        };
        values.into_iter().map(section).collect()
    }

    /// A list of sections that must be there and hold something.
    pub(super) fn required_sections(
        &mut self,
        key: &'static str,
        members: &str,
    ) -> Option<Vec<Section<'a>>> {
        let path = self.path(key);
        let hint = format!("each begins with [[{path}]] and takes {members}");
        match self.take(key, None).map(|value| value.kind) {
            None => {
                self.missing(key, Wrong::from("is missing").hint(hint));
                None
            }
            Some(ValueKind::Array(items)) if items.is_empty() => {
                self.fault(key, None, Wrong::from("must hold at least one").hint(hint));
                None
            }
            Some(ValueKind::Array(items)) => {
                let section = |(index, item)| {
                    Section::new(self.report, format!("{path}[{index}]"), Some(item))
                };
                Some(items.into_iter().enumerate().map(section).collect())
            }
            Some(_) => {
                self.fault(key, None, Wrong::from("must be a list of sections").hint(hint));
                None
            }
        }
    }

    /// All that is in it, under names of the operator's.
    pub(super) fn all(&mut self, shape: Shape) -> BTreeMap<String, String> {
        self.is_closed.set(true);
        let values = std::mem::take(&mut self.values);
        let read = |(key, value): (String, Value)| {
            let path = self.path(&key);
            Some((key, self.scalar(&path, value, shape, |text| Ok(text.to_owned()))?))
        };
        values.into_iter().filter_map(read).collect()
    }

    /// Takes a value as it is: for keys that take several kinds.
    pub(super) fn take(
        &mut self,
        key: &'static str,
        default: Option<&'static str>,
    ) -> Option<Value> {
        self.known.push(key);
        self.report.note_asked(self.path(key), default);
        self.values.remove(key)
    }

    fn scalar<T>(
        &self,
        path: &str,
        value: Value,
        shape: Shape,
        mut parse: impl FnMut(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let is_override = self.report.is_override(path);
        let (text, is_fit) = match value.kind {
            ValueKind::String(text) => {
                (text, is_override || matches!(shape, Shape::Text | Shape::Hidden))
            }
            ValueKind::Boolean(flag) => (flag.to_string(), shape == Shape::Flag),
            ValueKind::I64(number) => {
                (number.to_string(), matches!(shape, Shape::Number | Shape::Decimal))
            }
            ValueKind::Float(number) => (number.to_string(), shape == Shape::Decimal),
            other => (other.to_string(), false),
        };
        let read = if is_fit {
            parse(&text)
        } else {
            Err(Wrong::from(match shape {
                Shape::Text | Shape::Hidden => "must be a string, in quotes",
                Shape::Number => "must be an integer",
                Shape::Decimal => "must be a number, without quotes",
                Shape::Flag => "must be true or false, without quotes",
            }))
        };
        match read {
            Ok(value) => Some(value),
            Err(wrong) => {
                let quoted =
                    if is_fit && matches!(shape, Shape::Text) { format!("{text:?}") } else { text };
                let value = (shape != Shape::Hidden).then_some(quoted);
                self.report.fault(path, value, wrong);
                None
            }
        }
    }
}

impl Drop for Section<'_> {
    /// What nobody took is unknown. Its value is not shown: it may be a secret under a wrong name.
    fn drop(&mut self) {
        if self.is_closed.get() {
            return;
        }
        for key in self.values.keys() {
            let closest = self
                .known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(known, key), known))
                .min()
                .filter(|(distance, known)| *distance <= known.len().max(key.len()) / 2);
            let wrong = Wrong::from("is no known key");
            let wrong = match closest {
                Some((_, known)) => wrong.hint(format!("did you mean `{}`?", self.path(known))),
                None => {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    wrong.hint(format!("known here: {}", known.join(", ")))
                }
            };
            self.fault(key, None, wrong);
        }
    }
}

/// Reads a text by its own rules.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, Wrong> {
    Ok(text.parse::<T>()?)
}
