//! The engine: every front turns its call into a [`Request`] and gets a [`Reply`] or the one [`Error`].

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    admission::Admission,
    error::{About, Error, Kind},
    event::{
        self, Failure, Front, Malformed,
        fault::{self, Fault},
        rules,
    },
    lambda::{Answer, Invoke, Lambda},
    policy::{ClientContext, Invocation, Policies, Policy, Qualifier, Tenant},
    telemetry::access::Answered,
};

/// A call, whichever front it came through.
#[derive(Debug)]
pub struct Request {
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
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The address: the gateway's.
    pub ip: IpAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

/// The policy that a call names or brings.
#[derive(Debug)]
pub enum Choice {
    /// By name.
    Named(String),
    /// Brought by the call, made of what the configuration gives to such policies.
    Inline(Arc<Policy>),
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
    /// What the policy's `output` picked.
    pub variables: BTreeMap<String, String>,
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
    /// The function's output in full.
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

/// Executes policies.
#[derive(Debug)]
pub struct Engine {
    policies: ArcSwap<Policies>,
    lambda: Lambda,
    admission: Admission,
}

impl Engine {
    /// An engine for these policies, on this many workers.
    pub fn new(policies: Policies, max_in_flight: usize, workers: usize) -> Self {
        Self {
            policies: ArcSwap::from_pointee(policies),
            lambda: Lambda::new(workers),
            admission: Admission::new(max_in_flight),
        }
    }

    /// The policies in force.
    pub fn policies(&self) -> Arc<Policies> {
        self.policies.load_full()
    }

    /// Puts other policies in force, between two calls.
    pub fn replace(&self, policies: Policies) {
        self.policies.store(Arc::new(policies));
    }

    /// Lets no new call in.
    pub fn close(&self) {
        self.admission.close();
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.admission.in_flight()
    }

    /// Executes one call.
    ///
    /// # Errors
    /// As the contract's table has them: there is no answer of the function.
    pub async fn execute(&self, request: Request) -> Result<Reply, Error> {
        let policy = match request.policy {
            Choice::Named(ref name) => self.named(name)?,
            Choice::Inline(ref policy) => Arc::clone(policy),
        };
        self.invoke(&policy, request).await.map_err(|error| error.with_about(policy.about()))
    }

    fn named(&self, name: &str) -> Result<Arc<Policy>, Error> {
        self.policies.load().named.get(name).cloned().ok_or_else(|| {
            Error::new(Kind::PolicyNotFound, "no policy has this name")
                .with_about(About { policy: name.chars().take(64).collect(), ..About::default() })
        })
    }

    async fn invoke(&self, policy: &Policy, request: Request) -> Result<Reply, Error> {
        let started = Instant::now();
        let limit = started + policy.timeout.get();
        let deadline = request.deadline.map_or(limit, |deadline| deadline.min(limit));

        let qualifier = match &request.qualifier {
            None => policy.target.qualifier.as_ref(),
            Some(chosen) => Some(allowed(policy, chosen)?),
        };
        let invocation = request.invocation.unwrap_or(policy.invocation);
        let (payload, form) = request.input.encode(policy)?;
        let most = invocation.max_payload();
        if payload.len() > most {
            return Err(Error::new(
                Kind::PayloadTooLarge,
                format!(
                    "the event has {} bytes, lambda takes at most {most} for {}",
                    payload.len(),
                    invocation.as_str()
                ),
            ));
        }

        let _permit = self.admission.admit(deadline).await?;
        let admitted = Instant::now();
        let ready = self.lambda.ready(&policy.access, deadline).await?;
        let authorized = Instant::now();
        let invoke = Invoke {
            target: &policy.target,
            qualifier,
            invocation,
            log: policy.log,
            context: request.context.as_ref().or(policy.context.as_ref()),
            tenant: request.tenant.as_ref().or(policy.tenant.as_ref()),
            payload,
        };
        let answer = ready.invoke(&invoke, deadline).await?;
        let ended = Instant::now();
        let timing = Timing {
            queue: admitted - started,
            credentials: authorized - admitted,
            lambda: ended - authorized,
            total: ended - started,
        };
        Ok(settle(policy, form, answer, timing))
    }
}

/// A random id in the form of a UUID, for an HTTP call whose gateway gave it none.
pub fn request_id() -> String {
    let (a, b) = (fastrand::u64(..), fastrand::u64(..));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xfff,
        0x8000 | (b >> 48 & 0x3fff),
        b & 0xffff_ffff_ffff
    )
}

/// The qualifier that the call chose, if the policy lets it.
fn allowed<'a>(policy: &'a Policy, chosen: &Qualifier) -> Result<&'a Qualifier, Error> {
    policy
        .qualifiers
        .iter()
        .chain(&policy.target.qualifier)
        .find(|allowed| *allowed == chosen)
        .ok_or_else(|| Error::field("qualifier", "is none of the policy's `qualifiers`"))
}

/// The form of an input, which the output takes.
#[derive(Debug)]
enum Form {
    Payload,
    Json,
    Http { request_id: String },
}

impl Input {
    /// The event, and the form that the output takes.
    fn encode(self, policy: &Policy) -> Result<(Bytes, Form), Error> {
        match self {
            Self::Payload(bytes) => Ok((bytes, Form::Payload)),
            Self::Json(text) => Ok((Bytes::from(text), Form::Json)),
            Self::Http(call) => {
                let front = Front { region: policy.target.region.as_str(), target_group_arn: None };
                let event =
                    policy.event.encode(&call, front).map_err(|error| Error::field("http.body", error.to_string()))?;
                Ok((event, Form::Http { request_id: call.request_id }))
            }
        }
    }
}

/// Makes Lambda's answer the policy's.
fn settle(policy: &Policy, form: Form, answer: Answer, timing: Timing) -> Reply {
    let Answer { status, payload, fault, version, request_id, log } = answer;
    let variables = match &fault {
        None if status == 200 => policy.output.apply(&payload),
        _ => BTreeMap::new(),
    };
    let (output, error) = match (status, form) {
        (202 | 204, _) => (Output::None, None),
        (_, Form::Payload) => {
            let error = fault.map(|fault| FunctionError::reported(fault, payload.clone()));
            (Output::Payload(payload), error)
        }
        (_, Form::Json) => {
            let error = fault.map(|fault| FunctionError::reported(fault, payload.clone()));
            (as_json(payload), error)
        }
        (_, Form::Http { request_id }) => {
            let (reply, error) = http(policy, payload, fault, &request_id);
            (Output::Http(reply), error)
        }
    };
    Reply { status, output, error, version, request_id, log, timing, variables }
}

/// The HTTP answer: the function's own, or what the policy's rules or the format's front door say instead.
fn http(
    policy: &Policy,
    payload: Bytes,
    fault: Option<Fault>,
    request_id: &str,
) -> (event::Reply, Option<FunctionError>) {
    let refusal = |failure| policy.event.refusal(failure, request_id);
    match fault {
        Some(fault) => {
            let front = || refusal(Failure::Function);
            let reply = rules::apply(&policy.on_function_error, &fault, &payload, front).unwrap_or_else(front);
            (reply, Some(FunctionError::reported(fault, payload)))
        }
        None => match policy.event.decode(payload.clone()) {
            Ok(reply) => (reply, None),
            Err(why) => (refusal(Failure::Malformed), Some(FunctionError::malformed(why, payload))),
        },
    }
}

/// JSON stays text; what is not JSON stays bytes.
fn as_json(payload: Bytes) -> Output {
    if serde_json::from_slice::<serde::de::IgnoredAny>(&payload).is_err() {
        return Output::Payload(payload);
    }
    match String::from_utf8(payload.into()) {
        Ok(text) => Output::Json(text),
        Err(bytes) => Output::Payload(bytes.into_bytes().into()),
    }
}

impl Reply {
    /// What the access log says of it.
    pub fn answered(&self) -> Answered<'_> {
        Answered {
            status: self.status,
            error_kind: self.error.as_ref().map(|error| error.kind.as_str()),
            aws_request_id: &self.request_id,
            version: &self.version,
            queue: self.timing.queue,
            credentials: self.timing.credentials,
            lambda: self.timing.lambda,
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
    fn reported(fault: Fault, payload: Bytes) -> Self {
        let kind = match fault.kind {
            fault::Kind::Handled => FunctionErrorKind::Handled,
            fault::Kind::Unhandled | fault::Kind::Timeout | fault::Kind::OutOfMemory => FunctionErrorKind::Unhandled,
        };
        Self { kind, error_type: fault.error_type, message: fault.message, payload }
    }

    fn malformed(why: Malformed, payload: Bytes) -> Self {
        Self { kind: FunctionErrorKind::Malformed, error_type: String::new(), message: why.to_string(), payload }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_text_and_the_rest_bytes() {
        for (payload, text) in [
            (&br#"{"a":1}"#[..], true),
            (b"null", true),
            (b"\"caf\xc3\xa9\"", true),
            (b"", false),
            (b"{", false),
            (b"\"caf\xe9\"", false),
        ] {
            let output = as_json(Bytes::copy_from_slice(payload));
            assert_eq!(matches!(output, Output::Json(_)), text, "{payload:?}");
        }
    }
}
