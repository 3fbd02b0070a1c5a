//! One line of a script: `FUNCTION ACTION`, with selectors before or after the action, or
//! `play NAME`. Words are parted by blanks; one that begins with `#` starts a comment.

use std::num::NonZeroU64;

use crate::function::Function;
use crate::identity::Field;
use crate::rule::{Action, IvPlace, IvValue, Selector, When};
use crate::words::Words;

/// A line that is understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Blank,
    Rule { functions: Vec<Function>, selectors: Vec<Selector>, action: Action },
    Play(String),
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    #[error("`{0}` is no function of PKCS#11 3.0")]
    UnknownFunction(String),
    #[error("no action; there are {}", keywords(ACTIONS))]
    NoAction,
    #[error(
        "`{0}` is no action and no selector; actions are {actions}; selectors are {selectors}",
        actions = keywords(ACTIONS),
        selectors = keywords(SELECTORS)
    )]
    UnknownWord(String),
    #[error("`{0}` is a second action; give it a line of its own")]
    SecondAction(String),
    #[error("`{0}` needs {1}")]
    Missing(String, &'static str),
    #[error("`{0}` is no time: a whole number and `us`, `ms` or `s`, like `2ms`")]
    BadTime(String),
    #[error("`{0}` is no range of times: the shorter comes first, like `1ms..5ms`")]
    BadRange(String),
    #[error("`{0}` is no whole number above 0")]
    BadNumber(String),
    #[error("`{0}` is no exit status: a whole number up to 255")]
    BadStatus(String),
    #[error("`{0}` is no share: above 0 and up to 100, with at most four decimals, like `1%`")]
    BadShare(String),
    #[error("`{0}` is no return code: a name of PKCS#11, like `CKR_DEVICE_ERROR`, or a number")]
    BadCode(String),
    #[error("`{0}` is no place of an IV; there are `in-place` and `appended`")]
    BadPlace(String),
    #[error("`{0}` is nothing that this function says of itself")]
    BadField(String),
    #[error("`{0}` is too long for its field of {1} bytes")]
    LongText(String, usize),
    #[error("`{0}` has no sense at a call of {name}", name = .1.name())]
    Unfit(String, Function),
    #[error("no play `{0}`; there are {names}", names = quoted(crate::plays::names()))]
    UnknownPlay(String),
    #[error("`{0}` is too much for this line")]
    Surplus(String),
}

/// Reads what follows a keyword. The functions are those of the line; there is at least one.
type Reader<T> = fn(&mut Words<'_>, &[Function]) -> Result<T, Cause>;

const SELECTORS: &[(&str, Reader<Selector>)] = &[
    ("nth", |words, _| Ok(Selector::Nth(words.number()?))),
    ("every", |words, _| Ok(Selector::Every(words.number()?))),
    ("first", |words, _| Ok(Selector::First(words.number()?))),
    ("from", |words, _| Ok(Selector::From(words.number()?))),
    ("share", |words, _| Ok(Selector::Share(words.share()?))),
    ("read-only", |_, _| Ok(Selector::ReadOnly)),
    ("beyond", |words, _| Ok(Selector::Beyond(words.number()?.get()))),
];

const ACTIONS: &[(&str, Reader<Action>)] = &[
    ("delay", |words, _| Ok(Action::Delay(words.times()?))),
    ("hang", |_, _| Ok(Action::Hang)),
    ("crash", |_, _| Ok(Action::Crash)),
    ("exit", |words, _| Ok(Action::Exit(words.status_if_any()?))),
    ("return", |words, _| {
        let code = words.code()?;
        Ok(Action::Return(code, when(words)?))
    }),
    ("flip", |words, _| Ok(Action::Flip(number_or_one(words)))),
    ("short", |words, _| Ok(Action::Short(number_or_one(words)))),
    ("long", |words, _| Ok(Action::Long(number_or_one(words)))),
    ("zero", |_, _| Ok(Action::Zero)),
    ("same", |_, _| Ok(Action::Same)),
    ("renumber", |_, _| Ok(Action::Renumber)),
    ("iv", iv),
    ("say", say),
];

/// Reads a line of a script; what a play says is not looked at.
pub(crate) fn parse_line(line: &str) -> Result<Line, Cause> {
    let mut words = Words::of(without_comment(line));
    let Some(word) = words.next() else { return Ok(Line::Blank) };
    if word == "play" {
        let name = words.needed("a name, like `cloudhsm`")?.to_owned();
        return match words.next() {
            None => Ok(Line::Play(name)),
            Some(word) => Err(Cause::Surplus(word.to_owned())),
        };
    }
    let functions = functions(word)?;
    let (mut selectors, mut action) = (Vec::new(), None);
    while let Some(word) = words.next() {
        let fits: Box<dyn Fn(Function) -> bool> = if let Some(read) = find(SELECTORS, word) {
            let selector = read(&mut words, &functions)?;
            selectors.push(selector);
            Box::new(move |function| selector.fits(function))
        } else if let Some(read) = find(ACTIONS, word) {
            if action.is_some() {
                return Err(Cause::SecondAction(word.to_owned()));
            }
            let read = read(&mut words, &functions)?;
            action = Some(read.clone());
            Box::new(move |function| read.fits(function))
        } else if action.is_some() {
            return Err(Cause::Surplus(word.to_owned()));
        } else {
            return Err(Cause::UnknownWord(word.to_owned()));
        };
        if let Some(unfit) = functions.iter().find(|function| !fits(**function)) {
            return Err(Cause::Unfit(word.to_owned(), *unfit));
        }
    }
    let action = action.ok_or(Cause::NoAction)?;
    Ok(Line::Rule { functions, selectors, action })
}

/// What stands before the first word that begins with `#`; within a word it is a letter.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices('#').map(|(start, _)| &line[..start]);
    let mut comment = comment.filter(|text| text.is_empty() || text.ends_with(char::is_whitespace));
    comment.next().unwrap_or(line)
}

/// One function by its name, or all whose names begin with what stands before a `*`.
fn functions(word: &str) -> Result<Vec<Function>, Cause> {
    let found: Vec<_> = match word.strip_suffix('*') {
        Some(start) if start.starts_with("C_") => {
            let all = Function::ALL.iter().copied();
            all.filter(|function| function.name().starts_with(start)).collect()
        }
        _ => Function::named(word).into_iter().collect(),
    };
    if found.is_empty() { Err(Cause::UnknownFunction(word.to_owned())) } else { Ok(found) }
}

fn when(words: &mut Words<'_>) -> Result<When, Cause> {
    if words.next_if("after") {
        Ok(When::After)
    } else if words.next_if("for") {
        Ok(When::For(words.code()?))
    } else {
        Ok(When::Before)
    }
}

fn number_or_one(words: &mut Words<'_>) -> u64 {
    words.number_if_any().map_or(1, NonZeroU64::get)
}

fn iv(words: &mut Words<'_>, _: &[Function]) -> Result<Action, Cause> {
    let place = match words.needed("a place, like `in-place`")? {
        "in-place" => IvPlace::InPlace,
        "appended" => IvPlace::Appended,
        other => return Err(Cause::BadPlace(other.to_owned())),
    };
    let value = if words.next_if("same") { IvValue::Same } else { IvValue::Fresh };
    Ok(Action::Iv(place, value))
}

/// The text is all that is left of the line.
fn say(words: &mut Words<'_>, functions: &[Function]) -> Result<Action, Cause> {
    let name = words.needed("a field, like `manufacturer`")?;
    let field = Field::of(functions[0]).find(|field| field.name == name);
    let field = field.ok_or_else(|| Cause::BadField(name.to_owned()))?;
    let text = words.rest();
    if !field.takes(text) {
        let text = text.to_owned();
        return Err(match field.is_text() {
            true => Cause::LongText(text, field.length),
            false => Cause::BadNumber(text),
        });
    }
    Ok(Action::Say(field, text.to_owned()))
}

fn find<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|(keyword, _)| *keyword == word).map(|(_, entry)| *entry)
}

fn keywords<T>(table: &[(&'static str, T)]) -> String {
    quoted(table.iter().map(|(keyword, _)| *keyword))
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
