//! The words of a line, read one after the other.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use cryptoki_sys::CK_RV;

use crate::codes;
use crate::grammar::Cause;
use crate::rule::Share;

/// What is left of a line.
pub(crate) struct Words<'a> {
    left: &'a str,
    /// The word read last, named where what it needs is missing.
    last: &'a str,
}

impl<'a> Words<'a> {
    pub(crate) fn of(line: &'a str) -> Self {
        Self { left: line.trim(), last: "" }
    }

    /// The next word, if there is one.
    pub(crate) fn next(&mut self) -> Option<&'a str> {
        if self.left.is_empty() {
            return None;
        }
        let (word, left) = self.left.split_once(char::is_whitespace).unwrap_or((self.left, ""));
        self.left = left.trim_start();
        self.last = word;
        Some(word)
    }

    /// The next word, without which the word before it has no sense.
    pub(crate) fn needed(&mut self, what: &'static str) -> Result<&'a str, Cause> {
        let before = self.last;
        self.next().ok_or_else(|| Cause::Missing(before.to_owned(), what))
    }

    /// Takes the next word if it is this one.
    pub(crate) fn next_if(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        if is {
            self.next();
        }
        is
    }

    /// All that is left, as it stands.
    pub(crate) fn rest(&mut self) -> &'a str {
        std::mem::take(&mut self.left)
    }

    /// A time, or the shortest and the longest of a range: `2ms`, `1ms..5ms`.
    pub(crate) fn times(&mut self) -> Result<RangeInclusive<Duration>, Cause> {
        let word = self.needed("a time, like `2ms`")?;
        let bad = || Cause::BadTime(word.to_owned());
        let (from, to) = word.split_once("..").unwrap_or((word, word));
        let (from, to) = (time(from).ok_or_else(bad)?, time(to).ok_or_else(bad)?);
        if from > to { Err(Cause::BadRange(word.to_owned())) } else { Ok(from..=to) }
    }

    /// A number above 0.
    pub(crate) fn number(&mut self) -> Result<NonZeroU64, Cause> {
        let word = self.needed("a number, like `3`")?;
        number(word).ok_or_else(|| Cause::BadNumber(word.to_owned()))
    }

    /// A number above 0, if the next word is one.
    pub(crate) fn number_if_any(&mut self) -> Option<NonZeroU64> {
        let number = number(self.peek()?)?;
        self.next();
        Some(number)
    }

    /// A status of a process, if the next word begins with a digit; else 1.
    pub(crate) fn status_if_any(&mut self) -> Result<i32, Cause> {
        match self.peek().filter(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
            None => Ok(1),
            Some(word) => {
                self.next();
                let status = word.parse::<u8>().map_err(|_| Cause::BadStatus(word.to_owned()))?;
                Ok(status.into())
            }
        }
    }

    /// A percentage: `1%`, `0.25%`.
    pub(crate) fn share(&mut self) -> Result<Share, Cause> {
        let word = self.needed("a percentage, like `1%`")?;
        share(word).ok_or_else(|| Cause::BadShare(word.to_owned()))
    }

    /// A return code, by name or number.
    pub(crate) fn code(&mut self) -> Result<CK_RV, Cause> {
        let word = self.needed("a return code, like `CKR_DEVICE_ERROR`")?;
        codes::code(word).ok_or_else(|| Cause::BadCode(word.to_owned()))
    }

    fn peek(&self) -> Option<&'a str> {
        self.left.split_whitespace().next()
    }
}

fn time(word: &str) -> Option<Duration> {
    let (digits, unit) =
        word.split_at(word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len()));
    let number = digits.parse().ok()?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

fn number(word: &str) -> Option<NonZeroU64> {
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.parse().ok())?
}

/// Exactly, without floating point: the four decimals of a percentage are millionths.
fn share(word: &str) -> Option<Share> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let percentage = word.strip_suffix('%')?;
    let (whole, decimals) = percentage.split_once('.').unwrap_or((percentage, "0"));
    if !digits(whole) || !digits(decimals) || decimals.len() > 4 {
        return None;
    }
    let millionths: u32 = format!("{decimals:0<4}").parse().ok()?;
    let share = whole.parse::<u32>().ok()?.checked_mul(10_000)?.checked_add(millionths)?;
    (1..=1_000_000).contains(&share).then_some(Share(share))
}
