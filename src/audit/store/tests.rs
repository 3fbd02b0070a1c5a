use std::fs;
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use super::super::disk::Local;
use super::super::record::Refused;
use super::super::verify::{Judgement, Report, Verifier};
use super::super::{line::Line, names};
use super::*;

/// A disk that can be made to fail.
#[derive(Debug, Clone, Default)]
struct Bad(Arc<Mutex<Failures>>);

#[derive(Debug, Default)]
struct Failures {
    /// Bytes that may still be written; then the disk is full.
    room: Option<usize>,
    sync: bool,
    cut: bool,
}

struct BadSheet(Box<dyn Sheet>, Bad);

impl Disk for Bad {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sheet>> {
        Ok(Box::new(BadSheet(Local.create(path)?, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Sheet>> {
        Ok(Box::new(BadSheet(Local.open(path)?, self.clone())))
    }
}

impl Sheet for BadSheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self(sheet, Bad(failures)) = self;
        match failures.lock().unwrap().room.as_mut() {
            Some(room) if *room < bytes.len() => {
                sheet.write(&bytes[..*room])?;
                *room = 0;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(room) => {
                *room -= bytes.len();
                sheet.write(bytes)
            }
            None => sheet.write(bytes),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.1.0.lock().unwrap().sync { Err(io::Error::other("fsync")) } else { self.0.sync() }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.1.0.lock().unwrap().cut { Err(io::Error::other("cut")) } else { self.0.cut(length) }
    }

    fn is_at(&self, path: &Path, length: u64) -> io::Result<bool> {
        self.0.is_at(path, length)
    }
}

fn place(directory: &Path) -> Place {
    let directory = directory.to_owned();
    Place { directory, rotate_size: 1 << 20, rotate_age: Duration::from_secs(3600) }
}

fn open(directory: &Path) -> Store {
    Store::open(place(directory), Box::new(Local), "test", UNIX_EPOCH).unwrap()
}

fn event(count: u64) -> Event {
    let keystore = "demo".parse().unwrap();
    Event::Refused(Refused { keystore, reason: "signature", count, from: UNIX_EPOCH })
}

fn verify(directory: &Path) -> Report {
    let mut verifier = Verifier::new(|_| Judgement::Unjudged, &[]);
    for name in names::files(directory).unwrap() {
        verifier.file(&name.to_string());
        let bytes = fs::read(directory.join(name.to_string())).unwrap();
        bytes.split_inclusive(|byte| *byte == b'\n').for_each(|line| verifier.line(line));
    }
    verifier.finish()
}

fn kinds(directory: &Path) -> Vec<String> {
    let files = names::files(directory).unwrap();
    let text = |name: &FileName| fs::read_to_string(directory.join(name.to_string())).unwrap();
    let kind = |line: &str| Line::parse(line.as_bytes()).unwrap().kind.to_owned();
    files.iter().flat_map(|name| text(name).lines().map(kind).collect::<Vec<_>>()).collect()
}

fn only_file(directory: &Path) -> PathBuf {
    let files = names::files(directory).unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    directory.join(files[0].to_string())
}

#[test]
fn a_chain_goes_on_where_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let chain = store.chain();
    store.append(UNIX_EPOCH, event(1));
    store.sync(UNIX_EPOCH).unwrap();
    drop(store);
    let mut store = open(dir.path());
    assert_eq!(store.chain(), chain);
    store.sync(UNIX_EPOCH).unwrap();
    assert_eq!(kinds(dir.path()), ["opened", "refused", "opened"]);
    let report = verify(dir.path());
    assert_eq!((report.findings, report.chains[0].head), (Vec::new(), store.head()));
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(only_file(dir.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_second_writer_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(place(dir.path()), Box::new(Local), "test", UNIX_EPOCH);
    assert!(matches!(second, Err(StoreError::Locked(_))));
    drop(store);
    open(dir.path());
}

/// Whatever kill -9 or a power cut has left at the end, byte by byte.
#[test]
fn a_torn_end_is_cut_off_kept_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.append(UNIX_EPOCH, event(1));
    store.sync(UNIX_EPOCH).unwrap();
    drop(store);
    let path = only_file(dir.path());
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in first + 1..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let mut store = open(dir.path());
        store.sync(UNIX_EPOCH).unwrap();
        drop(store);
        assert_eq!(kinds(dir.path()), ["opened", "repaired", "opened"], "{length}");
        assert_eq!(verify(dir.path()).findings, []);
        let aside = PathBuf::from(format!("{}.torn-{first}", path.display()));
        assert_eq!(fs::read(&aside).unwrap(), &whole[first..length]);
        fs::remove_file(aside).unwrap();
    }
    // What a file system may leave of blocks that were never written.
    fs::write(&path, [&whole[..first], &[0; 4096], b"\n\n{}\n"].concat()).unwrap();
    let mut store = open(dir.path());
    store.sync(UNIX_EPOCH).unwrap();
    assert_eq!(kinds(dir.path()), ["opened", "repaired", "opened"]);
    let repaired = fs::read_to_string(&path).unwrap();
    assert!(repaired.contains(&format!(r#""bytes":{},"sha256":""#, 4096 + 5)), "{repaired}");
}

#[test]
fn files_without_a_record_are_gone_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.sync(UNIX_EPOCH).unwrap();
    let (chain, seq) = (store.chain(), store.head().seq);
    drop(store);
    // Made, and killed before the first record; and one with half a record.
    for (seconds, content) in [(100, ""), (200, "{\"seq\":2,\"cha")] {
        let name = FileName { seconds, seq: seq + 1 };
        fs::write(dir.path().join(name.to_string()), content).unwrap();
    }
    let mut store = open(dir.path());
    assert_eq!(store.chain(), chain);
    store.sync(UNIX_EPOCH).unwrap();
    assert_eq!(kinds(dir.path()), ["opened", "repaired", "opened"]);
    assert_eq!(verify(dir.path()).findings, []);
}

#[test]
fn a_log_that_cannot_be_gone_on_with_is_kept_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let name = FileName { seconds: 100, seq: 1 };
    fs::write(dir.path().join(name.to_string()), "not a record\n").unwrap();
    let mut store = open(dir.path());
    store.sync(UNIX_EPOCH).unwrap();
    let path = only_file(dir.path());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(&format!(r#""instead_of":"{name}""#)), "{text}");
    let aside = dir.path().join(format!("{name}.torn-0"));
    assert_eq!(fs::read_to_string(aside).unwrap(), "not a record\n");
}

#[test]
fn files_rotate_by_size_and_by_age_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { rotate_size: 1000, ..place(dir.path()) };
    let mut store = Store::open(place, Box::new(Local), "test", UNIX_EPOCH).unwrap();
    for number in 0..40 {
        store.append(UNIX_EPOCH, event(number));
        store.sync(UNIX_EPOCH).unwrap();
    }
    let by_size = names::files(dir.path()).unwrap().len();
    assert!((8..=14).contains(&by_size), "{by_size}");
    store.append(UNIX_EPOCH, event(40));
    store.sync(UNIX_EPOCH + Duration::from_secs(7200)).unwrap();
    assert_eq!(names::files(dir.path()).unwrap().len(), by_size + 1);
    let report = verify(dir.path());
    assert_eq!((report.findings, report.chains.len()), (Vec::new(), 1));
    assert_eq!(report.chains[0].records, 42);
}

#[test]
fn a_full_disk_loses_nothing_and_leaves_no_half_record() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Bad::default();
    let mut store =
        Store::open(place(dir.path()), Box::new(bad.clone()), "test", UNIX_EPOCH).unwrap();
    store.sync(UNIX_EPOCH).unwrap();
    let synced = fs::read(only_file(dir.path())).unwrap();
    bad.0.lock().unwrap().room = Some(100);
    for number in 0..3 {
        store.append(UNIX_EPOCH, event(number));
        assert_eq!(store.sync(UNIX_EPOCH).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(only_file(dir.path())).unwrap(), synced);
    }
    bad.0.lock().unwrap().room = None;
    store.sync(UNIX_EPOCH).unwrap();
    assert_eq!(store.unsynced(), 0);
    assert_eq!(kinds(dir.path()), ["opened", "refused", "refused", "refused"]);
    assert_eq!(verify(dir.path()).findings, []);
}

#[test]
fn a_failed_fsync_has_its_records_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let bad = Bad::default();
    let mut store =
        Store::open(place(dir.path()), Box::new(bad.clone()), "test", UNIX_EPOCH).unwrap();
    store.sync(UNIX_EPOCH).unwrap();
    // Not even cutting works, until it does again.
    *bad.0.lock().unwrap() = Failures { room: None, sync: true, cut: true };
    store.append(UNIX_EPOCH, event(1));
    store.write(UNIX_EPOCH).unwrap();
    store.sync(UNIX_EPOCH).unwrap_err();
    *bad.0.lock().unwrap() = Failures::default();
    store.append(UNIX_EPOCH, event(2));
    store.sync(UNIX_EPOCH).unwrap();
    assert_eq!(kinds(dir.path()), ["opened", "refused", "refused"]);
    assert_eq!(verify(dir.path()).findings, []);
}

#[test]
fn a_directory_that_was_taken_away_is_noticed_and_a_new_one_used() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("audit");
    make_directory(&directory).unwrap();
    make_directory(&directory).unwrap();
    let mut store = open(&directory);
    store.append(UNIX_EPOCH, event(1));
    store.sync(UNIX_EPOCH).unwrap();
    fs::rename(&directory, dir.path().join("away")).unwrap();
    store.append(UNIX_EPOCH, event(2));
    store.sync(UNIX_EPOCH).unwrap_err();
    store.sync(UNIX_EPOCH).unwrap_err();
    make_directory(&directory).unwrap();
    store.sync(UNIX_EPOCH).unwrap();
    assert_eq!(kinds(&directory), ["refused", "file_lost"]);
    // The lock is in the new one now.
    let second = Store::open(place(&directory), Box::new(Local), "test", UNIX_EPOCH);
    assert!(matches!(second, Err(StoreError::Locked(_))));
    // Put together again, nothing is missing.
    let first = only_file(&dir.path().join("away"));
    fs::copy(&first, directory.join(first.file_name().unwrap())).unwrap();
    assert_eq!(verify(&directory).findings, []);
}

#[test]
fn what_others_write_into_the_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.sync(UNIX_EPOCH).unwrap();
    let path = only_file(dir.path());
    fs::write(&path, "").unwrap();
    store.append(UNIX_EPOCH, event(1));
    store.sync(UNIX_EPOCH).unwrap_err();
    store.sync(UNIX_EPOCH).unwrap();
    let last = *names::files(dir.path()).unwrap().last().unwrap();
    let text = fs::read_to_string(dir.path().join(last.to_string())).unwrap();
    assert!(text.contains("file_lost"), "{text}");
    // The record of the beginning is gone, and that is found.
    assert_ne!(verify(dir.path()).chains[0].first, 1);
}
