//! Calls by plain HTTP as they arrive: whose they are, and what comes of their bodies.

use std::error::Error as Cause;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;

use super::{Engine, Peer, request_id};
use crate::{
    error::Error,
    policy::Caller,
    telemetry::{self, access::Line},
};

/// A call whose head is here.
#[derive(Debug)]
pub struct Arrival {
    /// The gateway's id of it, or a random one.
    pub id: String,
    /// Who makes it.
    pub caller: Caller,
    /// Its line.
    pub line: Line,
}

/// The id that a request has from its gateway, or a random one.
pub fn id_of<B>(request: &http::Request<B>) -> String {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    id.map_or_else(request_id, str::to_owned)
}

impl Engine {
    /// Begins a call; without a policy's name it brings its own.
    pub fn arrival<B>(&self, rpc: &'static str, policy: &str, request: &http::Request<B>) -> Arrival {
        let (id, caller) = (id_of(request), Caller::of(request.extensions()));
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let trace = self.trace(request.extensions().get().cloned(), headers);
        let is_tls = Peer::of(request.extensions()).is_some_and(|peer| peer.tls);
        trace.came(|| telemetry::came(request, is_tls));
        let line = self.line(rpc, policy).of(&id).by(&caller).within(trace);
        Arrival { id, caller, line }
    }

    /// The whole body of a call, if its caller is known and it is not larger than that, and the call's line.
    ///
    /// # Errors
    /// Why not, which the line has told.
    pub async fn receive<B>(
        &self,
        caller: &Caller,
        line: Line,
        (body, most): (B, usize),
        too_large: impl FnOnce() -> Error,
    ) -> Result<(Line, Bytes), Error>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Cause + Send + Sync>>,
    {
        if let Err(error) = self.known(caller) {
            line.failed(&error);
            return Err(error);
        }
        let mut line = line.receiving();
        let received = Limited::new(body, most).collect().await;
        line.received();
        match received {
            Ok(whole) => Ok((line, whole.to_bytes())),
            Err(why) => {
                let error = unreceived(&*why, too_large);
                // Who goes away does that to the policy's calls, whenever it is.
                let line = if error.is_broken_off() { line } else { self.unread(line) };
                line.failed(&error);
                Err(error)
            }
        }
    }
}

/// Why a body was not received: the service's own reason, or that it is too large.
fn unreceived(why: &(dyn Cause + 'static), too_large: impl FnOnce() -> Error) -> Error {
    let is_limit = |cause: &(dyn Cause + 'static)| cause.is::<LengthLimitError>();
    match Error::among(why) {
        Some(error) => error.clone(),
        None if std::iter::successors(Some(why), |cause| (*cause).source()).any(is_limit) => too_large(),
        None => Error::broken_off(),
    }
}
