//! A call whose token is signed with a key that is not known yet waits until its issuer's keys have been fetched: an issuer
//! that changes its keys loses no call.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, Either};
use http::Request;
use tokio::time::timeout;
use tonic::body::Body;
use tower::{Layer, Service};

use super::identify;
use crate::{execute::Engine, policy::Caller};

/// How long it waits at the most.
const MOST: Duration = Duration::from_secs(3);

/// Has calls wait that need to.
#[derive(Clone, Debug)]
pub(super) struct Renewal {
    engine: Arc<Engine>,
}

/// A service whose calls wait if they need to.
#[derive(Clone, Debug)]
pub(super) struct Renewed<S> {
    engine: Arc<Engine>,
    inner: S,
}

impl Renewal {
    pub(super) fn new(engine: &Arc<Engine>) -> Self {
        Self { engine: Arc::clone(engine) }
    }
}

impl<S> Layer<S> for Renewal {
    type Service = Renewed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Renewed { engine: Arc::clone(&self.engine), inner }
    }
}

impl<S> Service<Request<Body>> for Renewed<S>
where
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>();
        let Some(renewal) = caller.and_then(|caller| self.engine.renewal(caller)) else {
            return Either::Left(self.inner.call(request));
        };
        let engine = Arc::clone(&self.engine);
        // The one that is ready goes along, and another stays.
        let other = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, other);
        Either::Right(Box::pin(async move {
            let _ = timeout(MOST, renewal).await;
            identify(&engine, &mut request);
            inner.call(request).await
        }))
    }
}
