//! What a script says: the rules per function, and how often each function was called under it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::function::Function;
use crate::grammar::{Cause, Line, parse_line};
use crate::plays;
use crate::rule::Rule;

/// The rules of one script, and its counts of calls, which begin when it is loaded.
#[derive(Debug)]
pub(crate) struct Script {
    /// What is left to chance repeats with this.
    pub(crate) seed: u64,
    /// By [`Function::index`]; the rules of a function in the order of their lines.
    rules: Vec<Vec<Rule>>,
    /// By [`Function::index`].
    calls: Vec<AtomicU64>,
}

/// A line that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// The first line is 1.
    pub(crate) number: usize,
    pub(crate) cause: Cause,
}

impl Script {
    /// The script without rules.
    pub(crate) fn empty(seed: u64) -> Self {
        Self {
            seed,
            rules: (0..Function::COUNT).map(|_| Vec::new()).collect(),
            calls: (0..Function::COUNT).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Reads a script; all of its bad lines are reported, not only the first.
    pub(crate) fn parse(text: &str, seed: u64) -> Result<Self, Vec<BadLine>> {
        let mut script = Self::empty(seed);
        let mut bad = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if let Err(cause) = script.read(line) {
                bad.push(BadLine { number: index + 1, cause });
            }
        }
        if bad.is_empty() { Ok(script) } else { Err(bad) }
    }

    /// The rules for this function.
    pub(crate) fn rules(&self, function: Function) -> &[Rule] {
        &self.rules[function.index()]
    }

    /// Counts a call, and gives its number, from 1.
    pub(crate) fn next_call(&self, function: Function) -> u64 {
        self.calls[function.index()].fetch_add(1, Ordering::Relaxed) + 1
    }

    fn read(&mut self, line: &str) -> Result<(), Cause> {
        match parse_line(line)? {
            Line::Blank => Ok(()),
            Line::Rule { functions, selectors, action } => {
                for function in functions {
                    let salt = self.rules.iter().map(Vec::len).sum::<usize>() as u64;
                    let rule = Rule::new(selectors.clone(), action.clone(), salt);
                    self.rules[function.index()].push(rule);
                }
                Ok(())
            }
            Line::Play(name) => {
                let play = plays::named(&name).ok_or(Cause::UnknownPlay(name))?;
                play.lines().try_for_each(|line| self.read(line))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rule::Action;

    fn delay(time: Duration) -> Action {
        Action::Delay(time..=time)
    }

    fn actions(script: &Script, function: Function) -> Vec<&Action> {
        script.rules(function).iter().map(|rule| &rule.action).collect()
    }

    #[test]
    fn rules_go_to_their_function_in_the_order_of_lines() {
        let script = Script::parse(
            "# an HSM far away\n\nC_Encrypt delay 2ms\n  C_Decrypt\tdelay 30us # near\n\
             C_Encrypt delay 1s\n",
            0,
        )
        .expect("the script is good");
        assert_eq!(
            actions(&script, Function::C_Encrypt),
            [&delay(Duration::from_millis(2)), &delay(Duration::from_secs(1))]
        );
        assert_eq!(actions(&script, Function::C_Decrypt), [&delay(Duration::from_micros(30))]);
        assert!(script.rules(Function::C_EncryptInit).is_empty());
    }

    #[test]
    fn a_script_may_be_empty() {
        for text in ["", "# nothing\n\n"] {
            let script = Script::parse(text, 0).expect("it is good");
            assert!(Function::ALL.iter().all(|function| script.rules(*function).is_empty()));
        }
    }

    #[test]
    fn calls_are_counted_by_function_from_one() {
        let script = Script::empty(0);
        assert_eq!(script.next_call(Function::C_Encrypt), 1);
        assert_eq!(script.next_call(Function::C_Encrypt), 2);
        assert_eq!(script.next_call(Function::C_Decrypt), 1);
    }

    #[test]
    fn every_bad_line_is_reported_with_its_number() {
        let text = "C_Encrypt delay 2ms\nC_Enrcypt delay 2ms\n\nC_Login shout\nplay chess\n";
        assert_eq!(
            Script::parse(text, 0).expect_err("three lines are bad"),
            [
                BadLine { number: 2, cause: Cause::UnknownFunction("C_Enrcypt".into()) },
                BadLine { number: 4, cause: Cause::UnknownWord("shout".into()) },
                BadLine { number: 5, cause: Cause::UnknownPlay("chess".into()) },
            ]
        );
    }

    #[test]
    fn every_play_is_a_good_script() {
        for name in plays::names() {
            let script = Script::parse(&format!("play {name}"), 0);
            script.unwrap_or_else(|bad| panic!("{name}: {bad:?}"));
        }
    }

    #[test]
    fn every_script_of_the_readme_is_good_and_every_play_is_in_it() {
        let readme = include_str!("../README.md");
        let blocks = readme.split("```text\n").skip(1).map(|rest| {
            let (block, _) = rest.split_once("```").expect("a block ends");
            block
        });
        let mut found = 0;
        for block in blocks {
            Script::parse(block, 0).unwrap_or_else(|bad| panic!("{bad:?} in\n{block}"));
            found += 1;
        }
        assert!(found > 3, "the blocks are marked otherwise now");
        for name in plays::names() {
            assert!(readme.contains(&format!("| `{name}` |")), "no play {name}");
        }
    }
}
