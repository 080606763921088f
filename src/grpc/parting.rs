//! An HTTP/1 connection that will end soon says so with its answers, so that its client sends no call that nobody reads.
//!
//! In HTTP/2 there is GOAWAY for that, after which calls that have left are still answered. In HTTP/1 a client that sends
//! just when an idle connection is closed has lost its call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{Either, Map},
};
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use tower::{Layer, Service};

use super::stream::Connection;

/// Which answers are a connection's last ones.
#[derive(Clone, Debug)]
pub(super) struct Parting {
    leaving: Arc<AtomicBool>,
    /// From when on a connection is nearly as old as it may be.
    age: Duration,
}

/// Whoever calls once in this time learns that the connection ends, however short connections live.
const NOTICE: Duration = Duration::from_secs(1);

/// A service whose answers say so.
#[derive(Clone, Debug)]
pub(super) struct Parted<S> {
    parting: Parting,
    inner: S,
}

impl Parting {
    /// Those while the service is `leaving`, and those of connections that are nearly as old as they may be.
    pub(super) fn new(leaving: &Arc<AtomicBool>, max_age: Duration) -> Self {
        let notice = (max_age / 10).max(NOTICE).min(max_age / 2);
        Self { leaving: Arc::clone(leaving), age: max_age - notice }
    }

    fn is_due<B>(&self, request: &Request<B>) -> bool {
        let old = |connection: &Connection| connection.since.elapsed() >= self.age;
        request.version() <= Version::HTTP_11
            && (self.leaving.load(Ordering::Relaxed) || request.extensions().get::<Connection>().is_some_and(old))
    }
}

impl<S> Layer<S> for Parting {
    type Service = Parted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Parted { parting: self.clone(), inner }
    }
}

type Told<B, E> = Result<Response<B>, E>;

fn last<B, E>(mut told: Told<B, E>) -> Told<B, E> {
    if let Ok(response) = &mut told {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    told
}

impl<S, A, B> Service<Request<A>> for Parted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Either<S::Future, Map<S::Future, fn(Told<B, S::Error>) -> Told<B, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        if self.parting.is_due(&request) {
            Either::Right(self.inner.call(request).map(last))
        } else {
            Either::Left(self.inner.call(request))
        }
    }
}
