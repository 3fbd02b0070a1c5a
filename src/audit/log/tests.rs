use std::fs;
use std::io;
use std::path::Path;

use super::super::disk::Sheet;
use super::super::names;
use super::super::record::Event;
use super::super::verify::{Judgement, Report, Verifier};
use super::*;
use crate::metrics::Metrics;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Work,
    BeFull,
    Hang,
}

/// A disk that can be full, or hang.
#[derive(Debug, Clone)]
struct Played(Arc<(Mutex<Act>, Condvar)>);

impl Played {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Act::Work), Condvar::new())))
    }

    fn set(&self, act: Act) {
        *self.0.0.lock().unwrap() = act;
        self.0.1.notify_all();
    }

    fn enter(&self) -> io::Result<()> {
        let act = self.0.0.lock().unwrap();
        let act = self.0.1.wait_while(act, |act| *act == Act::Hang).unwrap();
        if *act == Act::BeFull { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

struct PlayedSheet(Box<dyn Sheet>, Played);

impl Disk for Played {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sheet>> {
        Ok(Box::new(PlayedSheet(Local.create(path)?, self.clone())))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Sheet>> {
        Ok(Box::new(PlayedSheet(Local.open(path)?, self.clone())))
    }
}

impl Sheet for PlayedSheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.1.enter()?;
        self.0.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1.enter()?;
        self.0.sync()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.cut(length)
    }

    fn is_at(&self, path: &Path, length: u64) -> io::Result<bool> {
        self.0.is_at(path, length)
    }
}

struct World {
    dir: tempfile::TempDir,
    disk: Played,
    metrics: Metrics,
    log: Log,
}

impl World {
    fn new(on_failure: OnFailure, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            directory: dir.path().to_owned(),
            rotate_size: 1 << 30,
            rotate_age: Duration::from_secs(3600),
        };
        let mut settings = Settings {
            place,
            on_failure,
            sync_interval: Duration::from_millis(20),
            max_delay: PATIENCE * 10,
            refused_interval: Duration::from_secs(3600),
            checkpoints: None,
            copies: Vec::new(),
        };
        change(&mut settings);
        let (disk, metrics) = (Played::new(), Metrics::new());
        let log = Log::start_on(&settings, metrics.audit(), Box::new(disk.clone())).unwrap();
        Self { dir, disk, metrics, log }
    }

    fn text(&self) -> String {
        let files = names::files(self.dir.path()).unwrap();
        let text =
            |name: names::FileName| fs::read_to_string(self.dir.path().join(name.to_string()));
        files.into_iter().map(|name| text(name).unwrap()).collect()
    }

    fn verify(&self) -> Report {
        let mut verifier = Verifier::new(|_| Judgement::Unjudged, &[]);
        verifier.file("all");
        self.text().split_inclusive('\n').for_each(|line| verifier.line(line.as_bytes()));
        verifier.finish()
    }

    fn stopped(&self) -> String {
        assert!(self.log.stop(PATIENCE));
        assert_eq!(self.verify().findings, []);
        self.text()
    }

    fn keep(&self) {
        assert!(self.log.admit().unwrap().keep(Event::Closed).is_none());
    }
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_kept_is_on_disk_after_the_end() {
    let world = World::new(OnFailure::Refuse, |_| {});
    for _ in 0..100 {
        world.keep();
    }
    let keystore: KeystoreName = "demo".parse().unwrap();
    for reason in ["signature", "date", "signature"] {
        world.log.refused(&keystore, reason);
    }
    let text = world.stopped();
    // The end is one more of that kind.
    assert_eq!(text.matches(r#""type":"closed""#).count(), 101);
    assert!(text.contains(r#""keystore":"demo","reason":"date","count":1"#));
    assert!(text.contains(r#""keystore":"demo","reason":"signature","count":2"#));
    let rendered = world.metrics.render();
    assert!(rendered.contains(r#"xksd_audit_records_total{type="refused"} 2"#), "{rendered}");
}

#[test]
fn records_become_safe_without_others_that_follow() {
    let world = World::new(OnFailure::Refuse, |_| {});
    world.keep();
    let safe = world.log.watch_safe();
    wait_until(|| safe.borrow().records == 2);
    wait_until(|| world.log.lag().is_zero());
    assert_eq!(safe.borrow().head, world.verify().chains[0].head);
}

#[test]
fn where_the_disk_is_full_refuse_serves_nothing_and_loses_nothing() {
    let world = World::new(OnFailure::Refuse, |_| {});
    let under_way = world.log.admit().unwrap();
    world.disk.set(Act::BeFull);
    world.keep();
    wait_until(|| world.log.outlook() == Err(Unrecorded::Failing));
    assert_eq!(world.log.admit().unwrap_err(), Unrecorded::Failing);
    assert_eq!(world.log.admit().unwrap_err(), Unrecorded::Failing);
    // What was admitted before may go on, and is kept.
    assert!(under_way.keep(Event::Closed).is_none());
    world.disk.set(Act::Work);
    wait_until(|| world.log.outlook().is_ok());
    let text = world.stopped();
    assert_eq!(text.matches(r#""type":"closed""#).count(), 3);
    assert!(text.contains(r#""lost":0,"refused":2"#), "{text}");
    assert!(text.contains("no storage space"), "{text}");
    let rendered = world.metrics.render();
    assert!(rendered.contains("xksd_audit_refused_total 2"), "{rendered}");
    assert!(rendered.contains("xksd_audit_lost_total 0"), "{rendered}");
}

#[test]
fn where_the_disk_is_full_warn_serves_and_records_the_gap() {
    let world = World::new(OnFailure::Warn, |_| {});
    world.disk.set(Act::BeFull);
    for _ in 0..SEATS + 5 {
        world.keep();
    }
    assert_eq!(world.log.outlook(), Ok(()));
    wait_until(|| world.log.shared.lock().trouble.is_some());
    world.disk.set(Act::Work);
    wait_until(|| world.log.shared.lock().trouble.is_none());
    let text = world.stopped();
    let gap = text.lines().find(|line| line.contains(r#""type":"gap""#)).unwrap();
    assert!(gap.contains(r#""lost":5,"refused":0"#), "{gap}");
    assert_eq!(text.matches(r#""type":"closed""#).count(), SEATS + 1);
}

#[test]
fn a_disk_that_hangs_is_noticed_by_the_delay() {
    let world = World::new(OnFailure::Refuse, |settings| {
        settings.max_delay = Duration::ZERO;
        settings.sync_interval = Duration::from_millis(1);
    });
    world.disk.set(Act::Hang);
    world.keep();
    wait_until(|| world.log.outlook() == Err(Unrecorded::Behind));
    assert_eq!(world.log.admit().unwrap_err(), Unrecorded::Behind);
    assert!(world.log.lag() > Duration::ZERO);
    world.disk.set(Act::Work);
    wait_until(|| world.log.outlook().is_ok());
    let text = world.stopped();
    assert!(text.contains(r#""lost":0,"refused":1"#), "{text}");
}

#[test]
fn memory_is_bounded_where_the_disk_hangs() {
    let world = World::new(OnFailure::Refuse, |_| {});
    world.disk.set(Act::Hang);
    let seats: Vec<Seat> = (0..SEATS).map(|_| world.log.admit().unwrap()).collect();
    assert_eq!(world.log.admit().unwrap_err(), Unrecorded::Behind);
    seats.into_iter().for_each(|seat| drop(seat.keep(Event::Closed)));
    world.disk.set(Act::Work);
    wait_until(|| world.log.outlook().is_ok());
    world.stopped();
}

#[tokio::test]
async fn an_answer_can_wait_for_its_record() {
    let strict = |settings: &mut Settings| settings.sync_interval = Duration::ZERO;
    let world = World::new(OnFailure::Refuse, strict);
    let receipt = world.log.admit().unwrap().keep(Event::Closed).unwrap();
    let deadline = Deadline::after(PATIENCE);
    assert_eq!(receipt.wait(deadline).await, Ok(()));
    assert_eq!(world.text().matches(r#""type":"closed""#).count(), 1);
    world.disk.set(Act::Hang);
    let receipt = world.log.admit().unwrap().keep(Event::Closed).unwrap();
    let short = Deadline::after(Duration::from_millis(1));
    assert_eq!(receipt.wait(short).await, Err(Unrecorded::Behind));
    world.disk.set(Act::Work);
    world.stopped();
}

#[test]
fn a_request_that_panics_leaves_a_gap() {
    let world = World::new(OnFailure::Refuse, |_| {});
    drop(world.log.admit().unwrap());
    let text = world.stopped();
    assert!(text.contains(r#""lost":1,"refused":0"#), "{text}");
    assert!(text.contains("a request ended in a panic"), "{text}");
}

#[test]
fn after_the_end_nothing_is_admitted() {
    let world = World::new(OnFailure::Refuse, |_| {});
    world.stopped();
    assert_eq!(world.log.admit().unwrap_err(), Unrecorded::Failing);
}
