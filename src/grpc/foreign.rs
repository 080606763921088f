//! Requests at the path of an RPC that are none: a client that reads HTTP only would take gRPC's error, which has the status
//! 200, for success. They are answered as gRPC over HTTP/2 has it, and no service sees them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use tonic::body::Body;
use tower::{Layer, Service};

/// Keeps them away from the services of these names.
#[derive(Clone)]
pub(super) struct Foreign(pub Arc<[String]>);

/// A front that only RPCs come to, as far as they are for a service.
#[derive(Clone)]
pub(super) struct Native<S> {
    inner: S,
    services: Arc<[String]>,
}

impl<S> Layer<S> for Foreign {
    type Service = Native<S>;

    fn layer(&self, inner: S) -> Native<S> {
        Native { inner, services: Arc::clone(&self.0) }
    }
}

impl<S, A> Service<Request<A>> for Native<S>
where
    S: Service<Request<A>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if kind.starts_with(b"application/grpc") || !self.serves(request.uri().path()) {
            return Either::Left(self.inner.call(request));
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Either::Right(ready(Ok(response)))
    }
}

impl<S> Native<S> {
    fn serves(&self, path: &str) -> bool {
        let service = path.get(1..).and_then(|path| path.split_once('/')).map(|(service, _)| service);
        service.is_some_and(|service| self.services.iter().any(|known| known == service))
    }
}
