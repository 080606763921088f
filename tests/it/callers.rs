//! Who may call what: every front lets in those whom the policy names, by token, certificate or an issuer's signature.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lambda_policy::{
    local::Lambda,
    pb::{
        ExecutePolicyRequest, LambdaPolicy, ListPoliciesRequest,
        apigee::{self, MessageContext, external_callout_service_client::ExternalCalloutServiceClient},
        envoy::{
            config::core::v3::{HeaderMap, HeaderValue},
            service::{
                auth::v3::{
                    AttributeContext, CheckRequest, attribute_context, authorization_client::AuthorizationClient,
                    check_response::HttpResponse,
                },
                ext_proc::v3::{
                    HttpHeaders, ProcessingRequest, external_processor_client::ExternalProcessorClient,
                    processing_request::Request as Message, processing_response::Response as Answer,
                },
            },
        },
        tyk::{HookType, MiniRequestObject, Object, dispatcher_client::DispatcherClient},
    },
};
use rcgen::ExtendedKeyUsagePurpose;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use tonic::{
    Request,
    transport::{Certificate, ClientTlsConfig, Identity},
};

use crate::{
    binary::{Process, run},
    support::{
        Directory, Failed, Service, admin, channel, client_of, config, eventually, execute, lambda, output, request,
    },
    tls::{Authority, connect},
};

const OWN: &str = "x-lambda-policy-authorization";
const COMMON: &str = "authorization";

/// `printf %s TOKEN | sha256sum`
fn digest(token: &str) -> String {
    ring::digest::digest(&ring::digest::SHA256, token.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn callers() -> String {
    format!(
        "callers:\n  kong: {{tokens: {}}}\n  other: {{tokens: [{}], inline: true}}\n",
        digest("secret-of-kong"),
        digest("secret-of-other")
    )
}

const POLICIES: &str = "  echo: {function: echo, event: http-api, callers: kong}
  nobodys: {function: echo}
  guard: {function: authorize, callers: [kong, other], authorizer: {identity: [header.x-user]}}
  others: {function: greet, event: http-api, callers: [other]}
";

async fn start(lambda: &Lambda) -> Service {
    let text = format!("{}{}", callers(), config(lambda, "inline_policies: allow", POLICIES));
    Service::start_with(&text, None).await
}

/// A call as somebody with a header.
fn by<T>(message: T, header: &'static str, value: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(value) = value {
        request.metadata_mut().insert(header, value.parse().unwrap());
    }
    request
}

async fn over_http(service: &Service, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut request = http::Request::builder().method(method).uri(format!("http://{}{path}", service.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

/// What each front answers to a call of `echo`: 200, or the status of the reason.
async fn fronts(service: &Service, header: &'static str, value: Option<&str>) -> Vec<(&'static str, u16)> {
    let status = |failed: &str| match failed {
        "CALLER_UNAUTHENTICATED" => 401,
        "CALLER_DENIED" => 403,
        other => panic!("{other}"),
    };
    let mut answers = Vec::new();
    let executed = execute(&service.client, by(request("echo", "{}"), header, value)).await;
    answers.push(("native", executed.map_or_else(|failed| status(&failed.reason), |_| 200)));
    let mut client = service.client.clone();
    let streamed = client.execute_policy_stream(by(request("echo", "{}"), header, value)).await;
    let streamed = match streamed {
        Ok(response) => {
            let mut parts = response.into_inner();
            while parts.message().await.unwrap().is_some() {}
            200
        }
        Err(failed) => status(&Failed::from(failed).reason),
    };
    answers.push(("stream", streamed));
    let headers: Vec<_> = value.iter().map(|value| (header, *value)).collect();
    answers.push(("json", over_http(service, "/v1/policies/echo:execute", &headers, r#"{"json": "{}"}"#).await.0));
    answers.push(("facade", over_http(service, "/v1/policies/echo/http/a", &headers, "").await.0));

    let channel = channel(&service.address).await;
    let header_map = |pairs: &[(&str, &str)]| HeaderMap {
        headers: pairs
            .iter()
            .map(|(key, value)| HeaderValue {
                key: (*key).into(),
                raw_value: Bytes::copy_from_slice(value.as_bytes()),
                ..Default::default()
            })
            .collect(),
    };
    let http = [(":method", "GET"), (":path", "/"), (":authority", "a.test"), (OWN, "Bearer secret-of-kong")];
    let message = Message::RequestHeaders(HttpHeaders { headers: Some(header_map(&http)), end_of_stream: true });
    let messages = tokio_stream::iter([ProcessingRequest { request: Some(message), ..Default::default() }]);
    let mut call = by(messages, header, value);
    call.metadata_mut().insert("x-lambda-policy", "echo".parse().unwrap());
    let mut stream = ExternalProcessorClient::new(channel.clone()).process(call).await.unwrap().into_inner();
    let Some(Answer::ImmediateResponse(answer)) = stream.message().await.unwrap().unwrap().response else { panic!() };
    answers.push(("ext_proc", u16::try_from(answer.status.unwrap().code).unwrap()));

    let request = MiniRequestObject { method: "GET".into(), url: "/".into(), ..Default::default() };
    let object = Object {
        hook_type: HookType::Pre.into(),
        request: Some(request),
        spec: [("config_data".to_owned(), r#"{"policy": "echo"}"#.to_owned())].into(),
        ..Default::default()
    };
    let object = DispatcherClient::new(channel.clone()).dispatch(by(object, header, value)).await.unwrap().into_inner();
    let overrides = object.request.unwrap().return_overrides.unwrap();
    answers.push(("tyk", u16::try_from(overrides.response_code).unwrap()));

    let policy = apigee::FlowVariable { value: Some(apigee::flow_variable::Value::String("echo".into())) };
    let context = MessageContext {
        request: Some(apigee::Request { verb: "GET".into(), uri: "/".into(), ..Default::default() }),
        additional_flow_variables: [("lambda.policy".to_owned(), policy)].into(),
        ..Default::default()
    };
    let mut apigee = ExternalCalloutServiceClient::new(channel);
    let context = apigee.process_message(by(context, header, value)).await.unwrap().into_inner();
    answers.push(("apigee", context.fault.map_or(200, |fault| status(&fault.name))));
    answers
}

#[tokio::test]
async fn every_front_lets_in_those_whom_the_policy_names() {
    let lambda = lambda().await;
    let service = start(&lambda).await;
    for (header, value, expected, why) in [
        (COMMON, None, 401, "nothing"),
        (OWN, Some("Bearer wrong"), 401, "a token that nobody has"),
        (OWN, Some("secret-of-kong"), 401, "no bearer token"),
        (COMMON, Some("Bearer secret-of-other"), 403, "one whom the policy does not name"),
        (COMMON, Some("Bearer secret-of-kong"), 200, "one whom it names"),
        (OWN, Some("bearer secret-of-kong"), 200, "the same by the service's own header"),
    ] {
        let before = lambda.runs("echo");
        for (front, status) in fronts(&service, header, value).await {
            assert_eq!(status, expected, "{front}: {why}");
        }
        assert_eq!(lambda.runs("echo") - before, if expected == 200 { 7 } else { 0 }, "{why}");
    }
}

#[tokio::test]
async fn of_a_refused_call_the_line_says_where_it_came_from_and_what_it_presented() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let file = directory.write("f.yaml", &format!("{}{}", callers(), config(&lambda, "", POLICIES)));
    let process = Process::serve(&file, &[]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let client = crate::support::client(&address).await;
    for (policy, value, reason, told) in [
        ("echo", None, "CALLER_UNAUTHENTICATED", "says nothing of who it is"),
        ("echo", Some("Bearer wrong"), "CALLER_UNAUTHENTICATED", "presents a token that no caller"),
        ("echo", Some("Basic x"), "CALLER_UNAUTHENTICATED", "presents no bearer token"),
        ("echo", Some("Bearer secret-of-other"), "CALLER_DENIED", "the caller other is none of those"),
        ("echo", Some("Bearer secret-of-kong"), "", ""),
    ] {
        let answered = execute(&client, by(request(policy, "{}"), COMMON, value)).await;
        assert_eq!(answered.err().map_or(String::new(), |failed| failed.reason), reason);
        let line = eventually(told, async || {
            process.lines("call").into_iter().find(|line| {
                line["reason"].as_str().unwrap_or_default() == reason
                    && line["error"].as_str().unwrap_or_default().contains(told)
            })
        })
        .await;
        assert_eq!(line["peer"].as_str(), (!reason.is_empty()).then_some("127.0.0.1"), "{line}");
    }
    client.clone().list_policies(by(ListPoliciesRequest::default(), COMMON, Some("Bearer wrong"))).await.unwrap_err();
    crate::support::admin(&address, "GET", "/v1/policies", "*/*", "").await;
    for (method, told) in
        [("ListPolicies", "presents a token that no caller"), ("ListPolicies (JSON)", "says nothing of who it is")]
    {
        let refused = || process.lines("a request that is no call was refused");
        let line = eventually(method, async || refused().into_iter().find(|line| line["method"] == method)).await;
        assert_eq!((&line["level"], &line["peer"]), (&"INFO".into(), &"127.0.0.1".into()), "{line}");
        assert!(line["error"].as_str().is_some_and(|error| error.contains(told)), "{line}");
    }
    let (_, _, policies) =
        crate::support::admin(&process.address("admin").unwrap(), "GET", "/policies", "*/*", "").await;
    assert!(policies.contains("the call comes from 127.0.0.1"), "{policies}");
}

#[tokio::test]
async fn an_answer_of_an_authorizer_that_is_kept_is_for_those_who_may_ask() {
    let lambda = lambda().await;
    let text = format!(
        "{}{}",
        callers(),
        config(&lambda, "", "  guard: {function: echo, callers: kong, authorizer: {identity: [header.x-user]}}\n")
    );
    let service = Service::start_with(&text, None).await;
    let ask = async |value: Option<&str>| {
        let http = attribute_context::HttpRequest {
            method: "GET".into(),
            path: "/".into(),
            headers: [("x-user".to_owned(), "ada".to_owned())].into(),
            ..Default::default()
        };
        let attributes = AttributeContext {
            request: Some(attribute_context::Request { http: Some(http), ..Default::default() }),
            context_extensions: [("policy".to_owned(), "guard".to_owned())].into(),
            ..Default::default()
        };
        let check = CheckRequest { attributes: Some(attributes) };
        let mut client = AuthorizationClient::new(channel(&service.address).await);
        let answer = client.check(by(check, COMMON, value)).await.unwrap().into_inner();
        match answer.http_response.unwrap() {
            HttpResponse::OkResponse(_) => 200,
            HttpResponse::DeniedResponse(denied) => denied.status.unwrap().code,
        }
    };
    // The function's answer is no verdict, so that a caller who may ask gets API Gateway's 500 for it.
    assert_eq!(ask(Some("Bearer secret-of-kong")).await, 500);
    assert_eq!(ask(Some("Bearer secret-of-other")).await, 403);
    assert_eq!(ask(None).await, 401);
    assert_eq!(lambda.runs("echo"), 1);
}

#[tokio::test]
async fn who_may_not_call_learns_nothing_of_the_policy() {
    let lambda = lambda().await;
    let service = start(&lambda).await;
    let denied = async |policy: &str, json: &str, value: Option<&str>| {
        execute(&service.client, by(request(policy, json), COMMON, value)).await.unwrap_err()
    };
    for (policy, json, value, reason) in [
        ("echo", "{}", None, "CALLER_UNAUTHENTICATED"),
        ("nothing-of-this-name", "{}", None, "CALLER_UNAUTHENTICATED"),
        ("echo", "{", None, "CALLER_UNAUTHENTICATED"),
        ("echo", "{", Some("Bearer secret-of-other"), "CALLER_DENIED"),
        ("nobodys", "{}", Some("Bearer secret-of-kong"), "CALLER_DENIED"),
        ("nothing-of-this-name", "{}", Some("Bearer secret-of-kong"), "POLICY_NOT_FOUND"),
        ("echo", "{", Some("Bearer secret-of-kong"), "INVALID_REQUEST"),
    ] {
        let failed = denied(policy, json, value).await;
        assert_eq!(failed.reason, reason, "{policy} {json} {value:?}");
        let said = format!("{:?}", failed.status);
        assert_eq!(said.contains("us-east-1"), reason == "INVALID_REQUEST", "{said}");
        assert!(!said.contains("secret-of"), "{said}");
    }
    let listed = async |value: Option<&str>| {
        let listed = service.client.clone().list_policies(by(ListPoliciesRequest::default(), COMMON, value)).await;
        let names = |listed: lambda_policy::pb::ListPoliciesResponse| {
            listed.policies.into_iter().map(|policy| policy.name).collect::<Vec<_>>()
        };
        listed.map(|listed| names(listed.into_inner())).map_err(|status| Failed::from(status).reason)
    };
    assert_eq!(listed(Some("Bearer secret-of-kong")).await.unwrap(), ["echo", "guard"]);
    assert_eq!(listed(Some("Bearer secret-of-other")).await.unwrap(), ["guard", "others"]);
    assert_eq!(listed(None).await.unwrap_err(), "CALLER_UNAUTHENTICATED");
    let (status, body) = over_http(&service, "/v1/policies", &[(OWN, "Bearer secret-of-other")], "").await;
    assert!(status == 200 && body.contains("others") && !body.contains("echo"), "{body}");
    assert_eq!(over_http(&service, "/v1/policies", &[], "").await.0, 401);
}

#[tokio::test]
async fn to_bring_a_policy_is_a_right_of_its_own() {
    let lambda = lambda().await;
    let service = start(&lambda).await;
    let inline = || ExecutePolicyRequest {
        lambda: Some(LambdaPolicy {
            function: "echo".into(),
            aws_access_key_id: Lambda::KEY_ID.into(),
            aws_secret_access_key: Lambda::SECRET.into(),
            ..Default::default()
        }),
        ..request("", "{}")
    };
    for (value, reason) in [
        (None, Some("CALLER_UNAUTHENTICATED")),
        (Some("Bearer secret-of-kong"), Some("CALLER_DENIED")),
        (Some("Bearer secret-of-other"), None),
    ] {
        let called = execute(&service.client, by(inline(), COMMON, value)).await;
        assert_eq!(called.err().map(|failed| failed.reason).as_deref(), reason);
    }
    assert_eq!(lambda.runs("echo"), 1);
}

#[tokio::test]
async fn the_gateways_own_header_reaches_no_function_and_the_clients_does() {
    let lambda = lambda().await;
    let service = start(&lambda).await;
    let headers = [(OWN, "Bearer secret-of-kong"), (COMMON, "Bearer of-the-client")];
    let (status, event) = over_http(&service, "/v1/policies/echo/http/", &headers, "").await;
    assert_eq!(status, 200, "{event}");
    assert!(event.contains("Bearer of-the-client") && !event.contains("secret-of-kong"), "{event}");
    let twice = [(OWN, "Bearer of-the-client"), (OWN, "Bearer secret-of-kong")];
    assert_eq!(over_http(&service, "/v1/policies/echo/http/", &twice, "").await.0, 401, "one of the two is a client's");

    let own = [(COMMON, "Bearer secret-of-kong"), ("x-more", "more")];
    let (status, event) = over_http(&service, "/v1/policies/echo/http/", &own, "").await;
    assert!(
        status == 200 && event.contains("more") && !event.contains("secret-of-kong"),
        "it proves the caller: {event}"
    );
    let passed_on = lambda_policy::pb::HttpRequest {
        method: "GET".into(),
        path: "/".into(),
        headers: [
            ("X-Lambda-Policy-Authorization", "Bearer secret-of-kong"),
            ("authorization", "Bearer of-the-client"),
        ]
        .map(|(name, value)| lambda_policy::pb::Header { name: name.into(), value: value.into() })
        .into(),
        ..Default::default()
    };
    let call = ExecutePolicyRequest {
        input: Some(lambda_policy::pb::execute_policy_request::Input::Http(passed_on)),
        ..request("echo", "")
    };
    execute(&service.client, by(call, OWN, Some("Bearer secret-of-kong"))).await.unwrap();
    let requests = lambda.requests();
    let event = String::from_utf8_lossy(&requests.last().unwrap().body);
    assert!(event.contains("of-the-client") && !event.contains("secret-of-kong"), "{event}");

    let open = Service::start(&lambda, "  echo: {function: echo, event: http-api}\n").await;
    let (_, event) = over_http(&open, "/v1/policies/echo/http/", &headers, "").await;
    assert!(!event.contains("secret-of-kong"), "nor where nobody has to say who it is: {event}");
}

#[tokio::test]
async fn certificates_are_known_by_their_names_and_other_callers_by_tokens() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    for (name, text) in [("server.pem", &certificate), ("server.key", &key), ("ca.pem", &authority.pem())] {
        directory.write(name, text);
    }
    let server = "tls: {certificate: server.pem, key: server.key, client_ca: ca.pem, client_certificate: optional}";
    let callers = format!(
        "callers: {{mesh: {{certificates: [spiffe://example.org/ns/gateways/sa/envoy, gateway.example.org]}}, ci: {{tokens: {}}}}}\n",
        digest("secret-of-ci")
    );
    let policies = "  echo: {function: echo, callers: [mesh, ci]}\n";
    let file = directory.write("f.yaml", &format!("{callers}{}", config(&lambda, server, policies)));
    let process = Process::serve(&file, &[]);
    let address = eventually("the service", async || process.address("grpc")).await;
    for (name, token, expected) in [
        (Some("spiffe://example.org/ns/gateways/sa/envoy"), None, None),
        (Some("gateway.example.org"), None, None),
        (Some("gateway.example.org"), Some("Bearer of-the-client"), None),
        (Some("spiffe://example.org/ns/gateways/sa/envoy/x"), None, Some("CALLER_UNAUTHENTICATED")),
        (Some("other.example.org"), Some("Bearer secret-of-ci"), None),
        (None, Some("Bearer secret-of-ci"), None),
        (None, None, Some("CALLER_UNAUTHENTICATED")),
    ] {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
        if let Some(name) = name {
            let (certificate, key) = authority.issue(name, ExtendedKeyUsagePurpose::ClientAuth);
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let client = client_of(connect(&address, tls).await.unwrap());
        let called = execute(&client, by(request("echo", "{}"), COMMON, token)).await;
        assert_eq!(called.err().map(|failed| failed.reason).as_deref(), expected, "{name:?} {token:?}");
    }
}

/// An issuer of tokens.
struct Issuer {
    name: &'static str,
    key: EcdsaKeyPair,
}

impl Issuer {
    fn new(name: &'static str) -> Self {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { name, key }
    }

    fn keys(&self) -> String {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": self.name, "use": "sig", "x": BASE64.encode(x), "y": BASE64.encode(y)}]})
            .to_string()
    }

    fn token(&self, subject: &str) -> String {
        let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 600;
        let header = BASE64.encode(json!({"alg": "ES256", "kid": self.name}).to_string());
        let claims =
            json!({"iss": "https://issuer.test", "aud": ["x", "lambda-policy"], "sub": subject, "exp": expires});
        let message = format!("{header}.{}", BASE64.encode(claims.to_string()));
        let signed = self.key.sign(&ring::rand::SystemRandom::new(), message.as_bytes()).unwrap();
        format!("Bearer {message}.{}", BASE64.encode(signed))
    }
}

fn jwt(keys: &str) -> String {
    format!(
        "callers: {{ci: {{jwt: {{issuer: 'https://issuer.test', audience: lambda-policy, subjects: [ci], {keys}}}}}}}\n"
    )
}

#[tokio::test]
async fn tokens_of_an_issuer_are_checked_with_keys_from_a_file_that_may_change() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    directory.write("jwks.json", &old.keys());
    let text =
        format!("{}{}", jwt("jwks_file: jwks.json"), config(&lambda, "", "  echo: {function: echo, callers: ci}\n"));
    let service = Service::start_with(&text, Some(directory.write("f.yaml", &text))).await;
    let call = async |token: &str| {
        let called = execute(&service.client, by(request("echo", "{}"), COMMON, Some(token))).await;
        called.map(drop).map_err(|failed| failed.reason)
    };
    let token = old.token("ci");
    assert_eq!(call(&token).await, Ok(()));
    assert_eq!(call(&old.token("other")).await, Err("CALLER_UNAUTHENTICATED".to_owned()));
    assert_eq!(call(&new.token("ci")).await, Err("CALLER_UNAUTHENTICATED".to_owned()));
    directory.write("jwks.json", "{");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(call(&token).await, Ok(()), "a file that is none changes nothing");
    directory.write("jwks.json", &new.keys());
    eventually("the new key", async || call(&new.token("ci")).await.ok()).await;
    assert_eq!(call(&token).await, Err("CALLER_UNAUTHENTICATED".to_owned()), "the old one is gone, from memory too");
}

/// An address that has these keys, if there are any, how often it was asked, and what serves it.
async fn address_of(keys: &Arc<Mutex<Option<String>>>) -> (String, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let (given, count) = (Arc::clone(keys), Arc::clone(&asked));
    let answer = move || {
        count.fetch_add(1, Ordering::Relaxed);
        let keys = given.lock().unwrap().clone();
        async move { keys.ok_or(http::StatusCode::SERVICE_UNAVAILABLE) }
    };
    let serving = tokio::spawn(async move {
        axum::serve(listener, axum::Router::new().route("/keys", axum::routing::get(answer))).await.unwrap();
    });
    (url, asked, serving)
}

#[tokio::test]
async fn tokens_of_an_issuer_are_checked_with_keys_from_an_address_that_may_fail() {
    let lambda = lambda().await;
    let issuer = Issuer::new("one");
    let keys = Arc::new(Mutex::new(None::<String>));
    let (url, asked, serving) = address_of(&keys).await;
    let text = format!(
        "{}{}",
        jwt(&format!("jwks_url: '{url}'")),
        config(&lambda, "", "  echo: {function: echo, callers: ci}\n")
    );
    let service = Service::start_with(&text, None).await;
    let call = async || {
        let called = execute(&service.client, by(request("echo", "{}"), COMMON, Some(&issuer.token("ci")))).await;
        called.map(drop).map_err(|failed| failed.reason)
    };
    assert_eq!(call().await, Err("CALLER_UNAUTHENTICATED".to_owned()), "nobody is believed without keys");
    eventually("a first attempt", async || (asked.load(Ordering::Relaxed) > 0).then_some(())).await;
    let failing = async |count: u8| {
        let gauge = format!("\nlambda_policy_callers_keys_failing {count}.0\n");
        eventually("the gauge", async || {
            let (_, _, text) = admin(&service.admin, "GET", "/metrics", "*/*", "").await;
            text.contains(&gauge).then_some(())
        })
        .await;
    };
    failing(1).await;
    *keys.lock().unwrap() = Some(issuer.keys());
    eventually("the keys", async || call().await.ok()).await;
    failing(0).await;
    serving.abort();
    assert_eq!(call().await, Ok(()), "what was fetched holds while the issuer is away");
}

#[tokio::test]
async fn an_issuer_that_changes_its_keys_loses_no_call_and_is_not_asked_for_made_up_ones() {
    let lambda = lambda().await;
    let (first, second, evil) = (Issuer::new("first"), Issuer::new("second"), Issuer::new("evil"));
    let keys = Arc::new(Mutex::new(Some(first.keys())));
    let (url, asked, _serving) = address_of(&keys).await;
    let text = format!(
        "{}{}",
        jwt(&format!("jwks_url: '{url}'")),
        config(&lambda, "", "  echo: {function: echo, callers: ci}\n")
    );
    let service = Service::start_with(&text, None).await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(200_000));
    let calls = async |token: &str| {
        let call = || execute(&service.client, by(request("echo", &large), COMMON, Some(token)));
        let ended = futures::future::join_all((0..16).map(|_| call())).await;
        ended.into_iter().map(|called| called.map(drop).map_err(|failed| failed.reason)).collect::<Vec<_>>()
    };
    let all = |end: Result<(), &str>| vec![end.map_err(str::to_owned); 16];
    assert_eq!(calls(&first.token("ci")).await, all(Ok(())), "also while the first keys are still being fetched");
    *keys.lock().unwrap() = Some(second.keys());
    assert_eq!(calls(&second.token("ci")).await, all(Ok(())));
    assert_eq!(calls(&first.token("ci")).await, all(Err("CALLER_UNAUTHENTICATED")), "the old key is gone");

    for _ in 0..10 {
        assert_eq!(calls(&evil.token("ci")).await, all(Err("CALLER_UNAUTHENTICATED")));
    }
    assert!(asked.load(Ordering::Relaxed) <= 3, "{asked:?}");
    assert_eq!(calls(&second.token("ci")).await, all(Ok(())));
}

#[tokio::test]
async fn the_command_line_calls_with_a_token() {
    let lambda = lambda().await;
    let service = start(&lambda).await;
    let call = async |token: Option<&str>| {
        let mut command = std::process::Command::new(crate::binary::PROGRAM);
        command.args(["call", "echo", "--data", r#"{"n":1}"#, "--address", &service.address]);
        command.envs(token.map(|token| ("LAMBDA_POLICY_TOKEN", token)));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    assert_eq!(call(Some("secret-of-kong")).await.status.code(), Some(0));
    let refused = call(None).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("CALLER_UNAUTHENTICATED"));
}

#[tokio::test]
async fn callers_change_with_the_file() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let text = |token: &str| {
        let callers = format!("callers: {{kong: {{tokens: {}}}}}\n", digest(token));
        format!("{callers}{}", config(&lambda, "", "  echo: {function: echo, callers: kong}\n"))
    };
    let service = Service::start_with(&text("one"), Some(directory.write("f.yaml", &text("one")))).await;
    let call = async |value: &str| execute(&service.client, by(request("echo", "{}"), COMMON, Some(value))).await.ok();
    assert_eq!(output(&call("Bearer one").await.unwrap()), json!({}));
    directory.write("f.yaml", &text("two"));
    eventually("the new token", async || call("Bearer two").await).await;
    assert!(call("Bearer one").await.is_none());
}

#[test]
fn a_service_that_others_could_read_does_not_start_without_a_word() {
    let directory = Directory::new();
    let file = directory.write("f.yaml", "server: {listen: '0.0.0.0:0'}\n");
    let output = run(&["serve", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("server.listen: other machines can connect to 0.0.0.0:0, and there is no TLS"), "{said}");
}
