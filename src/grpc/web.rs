//! gRPC-Web beside gRPC: for browsers, and for gateways that speak HTTP/1.1 only.

use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response, header::CONTENT_TYPE};
use tonic::{body::Body, server::NamedService};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};

/// A service that is spoken to in either protocol. Plain gRPC goes past the translation, which costs it a body of its own.
#[derive(Clone, Debug)]
pub(super) struct Web<S> {
    plain: S,
    web: GrpcWebService<S>,
}

impl<S: Clone> Web<S> {
    pub(super) fn new(service: S) -> Self {
        Self { plain: service.clone(), web: GrpcWebLayer::new().layer(service) }
    }
}

impl<S: NamedService> NamedService for Web<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    GrpcWebService<S>: Service<Request<Body>, Response = Response<Body>, Error = S::Error>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, <GrpcWebService<S> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.plain.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let content_type = request.headers().get(CONTENT_TYPE);
        if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc-web")) {
            Either::Right(self.web.call(request))
        } else {
            Either::Left(self.plain.call(request))
        }
    }
}
