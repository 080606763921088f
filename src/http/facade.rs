//! The façade for gateways without a gRPC client: `ANY /v1/policies/{policy}/http/{path…}` passes the HTTP call to the
//! policy's function, and its HTTP answer back. This is what `proxy_pass` wants.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, request::Parts},
    routing::any,
};

use crate::{
    error::{Error, Kind},
    event::{self, Head, caller},
    execute::{self, Arrival, Engine, Part, Peer, answer},
    policy::Invocation,
    telemetry::{access::Line, names::http as names},
};

const RPC: &str = "http";
const POLICIES: &str = "/v1/policies/";

/// The routes, for the port that gRPC is served on.
pub fn routes(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/v1/policies/{policy}/http", any(pass))
        .route("/v1/policies/{policy}/http/", any(pass))
        .route(names::FACADE, any(pass))
        .fallback(astray)
        .with_state(engine)
}

/// Nothing is served at the path. Below that of the policies somebody meant a call.
async fn astray(State(engine): State<Arc<Engine>>, request: Request) -> Response<Body> {
    const NOT_FOUND: u16 = 404;
    if !request.uri().path().starts_with(POLICIES) {
        return respond_with(Head { status: NOT_FOUND, headers: Vec::new() }, Body::empty());
    }
    let Arrival { id, line, .. } = engine.arrival(RPC, &execute::meant_by(request.uri().path()), &request);
    let expected = "is no call: expected `/v1/policies/{policy}/http/{path}` or `/v1/policies/{policy}:execute`";
    let error = Error::field("path", expected);
    line.told(NOT_FOUND).failed(&error);
    respond(event::Reply { status: NOT_FOUND, ..answer::problem(&error, &id) })
}

async fn pass(State(engine): State<Arc<Engine>>, request: Request) -> Response<Body> {
    let most = Invocation::RequestResponse.max_payload();
    let policy = execute::named_in(request.uri().path()).into_owned();
    let Arrival { id, caller, line } = engine.arrival(RPC, &policy, &request);
    let streams = engine.policies().named.get(policy.as_str()).is_some_and(|policy| policy.stream);
    let (head, body) = request.into_parts();
    let too_large =
        || Error::new(Kind::PayloadTooLarge, format!("the body has more than {most} bytes, as many as lambda takes"));
    let (line, body) = match engine.receive(&caller, line, (body, most), too_large).await {
        Ok(received) => received,
        Err(error) => return respond(answer::problem(&error, &id)),
    };
    let call = call(&head, body, &id);
    // Of an answer to HEAD nobody reads a body.
    let streams = streams && call.method != "HEAD";
    let request = execute::Request::http(caller, policy, call, None).told_by(&line);
    if streams {
        return stream(&engine, request, line, &id).await;
    }
    let result = engine.execute(request).await;
    match &result {
        Ok(reply) => line.told(reply.http_status()).answered(reply.answered()),
        Err(error) => line.failed(error),
    }
    respond(answer::http(result, &id))
}

/// The answer as it comes. A body that breaks off ends in an error, which resets the stream in HTTP/2 and closes the
/// connection in HTTP/1.1, so that nobody takes it for whole.
async fn stream(engine: &Engine, request: execute::Request, line: Line, id: &str) -> Response<Body> {
    let mut streamed = match engine.stream(request, line).await {
        Ok(streamed) => streamed,
        Err(error) => return respond(answer::problem(&error, id)),
    };
    let Some(head) = streamed.head.take() else {
        return respond(event::accepted(streamed.status, &streamed.request_id));
    };
    let body = futures::stream::unfold(streamed, |mut streamed| async {
        match streamed.next().await? {
            Ok(Part::Chunk(chunk)) => Some((Ok(chunk), streamed)),
            Ok(Part::End(end)) if end.whole => None,
            Ok(Part::End(_)) => Some((Err(BrokenOff), streamed)),
            Err(_) => Some((Err(BrokenOff), streamed)),
        }
    });
    respond_with(head, Body::from_stream(body))
}

/// The body is not whole.
#[derive(Debug)]
struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the function's answer broke off")
    }
}

impl std::error::Error for BrokenOff {}

/// The call as the gateway made it. The path is what stands behind the policy, still encoded.
fn call(head: &Parts, body: Bytes, id: &str) -> event::Call {
    let path = head.uri.path();
    // The router has seen that there is a policy before and `/http` behind it; a policy's name has no slash.
    let path = path.splitn(6, '/').nth(5).map_or_else(String::new, |below| format!("/{below}"));
    let headers = &head.headers;
    let peer = Peer::of(&head.extensions);
    let host = head.uri.authority().map(|authority| authority.as_str()).or_else(|| text(headers, "host"));
    let scheme =
        text(headers, "x-forwarded-proto").or_else(|| peer.map(|peer| if peer.tls { "https" } else { "http" }));
    event::Call {
        method: head.method.to_string(),
        path: if path.is_empty() { "/".to_owned() } else { path },
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), caller::opaque(value.as_bytes())))
            .collect(),
        body,
        source_ip: source_ip(headers).or_else(|| peer.map(|peer| peer.ip.to_string())).unwrap_or_default(),
        scheme: scheme.unwrap_or("http").to_owned(),
        authority: host.unwrap_or_default().to_owned(),
        protocol: format!("{:?}", head.version),
        route: String::new(),
        stage: String::new(),
        path_parameters: Default::default(),
        stage_variables: Default::default(),
        request_id: id.to_owned(),
        authorizer: None,
        account_id: String::new(),
        api_id: String::new(),
        received: SystemTime::now(),
    }
}

/// The caller's address, as the gateway wrote it last.
fn source_ip(headers: &HeaderMap) -> Option<String> {
    caller::forwarded(headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

fn respond(reply: event::Reply) -> Response<Body> {
    let (head, body) = reply.into_head();
    respond_with(head, Body::from(body))
}

fn respond_with(head: Head, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in head.headers {
        // The format has checked them; what is no header all the same cannot be sent.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            // There may be 32,768, more than any client takes.
            let _ = response.headers_mut().try_append(name, value);
        }
    }
    response
}
