//! The admin port: whether the process lives and wants calls, its metrics, its policies and what becomes of their calls, its
//! configuration, and the level of its log.
//!
//! Nothing here is a secret or a payload, but it is for operators only: the port is on loopback unless the configuration
//! says otherwise.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Response, StatusCode, header},
    routing::get,
};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{policies, small};
use crate::{
    execute::Engine,
    telemetry::{
        Form,
        log::{self, LevelError},
    },
};

/// The largest body that is read: a level's text.
const MOST_BODY: usize = 4 * 1024;

/// Whether the service wants calls, and for probes why not.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// What the service is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It does not serve yet.
    Starting,
    /// It serves.
    Serving,
    /// It is about to stop: load balancers are to notice.
    Leaving,
    /// It takes no new call; those in flight may end.
    Draining,
}

impl Readiness {
    /// Says what the service is about from now on.
    pub fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Release);
    }

    fn answer(&self) -> (StatusCode, &'static str) {
        let not = StatusCode::SERVICE_UNAVAILABLE;
        match self.0.load(Ordering::Acquire) {
            0 => (not, "not ready: starting\n"),
            1 => (StatusCode::OK, "ready\n"),
            2 => (not, "not ready: stopping, and waits for load balancers to notice\n"),
            _ => (not, "not ready: draining, and takes no new call\n"),
        }
    }
}

/// What the admin port shows.
pub struct Admin {
    engine: Arc<Engine>,
    readiness: Readiness,
    config: ArcSwap<Value>,
}

impl Admin {
    /// For an engine, with the configuration in force, which has no secret in it.
    pub fn new(engine: Arc<Engine>, readiness: Readiness, config: Value) -> Arc<Self> {
        Arc::new(Self { engine, readiness, config: ArcSwap::from_pointee(config) })
    }

    /// Shows another configuration from now on.
    pub fn show(&self, config: Value) {
        self.config.store(Arc::new(config));
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admin")
    }
}

/// Serves until it is dropped.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async |State(admin): State<Arc<Admin>>| admin.readiness.answer()))
        .route("/metrics", get(metrics))
        .route("/policies", get(policies))
        .route("/config", get(async |State(admin): State<Arc<Admin>>| json(&admin.config.load())))
        .route("/log-level", get(level).put(set_level))
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .with_state(admin);
    small::serve(listener, routes, std::future::pending()).await;
    Ok(())
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response<Body> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = Form::accepted(accept);
    // A thousand policies have a hundred thousand lines, for which no probe should wait.
    match tokio::task::spawn_blocking(move || admin.engine.metrics().scrape(form)).await {
        Ok(text) => answer(StatusCode::OK, form.media_type(), text),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics could not be read\n"),
    }
}

async fn policies(State(admin): State<Arc<Admin>>) -> Response<Body> {
    match tokio::task::spawn_blocking(move || policies::shown(&admin.engine)).await {
        Ok(shown) => json(&shown),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the policies could not be read\n"),
    }
}

async fn level() -> Response<Body> {
    match log::level() {
        Some(level) => answer(StatusCode::OK, TEXT, format!("{level}\n")),
        None => refused(LevelError::NotOurs),
    }
}

async fn set_level(text: String) -> Response<Body> {
    let before = log::level().unwrap_or_default();
    match log::set_level(&text) {
        Ok(()) => {
            let now = log::level().unwrap_or_default();
            tracing::warn!(before, now, "the log's level was changed");
            answer(StatusCode::OK, TEXT, format!("{now}\n"))
        }
        Err(error) => refused(error),
    }
}

fn refused(error: LevelError) -> Response<Body> {
    match error {
        LevelError::Wrong(why) => answer(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        LevelError::NotOurs => answer(StatusCode::CONFLICT, TEXT, "this process' log is not the service's own\n"),
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

fn json(value: &Value) -> Response<Body> {
    answer(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}
