//! Which series and labels an expression of PromQL names. That it is one, promtool says.

use std::collections::{BTreeMap, BTreeSet};

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Series, and the labels that their selectors name.
    pub(crate) series: BTreeMap<String, BTreeSet<String>>,
    /// Labels of `by`, `on` and the like.
    pub(crate) grouping: BTreeSet<String>,
}

/// Words that are followed by labels in parentheses.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Reads an expression.
pub(crate) fn read(expression: &str) -> Named {
    let mut named = Named::default();
    let bare = without_strings(expression);
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || "_$".contains(c)) {
        // 5m and $__rate_interval are no names.
        let is_part = rest[..start].ends_with(|c: char| c.is_ascii_digit());
        rest = &rest[start..];
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_:$".contains(c);
        let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        rest = after;
        let next = rest.trim_start();
        if is_part || word.starts_with('$') {
            continue;
        } else if GROUPING.contains(&word) {
            let (labels, after) = next.strip_prefix('(').unwrap().split_once(')').unwrap();
            let labels = labels.split(',').map(str::trim).filter(|label| !label.is_empty());
            named.grouping.extend(labels.map(str::to_owned));
            rest = after;
        } else if word == "up" || word.contains(['_', ':']) && !next.starts_with('(') {
            let labels = named.series.entry(word.to_owned()).or_default();
            if let Some((matchers, after)) = next.strip_prefix('{').and_then(|m| m.split_once('}'))
            {
                let matchers = matchers.split(',').map(str::trim).filter(|m| !m.is_empty());
                labels.extend(matchers.map(|m| m.split(['=', '!']).next().unwrap().to_owned()));
                rest = after;
            }
        }
    }
    named
}

/// The expression without comments, and with nothing in its strings.
fn without_strings(expression: &str) -> String {
    let mut bare = String::new();
    for line in expression.lines() {
        for (number, part) in line.split('"').enumerate() {
            if number % 2 == 0 {
                let (code, comment) =
                    part.split_once('#').map_or((part, None), |(c, m)| (c, Some(m)));
                bare.push_str(code);
                if comment.is_some() {
                    break;
                }
            }
        }
        bare.push('\n');
    }
    bare
}

#[test]
fn series_and_labels_are_found() {
    let named = read(
        "# of xksd_not_this\nsum by (job, le) (rate(xksd_a_bucket{keystore!=\"none\",le=\"by (x)\"}[5m]))\n\
         / on (job) group_left () (job:xksd_b:rate5m offset 1h) > 0.5 * scalar(up)",
    );
    let set = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(named.grouping, set(&["job", "le"]));
    let series: Vec<_> = named.series.into_iter().collect();
    assert_eq!(
        series,
        [
            ("job:xksd_b:rate5m".to_owned(), set(&[])),
            ("up".to_owned(), set(&[])),
            ("xksd_a_bucket".to_owned(), set(&["keystore", "le"])),
        ]
    );
}
