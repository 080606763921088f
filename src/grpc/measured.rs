//! Measures every RPC from its headers to its status, which stands in its answer's headers or trailers, and every other
//! request to its answer's end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::{Body, Frame, SizeHint};
use prost::Message;
use tower::{Layer, Service};

use crate::{
    pb,
    telemetry::{Asked, Ending, Metrics, Requests, Rpcs},
};

const OK: usize = 0;
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;
const UNIMPLEMENTED: usize = 12;

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
}

/// What has not ended. When it is dropped before, its caller went away.
struct Running {
    meters: Arc<Meters>,
    what: What,
    started: Instant,
    ended: bool,
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
    pub(super) fn new(metrics: &Arc<Metrics>, tls: bool) -> Self {
        let rpcs = Rpcs::new(Arc::clone(metrics), methods());
        Self(Arc::new(Meters { rpcs, requests: Requests::new(Arc::clone(metrics), tls) }))
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
        let what = if kind.starts_with(b"application/grpc") {
            let web = kind.starts_with(b"application/grpc-web");
            let method = meters.rpcs.method(request.uri().path());
            What::Rpc { method, at_end: if web { OK } else { UNKNOWN } }
        } else {
            What::Request { asked: meters.requests.asked(request), status: None }
        };
        Self { meters: Arc::clone(meters), what, started: Instant::now(), ended: false }
    }

    /// Takes note of an answer's headers, which may be all of it.
    fn begin<B: Body>(&mut self, response: &Response<B>) {
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
