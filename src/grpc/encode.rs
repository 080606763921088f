//! The engine's reply as the wire's.

use std::time::Duration;

use crate::{
    error::Error,
    event,
    execute::{self, FunctionError, FunctionErrorKind, Output, Reply, Streamed, Timing},
    pb::{self, execute_policy_response as wire, execute_policy_stream_response::Part, function_error::Kind},
    policy::{Caller, Invocation, Policies, Policy},
};

/// The response of a call.
pub(super) fn reply(reply: Reply) -> pb::ExecutePolicyResponse {
    let Reply { status, output, error, version, request_id, log, timing, sizes: _, variables, room: _ } = reply;
    pb::ExecutePolicyResponse {
        status: i32::from(status),
        output: match output {
            Output::None | Output::Changes(_) => None,
            Output::Payload(bytes) => Some(wire::Output::Payload(bytes)),
            Output::Json(text) => Some(wire::Output::Json(text)),
            Output::Http(reply) => Some(wire::Output::Http(http(reply))),
        },
        error: error.map(function_error),
        version,
        request: request_id,
        log,
        timing: Some(time(timing)),
        variables: variables.into_iter().collect(),
    }
}

/// The first message of a streamed answer.
pub(super) fn start(answer: &mut Streamed) -> pb::ExecutePolicyStreamResponse {
    stream(Part::Start(pb::StreamStart {
        status: i32::from(answer.status),
        version: std::mem::take(&mut answer.version),
        request: std::mem::take(&mut answer.request_id),
        http: answer
            .head
            .take()
            .map(|head| http(event::Reply { status: head.status, headers: head.headers, body: bytes::Bytes::new() })),
    }))
}

/// What follows it.
pub(super) fn part(part: execute::Part) -> pb::ExecutePolicyStreamResponse {
    stream(match part {
        execute::Part::Chunk(chunk) => Part::Chunk(chunk),
        execute::Part::End(execute::End { error, log, timing, whole: _ }) => {
            Part::End(pb::StreamEnd { error: error.map(function_error), log, timing: Some(time(timing)) })
        }
    })
}

fn stream(part: Part) -> pb::ExecutePolicyStreamResponse {
    pb::ExecutePolicyStreamResponse { part: Some(part) }
}

fn http(reply: event::Reply) -> pb::HttpResponse {
    pb::HttpResponse {
        status: i32::from(reply.status),
        headers: reply.headers.into_iter().map(|(name, value)| pb::Header { name, value }).collect(),
        body: reply.body,
    }
}

fn function_error(error: FunctionError) -> pb::FunctionError {
    let kind = match error.kind {
        FunctionErrorKind::Handled => Kind::Handled,
        FunctionErrorKind::Unhandled => Kind::Unhandled,
        FunctionErrorKind::Malformed => Kind::Malformed,
    };
    pb::FunctionError { kind: kind.into(), r#type: error.error_type, message: error.message, payload: error.payload }
}

fn time(timing: Timing) -> pb::Timing {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    pb::Timing {
        queue_us: micros(timing.queue),
        credentials_us: micros(timing.credentials),
        lambda_us: micros(timing.lambda),
        total_us: micros(timing.total),
    }
}

/// The policies that a caller may call, by their names.
///
/// # Errors
/// [`crate::error::Kind::CallerUnauthenticated`].
pub(super) fn policies(policies: &Policies, caller: &Caller) -> Result<pb::ListPoliciesResponse, Error> {
    policies.known(caller)?;
    let own = policies.named.values().filter(|known| known.callers.permits(caller));
    let mut listed: Vec<_> = own.map(|known| policy(known)).collect();
    listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(pb::ListPoliciesResponse { policies: listed })
}

/// A policy as listings show it: nothing of its keys.
fn policy(policy: &Policy) -> pb::Policy {
    let invocation = match policy.invocation {
        Invocation::RequestResponse => pb::InvocationType::RequestResponse,
        Invocation::Event => pb::InvocationType::Event,
        Invocation::DryRun => pb::InvocationType::DryRun,
    };
    let credentials = policy.access.credentials();
    pb::Policy {
        name: policy.name.to_string(),
        title: policy.title.clone(),
        description: policy.description.clone(),
        function: policy.target.function.to_string(),
        region: policy.target.region.to_string(),
        qualifier: policy.target.qualifier.as_ref().map(ToString::to_string).unwrap_or_default(),
        qualifiers: policy.qualifiers.iter().map(ToString::to_string).collect(),
        credentials: credentials.kind().to_owned(),
        assume_role_arn: credentials.role().map(|role| role.role_arn.as_str().to_owned()).unwrap_or_default(),
        invocation: invocation.into(),
        log: policy.log.as_str().to_owned(),
        event: policy.event.as_str().to_owned(),
        timeout_ms: policy.timeout.as_millis(),
    }
}
