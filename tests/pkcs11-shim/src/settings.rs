//! What the shim is told: by a file beside its library, else by the environment.
//!
//! The file is for several shims in one process, each a copy of the library with a file of its own,
//! and for clients that clear the environment of the process that loads the module.

use std::collections::HashMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// Path of the real module.
pub(crate) const MODULE: &str = "PKCS11_SHIM_MODULE";
/// Path of the file of counters.
pub(crate) const COUNTS: &str = "PKCS11_SHIM_COUNTS";
/// Path of the script.
pub(crate) const SCRIPT: &str = "PKCS11_SHIM_SCRIPT";
/// The seed of what the script leaves to chance.
pub(crate) const SEED: &str = "PKCS11_SHIM_SEED";

/// All there are.
const NAMES: [&str; 4] = [MODULE, COUNTS, SCRIPT, SEED];

type Settings = HashMap<&'static str, OsString>;

/// Why the file cannot be obeyed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read `{0}`: {1}")]
    Read(PathBuf, io::Error),
    #[error("`{0}`:{1}: not a setting of the shim, like `{SCRIPT}=/tmp/script`")]
    Line(PathBuf, usize),
}

/// The setting of this name; an empty one is none.
pub(crate) fn setting(name: &str) -> Option<OsString> {
    let value = match &*FILE {
        Ok(Some(settings)) => settings.get(name).cloned(),
        Ok(None) | Err(_) => env::var_os(name),
    };
    value.filter(|value| !value.is_empty())
}

/// What is wrong with the file beside the library, if anything is.
pub(crate) fn error() -> Option<&'static SettingsError> {
    FILE.as_ref().err()
}

/// The settings of the file; none where there is no file.
static FILE: LazyLock<Result<Option<Settings>, SettingsError>> = LazyLock::new(|| {
    let Some(mut path) = library() else { return Ok(None) };
    path.push(".conf");
    let path = PathBuf::from(path);
    match fs::read(&path) {
        Ok(text) => match parse(&text) {
            Ok(settings) => Ok(Some(settings)),
            Err(number) => Err(SettingsError::Line(path, number)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SettingsError::Read(path, error)),
    }
});

/// Path of this library: that of the mapping in which its own code lies.
fn library() -> Option<OsString> {
    let here = (library as fn() -> Option<OsString> as *const ()).addr();
    let maps = fs::read("/proc/self/maps").ok()?;
    maps.split(|byte| *byte == b'\n').find_map(|line| mapped_file(line, here))
}

/// The file of a line of /proc/self/maps, if the line is about this address: `start-end mode offset
/// device inode path`, and the path may hold blanks.
fn mapped_file(line: &[u8], here: usize) -> Option<OsString> {
    let text = str::from_utf8(line).ok()?;
    let (start, rest) = text.split_once('-')?;
    let (end, rest) = rest.split_once(' ')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let path = rest.find('/').map(|at| &rest[at..])?;
    range.contains(&here).then(|| OsString::from(path))
}

/// `NAME=VALUE` on each line, or nothing, or a comment.
///
/// # Errors
/// The number of the first bad line, from 1.
fn parse(text: &[u8]) -> Result<Settings, usize> {
    let mut settings = Settings::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            continue;
        }
        let equals = line.iter().position(|byte| *byte == b'=').ok_or(index + 1)?;
        let (name, value) = (&line[..equals], &line[equals + 1..]);
        let name = NAMES.into_iter().find(|known| known.as_bytes() == name).ok_or(index + 1)?;
        settings.insert(name, OsStr::from_bytes(value).to_owned());
    }
    Ok(settings)
}

/// The path that a setting holds.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    setting(name).map(|value| Path::new(&value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_lines_of_name_and_value() {
        let settings = parse(b"# two\nPKCS11_SHIM_SEED=1\n\nPKCS11_SHIM_SCRIPT=/a b=c\n");
        let settings = settings.expect("they are good");
        assert_eq!(settings.len(), 2);
        assert_eq!(settings[SEED], "1");
        assert_eq!(settings[SCRIPT], "/a b=c");
        assert_eq!(parse(b"PKCS11_SHIM_SEED=1\nPKCS11_SHIM_SEEDS=1"), Err(2));
        assert_eq!(parse(b"PKCS11_SHIM_SEED"), Err(1));
    }

    #[test]
    fn the_library_is_found_by_its_mapping() {
        let line = b"1000-2000 r-xp 00000000 08:01 123    /usr/lib/a shim.so";
        assert_eq!(mapped_file(line, 0x1000), Some("/usr/lib/a shim.so".into()));
        assert_eq!(mapped_file(line, 0x2000), None);
        assert_eq!(mapped_file(b"1000-2000 rw-p 00000000 00:00 0", 0x1000), None);
        assert_eq!(mapped_file(b"", 0x1000), None);
        let executable = env::current_exe().expect("a test knows its executable");
        assert_eq!(library(), Some(executable.into_os_string()));
    }
}
