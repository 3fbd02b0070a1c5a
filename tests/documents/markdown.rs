//! The little of Markdown that the documents use: fences, headings, links and code spans.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A page, with the places of what is looked at in it.
pub(crate) struct Page {
    /// Its path in the repository.
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
    /// What a link can name after `#`.
    pub(crate) anchors: Vec<String>,
    /// Line and target of each link.
    pub(crate) links: Vec<(usize, String)>,
    /// Line and text of each code span; a line end in one is a blank.
    pub(crate) spans: Vec<(usize, String)>,
}

/// A block of code.
pub(crate) struct Block {
    /// `file:line` of its fence.
    pub(crate) place: String,
    /// The first word after the fence; empty where there is none, and for a block that is indented.
    pub(crate) language: String,
    /// The other words.
    pub(crate) tags: Vec<String>,
    pub(crate) text: String,
}

impl Block {
    /// What follows this in one of the tags: `run:` in `run:quick-start`.
    pub(crate) fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(name))
    }
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page that is for readers.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    for top in ["README.md", "SECURITY.md", "CHANGELOG.md"] {
        paths.push(root().join(top));
    }
    for folder in ["docs", "softhsm-setup", "deploy"] {
        find(&root().join(folder), &mut paths);
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn find(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
}

fn read(path: &Path) -> Page {
    let text = fs::read_to_string(path).unwrap();
    let path = path.strip_prefix(root()).unwrap().display().to_string();
    scan(path, &text)
}

/// Reads a page.
pub(crate) fn scan(path: String, text: &str) -> Page {
    let mut blocks = Vec::new();
    // The page without its blocks, line by line.
    let mut prose: Vec<&str> = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let place = format!("{path}:{}", number + 1);
        let indent = line.len() - line.trim_start().len();
        if let Some(info) = line.trim_start().strip_prefix("```") {
            let mut words = info.split_whitespace().map(str::to_owned);
            let (language, tags) = (words.next().unwrap_or_default(), words.collect());
            let mut text = String::new();
            prose.push("");
            loop {
                let (_, line) = lines.next().unwrap_or_else(|| panic!("{place}: no closing fence"));
                prose.push("");
                if line.trim() == "```" {
                    break;
                }
                text.push_str(line.get(indent..).unwrap_or(line.trim_start()));
                text.push('\n');
            }
            blocks.push(Block { place, language, tags, text });
        } else if indent >= 4 && prose.last().is_none_or(|line| line.trim().is_empty()) {
            // Code by indentation: it can't say of what language it is.
            let (language, tags) = Default::default();
            blocks.push(Block { place, language, tags, text: line.to_owned() });
            prose.push("x");
        } else {
            prose.push(line);
        }
    }
    let anchors = anchors(&prose);
    let mut page = Page { path, blocks, anchors, links: Vec::new(), spans: Vec::new() };
    page.take_spans_and_links(&prose);
    page
}

impl Page {
    /// A code span ends within its paragraph; what looks like a link inside of one is none.
    fn take_spans_and_links(&mut self, prose: &[&str]) {
        let mut span: Option<(usize, String)> = None;
        for (index, line) in prose.iter().enumerate() {
            let number = index + 1;
            if line.trim().is_empty() {
                span = None;
                continue;
            }
            let mut plain = String::new();
            for (part, piece) in line.split('`').enumerate() {
                if part > 0 {
                    span = match span.take() {
                        None => Some((number, String::new())),
                        Some(whole) => {
                            self.spans.push(whole);
                            None
                        }
                    };
                }
                match &mut span {
                    Some((_, text)) => text.push_str(piece),
                    None => plain.push_str(piece),
                }
            }
            if let Some((_, text)) = &mut span {
                text.push(' ');
            }
            for rest in plain.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default();
                self.links.push((number, target.to_owned()));
            }
        }
    }
}

/// Headings as GitHub names them.
fn anchors(prose: &[&str]) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let heading = |line: &&str| {
        let text = line.trim_start_matches('#');
        (line.starts_with('#') && text.starts_with(' ')).then(|| text.trim().to_owned())
    };
    let headings = prose.iter().filter_map(heading);
    let anchor = |text: String| {
        // Of a link, its text.
        let text: String = text.split("](").map(|part| part.rsplit(')').next().unwrap()).collect();
        let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
        let name: String = text.chars().filter(is_kept).collect();
        let name = name.to_lowercase().replace(' ', "-");
        let count = seen.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name}-{}", *count - 1) }
    };
    headings.map(anchor).collect()
}

#[test]
fn pages_are_read_as_markdown_means_them() {
    let text = "# A `b.c` & d\n\nSee [x](y.md#z) and `[no](link)`, `one\nspan`.\n\n    code\n\n\
                - item\n\n  ```sh run:one\n  echo\n    in\n  ```\n\n## A `b.c` & d\n";
    let page = scan("p.md".into(), text);
    assert_eq!(page.anchors, ["a-bc--d", "a-bc--d-1"]);
    assert_eq!(page.links, [(3, "y.md#z".to_owned())]);
    let spans: Vec<&str> = page.spans.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(spans, ["b.c", "[no](link)", "one span", "b.c"]);
    let [indented, fenced] = &page.blocks[..] else { panic!("{}", page.blocks.len()) };
    assert_eq!((indented.language.as_str(), indented.place.as_str()), ("", "p.md:6"));
    assert_eq!((fenced.language.as_str(), fenced.text.as_str()), ("sh", "echo\n  in\n"));
    assert_eq!((fenced.tag("run:"), fenced.place.as_str()), (Some("one"), "p.md:10"));
}
