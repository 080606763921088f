//! Measures every RPC from its headers to its status, which stands in its answer's headers or trailers, and every other
//! request to its answer's end. What goes astray has no line of a call, and is told of here.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE, uri::PathAndQuery};
use hyper::body::{Body, Frame, SizeHint};
use prost::Message;
use tower::{Layer, Service};

use super::stream::Connection;
use crate::{
    admission::Astray,
    execute::Engine,
    pb,
    policy::callers::Origin,
    telemetry::{Asked, Ending, Requests, Rpcs, names::http as names},
};

const OK: usize = 0;
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;
const UNIMPLEMENTED: usize = 12;

/// The most bytes that the log has of a path at which nothing is served.
const MOST_PATH: usize = 200;

/// The methods that are served, as `service/method`.
fn methods() -> Vec<String> {
    let sets = [pb::CONTRACT, pb::GATEWAYS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let sets = sets.into_iter().filter_map(|set| prost_types::FileDescriptorSet::decode(set).ok());
    let mut methods = Vec::new();
    for file in sets.flat_map(|set| set.file) {
        for service in &file.service {
            for method in &service.method {
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                if !methods.contains(&name) {
                    methods.push(name);
                }
            }
        }
    }
    methods
}

/// The services that are served, by their names.
pub(super) fn services() -> Vec<String> {
    let mut services: Vec<_> = methods().iter().filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect();
    services.dedup();
    services
}

/// Measures what the service inside answers.
#[derive(Clone)]
pub(super) struct Measured(Arc<Meters>);

/// A service whose RPCs and requests are measured.
#[derive(Clone)]
pub(super) struct Measuring<S> {
    inner: S,
    meters: Arc<Meters>,
}

struct Meters {
    rpcs: Rpcs,
    requests: Requests,
    astray: Arc<Astray>,
}

/// What has not ended. When it is dropped before, its caller went away.
struct Running {
    meters: Arc<Meters>,
    what: What,
    stray: Option<Box<Stray>>,
    started: Instant,
    ended: bool,
}

/// A request that nothing may be served for: which it is, and where it comes from.
struct Stray {
    method: Method,
    path: PathAndQuery,
    origin: Option<Origin>,
}

#[derive(Clone, Copy)]
enum What {
    Rpc {
        method: usize,
        /// What the body's end means if no trailers come: those of gRPC-Web are in its data.
        at_end: usize,
    },
    Request {
        asked: Asked,
        status: Option<StatusCode>,
    },
}

/// The body of an answer, which knows when it ends.
pub(super) struct Watched<B> {
    inner: B,
    running: Running,
}

impl Measured {
    /// For a front that speaks TLS, or does not.
    pub(super) fn new(engine: &Engine, tls: bool) -> Self {
        let metrics = engine.metrics();
        let (rpcs, requests) = (Rpcs::new(Arc::clone(metrics), methods()), Requests::new(Arc::clone(metrics), tls));
        Self(Arc::new(Meters { rpcs, requests, astray: Arc::clone(engine.admission().astray()) }))
    }
}

impl<S> Layer<S> for Measured {
    type Service = Measuring<S>;

    fn layer(&self, inner: S) -> Measuring<S> {
        Measuring { inner, meters: Arc::clone(&self.0) }
    }
}

impl<S, A, B> Service<Request<A>> for Measuring<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Body,
{
    type Response = Response<Watched<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let mut running = Running::new(&self.meters, &request);
        let answering = self.inner.call(request);
        Box::pin(async move {
            let response = answering.await?;
            running.begin(&response);
            Ok(response.map(|inner| Watched { inner, running }))
        })
    }
}

impl Running {
    fn new<A>(meters: &Arc<Meters>, request: &Request<A>) -> Self {
        let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let (what, known) = if kind.starts_with(b"application/grpc") {
            let web = kind.starts_with(b"application/grpc-web");
            let method = meters.rpcs.method(request.uri().path());
            (What::Rpc { method, at_end: if web { OK } else { UNKNOWN } }, meters.rpcs.has(method))
        } else {
            let asked = meters.requests.asked(request);
            (What::Request { asked, status: None }, meters.requests.routes(asked))
        };
        let stray = if known { None } else { Stray::of(request) };
        Self { meters: Arc::clone(meters), what, stray, started: Instant::now(), ended: false }
    }

    /// Takes note of an answer's headers, which may be all of it.
    fn begin<B: Body>(&mut self, response: &Response<B>) {
        if let Some(stray) = self.stray.take() {
            stray.tell(&self.meters.astray, &self.what, response);
        }
        match &mut self.what {
            What::Rpc { .. } => {
                if let Some(code) = code_at_once(response) {
                    self.end(Ending::Whole, Some(code));
                }
            }
            What::Request { status, .. } => {
                *status = Some(response.status());
                // Nobody asks for a body that is not sent.
                if is_bare(response.status()) || response.body().is_end_stream() {
                    self.end(Ending::Whole, None);
                }
            }
        }
    }

    /// Records how it has ended. Of an RPC the code says so, if there is one.
    fn end(&mut self, ending: Ending, code: Option<usize>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.started.elapsed();
        match self.what {
            What::Rpc { method, at_end } => {
                let code = code.unwrap_or(match ending {
                    Ending::Whole => at_end,
                    Ending::BrokenOff => UNKNOWN,
                    Ending::Cancelled => CANCELLED,
                });
                self.meters.rpcs.ended(method, code, took);
            }
            What::Request { asked, status } => self.meters.requests.ended(asked, status, ending, took),
        }
    }
}

impl Stray {
    /// None of what was meant as a call, which has its line.
    fn of<A>(request: &Request<A>) -> Option<Box<Self>> {
        let path = request.uri().path_and_query()?.clone();
        if path.path().strip_prefix(names::LIST).is_some_and(|below| below.starts_with('/')) {
            return None;
        }
        let origin = request.extensions().get::<Connection>().and_then(|connection| connection.origin);
        Some(Box::new(Self { method: request.method().clone(), path, origin }))
    }

    /// Counts it, and tells of it once a minute, if nothing was served.
    fn tell<B>(&self, astray: &Astray, what: &What, response: &Response<B>) {
        let (protocol, strays, is_astray) = match what {
            What::Rpc { .. } => ("grpc", &astray.grpc, code_at_once(response) == Some(UNIMPLEMENTED)),
            What::Request { .. } => ("http", &astray.http, matches!(response.status().as_u16(), 404 | 415)),
        };
        if is_astray && let Some(requests) = strays.add() {
            // What a query has in it may be a secret.
            let path = self.path.path();
            let path = path.get(..path.floor_char_boundary(MOST_PATH)).unwrap_or_default();
            let (method, peer) = (self.method.as_str(), self.origin.map(tracing::field::display));
            tracing::warn!(protocol, method, path, peer, requests, "requests go astray: nothing is served so");
        }
    }
}

impl What {
    /// Whether nothing comes behind the data of its answer.
    fn is_all_data(&self) -> bool {
        matches!(self, Self::Request { .. } | Self::Rpc { at_end: OK, .. })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Ending::Cancelled, None);
    }
}

/// Whether an answer ends with its headers, whatever its body is (RFC 9110, 6.4.1).
fn is_bare(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The code of an answer that has no trailers: what its headers say, or what gRPC reads from an HTTP error.
fn code_at_once<B>(response: &Response<B>) -> Option<usize> {
    code(response.headers()).or_else(|| match response.status() {
        StatusCode::OK => None,
        StatusCode::NOT_FOUND => Some(UNIMPLEMENTED),
        _ => Some(UNKNOWN),
    })
}

fn code(headers: &HeaderMap) -> Option<usize> {
    let status = headers.get("grpc-status")?;
    Some(status.to_str().ok().and_then(|status| status.parse().ok()).unwrap_or(UNKNOWN))
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.running.end(Ending::Whole, Some(code(trailers).unwrap_or(UNKNOWN)));
                } else if this.running.what.is_all_data() && this.inner.is_end_stream() {
                    // Nobody asks for more behind the last of it.
                    this.running.end(Ending::Whole, None);
                }
            }
            Poll::Ready(Some(Err(_))) => this.running.end(Ending::BrokenOff, None),
            Poll::Ready(None) => this.running.end(Ending::Whole, None),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_methods_are_those_of_the_services() {
        let methods = methods();
        assert_eq!(
            methods.first().unwrap(),
            "lambdapolicy.v1.PolicyService/ExecutePolicy",
            "the one that is called most"
        );
        for method in [
            "lambdapolicy.v1.PolicyService/ListPolicies",
            "envoy.service.ext_proc.v3.ExternalProcessor/Process",
            "envoy.service.auth.v3.Authorization/Check",
            "coprocess.Dispatcher/Dispatch",
            "grpc.health.v1.Health/Check",
        ] {
            assert!(methods.iter().any(|known| known == method), "{method} is not among {methods:?}");
        }
    }
}
