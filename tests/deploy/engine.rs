//! A container engine, and images made on it: of root file systems that `tests/container/roots.sh` has
//! put together, so that no registry is asked. All that a test makes goes with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use support::not_run;

/// Seconds that a command of the engine may take.
const PATIENCE: &str = "300";

/// Where the script has put the root file systems.
const PLACE: &str = "CONTAINER_ROOTS";

/// The images of a run.
#[derive(Debug)]
pub(crate) struct Images {
    run: String,
    context: tempfile::TempDir,
}

impl Images {
    /// Debian with what the tests put beside xksd.
    pub(crate) fn debian(&self) -> String {
        format!("{}-debian", self.run)
    }

    /// What xksd's image is built on: no shell is in there.
    pub(crate) fn small(&self) -> String {
        format!("{}-small", self.run)
    }

    /// That of `deploy/container/Dockerfile`.
    pub(crate) fn xksd(&self) -> String {
        format!("{}-xksd", self.run)
    }

    /// That of `deploy/container/softhsm.Dockerfile`.
    pub(crate) fn softhsm(&self) -> String {
        format!("{}-softhsm", self.run)
    }

    /// The first stage of xksd's image; without a name it would stay behind.
    pub(crate) fn files(&self) -> String {
        format!("{}-files", self.run)
    }

    /// Those of this run, made by the first test that asks. `None`, which is counted, where they can't be.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Images>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = shared.upgrade() {
            return Some(images);
        }
        let images = Arc::new(Self::make()?);
        *shared = Arc::downgrade(&images);
        Some(images)
    }

    fn make() -> Option<Self> {
        let engine = engine(&["info"]);
        if !engine.is_some_and(|output| output.status.success()) {
            not_run("containers: no docker engine answers");
            return None;
        }
        let roots = std::env::var_os(PLACE).map(PathBuf::from);
        let Some(roots) = roots.filter(|roots| roots.join("done").exists()) else {
            not_run(&format!("containers: {PLACE} names no root file systems to make images of"));
            return None;
        };
        let images = Self { run: unique(), context: context() };
        docker(&["import", path(&roots.join("debian.tar")), &images.debian()]);
        docker(&["import", path(&roots.join("small.tar")), &images.small()]);
        images.build(&images.files(), &["--target", "files"]);
        images.build(&images.xksd(), &[]);
        // Compiled here, and run there: a C library here that is newer than theirs is in the way.
        let tried = run(&["run", "--rm", "--network", "none", &images.xksd(), "--version"]);
        let said = String::from_utf8_lossy(&tried.stderr);
        if said.contains("GLIBC_") {
            not_run("containers: this machine's C library is newer than that of Debian 13");
            return None;
        }
        assert!(tried.status.success(), "{said}");
        let file = images.context("deploy/container/softhsm.Dockerfile");
        let of = [format!("XKSD={}", images.xksd()), format!("BASE={}", images.debian())];
        let arguments = ["--build-arg", &of[0], "--build-arg", &of[1], "-f", &file];
        images.build_by(&images.softhsm(), &arguments);
        Some(images)
    }

    /// Builds xksd's image, of the program that is tested.
    pub(crate) fn build(&self, tag: &str, arguments: &[&str]) {
        let file = self.context("deploy/container/Dockerfile");
        let of = [format!("BUILDER={}", self.debian()), format!("BASE={}", self.small())];
        let fixed = ["--build-arg", &of[0], "--build-arg", &of[1], "-f", &file];
        let prebuilt = ["--build-arg", "PREBUILT=dist/xksd", "--build-arg", EPOCH_ARGUMENT];
        self.build_by(tag, &[&fixed[..], &prebuilt, arguments].concat());
    }

    fn build_by(&self, tag: &str, arguments: &[&str]) {
        let fixed = ["build", "--force-rm", "--tag", tag];
        docker(&[&fixed, arguments, &[path(self.context.path())]].concat());
    }

    fn context(&self, file: &str) -> String {
        path(&self.context.path().join(file)).to_owned()
    }
}

/// What the files of the image are dated.
pub(crate) const EPOCH: &str = "2026-01-02 03:04:05";
const EPOCH_ARGUMENT: &str = "SOURCE_DATE_EPOCH=1767323045";

impl Drop for Images {
    fn drop(&mut self) {
        let images = [self.softhsm(), self.xksd(), self.files(), self.small(), self.debian()];
        for image in &images {
            run(&["rmi", "--force", image]);
        }
    }
}

/// Of the repository, what `.dockerignore` lets through and a build of a finished program needs.
fn context() -> tempfile::TempDir {
    let context = tempfile::tempdir().unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    for part in ["Cargo.lock", "LICENSE", "deploy/container", "softhsm-setup"] {
        copy(&repository.join(part), &context.path().join(part));
    }
    copy(Path::new(env!("CARGO_BIN_EXE_xksd")), &context.path().join("dist/xksd"));
    context
}

/// Copies a file, or a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let status = Command::new("cp").args([Path::new("-rT"), from, to]).status().unwrap();
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}

/// A container that is removed when dropped, with the images that it may need.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    _images: Arc<Images>,
}

impl Container {
    /// Starts one.
    pub(crate) fn start(images: &Arc<Images>, arguments: &[&str]) -> Self {
        let container = Self { name: unique(), _images: images.clone() };
        docker(&[&["run", "--detach", "--name", &container.name], arguments].concat());
        container
    }

    /// One part of what the engine knows of it.
    pub(crate) fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.name])
    }

    /// All that it has written.
    pub(crate) fn logged(&self) -> String {
        let output = run(&["logs", &self.name]);
        [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        run(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// A volume that is removed when dropped: make it before the containers that have it.
#[derive(Debug)]
pub(crate) struct Volume(pub(crate) String);

impl Volume {
    pub(crate) fn new() -> Self {
        Self(docker(&["volume", "create", &unique()]))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        run(&["volume", "rm", "--force", &self.0]);
    }
}

/// A name that no other run has.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    format!("xksd-test-{}-{since}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a command of the engine that must succeed; gives what it printed, without the line's end.
#[track_caller]
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {}: {stderr}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Runs a command of the engine.
pub(crate) fn run(arguments: &[&str]) -> Output {
    engine(arguments).expect("the engine's client was there before")
}

fn engine(arguments: &[&str]) -> Option<Output> {
    let output = Command::new("timeout").args([PATIENCE, "docker"]).args(arguments).output();
    output.ok().filter(|output| output.status.code() != Some(127))
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}
