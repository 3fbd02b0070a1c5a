//! Other people's strings, made fit for a log line (P-22).

use std::fmt;

/// Longest form of a string in a log line, in characters (P-22).
pub const MAX_LOG_TEXT_LEN: usize = 256;

/// Shows a string of a request in a log: printable ASCII only, 256 characters at most (P-22).
///
/// Control characters, non-ASCII and the backslash are escaped as in Rust (`\n`, `\u{e9}`, `\\`), so
/// that no request can forge a log line or a terminal sequence. What is too long ends in `...`.
#[derive(Clone, Copy)]
pub struct LogText<'a>(&'a str);

impl<'a> LogText<'a> {
    /// Wraps a string of any length and content.
    pub const fn new(text: &'a str) -> Self {
        Self(text)
    }
}

impl fmt::Display for LogText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Two passes over at most 256 characters: the first finds where to cut.
        let whole = self.0.chars().map(width).try_fold(0usize, |sum, width| {
            sum.checked_add(width).filter(|&sum| sum <= MAX_LOG_TEXT_LEN)
        });
        let mut room = match whole {
            Some(len) => len,
            None => MAX_LOG_TEXT_LEN - CUT.len(),
        };
        for c in self.0.chars() {
            match room.checked_sub(width(c)) {
                Some(rest) => room = rest,
                None => break,
            }
            write(c, f)?;
        }
        if whole.is_none() { f.write_str(CUT) } else { Ok(()) }
    }
}

/// The same as `Display`: there is no other way to see the string.
impl fmt::Debug for LogText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Stands for what was cut off.
const CUT: &str = "...";

/// Whether a character may stand for itself.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') && c != '\\'
}

/// Characters that `c` takes in the log.
fn width(c: char) -> usize {
    if is_plain(c) { 1 } else { c.escape_default().len() }
}

fn write(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if is_plain(c) {
        fmt::Write::write_char(f, c)
    } else {
        fmt::Display::fmt(&c.escape_default(), f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        LogText::new(text).to_string()
    }

    #[test]
    fn strings_are_escaped_p_22() {
        assert_eq!(shown(""), "");
        assert_eq!(shown("4112f4d6-db54 \"quoted\" it's"), "4112f4d6-db54 \"quoted\" it's");
        assert_eq!(shown("a\r\nb\t\u{1b}[31m\u{7f}"), r"a\r\nb\t\u{1b}[31m\u{7f}");
        assert_eq!(shown("é\u{202e}\\n"), r"\u{e9}\u{202e}\\n");
        assert_eq!(format!("{:?}", LogText::new("a\nb")), r"a\nb");
    }

    #[test]
    fn strings_are_cut_to_256_characters_p_22() {
        assert_eq!(shown(&"a".repeat(256)), "a".repeat(256));
        assert_eq!(shown(&"a".repeat(257)), format!("{}...", "a".repeat(253)));
        // No escape is cut in two: 42 times six characters, and no room for a 43rd before the dots.
        assert_eq!(shown(&"é".repeat(100)), format!("{}...", r"\u{e9}".repeat(42)));
    }

    proptest! {
        #[test]
        fn nothing_else_reaches_a_log_p_22(text in any::<String>()) {
            let shown = shown(&text);
            prop_assert!(shown.len() <= MAX_LOG_TEXT_LEN);
            prop_assert!(shown.bytes().all(|b| (0x20..=0x7e).contains(&b)));
        }
    }
}
