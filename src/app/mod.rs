//! The service put together: fronts over the engine, readiness, reload, and the way out.

mod files;
mod listen;
mod pages;
mod reads;
mod reload;
mod samples;
mod seal;
mod watch;
mod workers;

use std::{fmt, io, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::watch as switch,
    time::timeout,
};

pub use self::{
    listen::{Address, Listener},
    reload::Source,
    seal::seal,
};
use crate::{
    admission::Limits,
    config::{Config, Fixed, Server},
    execute::Engine,
    grpc::{self, Front, Health},
    http::{
        admin::{self, Admin, Readiness, Stage},
        facade, keys,
    },
    lambda,
    telemetry::Metrics,
};

/// Calls that a connection may have at once at the least: those of ext_proc take no place while a gateway's upstream works.
const MIN_STREAMS: u32 = 2048;
/// How long what has nothing left to wait for may take.
const MOMENT: Duration = Duration::from_secs(1);

/// The sockets that the service listens on: arguments, so that tests take free ports.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: Listener,
    /// For operators.
    pub admin: TcpListener,
}

/// Why the service cannot start or go on.
#[derive(Debug)]
pub enum Error {
    /// An address cannot be listened on.
    Listen {
        /// Which setting names it.
        setting: &'static str,
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// Nothing can be pushed where the configuration says.
    Otlp(String),
    /// A listener failed.
    Serve(String),
}

impl Listeners {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// If an address is in use or not this machine's.
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let (listen, admin) = (&config.server.listen, config.admin);
        let failed = |setting, address: String| move |error| Error::Listen { setting, address, error };
        let grpc = Listener::bind(listen, config.server.socket_mode).await;
        Ok(Self {
            grpc: grpc.map_err(failed("server.listen", listen.to_string()))?,
            admin: TcpListener::bind(admin).await.map_err(failed("admin.listen", admin.to_string()))?,
        })
    }
}

/// Runs the service until `shutdown`, then lets the calls in flight end.
///
/// `source` is read again when it, or a secret that it names, changes, and on SIGHUP.
///
/// # Errors
/// If it cannot start, or a listener fails.
pub async fn run(
    config: Config,
    source: Option<Source>,
    listeners: Listeners,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    pages::small();
    lambda::install_crypto();
    let fixed = Fixed::of(&config);
    let Config { server, policies, files, warnings, effective, metrics, otlp, admin: _ } = config;
    warnings.iter().for_each(|warning| tracing::warn!(warning, "configuration"));
    let count = policies.named.len();
    let metrics = Metrics::new(metrics, otlp.as_ref(), count).map_err(Error::Otlp)?;
    metrics.configured();
    metrics.add_runtime("main".to_owned(), &Handle::current());
    let engine = Arc::new(Engine::new(policies, limits(&server), server.workers, Arc::clone(&metrics)));
    engine.observe();
    // Plain HTTP beside gRPC: the façade, and the contract as JSON.
    let http = facade::routes(Arc::clone(&engine)).merge(grpc::json::routes(Arc::clone(&engine)));
    let tls = server.tls.clone().map(|tls| grpc::Current::new(tls, Arc::clone(&metrics)));
    let capacity = grpc::Capacity { in_flight: server.max_in_flight, workers: server.workers };
    let options = grpc::Options {
        max_connection_age: server.max_connection_age,
        max_connections: files::connections(&server),
        max_streams: streams(&server),
        tls: tls.clone(),
        load_reports: server.load_reports.then_some(capacity),
    };
    let front = Front::new(Arc::clone(&engine), options, http).await;
    let (health, readiness) = (front.health(), Readiness::default());
    tracing::info!(
        grpc = listeners.grpc.local_addr().map(|address| address.to_string()).unwrap_or_default(),
        admin = listeners.admin.local_addr().map(|address| address.to_string()).unwrap_or_default(),
        tls = server.tls.is_some(),
        workers = server.workers,
        policies = count,
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );

    let (leave, left) = switch::channel(false);
    let admin = Admin::new(Arc::clone(&engine), readiness.clone(), effective);
    let probes = tokio::spawn(admin::serve(listeners.admin, Arc::clone(&admin)));
    let serving = workers::serve(listeners.grpc, server.workers, front, left, Arc::clone(&metrics));
    let mut serving = tokio::spawn(serving);
    keys::follow(&engine);
    let serves = reload::Serves { fixed, engine: Arc::clone(&engine), tls, admin };
    let sampling = tokio::spawn(samples::take(Arc::clone(&metrics)));
    let reloading = source.map(|source| tokio::spawn(reload::run(source, files, serves)));
    readiness.set(Stage::Serving);

    tokio::select! {
        () = shutdown => {}
        ended = &mut serving => return Err(Error::Serve(why(ended))),
    }
    drain(&server, &engine, &health, &readiness, &leave, serving).await;
    probes.abort();
    sampling.abort();
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    // What was not pushed is pushed now; it blocks, and what it waits for runs here.
    let _ = tokio::task::spawn_blocking(move || metrics.shut_down()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Out of the load balancers first, then GOAWAY, then out when the last connection has ended with its last call.
///
/// Until then calls are let in: those that left before their callers heard of GOAWAY, and those of streams that are open,
/// such as Envoy's for a request that is still being received. HTTP itself sees to it that nobody begins another one.
async fn drain(
    server: &Server,
    engine: &Engine,
    health: &Health,
    readiness: &Readiness,
    leave: &switch::Sender<bool>,
    mut serving: tokio::task::JoinHandle<io::Result<()>>,
) {
    tracing::info!(delay = ?server.drain_delay, timeout = ?server.drain_timeout, "stopping");
    readiness.set(Stage::Leaving);
    health.set(false).await;
    tokio::time::sleep(server.drain_delay).await;
    readiness.set(Stage::Draining);
    health.end_watches().await;
    leave.send_replace(true);
    if timeout(server.drain_timeout, &mut serving).await.is_ok() {
        return;
    }
    tracing::warn!(
        in_flight = engine.admission().in_flight(),
        "calls are cut and connections closed, as they did not end within drain_timeout"
    );
    engine.close();
    engine.cut();
    // Each ends at once with what is to be said of it, and connections are given a moment for that.
    let _ = timeout(MOMENT, ended(engine)).await;
    let _ = timeout(MOMENT, serving).await;
}

async fn ended(engine: &Engine) {
    while engine.admission().in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Resolves at SIGTERM or SIGINT.
pub async fn stopped() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}

/// As many calls as may be in flight and wait: more on one connection would be refused, and fewer would wait in the
/// gateway, which says nothing then.
fn streams(server: &Server) -> u32 {
    u32::try_from(2 * server.max_in_flight).unwrap_or(u32::MAX).max(MIN_STREAMS)
}

/// One half of what bodies may hold is for requests.
fn limits(server: &Server) -> Limits {
    Limits { in_flight: server.max_in_flight, bytes: server.max_mib_in_flight * 1024 * 1024 / 2 }
}

fn why(ended: Result<io::Result<()>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "the listener ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { setting, address, error } => {
                write!(f, "{setting}: {address} cannot be listened on: {error}")
            }
            Self::Otlp(error) => write!(f, "telemetry.otlp: nothing can be pushed there: {error}"),
            Self::Serve(error) => write!(f, "the server ended: {error}"),
        }
    }
}

impl std::error::Error for Error {}
