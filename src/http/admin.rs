//! The admin port: whether the process lives and wants calls, its metrics, its policies and what becomes of their calls, its
//! configuration, the level of its log, and a page that shows people most of it.
//!
//! Nothing here is a secret or a payload, but it is for operators only: the port is on loopback unless the configuration
//! says otherwise.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, RawQuery, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
    middleware::{self, Next},
    routing::get,
};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{
    guard::{self, Refusal},
    page,
    policies::{self, View},
    small,
    status::{self, Reload},
};
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

    fn get(&self) -> Result<(), &'static str> {
        match self.0.load(Ordering::Acquire) {
            0 => Err("starting"),
            1 => Ok(()),
            2 => Err("stopping, and waits for load balancers to notice"),
            _ => Err("draining, and takes no new call"),
        }
    }

    fn answer(&self) -> (StatusCode, String) {
        match self.get() {
            Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        }
    }
}

/// What the admin port shows.
pub struct Admin {
    engine: Arc<Engine>,
    readiness: Readiness,
    config: ArcSwap<Value>,
    reload: ArcSwapOption<Reload>,
    started: Instant,
}

impl Admin {
    /// For an engine, with the configuration in force, which has no secret in it.
    pub fn new(engine: Arc<Engine>, readiness: Readiness, config: Value) -> Arc<Self> {
        Arc::new(Self {
            engine,
            readiness,
            config: ArcSwap::from_pointee(config),
            reload: ArcSwapOption::empty(),
            started: Instant::now(),
        })
    }

    /// Shows another configuration from now on, in which these settings need a restart to take effect.
    pub fn reloaded(&self, config: Value, needs_restart: Vec<&'static str>) {
        self.config.store(Arc::new(config));
        self.reload.store(Some(Arc::new(Reload::accepted(needs_restart))));
    }

    /// Shows that another configuration was refused, and why.
    pub fn refused(&self, why: &str) {
        self.reload.store(Some(Arc::new(Reload::refused(why))));
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
    let local = listener.local_addr()?.ip().is_loopback();
    let routes = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async |State(admin): State<Arc<Admin>>| admin.readiness.answer()))
        .route("/metrics", get(metrics))
        .route("/policies", get(policies))
        .route("/status", get(status))
        .route("/config", get(async |State(admin): State<Arc<Admin>>| json(&admin.config.load())))
        .route("/log-level", get(level).put(set_level))
        .merge(page::routes())
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(middleware::from_fn_with_state(local, guarded))
        .with_state(admin);
    small::serve(listener, routes, std::future::pending()).await;
    Ok(())
}

/// Lets through what no other site's page has sent.
async fn guarded(State(local): State<bool>, request: Request, next: Next) -> Response<Body> {
    let mut response = match guard::check(request.method(), request.uri(), request.headers(), local) {
        Ok(()) => next.run(request).await,
        Err(refusal) => unanswered(refusal),
    };
    for (name, value) in ALWAYS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response<Body> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = Form::accepted(accept);
    // A thousand policies have a hundred thousand lines, for which no probe should wait.
    match tokio::task::spawn_blocking(move || admin.engine.metrics().scrape(form)).await {
        Ok(Some(text)) => answer(StatusCode::OK, form.media_type(), text),
        Ok(None) => answer(StatusCode::NOT_FOUND, TEXT, "telemetry.metrics is off\n"),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics could not be read\n"),
    }
}

async fn policies(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response<Body> {
    let view = match View::parse(query.as_deref().unwrap_or_default()) {
        Ok(view) => view,
        Err(why) => return answer(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
    };
    // Ten thousand policies take some time, too.
    let shown = tokio::task::spawn_blocking(move || {
        let shown = policies::shown(&admin.engine, &view);
        if view.is_compact() { shown.to_string() } else { indented(&shown) }
    });
    match shown.await {
        Ok(shown) => answer(StatusCode::OK, JSON, shown),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the policies could not be read\n"),
    }
}

async fn status(State(admin): State<Arc<Admin>>) -> Response<Body> {
    let shown = tokio::task::spawn_blocking(move || {
        let reload = admin.reload.load();
        status::shown(&admin.engine, admin.readiness.get(), reload.as_deref(), admin.started.elapsed()).to_string()
    });
    match shown.await {
        Ok(shown) => answer(StatusCode::OK, JSON, shown),
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the status could not be read\n"),
    }
}

async fn level() -> Response<Body> {
    match log::level() {
        Some(level) => answer(StatusCode::OK, TEXT, format!("{level}\n")),
        None => refused(LevelError::NotOurs),
    }
}

async fn set_level(text: String) -> Response<Body> {
    match log::set_level(&text) {
        Ok(()) => answer(StatusCode::OK, TEXT, format!("{}\n", log::level().unwrap_or_default())),
        Err(error) => refused(error),
    }
}

fn refused(error: LevelError) -> Response<Body> {
    match error {
        LevelError::Wrong(why) => answer(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        LevelError::NotOurs => answer(StatusCode::CONFLICT, TEXT, "this process' log is not the service's own\n"),
    }
}

fn unanswered(refusal: Refusal) -> Response<Body> {
    match refusal {
        Refusal::Page => answer(StatusCode::FORBIDDEN, TEXT, "nothing is changed here at the word of a page\n"),
        Refusal::Name => {
            let why = "this port is on loopback, and answers to an address, `localhost`, or a private name\n";
            answer(StatusCode::MISDIRECTED_REQUEST, TEXT, why)
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// What every answer says: it is what it says it is, and no other site's page may have it or learn where it was seen.
const ALWAYS: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

fn json(value: &Value) -> Response<Body> {
    answer(StatusCode::OK, JSON, indented(value))
}

fn indented(value: &Value) -> String {
    format!("{value:#}\n")
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
