//! Finds and reads files with policies and entities.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::policy::Source;

/// Most bytes of a file of policies or entities.
const MAX_FILE_LEN: u64 = 16 * 1024 * 1024;

/// The files that a path means: itself, or those whose names fit the one `*` in its last part, which
/// stands for any characters; hidden ones are left out.
///
/// # Errors
/// What is wrong, in words: the directory can't be read, or no name fits.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, String> {
    let pattern = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let Some((before, after)) = pattern.split_once('*') else { return Ok(vec![path.to_owned()]) };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let entries = std::fs::read_dir(directory)
        .map_err(|error| format!("{} cannot be read: {error}", directory.display()))?;
    let fits = |name: &str| {
        let is_long_enough = name.len() >= before.len() + after.len();
        let is_hidden = name.starts_with('.');
        is_long_enough && !is_hidden && name.starts_with(before) && name.ends_with(after)
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().and_then(OsStr::to_str).is_some_and(fits))
        .collect();
    files.sort();
    if files.is_empty() { Err("no file has a name like this".to_owned()) } else { Ok(files) }
}

/// Reads one file, UTF-8 of at most 16 MiB.
///
/// # Errors
/// What is wrong, in words.
pub fn read(path: &Path) -> Result<Source, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_LEN {
        return Err("is larger than 16 MiB".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(Source { path: path.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_of_a_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.cedar", "a.cedar", ".hidden.cedar", "a.json", "cedar"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        let names = |pattern: &str| {
            let files = find(&directory.path().join(pattern))?;
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            Ok::<_, String>(files.into_iter().map(name).collect::<Vec<_>>())
        };
        assert_eq!(names("*.cedar").unwrap(), ["a.cedar", "b.cedar"]);
        assert_eq!(names("a*").unwrap(), ["a.cedar", "a.json"]);
        assert_eq!(names("none").unwrap(), ["none"]);
        assert_eq!(names("x*"), Err("no file has a name like this".to_owned()));
        assert!(names("nowhere/*").unwrap_err().contains("cannot be read"));
        assert_eq!(read(&directory.path().join("a.json")).unwrap().text, "a.json");
        assert!(read(&directory.path().join("none")).unwrap_err().contains("cannot be read"));
    }
}
