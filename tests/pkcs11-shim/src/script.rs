//! What a script says: grammar, and the actions per function.
//!
//! One rule a line, `FUNCTION ACTION ARGUMENTS`, words parted by blanks; `#` starts a comment.

use std::time::Duration;

use crate::function::Function;

/// What is done at a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Sleeps at least this long, in the calling thread, before the real call.
    Delay(Duration),
}

/// The rules of one script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Script {
    /// By [`Function::index`]; the actions of a function in the order of their lines.
    actions: Vec<Vec<Action>>,
}

/// A line that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// The first line is 1.
    pub(crate) number: usize,
    pub(crate) cause: Cause,
}

/// What is wrong with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    #[error("`{0}` is no function of PKCS#11 2.40")]
    UnknownFunction(String),
    #[error("no action after the function; there is `delay`")]
    NoAction,
    #[error("`{0}` is no action; there is `delay`")]
    UnknownAction(String),
    #[error("`delay` needs a time, like `2ms`")]
    NoTime,
    #[error("`{0}` is no time: a whole number and `us`, `ms` or `s`, like `2ms`")]
    BadTime(String),
    #[error("`{0}` is too much for this action")]
    Surplus(String),
}

impl Script {
    /// The script without rules.
    pub(crate) fn empty() -> Self {
        Self { actions: vec![Vec::new(); Function::COUNT] }
    }

    /// Reads a script; all of its bad lines are reported, not only the first.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<BadLine>> {
        let mut script = Self::empty();
        let mut bad = Vec::new();
        for (index, line) in text.lines().enumerate() {
            match parse_line(line) {
                Ok(Some((function, action))) => script.actions[function.index()].push(action),
                Ok(None) => {}
                Err(cause) => bad.push(BadLine { number: index + 1, cause }),
            }
        }
        if bad.is_empty() { Ok(script) } else { Err(bad) }
    }

    /// What to do at a call of this function.
    pub(crate) fn actions(&self, function: Function) -> &[Action] {
        &self.actions[function.index()]
    }
}

fn parse_line(line: &str) -> Result<Option<(Function, Action)>, Cause> {
    let rule = line.split_once('#').map_or(line, |(rule, _comment)| rule);
    let mut words = rule.split_whitespace();
    let Some(name) = words.next() else { return Ok(None) };
    let function = Function::named(name).ok_or_else(|| Cause::UnknownFunction(name.to_owned()))?;
    let action = match words.next() {
        None => return Err(Cause::NoAction),
        Some("delay") => Action::Delay(parse_time(words.next().ok_or(Cause::NoTime)?)?),
        Some(other) => return Err(Cause::UnknownAction(other.to_owned())),
    };
    match words.next() {
        None => Ok(Some((function, action))),
        Some(word) => Err(Cause::Surplus(word.to_owned())),
    }
}

fn parse_time(word: &str) -> Result<Duration, Cause> {
    let bad = || Cause::BadTime(word.to_owned());
    let (digits, unit) =
        word.split_at(word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len()));
    let number: u64 = digits.parse().map_err(|_| bad())?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(line: &str) -> Cause {
        parse_line(line).expect_err("the line is bad")
    }

    #[test]
    fn rules_go_to_their_function_in_the_order_of_lines() {
        let script = Script::parse(
            "# an HSM far away\n\nC_Encrypt delay 2ms\n  C_Decrypt\tdelay 30us # near\n\
             C_Encrypt delay 1s\n",
        )
        .expect("the script is good");
        assert_eq!(
            script.actions(Function::C_Encrypt),
            [Action::Delay(Duration::from_millis(2)), Action::Delay(Duration::from_secs(1))]
        );
        assert_eq!(script.actions(Function::C_Decrypt), [Action::Delay(Duration::from_micros(30))]);
        assert_eq!(script.actions(Function::C_EncryptInit), []);
    }

    #[test]
    fn a_script_may_be_empty() {
        assert_eq!(Script::parse(""), Ok(Script::empty()));
        assert_eq!(Script::parse("# nothing\n\n"), Ok(Script::empty()));
    }

    #[test]
    fn every_bad_line_is_reported_with_its_number() {
        let bad = Script::parse("C_Encrypt delay 2ms\nC_Enrcypt delay 2ms\n\nC_Login shout\n")
            .expect_err("two lines are bad");
        assert_eq!(
            bad,
            [
                BadLine { number: 2, cause: Cause::UnknownFunction("C_Enrcypt".into()) },
                BadLine { number: 4, cause: Cause::UnknownAction("shout".into()) },
            ]
        );
    }

    #[test]
    fn bad_lines_by_cause() {
        assert_eq!(cause("c_encrypt delay 1s"), Cause::UnknownFunction("c_encrypt".into()));
        assert_eq!(cause("C_Encrypt"), Cause::NoAction);
        assert_eq!(cause("C_Encrypt # delay 1s"), Cause::NoAction);
        assert_eq!(cause("C_Encrypt delay"), Cause::NoTime);
        assert_eq!(cause("C_Encrypt delay 1s 2s"), Cause::Surplus("2s".into()));
        for word in ["2", "ms", "-1s", "+1s", "1.5s", "1m", "2MS", "99999999999999999999s"] {
            assert_eq!(cause(&format!("C_Encrypt delay {word}")), Cause::BadTime(word.into()));
        }
    }
}
