//! Notices when a file changes, also behind Kubernetes' swapped symlinks and on network file systems.
//!
//! It looks at the files once a second instead of asking the kernel: inotify sees neither what happens on another
//! machine nor behind a symlink's target, and its watches are few. A thousand files cost about a millisecond.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::reads::Reads;
use crate::config::{Files, Stamp};

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// How long to wait after files could not be read in time, as the next look may not come back either.
const HELD_UP: Duration = Duration::from_secs(60);
/// How long files may go on changing: one that never settles keeps none of the others from taking effect.
const RESTLESS: Duration = Duration::from_secs(3);

/// Files and how they looked last.
#[derive(Debug)]
pub(super) struct Watch {
    files: Arc<[PathBuf]>,
    last: Vec<Stamp>,
    reads: Reads,
    pause: Duration,
}

impl Watch {
    /// Begins to watch; what has changed since the files were read is a change.
    pub(super) fn new(files: Files, reads: &Reads) -> Self {
        let (files, last): (Vec<_>, _) = files.into_iter().unzip();
        Self { files: files.into(), last, reads: reads.clone(), pause: PERIOD }
    }

    /// Watches these too. Of a file that is watched already the later look counts.
    pub(super) fn add(&mut self, files: Files) {
        let mut all: BTreeMap<_, _> = self.files.iter().cloned().zip(self.last.iter().copied()).collect();
        all.extend(files);
        let (files, last): (Vec<_>, _) = all.into_iter().unzip();
        (self.files, self.last) = (files.into(), last);
    }

    /// Forgets how the files looked, as they could not be read: the next look is in a minute, and sees a change in any case.
    pub(super) fn forget(&mut self) {
        self.last.clear();
        self.pause = HELD_UP;
    }

    /// Waits until a file changed, then for as long as they go on changing, so that a half-written set is not read, but for
    /// three seconds at the most. Nothing is lost if the wait is given up.
    ///
    /// # Errors
    /// If the files cannot be looked at.
    pub(super) async fn changed(&mut self) -> Result<(), String> {
        let mut since = None;
        loop {
            sleep(self.pause).await;
            let files = Arc::clone(&self.files);
            let look = move || files.iter().map(|file| Stamp::of(file)).collect::<Vec<_>>();
            let now = self.reads.run(look).await?;
            self.pause = PERIOD;
            let again = now != self.last;
            self.last = now;
            match since {
                None if again => since = Some(Instant::now()),
                Some(first) if !again || first.elapsed() >= RESTLESS => return Ok(()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::config::Config;

    /// What a configuration consists of that names these files for secrets.
    fn files(directory: &Path, secrets: &[&str]) -> Files {
        let policies: String = secrets
            .iter()
            .map(|file| {
                format!(
                    "  {file}: {{function: f, region: us-east-1, credentials: {{access_key_id: A, secret_access_key: \
                     {{file: {file}}}}}}}\n"
                )
            })
            .collect();
        match Config::parse(&format!("policies:\n{policies}"), &directory.join("f.yaml")) {
            Ok(config) => config.files,
            Err(faults) => faults.files,
        }
    }

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("lambda-policy-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn watch(files: Files) -> Watch {
        Watch::new(files, &Reads::new())
    }

    async fn notices(watch: &mut Watch) -> bool {
        tokio::time::timeout(PERIOD * 5, watch.changed()).await.is_ok_and(|looked| looked.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_symlink_is_a_change() {
        let directory = directory("watch");
        for (version, text) in [("1", "one"), ("2", "two")] {
            fs::create_dir_all(directory.join(version)).unwrap();
            fs::write(directory.join(version).join("secret"), text).unwrap();
        }
        let data = directory.join("..data");
        std::os::unix::fs::symlink("1", &data).unwrap();
        let file = directory.join("secret");
        std::os::unix::fs::symlink("..data/secret", &file).unwrap();

        let mut watch = watch(files(&directory, &["secret"]));
        assert!(!notices(&mut watch).await, "nothing changed yet");
        std::os::unix::fs::symlink("2", directory.join("..tmp")).unwrap();
        fs::rename(directory.join("..tmp"), &data).unwrap();
        assert!(notices(&mut watch).await);
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_after_it_was_read_and_before_it_is_watched_is_a_change() {
        let directory = directory("between");
        fs::write(directory.join("secret"), "one").unwrap();
        let read = files(&directory, &["secret"]);
        fs::write(directory.join("secret"), "another").unwrap();
        let mut watch = watch(read);
        assert!(notices(&mut watch).await);
        assert!(!notices(&mut watch).await, "and it is one change");
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_goes_on_changing_is_a_change_all_the_same() {
        let directory = directory("restless");
        fs::write(directory.join("secret"), "one").unwrap();
        let mut watch = watch(files(&directory, &["secret"]));
        let secret = directory.join("secret");
        let writing = tokio::spawn(async move {
            for length in 5.. {
                fs::write(&secret, "x".repeat(length)).unwrap();
                sleep(PERIOD / 2).await;
            }
        });
        for _ in 0..3 {
            assert!(notices(&mut watch).await);
        }
        writing.abort();
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_were_forgotten_have_changed_once() {
        let directory = directory("forgotten");
        fs::write(directory.join("secret"), "one").unwrap();
        let mut watch = watch(files(&directory, &["secret"]));
        watch.forget();
        assert!(!notices(&mut watch).await, "not at once");
        assert!(tokio::time::timeout(HELD_UP * 2, watch.changed()).await.is_ok());
        assert!(!notices(&mut watch).await);
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_a_refused_configuration_names_is_watched_beside_those_in_force() {
        let directory = directory("refused");
        fs::write(directory.join("old"), "one").unwrap();
        for changed in ["new", "old"] {
            let mut watch = watch(files(&directory, &["old"]));
            watch.add(files(&directory, &["new"]));
            assert!(!notices(&mut watch).await, "nothing changed yet");
            fs::write(directory.join(changed), "another").unwrap();
            assert!(notices(&mut watch).await, "{changed}");
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
