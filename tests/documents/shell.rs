//! Shell scripts taken apart into commands, as far as documents need it.

use std::iter::Peekable;
use std::str::Chars;

/// The commands of a script, each as its words without quotes, in order of their ends. Commands inside
/// of `$(...)` and `<(...)` count as well; what they stand for is `$(...)` in the word.
pub(crate) fn commands(script: &str) -> Vec<Vec<String>> {
    let mut reader = Reader { chars: script.chars().peekable(), found: Vec::new() };
    reader.script(0);
    reader.found.into_iter().map(bare).filter(|words| !words.is_empty()).collect()
}

/// What a terminal session has typed: lines after `$ `, with those that go on.
pub(crate) fn typed(session: &str) -> String {
    let mut script = String::new();
    let (mut is_loop, mut goes_on) = (false, false);
    for line in session.lines() {
        let typed = match line.strip_prefix("$ ") {
            None if !goes_on => continue,
            None => line,
            Some(line) => line,
        };
        script.push_str(typed);
        script.push('\n');
        let end = typed.trim_end();
        is_loop = (is_loop || end.starts_with("for ")) && !end.ends_with("done");
        goes_on = is_loop || end.ends_with('\\');
    }
    script
}

/// Without what stands before the program: keywords, assignments, programs that run another.
fn bare(mut words: Vec<String>) -> Vec<String> {
    const BEFORE: [&str; 11] =
        ["if", "then", "else", "while", "until", "do", "!", "exec", "sudo", "time", "{"];
    let is_before = |word: &String| {
        let name = word.split('=').next().unwrap();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_assignment = word.contains('=') && !name.is_empty() && name.chars().all(is_name);
        BEFORE.contains(&word.as_str()) || is_assignment
    };
    while words.first().is_some_and(is_before) {
        let is_sudo = words.remove(0) == "sudo";
        while is_sudo && words.first().is_some_and(|word| word.starts_with('-')) {
            // `-u USER`
            words.drain(..2.min(words.len()));
        }
    }
    words
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    found: Vec<Vec<String>>,
}

impl Reader<'_> {
    /// To its end, or to the parenthesis that closes it if it stands in some.
    fn script(&mut self, depth: usize) {
        let mut words: Vec<String> = Vec::new();
        let mut word: Option<String> = None;
        let mut is_target = false;
        let mut here: Vec<String> = Vec::new();
        loop {
            let next = self.chars.next();
            let is_end =
                matches!(next, None | Some(' ' | '\t' | '\n' | ';' | '|' | '&' | ')' | '('));
            let is_end = is_end || matches!(next, Some('>' | '<'));
            if let Some(word) = word.take_if(|_| is_end) {
                // `2>` and the like: the number is no word.
                let is_number = word.chars().all(|c| c.is_ascii_digit());
                let is_descriptor = is_number && matches!(next, Some('>' | '<'));
                if !(std::mem::take(&mut is_target) || is_descriptor) {
                    words.push(word);
                }
            }
            match next {
                Some(' ' | '\t') => {}
                Some('>' | '<') => match self.chars.peek() {
                    Some('(') => {
                        self.chars.next();
                        self.script(depth + 1);
                        words.push("<(...)".into());
                    }
                    Some('<') => {
                        self.chars.next();
                        if self.chars.next_if_eq(&'<').is_none() {
                            here.push(self.delimiter());
                        } else {
                            is_target = true;
                        }
                    }
                    _ => {
                        self.chars.next_if(|c| matches!(c, '>' | '&' | '|'));
                        is_target = true;
                    }
                },
                None | Some('\n' | ';' | '|' | '&' | ')' | '(') => {
                    if !words.is_empty() {
                        self.found.push(std::mem::take(&mut words));
                    }
                    if next == Some('\n') {
                        here.drain(..).for_each(|end| self.skip_document(&end));
                    }
                    if next.is_none() || next == Some(')') && depth > 0 {
                        return;
                    }
                    if next == Some('(') {
                        self.script(depth + 1);
                    }
                }
                Some('#') if word.is_none() => {
                    while self.chars.next_if(|c| *c != '\n').is_some() {}
                }
                Some('\'') => {
                    let word = word.get_or_insert_default();
                    word.extend(self.chars.by_ref().take_while(|c| *c != '\''));
                }
                Some('"') => {
                    let mut text = word.take().unwrap_or_default();
                    while let Some(c) = self.chars.next().filter(|c| *c != '"') {
                        match c {
                            '\\' => text.extend(self.chars.next()),
                            '$' => self.expansion(&mut text),
                            c => text.push(c),
                        }
                    }
                    word = Some(text);
                }
                Some('\\') => match self.chars.next() {
                    Some('\n') | None => {}
                    Some(c) => word.get_or_insert_default().push(c),
                },
                Some('$') => {
                    let mut text = word.take().unwrap_or_default();
                    self.expansion(&mut text);
                    word = Some(text);
                }
                Some(c) => word.get_or_insert_default().push(c),
            }
        }
    }

    /// After a `$`.
    fn expansion(&mut self, word: &mut String) {
        word.push('$');
        if self.chars.next_if_eq(&'(').is_some() {
            self.script(1);
            word.push_str("(...)");
        }
    }

    /// The word that ends a here-document.
    fn delimiter(&mut self) -> String {
        self.chars.next_if_eq(&'-');
        let is_part = |c: &char| !c.is_whitespace();
        let mut word = String::new();
        while let Some(c) = self.chars.next_if(is_part) {
            word.push(c);
        }
        word.replace(['\'', '"'], "")
    }

    fn skip_document(&mut self, end: &str) {
        loop {
            let line: String = self.chars.by_ref().take_while(|c| *c != '\n').collect();
            if line.trim() == end || self.chars.peek().is_none() {
                return;
            }
        }
    }
}

#[test]
fn commands_are_found_where_a_shell_would_run_them() {
    let script = r#"A=1 xksd a 'b c' "d $(xksd in --x) e" # xksd no
if ! sudo -u me xksd f \
    --g 2>&1 | grep -q xksd; then echo "h;i" >xksd; fi
cat >j <<'END' && xksd k
xksd not this
END
( xksd l ) ; for m in 1; do xksd n; done; while read -r o; do :; done < <(xksd p)
"#;
    let found = commands(script);
    let of_xksd: Vec<String> =
        found.iter().filter(|words| words[0] == "xksd").map(|words| words[1..].join(",")).collect();
    assert_eq!(of_xksd, ["in,--x", "a,b c,d $(...) e", "f,--g", "k", "l", "n", "p"]);
    let session = "$ one \\\n    two\nan answer\n$ for a in b; do\n  three\ndone\nanother\n";
    assert_eq!(typed(session), "one \\\n    two\nfor a in b; do\n  three\ndone\n");
}
