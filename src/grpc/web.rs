//! gRPC-Web beside gRPC: for browsers, and for gateways that speak HTTP/1.1 only.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::Either;
use http::{Request, Response, header::CONTENT_TYPE};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body, server::NamedService};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service, util::MapRequest};

/// A service that is spoken to in either protocol. Plain gRPC goes past the translation, which costs it a body of its own.
#[derive(Clone, Debug)]
pub(super) struct Web<S> {
    plain: S,
    web: GrpcWebService<Translated<S>>,
}

/// A service behind the translation.
type Translated<S> = MapRequest<S, fn(Request<Body>) -> Request<Body>>;

/// What was first said of why a body ends early: the translation makes text of it.
#[derive(Clone, Debug, Default)]
struct First(Arc<OnceLock<Status>>);

/// A body that says so again, on both sides of the translation.
struct Faithful {
    body: Body,
    first: First,
}

impl<S: Clone> Web<S> {
    pub(super) fn new(service: S) -> Self {
        let translated = MapRequest::new(service.clone(), faithful as fn(_) -> _);
        Self { plain: service, web: GrpcWebLayer::new().layer(translated) }
    }
}

impl<S: NamedService> NamedService for Web<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    GrpcWebService<Translated<S>>: Service<Request<Body>, Response = Response<Body>, Error = S::Error>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, <GrpcWebService<Translated<S>> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.plain.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let content_type = request.headers().get(CONTENT_TYPE);
        if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc-web")) {
            request.extensions_mut().insert(First::default());
            Either::Right(self.web.call(faithful(request)))
        } else {
            Either::Left(self.plain.call(request))
        }
    }
}

fn faithful(request: Request<Body>) -> Request<Body> {
    match request.extensions().get().cloned() {
        Some(first) => request.map(|body| Body::new(Faithful { body, first })),
        None => request,
    }
}

impl HttpBody for Faithful {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, first } = &mut *self;
        Pin::new(body).poll_frame(cx).map_err(|status| first.0.get_or_init(|| status).clone())
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
