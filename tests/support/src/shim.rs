//! The user's side of `tests/pkcs11-shim`: where it is, its counts, its script.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use crate::gate::PATIENCE;

/// First bytes of a file of counts.
const MAGIC: &[u8] = b"pkcs11-shim counts 1\n";
/// Size of the header and of each record.
const RECORD: usize = 64;
/// Size of a function's name in a record; the counter follows.
const NAME: usize = 56;

/// The shim as cargo built it for the test that is running.
///
/// It is there and up to date for every test of a package that has this crate among its
/// dependencies.
///
/// # Panics
/// Where the caller is no test or example started by cargo.
pub fn library() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own executable");
    // From target/<profile>/deps or target/<profile>/examples.
    let library = test
        .ancestors()
        .nth(2)
        .expect("a test is in target/<profile>/deps")
        .join("deps/libpkcs11_shim.so");
    assert!(library.exists(), "no `{}`; is this a test run by cargo?", library.display());
    library
}

/// A copy of the shim in this directory with settings of its own, whatever the environment says:
/// lines like `PKCS11_SHIM_SCRIPT=/tmp/script`.
///
/// For clients that clear the environment of the process that loads the module, and for two shims in
/// one process.
///
/// # Panics
/// Where [`library`] does, or a file cannot be written.
pub fn copy(directory: &Path, name: &str, settings: &str) -> PathBuf {
    let copy = directory.join(name);
    fs::copy(library(), &copy)
        .and_then(|_| fs::write(directory.join(format!("{name}.conf")), settings))
        .unwrap_or_else(|error| panic!("cannot make `{}`: {error}", copy.display()));
    copy
}

/// Number of calls per C function, as the shim has written them in `PKCS11_SHIM_COUNTS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Reads the counts of all calls made up to now, by all processes that use this file.
    ///
    /// A call is counted when it enters the shim, so one that has returned is in the counts.
    ///
    /// # Panics
    /// Where the file is missing, since nobody has loaded the shim with it yet, or is something
    /// else.
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path)
            .unwrap_or_else(|error| panic!("no counts in `{}`: {error}", path.display()));
        assert!(
            bytes.starts_with(MAGIC) && bytes.len().is_multiple_of(RECORD),
            "`{}` is no file of counts",
            path.display()
        );
        Self(bytes.chunks_exact(RECORD).skip(1).map(parse_record).collect())
    }

    /// How often this function was called.
    ///
    /// # Panics
    /// Where no function has this name: a misspelt one would be 0 for ever.
    pub fn of(&self, function: &str) -> u64 {
        match self.0.get(function) {
            Some(calls) => *calls,
            None => panic!("no function `{function}` in PKCS#11"),
        }
    }

    /// The calls since an earlier reading of the same file.
    ///
    /// # Panics
    /// Where `earlier` is not the earlier one.
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |(name, calls): (&String, &u64)| {
            let calls = calls
                .checked_sub(earlier.of(name))
                .unwrap_or_else(|| panic!("fewer calls of {name} than earlier"));
            (name.clone(), calls)
        };
        Self(self.0.iter().map(difference).collect())
    }

    /// The names of all functions that are counted.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The functions that were called at all, by name; for comparing exactly what was called.
    pub fn called(&self) -> BTreeMap<&str, u64> {
        let called = self.0.iter().filter(|(_, calls)| **calls > 0);
        called.map(|(name, calls)| (name.as_str(), *calls)).collect()
    }
}

fn parse_record(record: &[u8]) -> (String, u64) {
    let (name, calls) = record.split_at(NAME);
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let calls = calls.try_into().expect("a record is a name and eight bytes");
    (String::from_utf8_lossy(name).into_owned(), u64::from_ne_bytes(calls))
}

/// Puts a script in force: every call that starts after this returns obeys it.
///
/// The file is replaced as a whole; the shim never sees half of it.
///
/// # Panics
/// Where the file cannot be written.
pub fn set_script(path: &Path, text: &str) {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .unwrap_or_else(|error| panic!("cannot write the script `{}`: {error}", path.display()));
}

/// Waits until a function has been called so often, by all processes that use this file of counts.
///
/// For calls that do not return: the call is counted before it hangs.
///
/// # Panics
/// Where that does not happen within [`PATIENCE`], and as [`Counts::read`] and [`Counts::of`] do.
pub fn wait_for_calls(path: &Path, function: &str, calls: u64) {
    let start = Instant::now();
    loop {
        let called = Counts::read(path).of(function);
        if called >= calls {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{called} calls of {function}, not {calls}");
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[(&str, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; RECORD];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        for (name, calls) in records {
            let start = bytes.len();
            bytes.extend(name.as_bytes());
            bytes.resize(start + NAME, 0);
            bytes.extend(calls.to_ne_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Counts {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("counts");
        fs::write(&path, bytes).expect("it can be written");
        Counts::read(&path)
    }

    #[test]
    fn counts_are_read_by_name() {
        let counts = read(&file(&[("C_Encrypt", 7), ("C_Decrypt", 0), ("C_Login", u64::MAX)]));
        assert_eq!(counts.of("C_Encrypt"), 7);
        assert_eq!(counts.of("C_Decrypt"), 0);
        assert_eq!(counts.called(), BTreeMap::from([("C_Encrypt", 7), ("C_Login", u64::MAX)]));
    }

    #[test]
    fn the_difference_is_what_was_called_between() {
        let before = read(&file(&[("C_Encrypt", 7), ("C_Decrypt", 2)]));
        let after = read(&file(&[("C_Encrypt", 9), ("C_Decrypt", 2)]));
        assert_eq!(after.since(&before).called(), BTreeMap::from([("C_Encrypt", 2)]));
    }

    #[test]
    fn calls_are_waited_for() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("counts");
        fs::write(&path, file(&[("C_Encrypt", 1)])).expect("it can be written");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait_for_calls(&path, "C_Encrypt", 2));
            // In one step: half a file is no file of counts.
            let draft = path.with_extension("draft");
            fs::write(&draft, file(&[("C_Encrypt", 2)])).expect("it can be written");
            fs::rename(&draft, &path).expect("it can be renamed");
            waiting.join().expect("the call comes");
        });
    }

    #[test]
    #[should_panic(expected = "no function `C_Enrcypt`")]
    fn a_misspelt_function_is_an_error() {
        read(&file(&[("C_Encrypt", 7)])).of("C_Enrcypt");
    }

    #[test]
    #[should_panic(expected = "is no file of counts")]
    fn other_files_are_refused() {
        read(b"something else");
    }
}
