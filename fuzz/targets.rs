//! What is fuzzed: everything that reads what comes from outside. Nothing may panic, and what is read is well-formed.
//!
//! The suite runs the same with its own changes of the seeds (`tests/it/fuzz.rs`), so that they are exercised without a
//! nightly compiler, too.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use lambda_policy::{
    admission::Limits,
    cli::import,
    config::Config,
    event::{
        Failure, Format, Opening,
        authorization::Source as Identity,
        callout::{Callout, Phase},
        fault::Fault,
        picks::Picks,
        rules::{self, Rule},
    },
    execute::Engine,
    grpc::{self, Front},
    http::facade,
    lambda::{self, probe},
    policy::{
        Callers, ClientContext, Name, Qualifier, Region, Tenant,
        callers::{
            CallerName, Presented, Proofs,
            jwt::{Issuer, Source},
            keys::Keys,
        },
        endpoint::Url,
        function::Reference,
        routes,
    },
    telemetry::Metrics,
};
use tokio::runtime::{self, Runtime};

/// What reads some bytes.
pub type Target = fn(&[u8]);

/// Each target by its name.
pub const ALL: [(&str, Target); 15] = [
    ("apigee", apigee),
    ("config", config),
    ("decode_output", decode_output),
    ("execute", execute),
    ("ext_authz", ext_authz),
    ("ext_proc", ext_proc),
    ("facade", facade),
    ("import", import),
    ("json", json),
    ("jwt", jwt),
    ("lambda", lambda),
    ("names", names),
    ("opening", opening),
    ("tyk", tyk),
    ("web", web),
];

/// Whatever a function returns is a valid reply or malformed, in every format.
pub fn decode_output(data: &[u8]) {
    let output = Bytes::copy_from_slice(data);
    for format in Format::ALL {
        if let Ok(reply) = format.decode(output.clone()) {
            valid(reply.status, &reply.headers);
            let length = reply.body.len().to_string();
            let bodiless = matches!(reply.status, 204 | 304);
            assert!(bodiless || reply.header("content-length") == Some(&*length));
            assert!(!bodiless || reply.body.is_empty());
        }
        if let Ok(head) = format.prelude(&output) {
            valid(head.status, &head.headers);
        }
    }
    for header in ["Handled", "Unhandled"] {
        let fault = Fault::new(header, &output);
        let rule = Rule::new([], 503).expect("503 is a status").body(rules::Body::Payload);
        let front = || Format::RestApi.refusal(Failure::Function, "id");
        assert!(rules::apply(&[rule], &fault, &output, front).is_some());
    }
    let picks = Picks::new([("body", "/body"), ("first", "/0"), ("deep", "/a/b/0/c")]).expect("these are pointers");
    picks.apply(&output);
    let _ = Callout::new(Phase::Request).apply(&output);
}

/// Whatever a function writes piece by piece begins a valid reply, or not at all; no byte of its body is made up.
pub fn opening(data: &[u8]) {
    let Some((piece, written)) = data.split_first() else { return };
    for format in Format::ALL {
        let mut opening = Opening::new(format, None);
        let mut taken = 0;
        for piece in written.chunks(usize::from(*piece).max(1)) {
            taken += piece.len();
            match opening.push(Bytes::copy_from_slice(piece)) {
                Ok(None) => {}
                Ok(Some((head, body))) => {
                    valid(head.status, &head.headers);
                    assert!(body.len() <= taken);
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

/// A message of the contract's request.
pub fn execute(data: &[u8]) {
    for method in ["ExecutePolicy", "ExecutePolicyStream"] {
        rpc(&format!("lambdapolicy.v1.PolicyService/{method}"), "application/grpc", framed(data));
    }
}

/// The bytes of a gRPC-Web call, binary and as text.
pub fn web(data: &[u8]) {
    for form in ["application/grpc-web", "application/grpc-web-text"] {
        rpc("lambdapolicy.v1.PolicyService/ExecutePolicy", form, data.to_vec());
    }
}

/// A message as Envoy's ext_proc sends it, alone and as the bytes of a stream.
pub fn ext_proc(data: &[u8]) {
    const METHOD: &str = "envoy.service.ext_proc.v3.ExternalProcessor/Process";
    rpc(METHOD, "application/grpc", framed(data));
    rpc(METHOD, "application/grpc", data.to_vec());
}

/// A message of Envoy's ext_authz.
pub fn ext_authz(data: &[u8]) {
    rpc("envoy.service.auth.v3.Authorization/Check", "application/grpc", framed(data));
}

/// Tyk's object.
pub fn tyk(data: &[u8]) {
    rpc("coprocess.Dispatcher/Dispatch", "application/grpc", framed(data));
}

/// Apigee's message context.
pub fn apigee(data: &[u8]) {
    rpc("apigee.ExternalCalloutService/ProcessMessageContext", "application/grpc", framed(data));
}

/// The contract as JSON.
pub fn json(data: &[u8]) {
    for policy in ["api", "-"] {
        let request = Request::post(format!("http://x/v1/policies/{policy}:execute"));
        answered(request.body(data.to_vec()).expect("a request"));
    }
}

/// An HTTP call: a path and a header's value, each a line, and a body.
pub fn facade(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let (path, value, body) = (String::from_utf8_lossy(part()).into_owned(), part(), part());
    for policy in ["raw", "api", "rest", "v1", "url", "alb", "envoy", "kong"] {
        let mut request = Request::post(format!("http://x/v1/policies/{policy}/http{path}"));
        if let Ok(value) = HeaderValue::from_bytes(value) {
            for name in ["cookie", "x-forwarded-for", "grpc-timeout", "content-type", "authorization", "connection"] {
                request = request.header(name, value.clone());
            }
        }
        // What is no URI cannot come.
        if let Ok(request) = request.body(body.to_vec()) {
            answered(request);
        }
    }
}

/// What Lambda sends.
pub fn lambda(data: &[u8]) {
    probe::answer(data);
    let Some((piece, frames)) = data.split_first() else { return };
    let once = probe::frames(frames, frames.len());
    assert_eq!(probe::frames(frames, usize::from(*piece)), once, "however they are cut");
}

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Whoever writes one may name files, which a fuzzer had better not.
    if !["file", "certificate", "key", "client_ca"].iter().any(|word| text.contains(word)) {
        drop(Config::parse(text, Path::new("f")));
    }
}

/// The documents of the importers.
pub fn import(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && !text.contains("file")
    {
        import::probe(text);
    }
}

/// A set of keys, and a token.
pub fn jwt(data: &[u8]) {
    static CALLERS: LazyLock<Callers> = LazyLock::new(|| {
        let keys =
            br#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let keys = Source::File(Arc::new(Keys::parse(keys).expect("the keys of RFC 8037")));
        let issuer = Issuer::new("i", &["a".to_owned()], Vec::new(), Vec::new(), Duration::ZERO, keys);
        let name = CallerName::parse("c").expect("a name");
        Callers::new(BTreeMap::from([(name, Proofs { jwt: Some(issuer), ..Proofs::default() })]))
    });
    drop(Keys::parse(data));
    let value = [b"Bearer ", data].concat();
    let who = CALLERS.identify(&Presented { own: None, authorization: Some(&value), peer: None }).caller;
    assert!(who.name().is_err(), "nobody has that key any more");
}

/// Names, references and addresses.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop((Name::parse(text), Reference::parse(text), Qualifier::parse(text), Region::parse(text), Url::parse(text)));
    drop((Tenant::parse(text), ClientContext::parse(text), Identity::parse(text), Picks::new([("a", text)])));
    if let Ok(host) = routes::Host::parse(text) {
        let route = routes::Route { host: Some(host), path: None, policy: Name::parse("p").expect("a name") };
        routes::Routes::new(vec![route]).find(text, text);
    }
    drop(routes::Path::parse(text));
}

fn valid(status: u16, headers: &[(String, String)]) {
    assert!((200..600).contains(&status));
    for (name, value) in headers {
        assert!(HeaderName::from_bytes(name.as_bytes()).is_ok());
        assert!(HeaderValue::from_bytes(value.as_bytes()).is_ok());
        assert!(!["connection", "transfer-encoding", "upgrade"].iter().any(|hop| name.eq_ignore_ascii_case(hop)));
    }
}

/// A message as gRPC has it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat()
}

fn rpc(method: &str, form: &str, body: Vec<u8>) {
    let request = Request::post(format!("http://x/{method}")).header("content-type", form).header("te", "trailers");
    answered(request.body(body).expect("a request"));
}

/// The service without a listener, and with nothing that a call could reach.
fn answered(request: Request<Vec<u8>>) -> Response<Vec<u8>> {
    static SERVICE: LazyLock<(Runtime, Front)> = LazyLock::new(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let text = "server: {inline_policies: allow}
defaults: {region: us-east-1, credentials: {access_key_id: a, secret_access_key: s}, endpoint: {url: 'http://127.0.0.1:9'}}
policies:
  raw: {function: f}
  api: {function: f, event: http-api, stream: true}
  rest: {function: f, event: rest-api, authorizer: {identity: header.x}}
  v1: {function: f, event: http-api-v1}
  url: {function: f, event: function-url}
  alb: {function: f, event: alb}
  envoy: {function: f, event: envoy, callout: {headers: {x: /a}, body: /b}}
  kong: {function: f, event: kong}
routes: [{host: '*.x', policy: envoy}, {path: '/r/*', policy: rest}, {policy: api}]
";
        let config = Config::parse(text, Path::new("f")).unwrap_or_else(|faults| panic!("{faults}"));
        lambda::install_crypto();
        let metrics = Metrics::new(true, None, 0).expect("no exporter");
        let engine = Arc::new(Engine::new(config.policies, Limits { in_flight: 64, bytes: 64 << 20 }, 1, metrics));
        // What is a call gets SHUTTING_DOWN once its event is made.
        engine.close();
        let options = grpc::Options {
            max_connection_age: Duration::from_secs(60),
            max_connections: 1,
            max_streams: 1,
            tls: None,
            load_reports: None,
        };
        let http = facade::routes(Arc::clone(&engine)).merge(grpc::json::routes(Arc::clone(&engine)));
        let front = runtime.block_on(Front::new(engine, options, http));
        (runtime, front)
    });
    let (runtime, front) = &*SERVICE;
    let response = runtime.block_on(front.answer(request));
    assert!(
        response.status().is_success() || response.status().is_client_error() || response.status().is_server_error()
    );
    response
}
