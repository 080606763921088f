//! From a call's input to the function's event, and from Lambda's answer to the reply in the input's form.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Clock,
    call::{FunctionError, Input, Output, Reply, Sizes},
};
use crate::{
    error::{Error, Kind},
    event::{self, Failure, Front, Malformed, Marks, Unencodable, exchange, fault::Fault, rules},
    lambda::Answer,
    policy::{Policy, callers},
    trace::Trace,
};

/// The largest output that stands in the error as well as in the answer.
const MOST_TWICE: usize = 1024 * 1024;

/// The form of an input, which the output takes.
#[derive(Debug)]
pub(super) enum Form {
    Payload,
    Json,
    Http { request_id: String, marks: Marks },
    Callout { request_id: String },
}

/// The event, in which the gateway's own proof has no part, and the form that the output takes.
pub(super) fn encode(input: Input, policy: &Policy, trace: &Trace) -> Result<(Bytes, Form), Error> {
    match input {
        Input::Payload(bytes) => Ok((bytes, Form::Payload)),
        Input::Json(text) => Ok((Bytes::from(text), Form::Json)),
        Input::Http(mut call) => {
            call.hide(callers::HEADER);
            go_on(&mut call, policy, trace);
            let (event, marks) = (event(&call, policy)?, policy.event.marks(&call));
            Ok((event, Form::Http { request_id: call.request_id, marks }))
        }
        Input::Callout(mut call, answered) => {
            call.hide(callers::HEADER);
            go_on(&mut call, policy, trace);
            let request = event(&call, policy)?;
            let event = answered.map_or_else(|| request.clone(), |answered| exchange::encode(&request, &answered));
            Ok((event, Form::Callout { request_id: call.request_id }))
        }
    }
}

/// Where the front door tells the function of its trace, that is the one that Lambda is told of.
fn go_on(call: &mut event::Call, policy: &Policy, trace: &Trace) {
    if let Some(root) = trace.root().filter(|_| policy.event.tells_trace()) {
        call.set_trace(root);
    }
}

fn event(call: &event::Call, policy: &Policy) -> Result<Bytes, Error> {
    let front = Front { region: policy.target.region.as_str(), target_group_arn: None };
    policy.event.encode(call, front).map_err(|why| match why {
        Unencodable::NotJson => Error::field("http.body", why.to_string()),
        Unencodable::TooLarge { .. } => Error::new(Kind::PayloadTooLarge, why.to_string()),
    })
}

/// Makes Lambda's answer the policy's.
pub(super) fn settle(policy: &Policy, form: Form, answer: Answer, clock: Clock) -> Reply {
    let timing = clock.timing();
    let Answer { status, payload, fault, version, request_id, log, room } = answer;
    let sizes = Sizes { event: clock.event_bytes, output: payload.len() };
    let variables = match &fault {
        None if status == 200 => policy.output.apply(&payload),
        _ => BTreeMap::new(),
    };
    let (output, error) = match (status, form) {
        // An event that is queued changes nothing.
        (202 | 204, Form::Callout { .. }) => (Output::Changes(Box::default()), None),
        (202 | 204, _) => (Output::None, None),
        (_, Form::Payload) => {
            let error = fault.map(|fault| FunctionError::reported(fault, again(&payload)));
            (Output::Payload(payload), error)
        }
        (_, Form::Json) => {
            let error = fault.map(|fault| FunctionError::reported(fault, again(&payload)));
            (as_json(payload), error)
        }
        (_, Form::Http { request_id, marks }) => {
            let (reply, error) = http(policy, payload, fault, &request_id, marks);
            (Output::Http(reply), error)
        }
        (_, Form::Callout { request_id }) => match fault {
            None => match policy.callout.as_ref().map(|callout| callout.apply(&payload)).transpose() {
                Ok(changes) => (Output::Changes(Box::new(changes.unwrap_or_default())), None),
                Err(why) => {
                    let (reply, error) = malformed(policy, why, &request_id);
                    (Output::Http(reply), Some(error))
                }
            },
            Some(fault) => {
                let (reply, error) = http(policy, payload, Some(fault), &request_id, Marks::default());
                (Output::Http(reply), error)
            }
        },
    };
    Reply { status, output, error, version, request_id, log, timing, sizes, variables, room }
}

/// The HTTP answer to an output that is none.
pub(super) fn malformed(policy: &Policy, why: Malformed, request_id: &str) -> (event::Reply, FunctionError) {
    (policy.event.refusal(Failure::Malformed, request_id), FunctionError::malformed(why, Bytes::new()))
}

/// An output that is said already, for the error: what is large is not said twice, or the message would be larger than
/// clients read.
fn again(payload: &Bytes) -> Bytes {
    if payload.len() <= MOST_TWICE { payload.clone() } else { Bytes::new() }
}

/// The HTTP answer: the function's own, or what the policy's rules or the format's front door say instead.
fn http(
    policy: &Policy,
    payload: Bytes,
    fault: Option<Fault>,
    request_id: &str,
    marks: Marks,
) -> (event::Reply, Option<FunctionError>) {
    let refusal = |failure| policy.event.refusal(failure, request_id);
    match fault {
        Some(fault) => {
            let front = || refusal(Failure::Function);
            let reply = rules::apply(&policy.on_function_error, &fault, &payload, front).unwrap_or_else(front);
            // A rule may have made the payload the answer's body.
            let payload = if reply.body == payload { again(&payload) } else { payload };
            (reply, Some(FunctionError::reported(fault, payload)))
        }
        None => match policy.event.decode(payload.clone()) {
            Ok(reply) => (reply.marked(marks), None),
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
