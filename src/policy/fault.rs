//! What is wrong with policies and entities, with its place in the file.

use std::fmt;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

/// One thing that is wrong, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFault {
    /// In which file.
    pub file: PathBuf,
    /// Where in it, if that is known.
    pub place: Option<Place>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it, where that does not follow.
    pub hint: Option<String>,
}

/// A place in a text file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters that are meant, up to the end of the line; 1 at least.
    pub width: usize,
    /// The line itself.
    pub text: String,
}

impl Place {
    /// The place of so many bytes from this one.
    pub(super) fn of(text: &str, offset: usize, length: usize) -> Self {
        // What a parser says of the end of a text may lie behind it, or within a character.
        let at = floor(text, offset.min(text.len()));
        let end = floor(text, at.saturating_add(length).min(text.len()));
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let whole = text[start..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let meant = text[at..end].split('\n').next().unwrap_or_default();
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[start..at].chars().count() + 1,
            width: meant.chars().count().max(1),
            text: whole.to_owned(),
        }
    }
}

/// The start of the character that a byte belongs to.
fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

impl PolicyFault {
    /// A fault of a whole file.
    pub(super) fn of_file(file: &Path, problem: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), place: None, problem: problem.to_string(), hint: None }
    }

    /// The first place in the text that reads so.
    pub(super) fn at(self, text: &str, words: &str) -> Self {
        self.at_nth(text, words, 0)
    }

    /// One of several such places.
    pub(super) fn at_nth(self, text: &str, words: &str, index: usize) -> Self {
        let found = text.match_indices(words).nth(index);
        Self { place: found.map(|(at, words)| Place::of(text, at, words.len())), ..self }
    }

    /// What to do about it.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What Cedar says.
    pub(super) fn of_cedar(file: &Path, text: &str, said: &dyn Diagnostic) -> Self {
        let label = said.labels().and_then(|mut labels| labels.next());
        let place = label.as_ref().map(|label| Place::of(text, label.offset(), label.len()));
        let detail = label.as_ref().and_then(|label| label.label()).unwrap_or_default();
        let mut problem = said.to_string();
        if !detail.is_empty() && !problem.contains(detail) {
            problem = format!("{problem}: {detail}");
        }
        let hint = said.help().map(|help| help.to_string());
        Self { file: file.to_owned(), place, problem, hint }
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, problem, hint: _ } = self;
        let Some(Place { line, column, width, text }) = place else {
            return write!(f, "{}: {problem}", file.display());
        };
        write!(f, "{}:{line}:{column}: {problem}", file.display())?;
        let number = line.to_string();
        let before: String =
            text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let (margin, carets) = (" ".repeat(number.len()), "^".repeat(*width));
        write!(f, "\n  {number} | {text}\n  {margin} | {before}{carets}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_line_and_column() {
        let text = "one\n  é two\r\nthree";
        let at = |words: &str| {
            PolicyFault::of_file(Path::new("p.cedar"), "is wrong").at(text, words).to_string()
        };
        assert_eq!(at("two"), "p.cedar:2:5: is wrong\n  2 |   é two\n    |     ^^^");
        assert_eq!(at("three"), "p.cedar:3:1: is wrong\n  3 | three\n    | ^^^^^");
        assert_eq!(at("four"), "p.cedar: is wrong");
        let end = Place::of(text, 1000, 5);
        assert_eq!((end.line, end.column, end.width), (3, 6, 1));
        // In the middle of a character.
        assert_eq!(Place::of(text, 7, 1).column, 3);
        assert_eq!(Place::of("", 0, 0).line, 1);
    }
}
