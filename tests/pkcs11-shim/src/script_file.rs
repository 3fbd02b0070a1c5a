//! The script as a file that may change while the process runs.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::script::Script;
use crate::shim::report;

/// A file that changed less than this before it was read is read again at the next call: before
/// Linux 6.13, two changes within one tick of the kernel's clock (10 ms at most) carry the same
/// time.
const SETTLING: Duration = Duration::from_millis(20);

/// A script file, looked at on every call, so that a call that starts after a change obeys it.
pub(crate) struct ScriptFile {
    path: PathBuf,
    seed: u64,
    last: RwLock<Reading>,
}

/// What was found when the file was last read.
struct Reading {
    stamp: Stamp,
    /// Whether a later change is sure to change the stamp.
    settled: bool,
    /// What the file held, good or bad.
    text: String,
    /// The last good script.
    script: Arc<Script>,
}

/// Tells one state of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    /// No such file: a script without rules.
    Absent,
    /// The file is there and cannot be looked at.
    Unreadable,
    /// Unlike the time of modification, the time of change cannot be set back by anybody.
    Present { inode: u64, size: u64, changed: Duration },
}

impl ScriptFile {
    /// The script at this path; it need not exist yet. What it leaves to chance follows `seed`.
    pub(crate) fn new(path: PathBuf, seed: u64) -> Self {
        let script = Arc::new(Script::empty(seed));
        let nothing = Reading { stamp: Stamp::Absent, settled: true, text: String::new(), script };
        Self { path, seed, last: RwLock::new(nothing) }
    }

    /// The script in force now: the same one until the file changes. A file that is written again
    /// with the same text is a change, and begins the script's counts of calls anew.
    ///
    /// A file with a bad line changes nothing: the lines are reported on stderr, and the script
    /// before it stays in force.
    pub(crate) fn current(&self) -> Arc<Script> {
        let stamp = Stamp::of(fs::metadata(&self.path));
        {
            let last = self.last.read().unwrap_or_else(PoisonError::into_inner);
            if last.settled && last.stamp == stamp {
                return Arc::clone(&last.script);
            }
        }
        let mut last = self.last.write().unwrap_or_else(PoisonError::into_inner);
        self.read_again(&mut last);
        Arc::clone(&last.script)
    }

    fn read_again(&self, last: &mut Reading) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (stamp, text) = match self.stamp_and_text() {
            Ok((stamp, text)) => (stamp, text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Stamp::Absent, String::new()),
            Err(error) => {
                if last.stamp != Stamp::Unreadable {
                    let path = self.path.display();
                    report(format_args!("{path}: {error}; the script before stays in force"));
                }
                last.stamp = Stamp::Unreadable;
                last.settled = false;
                return;
            }
        };
        last.settled = match stamp {
            Stamp::Present { changed, .. } => changed + SETTLING < now,
            Stamp::Absent | Stamp::Unreadable => true,
        };
        // Before the file is settled it is read at every call; that alone is no change.
        if stamp == last.stamp && text == last.text {
            return;
        }
        last.stamp = stamp;
        match Script::parse(&text, self.seed) {
            Ok(script) => last.script = Arc::new(script),
            Err(lines) => {
                let path = self.path.display();
                for line in lines {
                    report(format_args!("{path}:{}: {}", line.number, line.cause));
                }
                report(format_args!("{path}: the script before stays in force"));
            }
        }
        last.text = text;
    }

    /// Text and stamp of one and the same file, also while another is renamed over it.
    fn stamp_and_text(&self) -> io::Result<(Stamp, String)> {
        let mut file = File::open(&self.path)?;
        let stamp = Stamp::of(file.metadata());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // What is not UTF-8 is no word of the grammar and will be reported with its line.
        Ok((stamp, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

impl Stamp {
    fn of(metadata: io::Result<Metadata>) -> Self {
        match metadata {
            Ok(metadata) => Self::Present {
                inode: metadata.ino(),
                size: metadata.size(),
                changed: Duration::new(
                    u64::try_from(metadata.ctime()).unwrap_or_default(),
                    u32::try_from(metadata.ctime_nsec()).unwrap_or_default(),
                ),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(_) => Self::Unreadable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Function;
    use crate::rule::{Action, Rule};

    fn delay(file: &ScriptFile) -> Option<Duration> {
        match file.current().rules(Function::C_Encrypt) {
            [] => None,
            [Rule { action: Action::Delay(time), .. }] => Some(*time.start()),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn follows_the_file_from_its_absence_to_its_removal() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("script");
        let file = ScriptFile::new(path.clone(), 0);
        assert_eq!(delay(&file), None);
        // In place, of the same size, and faster than the clock of file times before Linux 6.13.
        for _ in 0..50 {
            for number in 1..=9 {
                fs::write(&path, format!("C_Encrypt delay {number}ms")).expect("it can be written");
                assert_eq!(delay(&file), Some(Duration::from_millis(number)));
            }
        }
        fs::remove_file(&path).expect("it can be removed");
        assert_eq!(delay(&file), None);
    }

    #[test]
    fn a_bad_file_leaves_the_script_before_it_in_force() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("script");
        let file = ScriptFile::new(path.clone(), 0);
        fs::write(&path, "C_Encrypt delay 1ms").expect("it can be written");
        assert_eq!(delay(&file), Some(Duration::from_millis(1)));
        fs::write(&path, "C_Encrypt delay 2ms\nC_Encrypt delay soon").expect("it can be written");
        assert_eq!(delay(&file), Some(Duration::from_millis(1)));
        fs::write(&path, "C_Encrypt delay 3ms").expect("it can be written");
        assert_eq!(delay(&file), Some(Duration::from_millis(3)));
    }

    #[test]
    fn the_same_text_written_again_is_a_new_script_and_reading_alone_is_not() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (path, draft) = (directory.path().join("script"), directory.path().join("draft"));
        let file = ScriptFile::new(path.clone(), 0);
        let mut scripts: Vec<Arc<Script>> = Vec::new();
        for _ in 0..10 {
            fs::write(&draft, "C_Encrypt delay 1ms").expect("it can be written");
            fs::rename(&draft, &path).expect("it can be renamed");
            let script = file.current();
            assert!(scripts.iter().all(|earlier| !Arc::ptr_eq(earlier, &script)));
            assert!(Arc::ptr_eq(&script, &file.current()));
            scripts.push(script);
        }
    }
}
