//! Reads that may never come back, as of a network's file system that hangs: nobody waits for them without end.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task, time::timeout};

/// How long a read is waited for.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// How many threads are left to reads that have not come back. Each takes some ten KiB.
const MOST: usize = 64;

/// Threads to read on. A read that is given up keeps its thread until it comes back, and the next one gets another.
#[derive(Clone, Debug)]
pub(super) struct Reads(Arc<Semaphore>);

impl Reads {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }

    /// What `read` returns.
    ///
    /// # Errors
    /// If it takes longer than [`LONGEST`], or panics.
    pub(super) async fn run<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let done = async {
            let place = Arc::clone(&self.0).acquire_owned().await;
            let read = move || {
                let _place = place;
                read()
            };
            task::spawn_blocking(read).await
        };
        match timeout(LONGEST, done).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the files were not read within {LONGEST:?}: is their file system there?")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_that_does_not_come_back_is_given_up_and_keeps_others_out_only_if_they_are_many() {
        let reads = Reads::new();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let given_up: Vec<_> = (0..MOST)
            .map(|_| {
                let (reads, held) = (reads.clone(), Arc::clone(&held));
                task::spawn(async move { reads.run(move || held.lock().unwrap().recv().is_ok()).await.is_err() })
            })
            .collect();
        while reads.0.available_permits() > 0 {
            task::yield_now().await;
        }
        let another = {
            let reads = reads.clone();
            task::spawn(async move { reads.run(|| 7).await })
        };
        task::yield_now().await;
        tokio::time::advance(LONGEST + Duration::from_millis(1)).await;
        for given_up in given_up {
            assert!(given_up.await.unwrap());
        }
        assert!(another.await.unwrap().unwrap_err().contains("within 30s"), "no thread was left for it");
        drop(release);
        assert_eq!(reads.run(|| 7).await, Ok(7), "once they have come back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_does_not_come_back_leaves_the_next_one_a_thread() {
        let reads = Reads::new();
        let (release, held) = mpsc::channel::<()>();
        let first = {
            let reads = reads.clone();
            task::spawn(async move { reads.run(move || held.recv().is_ok()).await })
        };
        task::yield_now().await;
        assert_eq!(reads.run(|| 7).await, Ok(7));
        assert_eq!(reads.0.available_permits(), MOST - 1);
        drop(release);
        assert_eq!(first.await.unwrap(), Ok(false));
        assert_eq!(reads.0.available_permits(), MOST);
    }
}
