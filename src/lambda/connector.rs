//! The one HTTP connector of all clients: connections pooled per endpoint, and failures that say what was sent.
//!
//! The SDK's own connector would do but for three things. It offers HTTP/2, and once an endpoint accepts keeps a
//! single connection to it, behind whose stream limit calls queue up. It cannot set TCP keepalive. And its errors do
//! not tell a call that never left from one that may have run, on which the answer to the gateway depends.

use std::{
    cell::Cell,
    error::Error as StdError,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector as SdkConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http::{Request, Response, Uri};
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use tower::{BoxError, Service};

use super::{
    body::Body,
    cut::{Cut, Cuttable},
    figures::{Figures, Host},
    resolve::{Reach, Resolver},
};
use crate::trace::{Step, Trace};

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection stays open without a call: below the 350 s after which NAT gateways, NLBs and VPC endpoints
/// drop it silently (VPC user guide, NAT gateway basics), and below the 60 s that servers commonly wait.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// How often TCP asks the peer of a waiting connection: a function can run for 15 minutes, NAT forgets after 350 s.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How many idle connections an endpoint keeps.
const MAX_IDLE_PER_HOST: usize = 1024;
/// How much a connection reads at once: what a streamed answer holds at the least, however slowly it is taken. Four times
/// as much, which is hyper's own, makes no answer of 6 MB cheaper.
const MAX_READ: usize = 128 * 1024;
/// The largest answer that is read as a whole: Lambda's 6 MB, and room for an error document.
pub(super) const MAX_ANSWER: usize = 6 * 1024 * 1024 + 64 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unsent {
    /// No connection could be made, so nothing was sent.
    NotConnected(Box<dyn StdError + Send + Sync>),
    /// The connection broke, or what came was not HTTP.
    Broken(Box<dyn StdError + Send + Sync>),
}

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Says which worker this thread is, counted from 0. A connection is driven by the thread that made it, so each worker
/// has connections of its own: a call never wakes another thread.
pub fn on_worker(number: usize) {
    WORKER.set(number);
}

tokio::task_local! {
    /// The trace of the call for which a connection is made. Only calls that spans are made of have it set.
    static OPENER: Trace;
}

type TcpConnector = HttpConnector<Resolver>;

/// A pool of connections to every endpoint, for each worker. It is cheap to clone; its clones share their connections.
#[derive(Clone)]
pub(super) struct Connector {
    clients: Arc<[legacy::Client<Connect, Body>]>,
    figures: Arc<Figures>,
}

/// Makes one connection within [`CONNECT_TIMEOUT`]; the TCP connector's own timeout leaves TLS out.
#[derive(Clone)]
struct Connect {
    https: HttpsConnector<TcpConnector>,
    cut: Cut,
    figures: Arc<Figures>,
}

impl Connector {
    /// A connector for this many workers, at least one, whose connections end when they are cut, and go no further than
    /// `reach`.
    pub(super) fn new(workers: usize, cut: &Cut, reach: Reach, trust: ClientConfig, figures: &Arc<Figures>) -> Self {
        let mut tcp = TcpConnector::new_with_resolver(Resolver::new(reach));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_happy_eyeballs_timeout(Some(Duration::from_millis(250)));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(trust)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = |_| {
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
                .http1_max_buf_size(MAX_READ)
                .build(Connect { https: https.clone(), cut: cut.clone(), figures: Arc::clone(figures) })
        };
        Self { clients: (0..workers.max(1)).map(client).collect(), figures: Arc::clone(figures) }
    }

    /// What is counted of requests to an address.
    pub(super) fn host(&self, address: &Uri) -> Arc<Host> {
        self.figures.host(address.host().unwrap_or_default())
    }

    /// What is counted of all requests.
    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Sends a request over a connection of this thread's worker.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        host: &Host,
        trace: &Trace,
    ) -> Result<Response<Incoming>, Unsent> {
        let worker = WORKER.get() % self.clients.len();
        let client = self.clients.get(worker).ok_or_else(|| Unsent::NotConnected("there is no worker".into()))?;
        host.requests.add();
        if let Some(spans) = trace.spans() {
            let (address, default) = (request.uri(), if request.uri().scheme_str() == Some("http") { 80 } else { 443 });
            spans.goes_to(address.host().unwrap_or_default(), address.port_u16().unwrap_or(default));
        }
        let sent = client.request(request);
        let sent = match trace.spans() {
            None => sent.await,
            Some(_) => OPENER.scope(trace.clone(), sent).await,
        };
        match sent {
            Ok(response) => Ok(response),
            Err(error) if error.is_connect() => Err(Unsent::NotConnected(error.into())),
            Err(error) => Err(Unsent::Broken(error.into())),
        }
    }
}

/// The system's root certificates; `SSL_CERT_FILE` and `SSL_CERT_DIR` replace them.
pub fn trust() -> ClientConfig {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!(
            errors = ?found.errors,
            "no root certificates found, so no https endpoint can be trusted: install ca-certificates or set SSL_CERT_FILE"
        );
    }
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

impl Service<Uri> for Connect {
    type Response = Cuttable<<HttpsConnector<TcpConnector> as Service<Uri>>::Response>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let host = self.figures.host(address.host().unwrap_or_default());
        let connecting = self.https.call(address);
        let (began, opener) = (Instant::now(), OPENER.try_with(Trace::clone).unwrap_or_default());
        let cut = self.cut.clone();
        Box::pin(async move {
            let connected: Result<_, BoxError> = tokio::select! {
                connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting) => connected.map_err(Into::into).flatten(),
                () = cut.wait() => Err("the service stops".into()),
            };
            let (count, step) = match &connected {
                Ok(_) => (&host.opened, Step::Connected(began.elapsed())),
                Err(_) => (&host.failed, Step::NotConnected(began.elapsed())),
            };
            count.add();
            opener.note(step);
            Ok(cut.over(connected?))
        })
    }
}

impl SdkConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
            let address = request.uri().clone();
            let response = connector
                .send(request.map(Body::from), &connector.host(&address), &Trace::default())
                .await
                .map_err(|error| match error {
                    Unsent::NotConnected(cause) => ConnectorError::io(cause).never_connected(),
                    Unsent::Broken(cause) => ConnectorError::io(cause),
                })?;
            let response = response.map(|body| SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER)));
            HttpResponse::try_from(response).map_err(|e| ConnectorError::other(e.into(), None))
        })
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Makes ring the provider of rustls, which has no default when two are compiled in.
pub fn install_crypto() {
    // An error means that it is installed already.
    let _: Result<(), Arc<_>> = rustls::crypto::ring::default_provider().install_default();
}
