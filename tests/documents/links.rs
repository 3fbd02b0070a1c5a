//! Links within the repository, and mentions of documents in the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::markdown::{pages, root};
use crate::none;

/// `docs/a/../b.md` is `docs/b.md`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(normal.pop()),
            std::path::Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let anchors: BTreeMap<&str, &[String]> =
        pages.iter().map(|page| (page.path.as_str(), &page.anchors[..])).collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in &pages {
        let folder = Path::new(&page.path).parent().unwrap();
        for (line, target) in &page.links {
            if target.starts_with("https://") || target.starts_with("http://") {
                continue;
            }
            count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => page.path.clone(),
                path => normal(&folder.join(path)).display().to_string(),
            };
            if !root().join(&path).exists() {
                wrong.push(format!("{}:{line}: there is no {path}", page.path));
            } else if !anchor.is_empty()
                && !anchors.get(path.as_str()).is_some_and(|all| all.iter().any(|a| a == anchor))
            {
                wrong.push(format!("{}:{line}: {path} has no heading #{anchor}", page.path));
            }
        }
    }
    none(&wrong);
    assert!(count > 50, "{count}");
}

/// A page that the index does not name is not found by who needs it.
#[test]
fn the_index_names_every_page() {
    let pages = pages();
    let index = pages.iter().find(|page| page.path == "docs/README.md").unwrap();
    let linked: Vec<String> = index
        .links
        .iter()
        .map(|(_, target)| normal(&Path::new("docs").join(target)).display().to_string())
        .collect();
    let is_missing = |path: &&str| path.starts_with("docs/") && *path != index.path;
    let paths = pages.iter().map(|page| page.path.as_str()).filter(is_missing);
    let missing = paths.filter(|path| !linked.iter().any(|linked| linked == path));
    none(&missing.map(|path| format!("docs/README.md does not name {path}")).collect::<Vec<_>>());
}

/// Every `docs/NAME.md` that sources, scripts and units mention.
#[test]
fn documents_that_the_code_mentions_exist() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for folder in ["src", "deploy", "softhsm-setup"] {
        let mut folders = vec![root().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let Ok(text) = fs::read_to_string(&path) else { continue };
                let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
                let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("docs/"));
                for word in words {
                    count += 1;
                    if !root().join(word.trim_end_matches('.')).exists() {
                        wrong.push(format!("{}: there is no {word}", path.display()));
                    }
                }
            }
        }
    }
    none(&wrong);
    assert!(count > 10, "{count}");
}
