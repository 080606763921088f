//! Messages that tonic refuses before the service sees them get the contract's errors too, and the line of their call.
//!
//! tonic answers a message above the size limit with OUT_OF_RANGE and one that is no protobuf with INTERNAL, both
//! without details; the service's own errors always have details.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{envoy::REQUEST_ID, status::status};
use crate::{
    error::{Error, Kind},
    execute::{Engine, NO_POLICY},
    policy::Caller,
    telemetry::names::spans,
    trace,
};

const DETAILS: &str = "grpc-status-details-bin";

/// Tells callers of the service inside what was wrong with a message, and the log who they are.
#[derive(Clone, Debug)]
pub(super) struct Undecodable(pub Arc<Engine>);

/// A service whose callers are told.
#[derive(Clone, Debug)]
pub(super) struct Telling<S> {
    inner: S,
    engine: Arc<Engine>,
}

/// What a line says of a call of which nobody knows more.
struct Asked {
    engine: Arc<Engine>,
    /// The front by its name in the access log; none of what is no call.
    rpc: Option<&'static str>,
    caller: Caller,
    told: Option<trace::Context>,
    id: Option<HeaderValue>,
    began: Instant,
}

/// A call that is being answered.
pub(super) struct Answering<F> {
    inner: F,
    asked: Asked,
}

impl<S> Layer<S> for Undecodable {
    type Service = Telling<S>;

    fn layer(&self, inner: S) -> Telling<S> {
        Telling { inner, engine: Arc::clone(&self.0) }
    }
}

impl<S, A, B> Service<Request<A>> for Telling<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Unpin,
    B: Default,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let asked = Asked {
            engine: Arc::clone(&self.engine),
            rpc: spans::rpc(request.uri().path()),
            caller: Caller::of(request.extensions()),
            told: request.extensions().get().cloned(),
            id: request.headers().get(&REQUEST_ID).cloned(),
            began: Instant::now(),
        };
        Answering { inner: self.inner.call(request), asked }
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>> + Unpin,
    B: Default,
{
    type Output = Result<Response<B>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.inner).poll(cx))?;
        Poll::Ready(Ok(match refusal(&response) {
            Some(error) => {
                self.asked.tell(&error);
                status(&error).into_http()
            }
            None => response,
        }))
    }
}

impl Asked {
    fn tell(&mut self, error: &Error) {
        let Some(rpc) = self.rpc else {
            tracing::warn!(
                reason = error.kind().reason(),
                detail = error.detail(),
                "a message that is no call was refused unread"
            );
            return;
        };
        let id = self.id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
        let trace = self.engine.trace(self.told.take(), std::iter::empty());
        let line = self.engine.line(rpc, NO_POLICY).of(id).by(&self.caller).within(trace);
        line.since(self.began).failed(error);
    }
}

/// The contract's error in the place of tonic's, if the response is one of these.
fn refusal<B>(response: &Response<B>) -> Option<Error> {
    let refused = Status::from_header_map(response.headers())?;
    if response.headers().contains_key(DETAILS) {
        return None;
    }
    let error = match refused.code() {
        Code::OutOfRange => Error::new(Kind::PayloadTooLarge, "the message is larger than any that lambda takes"),
        Code::Internal => Error::field("request", "is not a message of the contract"),
        _ => return None,
    };
    Some(error.with_detail(refused.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tonics_own_refusals_are_replaced() {
        for (status, reason) in [
            (Status::out_of_range("too large"), Some("PAYLOAD_TOO_LARGE")),
            (Status::internal("buffer underflow"), Some("INVALID_REQUEST")),
            (Status::unimplemented("no such method"), None),
            (status(&Error::new(Kind::LambdaFailed, "x")), None),
        ] {
            let refused = refusal(&status.into_http::<String>());
            assert_eq!(refused.map(|error| error.kind().reason()), reason);
        }
    }
}
