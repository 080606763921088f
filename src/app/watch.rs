//! Notices when a file changes, also behind Kubernetes' swapped symlinks and on network file systems.
//!
//! It looks at the files once a second instead of asking the kernel: inotify sees neither what happens on another
//! machine nor behind a symlink's target, and its watches are few. A thousand files cost about a millisecond.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// What tells one content of a file from another; nothing if there is no such file.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Files and how they looked last.
#[derive(Debug)]
pub(super) struct Watch(Vec<(PathBuf, Stamp)>);

impl Watch {
    /// Begins to watch; what changes from now on is a change.
    pub(super) fn new(files: &[PathBuf]) -> Self {
        Self(files.iter().map(|file| (file.clone(), stamp(file))).collect())
    }

    /// Waits until a file changed, then for as long as they go on changing, so that a half-written set is not read.
    pub(super) async fn changed(&mut self) {
        let mut changed = false;
        loop {
            tokio::time::sleep(PERIOD).await;
            let files = std::mem::take(&mut self.0);
            let Ok((files, again)) = tokio::task::spawn_blocking(move || look(files)).await else {
                return;
            };
            self.0 = files;
            if changed && !again {
                return;
            }
            changed |= again;
        }
    }
}

fn look(mut files: Vec<(PathBuf, Stamp)>) -> (Vec<(PathBuf, Stamp)>, bool) {
    let mut changed = false;
    for (file, last) in &mut files {
        let now = stamp(file);
        if *last != now {
            *last = now;
            changed = true;
        }
    }
    (files, changed)
}

fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_swapped_symlink_is_a_change() {
        let directory = std::env::temp_dir().join(format!("lambda-policy-watch-{}", std::process::id()));
        for (version, text) in [("1", "one"), ("2", "two")] {
            fs::create_dir_all(directory.join(version)).unwrap();
            fs::write(directory.join(version).join("secret"), text).unwrap();
        }
        let data = directory.join("..data");
        std::os::unix::fs::symlink("1", &data).unwrap();
        let file = directory.join("secret");
        std::os::unix::fs::symlink("..data/secret", &file).unwrap();

        let mut watch = Watch::new(std::slice::from_ref(&file));
        let quiet = tokio::time::timeout(PERIOD * 5, watch.changed()).await;
        assert!(quiet.is_err(), "nothing changed yet");
        let mut watch = Watch::new(std::slice::from_ref(&file));
        std::os::unix::fs::symlink("2", directory.join("..tmp")).unwrap();
        fs::rename(directory.join("..tmp"), &data).unwrap();
        tokio::time::timeout(PERIOD * 5, watch.changed()).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        fs::remove_dir_all(directory).unwrap();
    }
}
