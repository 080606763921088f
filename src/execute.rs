//! The engine: every front turns its call into a [`Request`] and gets a [`Reply`] or the one [`Error`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    admission::Admission,
    error::{About, Error, Kind},
    event,
    lambda::{Answer, Invoke, Lambda, Reported},
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
    /// An engine for these policies.
    pub fn new(policies: Policies, max_in_flight: usize) -> Self {
        Self {
            policies: ArcSwap::from_pointee(policies),
            lambda: Lambda::new(),
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
        let form = request.input.form();
        let payload = match request.input {
            Input::Payload(bytes) => bytes,
            Input::Json(text) => Bytes::from(text),
            Input::Http(call) => policy.event.encode(&call),
        };
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
#[derive(Clone, Copy, Debug)]
enum Form {
    Payload,
    Json,
    Http,
}

impl Input {
    fn form(&self) -> Form {
        match self {
            Self::Payload(_) => Form::Payload,
            Self::Json(_) => Form::Json,
            Self::Http(_) => Form::Http,
        }
    }
}

/// Makes Lambda's answer the policy's.
fn settle(policy: &Policy, form: Form, answer: Answer, timing: Timing) -> Reply {
    let error = answer.error.map(|reported| FunctionError::read(reported, &answer.payload));
    let output = match (answer.status, form) {
        (202 | 204, _) => Output::None,
        (_, Form::Payload) => Output::Payload(answer.payload),
        (_, Form::Json) => as_json(answer.payload),
        (_, Form::Http) if error.is_some() => Output::Http(failed()),
        (_, Form::Http) => Output::Http(policy.event.decode(answer.payload)),
    };
    Reply {
        status: answer.status,
        output,
        error,
        version: answer.version,
        request_id: answer.request_id,
        log: answer.log,
        timing,
        variables: BTreeMap::new(),
    }
}

/// A function's failure as HTTP: its payload is for the caller of the RPC, not for the client behind it.
fn failed() -> event::Reply {
    event::Reply {
        status: 502,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Bytes::from_static(br#"{"message":"Internal server error"}"#),
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
    fn read(reported: Reported, payload: &Bytes) -> Self {
        /// What runtimes report (Lambda developer guide, "Lambda function errors").
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Report {
            error_type: Option<String>,
            error_message: Option<String>,
        }
        let report: Report = serde_json::from_slice(payload).unwrap_or_default();
        Self {
            kind: match reported {
                Reported::Handled => FunctionErrorKind::Handled,
                Reported::Unhandled => FunctionErrorKind::Unhandled,
            },
            error_type: report.error_type.unwrap_or_default(),
            message: report.error_message.unwrap_or_default(),
            payload: payload.clone(),
        }
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

    #[test]
    fn a_function_error_is_read_whatever_it_looks_like() {
        for (payload, error_type, message) in [
            (r#"{"errorType":"OrderError","errorMessage":"sold out","stackTrace":[]}"#, "OrderError", "sold out"),
            (r#"{"errorMessage":null}"#, "", ""),
            (r#""just text""#, "", ""),
            ("not json", "", ""),
        ] {
            let payload = Bytes::from(payload);
            let error = FunctionError::read(Reported::Unhandled, &payload);
            assert_eq!((error.error_type.as_str(), error.message.as_str()), (error_type, message));
            assert_eq!(error.payload, payload);
        }
    }
}
