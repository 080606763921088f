//! Measures every RPC from its headers to its status, which stands in its answer's headers or trailers.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::body::{Body, Frame, SizeHint};
use prost::Message;
use tower::{Layer, Service};

use crate::{pb, telemetry::Rpcs};

const OK: usize = 0;
const CANCELLED: usize = 1;
const UNKNOWN: usize = 2;
const UNIMPLEMENTED: usize = 12;

/// The methods that are served, as `service/method`.
pub(super) fn methods() -> Vec<String> {
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

/// Measures the RPCs of the service inside.
#[derive(Clone)]
pub(super) struct Measured(pub Rpcs);

/// A service whose RPCs are measured.
#[derive(Clone)]
pub(super) struct Measuring<S> {
    inner: S,
    rpcs: Rpcs,
}

/// An RPC that has not ended. When it is dropped before, its caller went away.
struct Running {
    rpcs: Rpcs,
    method: usize,
    started: Instant,
    /// What the body's end means if no trailers come: those of gRPC-Web are in its data.
    at_end: usize,
    ended: bool,
}

/// The body of an answer, which knows when it ends.
pub(super) struct Watched<B> {
    inner: B,
    running: Option<Running>,
}

impl<S> Layer<S> for Measured {
    type Service = Measuring<S>;

    fn layer(&self, inner: S) -> Measuring<S> {
        Measuring { inner, rpcs: self.0.clone() }
    }
}

impl<S, A, B> Service<Request<A>> for Measuring<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Watched<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let mut running = Running::new(&self.rpcs, &request);
        let answering = self.inner.call(request);
        Box::pin(async move {
            let response = answering.await?;
            if let Some(code) = code_at_once(&response)
                && let Some(mut running) = running.take()
            {
                running.end(code);
            }
            Ok(response.map(|inner| Watched { inner, running }))
        })
    }
}

impl Running {
    fn new<A>(rpcs: &Rpcs, request: &Request<A>) -> Option<Self> {
        let kind = request.headers().get(CONTENT_TYPE)?.as_bytes();
        let web = kind.starts_with(b"application/grpc-web");
        kind.starts_with(b"application/grpc").then(|| Self {
            method: rpcs.method(request.uri().path()),
            rpcs: rpcs.clone(),
            started: Instant::now(),
            at_end: if web { OK } else { UNKNOWN },
            ended: false,
        })
    }

    fn end(&mut self, code: usize) {
        if !self.ended {
            self.ended = true;
            self.rpcs.ended(self.method, code, self.started.elapsed());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(CANCELLED);
    }
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
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        if let Some(running) = &mut this.running {
            match &frame {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        running.end(code(trailers).unwrap_or(UNKNOWN));
                    }
                }
                Poll::Ready(Some(Err(_))) => running.end(UNKNOWN),
                Poll::Ready(None) => running.end(running.at_end),
                Poll::Pending => {}
            }
        }
        frame
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
