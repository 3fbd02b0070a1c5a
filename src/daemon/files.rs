//! Looks whether the files of the configuration have other contents.
//!
//! Contents, not events: what Kubernetes mounts are links to links, all of which are replaced.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::policy_files;
use crate::secret::{Fingerprint, Fingerprints};

/// More than any file of a configuration has, in bytes; of larger ones only the beginning is looked at.
const LOOKED_AT: u64 = 17 * 1024 * 1024;

/// The files, and what was in them.
#[derive(Debug)]
pub(super) struct Files {
    fingerprints: Arc<Fingerprints>,
    files: BTreeSet<PathBuf>,
    /// What was last read as a configuration, or older; `None`: not known.
    read: Option<Fingerprint>,
    /// What is there now and was not read, when it was last looked at.
    seen: Option<Fingerprint>,
}

impl Files {
    pub(super) fn new(fingerprints: Arc<Fingerprints>, files: BTreeSet<PathBuf>) -> Self {
        Self { fingerprints, files, read: None, seen: None }
    }

    /// Whether there is something that was not read yet, and is as it was when this was asked last: it
    /// is not being written any more.
    pub(super) async fn have_changed(&mut self) -> bool {
        let now = self.contents().await;
        if self.read == Some(now.clone()) {
            self.seen = None;
            return false;
        }
        let is_settled = self.seen.as_ref() == Some(&now);
        self.seen = Some(now);
        is_settled
    }

    /// The configuration is about to be read.
    pub(super) async fn before_reading(&mut self) {
        self.read = Some(self.contents().await);
        self.seen = None;
    }

    /// It consists of these files. Of files that are new it is not known whether they were looked at
    /// before they were read: that will be taken for a change, which does no harm.
    pub(super) fn after_reading(&mut self, files: BTreeSet<PathBuf>) {
        if self.files != files {
            self.files = files;
            self.read = None;
        }
    }

    async fn contents(&self) -> Fingerprint {
        let (fingerprints, files) = (self.fingerprints.clone(), self.files.clone());
        let look = move || {
            let mut all = Vec::new();
            for file in &files {
                all.extend(fingerprint(&fingerprints, file).bytes());
            }
            fingerprints.of(&[&all])
        };
        tokio::task::spawn_blocking(look).await.expect("looking at files does not panic")
    }
}

/// Of the contents, or of why there are none. Of a directory, and of a name with a `*`: of the files
/// that are meant, with their names.
pub(super) fn fingerprint(fingerprints: &Fingerprints, path: &Path) -> Fingerprint {
    if let Ok(entries) = fs::read_dir(path) {
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        return of_files(fingerprints, &files);
    }
    match policy_files::find(path) {
        Ok(files) if files != [path] => of_files(fingerprints, &files),
        // It has no `*`, or none has such a name.
        _ => of_file(fingerprints, path),
    }
}

fn of_files(fingerprints: &Fingerprints, files: &[PathBuf]) -> Fingerprint {
    let mut all = Vec::new();
    for file in files {
        let name = file.as_os_str().as_bytes();
        all.extend(fingerprints.of(&[name]).bytes());
        all.extend(of_file(fingerprints, file).bytes());
    }
    fingerprints.of(&[&all])
}

fn of_file(fingerprints: &Fingerprints, path: &Path) -> Fingerprint {
    let mut contents = Zeroizing::new(Vec::new());
    let read = File::open(path).and_then(|file| {
        // All at once: a buffer that grows leaves copies of a secret behind.
        let length = file.metadata()?.len().min(LOOKED_AT);
        contents.reserve_exact(usize::try_from(length).unwrap_or(0) + 1);
        file.take(LOOKED_AT).read_to_end(&mut contents)
    });
    let error = read.err().map(|error| error.to_string()).unwrap_or_default();
    fingerprints.of(&[&contents, error.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_counts_once_it_was_seen_twice() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let mut files = Files::new(Arc::default(), BTreeSet::from([file.clone()]));
        files.before_reading().await;
        assert!(!files.have_changed().await);
        // A file that appears, changes and vanishes.
        fs::write(&file, "1").unwrap();
        assert!(!files.have_changed().await);
        fs::write(&file, "12").unwrap();
        assert!(!files.have_changed().await);
        assert!(files.have_changed().await);
        files.before_reading().await;
        assert!(!files.have_changed().await);
        fs::remove_file(&file).unwrap();
        assert!(!files.have_changed().await);
        assert!(files.have_changed().await);
    }

    #[tokio::test]
    async fn a_directory_is_what_is_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut files = Files::new(Arc::default(), BTreeSet::from([directory.path().to_owned()]));
        fs::write(path("one"), "1").unwrap();
        files.before_reading().await;
        for change in [
            &|| fs::write(path("two"), "1").unwrap(),
            &|| fs::write(path("two"), "2").unwrap(),
            &|| fs::rename(path("two"), path("three")).unwrap(),
            &|| fs::remove_file(path("one")).unwrap(),
        ] as [&dyn Fn(); 4]
        {
            assert!(!files.have_changed().await);
            change();
            assert!(!files.have_changed().await && files.have_changed().await);
            files.before_reading().await;
        }
    }

    #[tokio::test]
    async fn a_name_with_a_star_is_the_files_that_fit() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut files = Files::new(Arc::default(), BTreeSet::from([path("*.cedar")]));
        for (change, counts) in [
            (&|| fs::write(path("one.cedar"), "1").unwrap(), true),
            (&|| fs::write(path("one.cedar"), "2").unwrap(), true),
            (&|| fs::write(path("two.json"), "2").unwrap(), false),
            (&|| fs::rename(path("two.json"), path("two.cedar")).unwrap(), true),
            (&|| fs::remove_file(path("one.cedar")).unwrap(), true),
        ] as [(&dyn Fn(), bool); 5]
        {
            files.before_reading().await;
            change();
            assert!(!files.have_changed().await);
            assert_eq!(files.have_changed().await, counts);
        }
    }

    #[tokio::test]
    async fn a_change_that_is_undone_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "1").unwrap();
        let mut files = Files::new(Arc::default(), BTreeSet::from([file.clone()]));
        files.before_reading().await;
        fs::write(&file, "2").unwrap();
        assert!(!files.have_changed().await);
        fs::write(&file, "1").unwrap();
        assert!(!files.have_changed().await);
        fs::write(&file, "2").unwrap();
        assert!(!files.have_changed().await);
        assert!(files.have_changed().await);
    }

    #[tokio::test]
    async fn what_is_replaced_by_a_link_is_looked_through() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, content) in [("one", "1"), ("same", "1"), ("two", "2")] {
            fs::write(path(name), content).unwrap();
        }
        std::os::unix::fs::symlink(path("one"), path("link")).unwrap();
        let mut files = Files::new(Arc::default(), BTreeSet::from([path("link")]));
        files.before_reading().await;
        let turn_to = |name: &str| {
            std::os::unix::fs::symlink(path(name), path("next")).unwrap();
            fs::rename(path("next"), path("link")).unwrap();
        };
        turn_to("same");
        assert!(!files.have_changed().await && !files.have_changed().await);
        turn_to("two");
        assert!(!files.have_changed().await && files.have_changed().await);
    }

    /// Kubernetes turns one link, to a directory with all files of a Secret or ConfigMap; that it did so
    /// with the same contents is no change of a file that is named.
    #[tokio::test]
    async fn a_volume_of_kubernetes_is_looked_into() {
        let directory = tempfile::tempdir().unwrap();
        let mut volume = support::volume::Volume::new(directory.path().join("volume"));
        let pin = volume.path().join("pin");
        let mut files = Files::new(Arc::default(), BTreeSet::from([pin]));
        volume.hold(&[("pin", "1"), ("beside", "1")]);
        files.before_reading().await;
        for (contents, is_change) in [
            (&[("pin", "1"), ("beside", "1")] as &[_], false),
            (&[("pin", "1"), ("beside", "2")], false),
            (&[("pin", "2"), ("beside", "2")], true),
            (&[("beside", "2")], true),
            (&[("pin", "2")], true),
        ] {
            volume.hold(contents);
            assert!(!files.have_changed().await);
            assert_eq!(files.have_changed().await, is_change, "{contents:?}");
            files.before_reading().await;
        }
    }
}
