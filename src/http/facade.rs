//! The façade for gateways without a gRPC client: `ANY /v1/policies/{policy}/http/{path…}` passes the HTTP call to the
//! policy's function, and its HTTP answer back. This is what `proxy_pass` wants.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode},
    routing::any,
};

use crate::{
    error::{Error, Kind},
    event::{self, Head, caller},
    execute::{self, Engine, Part, Peer, answer},
    policy::{Caller, Invocation},
    telemetry::{access::Line, names::http as names},
    trace::Step,
};

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
    let id = id(&request);
    let named = execute::named_in(request.uri().path());
    let named = Some(named.strip_suffix(":execute").unwrap_or(&named)).filter(|name| !name.is_empty());
    let expected = "is no call: expected `/v1/policies/{policy}/http/{path}` or `/v1/policies/{policy}:execute`";
    let error = Error::field("path", expected);
    line(&engine, &request, &Caller::of(request.extensions()), named.unwrap_or(execute::NO_POLICY), &id)
        .told(NOT_FOUND)
        .failed(&error);
    respond(event::Reply { status: NOT_FOUND, ..answer::problem(&error, &id) })
}

async fn pass(State(engine): State<Arc<Engine>>, request: Request) -> Response<Body> {
    let id = id(&request);
    let policy = execute::named_in(request.uri().path()).into_owned();
    let caller = Caller::of(request.extensions());
    let mut line = line(&engine, &request, &caller, &policy, &id).receiving();
    let streams = engine.policies().named.get(policy.as_str()).is_some_and(|policy| policy.stream);
    let read = match engine.known(&caller) {
        Ok(()) => call(request, &id).await,
        Err(error) => Err(Some(error)),
    };
    line.received();
    let result = match read {
        // Of an answer to HEAD nobody reads a body.
        Ok(call) if streams && call.method != "HEAD" => {
            let request = execute::Request::http(caller, policy, call, None).told_by(&line);
            return stream(&engine, request, line, &id).await;
        }
        Ok(call) => engine.execute(execute::Request::http(caller, policy, call, None).told_by(&line)).await,
        Err(Some(error)) => Err(error),
        // The line is dropped: it says that the caller went away.
        Err(None) => return respond(answer::problem(&execute::broken_off(), &id)),
    };
    match &result {
        Ok(reply) => line.told(reply.http_status()).answered(reply.answered()),
        Err(error) => line.failed(error),
    }
    respond(answer::http(result, &id))
}

fn id(request: &Request) -> String {
    text(request.headers(), "x-request-id").map_or_else(execute::request_id, str::to_owned)
}

fn line(engine: &Engine, request: &Request, caller: &Caller, policy: &str, id: &str) -> Line {
    let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let trace = engine.trace(request.extensions().get().cloned(), headers);
    trace.note(Step::Method(names::method(request.method().as_str())));
    engine.line("http", policy).of(id).by(caller).within(trace)
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

/// The call as the gateway made it. The path is what stands behind the policy, still encoded. No error if the gateway went
/// away.
async fn call(request: Request, id: &str) -> Result<event::Call, Option<Error>> {
    let (head, body) = request.into_parts();
    let most = Invocation::RequestResponse.max_payload();
    let body = to_bytes(body, most).await.map_err(|error| {
        execute::unreceived(&error, || {
            Error::new(Kind::PayloadTooLarge, format!("the body has more than {most} bytes, as many as lambda takes"))
        })
    })?;
    let path = head.uri.path();
    // The router has seen that there is a policy before and `/http` behind it; a policy's name has no slash.
    let path = path.splitn(6, '/').nth(5).map_or_else(String::new, |below| format!("/{below}"));
    let headers = &head.headers;
    let peer = Peer::of(&head.extensions);
    let host = head.uri.authority().map(|authority| authority.as_str()).or_else(|| text(headers, "host"));
    let scheme =
        text(headers, "x-forwarded-proto").or_else(|| peer.map(|peer| if peer.tls { "https" } else { "http" }));
    Ok(event::Call {
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
    })
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
