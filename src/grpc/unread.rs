//! Requests that no service has read: each has the line of its call, and what tonic says of it is said as the contract does.
//!
//! The front receives no more of some ([`super::reception`]). Others are no messages: tonic answers one above the size limit
//! with OUT_OF_RANGE, one that is no protobuf with INTERNAL, and one that is compressed with UNIMPLEMENTED, all without details;
//! the service's own errors always have details.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::{
    envoy::{self, REQUEST_ID},
    no_call,
    status::status,
};
use crate::{
    error::{Error, Kind},
    execute::{Engine, NO_POLICY},
    policy::Caller,
    telemetry::names::spans,
    trace,
};

/// Tells callers of the service inside what was wrong with a message, and the log who they are.
#[derive(Clone, Debug)]
pub(super) struct Unread(pub Arc<Engine>);

/// A service whose callers are told.
#[derive(Clone, Debug)]
pub(super) struct Telling<S> {
    inner: S,
    engine: Arc<Engine>,
}

/// Why a request was not read.
#[derive(Debug)]
pub(super) enum Why<'a> {
    /// The front receives no more of it, and has said so.
    Refused(&'a Error),
    /// It is no message, which tonic has said in its own words.
    NoMessage(Error),
    /// It is one that tonic does not take. Its own words are those that gRPC wants.
    NotTaken(Error),
}

/// What a line says of a call of which nobody knows more.
struct Asked {
    engine: Arc<Engine>,
    /// The front by its name in the access log, or the method of what is no call.
    rpc: Result<&'static str, &'static str>,
    /// The policy, where the gateway names it beside the message. Whether it may call that one is not known.
    policy: Option<HeaderValue>,
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

impl<S> Layer<S> for Unread {
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
        let path = request.uri().path();
        let rpc = spans::rpc(path).ok_or_else(|| no_call::method(path));
        let asked = Asked {
            engine: Arc::clone(&self.engine),
            rpc,
            policy: rpc.ok().and_then(|rpc| named(rpc, request.headers())),
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
        let Some(why) = response.extensions().get().and_then(why) else { return Poll::Ready(Ok(response)) };
        self.asked.tell(why.error());
        Poll::Ready(Ok(match why {
            Why::Refused(error) if error.is_broken_off() => Status::cancelled(error.message()).into_http(),
            Why::NoMessage(error) => status(&error).into_http(),
            Why::Refused(_) | Why::NotTaken(_) => response,
        }))
    }
}

impl Asked {
    fn tell(&mut self, error: &Error) {
        let rpc = match self.rpc {
            Ok(rpc) => rpc,
            Err(method) => return no_call::refused(method, &self.caller, error),
        };
        let text =
            |value: &Option<HeaderValue>| value.as_ref().and_then(|value| value.to_str().ok().map(str::to_owned));
        let policy = text(&self.policy).filter(|name| !name.is_empty());
        let trace = self.engine.trace(self.told.take(), std::iter::empty());
        let line = self.engine.unread(self.engine.line(rpc, policy.as_deref().unwrap_or(NO_POLICY)));
        let line = line.of(&text(&self.id).unwrap_or_default());
        line.by(&self.caller).within(trace).since(self.began).by_status().failed(error);
    }
}

/// The policy that Envoy's metadata names. Other gateways name it in their messages.
fn named(rpc: &str, headers: &HeaderMap) -> Option<HeaderValue> {
    matches!(rpc, "ext_proc" | "ext_authz").then(|| headers.get(&envoy::POLICY)).flatten().cloned()
}

impl Why<'_> {
    /// As the contract has it.
    pub(super) fn error(&self) -> &Error {
        match self {
            Self::Refused(error) => error,
            Self::NoMessage(error) | Self::NotTaken(error) => error,
        }
    }
}

/// Why the request was not read that has this status, if that is so.
pub(super) fn why(refused: &Status) -> Option<Why<'_>> {
    if let Some(error) = Error::among(refused) {
        return Some(Why::Refused(error));
    }
    if !refused.details().is_empty() {
        return None;
    }
    Some(match refused.code() {
        Code::OutOfRange => {
            // tonic tells how large, by which each would be another one of the last errors.
            Why::NoMessage(Error::new(Kind::PayloadTooLarge, "the message is larger than any that lambda takes"))
        }
        Code::Internal => {
            Why::NoMessage(Error::field("request", "is not a message of the contract").with_detail(refused.message()))
        }
        Code::Unimplemented => Why::NotTaken(
            Error::field("request", "is compressed, and only `identity` is taken").with_detail(refused.message()),
        ),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_service_has_read_has_a_line_here() {
        let mut received = status(&Error::new(Kind::Overloaded, "x"));
        received.set_source(Arc::new(Error::new(Kind::Overloaded, "x")));
        for (status, reason, kept) in [
            (Status::out_of_range("too large"), Some("PAYLOAD_TOO_LARGE"), false),
            (Status::internal("buffer underflow"), Some("INVALID_REQUEST"), false),
            (Status::unimplemented("compressed"), Some("INVALID_REQUEST"), true),
            (received, Some("OVERLOADED"), true),
            (status(&Error::new(Kind::LambdaFailed, "x")), None, true),
            (status(&Error::field("json", "x")), None, true),
        ] {
            let why = why(&status);
            assert_eq!(why.as_ref().map(|why| why.error().kind().reason()), reason);
            assert_eq!(!matches!(why, Some(Why::NoMessage(_))), kept, "{status}");
        }
    }
}
