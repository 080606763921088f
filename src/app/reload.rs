//! Reads the configuration again when there is a reason, and keeps the old one if the new one is wrong.

use std::{fmt, path::PathBuf, sync::Arc};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{reads::Reads, watch::Watch};
use crate::{
    config::{Config, Faults, Files, Fixed},
    execute::Engine,
    grpc::Current,
    http::{admin::Admin, keys},
};

/// Where a configuration comes from, and what is made of it before it takes effect.
#[derive(Clone)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// What is changed in what it says, in the first configuration already.
    pub adapt: Option<Adapt>,
}

type Adapt = Arc<dyn Fn(&mut Config) + Send + Sync>;

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Config, Faults> {
        let mut config = Config::load(&self.file)?;
        if let Some(adapt) = &self.adapt {
            adapt(&mut config);
        }
        Ok(config)
    }
}

impl From<PathBuf> for Source {
    fn from(file: PathBuf) -> Self {
        Self { file, adapt: None }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.file).finish()
    }
}

/// What a configuration takes effect on.
pub(super) struct Serves {
    /// What this process goes on with.
    pub fixed: Fixed,
    pub engine: Arc<Engine>,
    /// If it serves TLS.
    pub tls: Option<Current>,
    pub admin: Arc<Admin>,
}

/// Waits for changes of the files and for SIGHUP, without end.
pub(super) async fn run(source: Source, files: Files, serves: Serves) {
    let load = move || {
        let source = source.clone();
        move || source.load()
    };
    follow(load, files, serves).await;
}

/// Loads again each time that there is a reason.
async fn follow<L>(load: impl Fn() -> L, files: Files, serves: Serves)
where
    L: FnOnce() -> Result<Config, Faults> + Send + 'static,
{
    let mut hangup = signal(SignalKind::hangup()).ok();
    let reads = Reads::new();
    let mut watch = Watch::new(files, &reads);
    loop {
        let looked = tokio::select! {
            looked = watch.changed() => looked,
            () = received(&mut hangup) => Ok(()),
        };
        let loaded = match looked {
            Ok(()) => reads.run(load()).await,
            Err(error) => Err(error),
        };
        match loaded {
            Ok(Ok(config)) => {
                let files = serves.take(config);
                watch = Watch::new(files, &reads);
            }
            Ok(Err(faults)) => {
                serves.refuse(&faults.to_string());
                // What is missing may come, and what is in force may change.
                watch.add(faults.files);
            }
            Err(error) => {
                serves.refuse(&error);
                // What changed was not read, and none of it need change again.
                watch.forget();
            }
        }
    }
}

impl Serves {
    /// Puts a configuration in force, and tells which files it is made of.
    fn take(&self, config: Config) -> Files {
        tracing::info!(policies = config.policies.named.len(), "configuration reloaded");
        config.warnings.iter().for_each(|warning| tracing::warn!(warning, "configuration"));
        let waiting = self.fixed.differences(&config);
        if !waiting.is_empty() {
            tracing::warn!(settings = waiting.join(", "), "these have changed, and need a restart");
        }
        if let (Some(current), Some(tls)) = (&self.tls, config.server.tls) {
            current.replace(tls);
        }
        self.engine.replace(config.policies);
        keys::follow(&self.engine);
        self.engine.metrics().configured();
        self.admin.reloaded(config.effective, waiting);
        config.files
    }

    fn refuse(&self, why: &str) {
        for fault in why.lines() {
            tracing::error!(fault, "configuration not reloaded: the old one stays in force");
        }
        self.admin.refused(why);
        self.engine.metrics().not_configured();
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use super::*;
    use crate::{admission::Limits, http::admin::Readiness, telemetry::Metrics};

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_not_read_in_time_fails_the_reload_and_is_read_again() {
        let file = std::env::temp_dir().join(format!("lambda-policy-held-up-{}.yaml", std::process::id()));
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write("policies: {}");
        let config = Config::load(&file).unwrap();
        let (fixed, files) = (Fixed::of(&config), config.files);
        let metrics = Metrics::new(true, None, 0).unwrap();
        let limits = Limits { in_flight: 1, bytes: 1 };
        let engine = Arc::new(Engine::new(config.policies, limits, 1, Arc::clone(&metrics)));
        let admin = Admin::new(Arc::clone(&engine), Readiness::default(), config.effective);
        let (release, held) = mpsc::channel::<()>();
        let (held, loads) = (Arc::new(Mutex::new(held)), Arc::new(AtomicUsize::new(0)));
        let load = {
            let (file, loads) = (file.clone(), Arc::clone(&loads));
            move || {
                let (file, held) = (file.clone(), Arc::clone(&held));
                let first = loads.fetch_add(1, Ordering::Relaxed) == 0;
                move || {
                    // The first one does not come back.
                    let _ = first.then(|| held.lock().unwrap().recv());
                    Config::load(&file)
                }
            }
        };
        let following =
            tokio::spawn(follow(load, files, Serves { fixed, engine: Arc::clone(&engine), tls: None, admin }));
        tokio::task::yield_now().await;
        write("policies: {a: {function: f, region: us-east-1, credentials: default}}");
        // A read that is held up holds paused time up too.
        for _ in 0..600 {
            if metrics.configurations().0 > 0 {
                break;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            std::thread::sleep(Duration::from_millis(2));
        }
        let (reloaded, failed) = metrics.configurations();
        assert!(reloaded == 1 && failed >= 1, "{reloaded} and {failed} of {} loads", loads.load(Ordering::Relaxed));
        assert_eq!(engine.policies().named.len(), 1);
        following.abort();
        drop(release);
        std::fs::remove_file(file).unwrap();
    }
}
