//! The files that a configuration is made of, and how each looked before it was read.
//!
//! How it looked is taken before the content, not after: a change in between is then seen as one, and read again.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What tells one content of a file from another; nothing if there is no such file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Option<(SystemTime, u64, u64)>);

/// Files, each with its stamp from before it was read.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<PathBuf, Stamp>);

impl Stamp {
    /// How a file looks now.
    pub fn of(file: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let look = || {
            let metadata = fs::metadata(file).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        };
        Self(look())
    }
}

impl Files {
    /// Notes a file that is about to be read. What was seen first counts, if it is read more than once.
    pub(super) fn note(&mut self, file: &Path) {
        self.0.entry(file.to_owned()).or_insert_with(|| Stamp::of(file));
    }

    /// Whether every file looks as it did before it was read.
    pub(super) fn are_as_noted(&self) -> bool {
        self.0.iter().all(|(file, stamp)| Stamp::of(file) == *stamp)
    }

    /// The files, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

impl IntoIterator for Files {
    type Item = (PathBuf, Stamp);
    type IntoIter = std::collections::btree_map::IntoIter<PathBuf, Stamp>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
