//! The contract as JSON over plain HTTP (`google.api.http`): `POST /v1/policies/{policy}:execute` and `GET /v1/policies`.
//!
//! It stands with the native RPCs, because it is the contract in another spelling: protobuf's JSON mapping.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Response, header},
    routing::{get, post},
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

use super::{MAX_MESSAGE, deadline::Deadline, decode, encode, no_call};
use crate::{
    error::{Error, Kind, unread},
    event::problem,
    execute::{self, Arrival, EXECUTE, Engine},
    pb::{self, ExecutePolicyRequest},
    policy::Caller,
    telemetry::names::http as names,
};

const RPC: &str = "ExecutePolicy (JSON)";
/// In the place of a name: the policy is in the body.
const INLINE: &str = "-";
/// Bytes are base64 in JSON.
const MAX_BODY: usize = MAX_MESSAGE / 3 * 4 + 4;

#[expect(clippy::expect_used, reason = "the descriptors are compiled in, and every test of this room reads them")]
static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(pb::CONTRACT).expect("the contract's descriptors are compiled in"));

/// The routes, for the port that gRPC is served on.
pub fn routes(engine: Arc<Engine>) -> Router {
    Router::new()
        .route(names::LIST, get(list))
        .route(names::EXECUTE, post(execute))
        .method_not_allowed_fallback(not_allowed)
        .with_state(engine)
}

async fn list(State(engine): State<Arc<Engine>>, request: Request) -> Response<Body> {
    let caller = Caller::of(request.extensions());
    match encode::policies(&engine.policies(), &caller) {
        Ok(listed) => respond(200, write(&listed, "lambdapolicy.v1.ListPoliciesResponse")),
        Err(error) => {
            no_call::refused("ListPolicies (JSON)", &caller, &error);
            failed(&error, &execute::id_of(&request))
        }
    }
}

/// Somebody meant a call: the other method is for who asks which policies there are.
async fn not_allowed(State(engine): State<Arc<Engine>>, request: Request) -> Response<Body> {
    const NOT_ALLOWED: u16 = 405;
    let Arrival { id, line, .. } = engine.arrival(RPC, &execute::meant_by(request.uri().path()), &request);
    let error = Error::field("method", "is not the call's: expected POST of `/v1/policies/{policy}:execute`");
    line.told(NOT_ALLOWED).failed(&error);
    respond(NOT_ALLOWED, problem(NOT_ALLOWED, error.kind().reason(), error.message(), &id, None).body.into())
}

async fn execute(State(engine): State<Arc<Engine>>, request: Request) -> Response<Body> {
    let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
    let call = execute::named_in(request.uri().path()).into_owned();
    let name = call.strip_suffix(EXECUTE).unwrap_or(&call);
    let Arrival { id, caller, line } = engine.arrival(RPC, if name == INLINE { "" } else { name }, &request);
    if !call.ends_with(EXECUTE) {
        let error = Error::field("path", "is no call: expected `/v1/policies/{policy}:execute`");
        line.failed(&error);
        return failed(&error, &id);
    }
    let too_large = || Error::new(Kind::PayloadTooLarge, "the message is larger than any that lambda takes");
    let (line, body) = match engine.receive(&caller, line, (request.into_body(), MAX_BODY), too_large).await {
        Ok(received) => received,
        Err(error) => return failed(&error, &id),
    };
    let inline = || engine.inline(&caller);
    let about = |name: &str, error| engine.about(&caller, name, error);
    let wire = read(name, &body);
    let result = match wire.and_then(|wire| decode::request(wire, caller.clone(), deadline, inline, about)) {
        Ok(request) => engine.execute(request.told_by(&line)).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(reply) => {
            line.answered(reply.answered());
            respond(200, write(&encode::reply(reply), "lambdapolicy.v1.ExecutePolicyResponse"))
        }
        Err(error) => {
            line.failed(&error);
            failed(&error, &id)
        }
    }
}

fn failed(error: &Error, id: &str) -> Response<Body> {
    let kind = error.kind();
    let problem = problem(kind.http_status(), kind.reason(), error.message(), id, error.retry_after());
    let mut response = respond(problem.status, problem.body.into());
    if let Some(after) = error.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
    }
    response
}

/// The message that the body is, with the policy that the path names.
fn read(name: &str, body: &[u8]) -> Result<ExecutePolicyRequest, Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = DynamicMessage::deserialize(descriptor("lambdapolicy.v1.ExecutePolicyRequest"), &mut json)
        .and_then(|message| json.end().map(|()| message));
    let message = read
        .map_err(|error| Error::field("body", format!("is not the contract's request as JSON: {}", unread(&error))))?;
    let mut wire = ExecutePolicyRequest::decode(&*message.encode_to_vec())
        .map_err(|error| Error::field("body", format!("is not the contract's request: {error}")))?;
    if name != INLINE {
        // The path is what a gateway's rules are about, so it alone says which policy.
        name.clone_into(&mut wire.policy);
    }
    Ok(wire)
}

/// A message in protobuf's JSON mapping, without the fields that are not set.
fn write(message: &impl Message, name: &str) -> Vec<u8> {
    let mut json = serde_json::Serializer::new(Vec::new());
    let options = SerializeOptions::new();
    let written = DynamicMessage::decode(descriptor(name), &*message.encode_to_vec())
        .map(|message| message.serialize_with_options(&mut json, &options).is_ok());
    // What the service encodes is a message of its contract.
    debug_assert!(written.is_ok_and(|written| written), "{name} has a JSON form");
    json.into_inner()
}

#[expect(clippy::expect_used, reason = "the name is a literal, and every test of this room asks for each")]
fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).expect("a message of the contract")
}

fn respond(status: u16, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = axum::http::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pb::{ExecutePolicyResponse, Timing, execute_policy_request::Input, execute_policy_response::Output};

    fn message(name: &str, body: &str) -> Result<ExecutePolicyRequest, Error> {
        read(name, body.as_bytes())
    }

    #[test]
    fn the_body_is_the_contract_in_protobufs_json() {
        let wire =
            message("orders", r#"{"policy": "other", "payload": "eyJhIjoxfQ==", "invocation": "EVENT"}"#).unwrap();
        assert_eq!(wire.policy, "orders", "the path says which policy");
        let Some(Input::Payload(payload)) = wire.input else { panic!("a payload") };
        assert_eq!((&payload[..], wire.invocation), (&br#"{"a":1}"#[..], 2));
        let http =
            message("orders", r#"{"http": {"method": "GET", "sourceIp": "::1", "path_parameters": {"a": "b"}}}"#);
        let Some(Input::Http(http)) = http.unwrap().input else { panic!("an HTTP call") };
        assert_eq!((http.source_ip.as_str(), http.path_parameters["a"].as_str()), ("::1", "b"), "both spellings");
        let inline = message("-", r#"{"lambda": {"function": "f"}, "json": "{}"}"#).unwrap();
        assert!(inline.policy.is_empty() && inline.lambda.is_some());
        for wrong in [
            "",
            "{",
            "[]",
            r#"{"nope": 1}"#,
            r#"{"payload": "%"}"#,
            r#"{"json": "{}"} x"#,
            r#"{"json": "{}", "payload": ""}"#,
        ] {
            let error = message("orders", wrong).unwrap_err();
            assert_eq!((error.kind(), error.violations()[0].field.as_str()), (Kind::InvalidRequest, "body"), "{wrong}");
        }
    }

    #[test]
    fn the_answer_is_too() {
        let response = ExecutePolicyResponse {
            status: 200,
            output: Some(Output::Payload(vec![0xff].into())),
            timing: Some(Timing { total_us: 7, ..Timing::default() }),
            ..Default::default()
        };
        let json: serde_json::Value =
            serde_json::from_slice(&write(&response, "lambdapolicy.v1.ExecutePolicyResponse")).unwrap();
        assert_eq!(json, serde_json::json!({"status": 200, "payload": "/w==", "timing": {"totalUs": "7"}}));
    }
}
