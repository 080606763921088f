//! A call and its reply, in the terms that all fronts share.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use crate::{
    event::{
        self, Malformed,
        exchange::Answered as Upstream,
        fault::{self, Fault},
    },
    lambda::Taken,
    policy::{Caller, ClientContext, Invocation, Policy, Qualifier, Tenant, callers::Origin},
    telemetry::access::{Answered, Line},
    trace::{Reached, Trace},
};

/// A call, whichever front it came through.
#[derive(Debug)]
pub struct Request {
    /// Who makes it.
    pub caller: Caller,
    /// Which policy.
    pub policy: Choice,
    /// What the function gets.
    pub input: Input,
    /// Instead of the policy's.
    pub invocation: Option<Invocation>,
    /// Instead of the policy's, if the policy allows it.
    pub qualifier: Option<Qualifier>,
    /// Instead of the policy's.
    pub context: Option<ClientContext>,
    /// Instead of the policy's.
    pub tenant: Option<Tenant>,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The trace that goes on in the function.
    pub trace: Trace,
    /// How far it has come, for who watches it.
    pub reached: Option<Reached>,
}

impl Request {
    /// An HTTP call of a configured policy, which says all that there is to say.
    pub fn http(caller: Caller, policy: impl Into<String>, call: event::Call, deadline: Option<Instant>) -> Self {
        Self::new(caller, Choice::Named(policy.into()), Input::Http(Box::new(call)), deadline)
    }

    pub(super) fn take_input(&mut self) -> Input {
        std::mem::replace(&mut self.input, Input::Payload(Bytes::new()))
    }

    pub(super) fn invocation(&self, policy: &Policy) -> Invocation {
        self.invocation.unwrap_or(policy.invocation)
    }

    /// A call that leaves to its policy what there is to leave.
    pub fn new(caller: Caller, policy: Choice, input: Input, deadline: Option<Instant>) -> Self {
        let (invocation, qualifier, context, tenant) = (None, None, None, None);
        Self {
            caller,
            policy,
            input,
            invocation,
            qualifier,
            context,
            tenant,
            deadline,
            trace: Trace::default(),
            reached: None,
        }
    }

    /// The same call, as the one that a line is about: a part of its trace, and it knows how far the call has come.
    #[must_use]
    pub fn told_by(mut self, line: &Line) -> Self {
        self.trace = line.trace().clone();
        self.reached = Some(line.reached().clone());
        self
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address: the gateway's.
    pub ip: IpAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// Says of a request that its connection is encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

impl Peer {
    /// Who makes a request, as the front has found out when it came in. Behind a Unix socket there is no address.
    pub fn of(extensions: &http::Extensions) -> Option<Self> {
        match extensions.get() {
            Some(Origin::Address(ip)) => Some(Self { ip: *ip, tls: extensions.get::<Encrypted>().is_some() }),
            Some(Origin::Unix) | None => None,
        }
    }
}

/// The policy that a call names or brings.
#[derive(Debug)]
pub enum Choice {
    /// By name.
    Named(String),
    /// At hand: brought by the call, or found by its front.
    Found(Arc<Policy>),
}

/// What the function gets.
#[derive(Debug)]
pub enum Input {
    /// The event.
    Payload(Bytes),
    /// The event, JSON that was parsed.
    Json(String),
    /// An HTTP call, to be made into an event.
    Http(Box<event::Call>),
    /// An HTTP call that goes on to its upstream, and what that has answered, if it has: the output is for the gateway
    /// and not for the client.
    Callout(Box<event::Call>, Option<Box<Upstream>>),
}

/// The answer of a function.
#[derive(Debug)]
pub struct Reply {
    /// 200, 202 or 204.
    pub status: u16,
    /// In the form of the input.
    pub output: Output,
    /// The function's own failure.
    pub error: Option<FunctionError>,
    /// The version that ran.
    pub version: String,
    /// AWS's id of the request.
    pub request_id: String,
    /// The end of the log, if asked for.
    pub log: String,
    /// Where the time went.
    pub timing: Timing,
    /// How much went to the function and came from it.
    pub sizes: Sizes,
    /// What the policy's `output` picked.
    pub variables: BTreeMap<String, String>,
    /// What a large output holds until it is passed on.
    pub room: Option<Taken>,
}

/// What came out of the function.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Nothing: the function did not run, or not yet.
    None,
    /// Bytes.
    Payload(Bytes),
    /// JSON text.
    Json(String),
    /// An HTTP answer.
    Http(event::Reply),
    /// What a callout changes.
    Changes(Box<event::callout::Changes>),
}

/// A failure of the function itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    /// Who reported it.
    pub kind: FunctionErrorKind,
    /// The error's type in the function's words.
    pub error_type: String,
    /// The error's message in the function's words.
    pub message: String,
    /// The function's output in full; what is large is left out where the reply's output says it already.
    pub payload: Bytes,
}

/// Who reported a function's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionErrorKind {
    /// The function.
    Handled,
    /// Its runtime.
    Unhandled,
    /// This service: the output is not what the event's format requires.
    Malformed,
}

/// Where the time of a call went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Waiting for admission.
    pub queue: Duration,
    /// Waiting for credentials.
    pub credentials: Duration,
    /// Invoking.
    pub lambda: Duration,
    /// All of it.
    pub total: Duration,
}

/// How much a call was, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// The event.
    pub event: usize,
    /// The function's output.
    pub output: usize,
}

/// Stands in the log for the policy of a call that was refused before there was one: it is no policy's name.
pub const NO_POLICY: &str = "-";

/// What stands in the place of the policy in the path of a call that came by plain HTTP, `/v1/policies/{policy}…`. The rest is
/// not decoded: what is no UTF-8 there is the function's business.
pub fn named_in(path: &str) -> Cow<'_, str> {
    percent_decode_str(path.split('/').nth(3).unwrap_or_default()).decode_utf8_lossy()
}

/// Stands behind the policy in the path of a call of the contract as JSON.
pub const EXECUTE: &str = ":execute";

/// The policy that was meant by such a path which is none of a call, for its line.
pub fn meant_by(path: &str) -> String {
    let named = named_in(path);
    let named = named.strip_suffix(EXECUTE).unwrap_or(&named);
    if named.is_empty() { NO_POLICY } else { named }.to_owned()
}

/// A random id, for an HTTP call whose gateway gave it none.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Reply {
    /// The status of HTTP that a client is told.
    pub fn http_status(&self) -> u16 {
        match &self.output {
            Output::Http(answer) => answer.status,
            Output::None | Output::Payload(_) | Output::Json(_) | Output::Changes(_) => self.status,
        }
    }

    /// What the access log says of it.
    pub fn answered(&self) -> Answered<'_> {
        let error = self.error.as_ref();
        Answered {
            status: self.status,
            error_kind: error.map(|error| error.kind.as_str()),
            error: error.and_then(FunctionError::own_words),
            error_type: error.and_then(FunctionError::named),
            aws_request_id: &self.request_id,
            version: &self.version,
            queue: self.timing.queue,
            credentials: self.timing.credentials,
            lambda: self.timing.lambda,
            event_bytes: self.sizes.event,
            output_bytes: self.sizes.output,
        }
    }
}

impl FunctionErrorKind {
    /// The kind's name in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Unhandled => "unhandled",
            Self::Malformed => "malformed",
        }
    }
}

impl FunctionError {
    /// What is wrong with the output, where this service says so: it shows nothing of the output. The function's own message
    /// is for its caller alone.
    pub(super) fn own_words(&self) -> Option<&str> {
        (self.kind == FunctionErrorKind::Malformed).then_some(self.message.as_str())
    }

    /// The error's type, if there is one.
    pub(super) fn named(&self) -> Option<&str> {
        Some(self.error_type.as_str()).filter(|name| !name.is_empty())
    }

    pub(super) fn reported(fault: Fault, payload: Bytes) -> Self {
        let kind = match fault.kind {
            fault::Kind::Handled => FunctionErrorKind::Handled,
            fault::Kind::Unhandled | fault::Kind::Timeout | fault::Kind::OutOfMemory => FunctionErrorKind::Unhandled,
        };
        Self { kind, error_type: fault.error_type, message: fault.message, payload }
    }

    pub(super) fn malformed(why: Malformed, payload: Bytes) -> Self {
        Self { kind: FunctionErrorKind::Malformed, error_type: String::new(), message: why.to_string(), payload }
    }
}
