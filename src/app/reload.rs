//! Reads the configuration again when there is a reason, and keeps the old one if the new one is wrong.

use std::{fmt, path::PathBuf, sync::Arc};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::watch::Watch;
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
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut watch = Watch::new(files);
    loop {
        tokio::select! {
            () = watch.changed() => {}
            () = received(&mut hangup) => {}
        }
        let again = source.clone();
        match tokio::task::spawn_blocking(move || again.load()).await {
            Ok(Ok(config)) => {
                tracing::info!(policies = config.policies.named.len(), "configuration reloaded");
                config.warnings.iter().for_each(|warning| tracing::warn!(warning, "configuration"));
                let waiting = serves.fixed.differences(&config);
                if !waiting.is_empty() {
                    tracing::warn!(settings = waiting.join(", "), "these have changed, and need a restart");
                }
                if let (Some(current), Some(tls)) = (&serves.tls, config.server.tls) {
                    current.replace(tls);
                }
                serves.engine.replace(config.policies);
                keys::follow(&serves.engine);
                serves.engine.metrics().configured();
                serves.admin.reloaded(config.effective, waiting);
                watch = Watch::new(config.files);
            }
            Ok(Err(faults)) => {
                let why = faults.to_string();
                for fault in why.lines() {
                    tracing::error!(fault, "configuration not reloaded: the old one stays in force");
                }
                serves.admin.refused(&why);
                serves.engine.metrics().not_configured();
                // What is missing may come, and what is in force may change.
                watch.add(faults.files);
            }
            Err(error) => {
                tracing::error!(%error, "configuration not reloaded: the old one stays in force");
                serves.admin.refused(&error.to_string());
            }
        }
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
