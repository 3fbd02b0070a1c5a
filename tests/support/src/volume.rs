//! A directory as Kubernetes mounts a Secret or a ConfigMap: names are links to `..data/NAME`, `..data`
//! is a link to a directory with the files, and an update replaces that one link.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The link that an update replaces.
const DATA: &str = "..data";

/// A mounted volume.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    updates: u32,
    names: BTreeSet<String>,
}

impl Volume {
    /// A volume without files at `path`, a directory that is made if it is missing.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).expect("a test's directory can be written");
        Self { path, updates: 0, names: BTreeSet::new() }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has it hold these files and no others, in the order in which kubelet does it: whoever looks at
    /// any time finds either all of the old ones behind `..data` or all of the new ones.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn hold(&mut self, files: &[(&str, &str)]) {
        let done = self.try_hold(files);
        done.unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
    }

    fn try_hold(&mut self, files: &[(&str, &str)]) -> std::io::Result<()> {
        let data = self.path.join(DATA);
        let before = match fs::read_link(&data) {
            Ok(before) => Some(self.path.join(before)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.updates += 1;
        let after = format!("..2026_11_22_10_00_00.{:09}", self.updates);
        fs::create_dir(self.path.join(&after))?;
        for (name, contents) in files {
            fs::write(self.path.join(&after).join(name), contents)?;
        }
        let next = self.path.join("..data_tmp");
        symlink(&after, &next)?;
        fs::rename(&next, &data)?;
        let names: BTreeSet<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        for new in names.difference(&self.names) {
            symlink(Path::new(DATA).join(new), self.path.join(new))?;
        }
        for gone in self.names.difference(&names) {
            fs::remove_file(self.path.join(gone))?;
        }
        self.names = names;
        before.map_or(Ok(()), fs::remove_dir_all)
    }
}
