//! The real Envoy with the configurations of `deploy/gateways/envoy`: what its clients see, and what its upstream.

use bytes::Bytes;
use http::Method;
use lambda_policy::local::Lambda;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Service,
    envoy::{Application, Envoy},
    lambda,
};

const POLICIES: &str = "  orders: {function: answer, event: rest-api}
  greet: {function: greet, event: http-api}
";

/// The function as the backend.
struct Backend {
    lambda: Lambda,
    service: Service,
    application: Application,
    envoy: Envoy,
}

impl Backend {
    async fn start(policies: &str, replaced: &[(&str, &str)]) -> Self {
        let lambda = lambda().await;
        let service = Service::start(&lambda, policies).await;
        let application = Application::start().await;
        let envoy = Envoy::start("ext_proc.yaml", &service.address, &application, replaced).await;
        Self { lambda, service, application, envoy }
    }
}

/// An answer that the function `answer` gives when it is the body of the call.
fn answer(body: &str) -> String {
    json!({
        "statusCode": 201,
        "headers": {"content-type": "text/plain; charset=utf-8", "connection": "x-hop", "x-hop": "1"},
        "multiValueHeaders": {"set-cookie": ["a=1", "b=2"]},
        "body": body,
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_functions_answer_is_the_clients_in_every_body_mode() {
    let backend = Backend::start(POLICIES, &[]).await;
    for target in ["/orders", "/uploads/7?x=1"] {
        let sent = answer("made");
        let found = backend.envoy.send(Method::POST, target, &[("content-type", "application/json")], sent).await;
        assert_eq!((found.status, found.text()), (201, "made"), "{target}");
        assert_eq!(found.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(found.header("content-length"), "4");
        assert_eq!(found.headers.get_all("set-cookie").iter().count(), 2, "{:?}", found.headers);
        assert_eq!((found.header("connection"), found.header("x-hop")), ("", ""));
    }
    // The function sees no body where none is sent, and its answer is no answer for what it says.
    let greeted = backend.envoy.send(Method::POST, "/greet?name=Ada", &[], "a body").await;
    assert_eq!((greeted.status, greeted.json()), (200, json!({"message": "hello, Ada"})));
    let none = backend.envoy.get("/orders").await;
    assert_eq!((none.status, none.text()), (502, r#"{"message": "Internal server error"}"#));
    assert_eq!(backend.application.reached().len(), 0, "no call reached an upstream");
    assert_eq!(backend.envoy.get("/else").await.json()["target"], "/else", "what is not for a function passes by");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_is_the_clients_call() {
    let backend =
        Backend::start("  orders: {function: echo, event: function-url}\n  greet: {function: greet}\n", &[]).await;
    for target in ["/orders/a%20b?x=1&x=2", "/uploads/a%20b?x=1&x=2"] {
        let headers =
            [("content-type", "text/plain"), ("x-probe", "1"), ("x-forwarded-for", "6.6.6.6"), ("cookie", "a=1; b=2")];
        let event = backend.envoy.send(Method::PUT, target, &headers, "caf\u{e9}").await.json();
        assert_eq!(event["rawPath"], target.split('?').next().unwrap());
        assert_eq!(event["rawQueryString"], "x=1&x=2");
        assert_eq!(event["requestContext"]["http"]["method"], "PUT");
        assert_eq!(event["requestContext"]["http"]["protocol"], "HTTP/1.1");
        assert_eq!(event["requestContext"]["http"]["sourceIp"], "127.0.0.1", "the client cannot choose its address");
        assert_eq!(event["headers"]["x-probe"], "1");
        assert_eq!(event["cookies"], json!(["a=1", "b=2"]));
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("caf\u{e9}"), &json!(false)));
        let bytes = Bytes::from_static(b"\xff\x00");
        let binary = backend.envoy.send(Method::PUT, target, &[], bytes).await.json();
        assert_eq!((&binary["body"], &binary["isBase64Encoded"]), (&json!("/wA="), &json!(true)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_told_and_nothing_reaches_an_upstream() {
    let policies = "  orders: {function: fail, event: http-api}\n  greet: {function: greet, event: http-api}\n";
    let mut backend = Backend::start(policies, &[]).await;
    let failed = backend.envoy.get("/orders").await;
    assert_eq!((failed.status, failed.json()), (500, json!({"message": "Internal Server Error"})));
    for (fault, status, reason) in [
        ("greet=throttle:3", 429, "FUNCTION_THROTTLED"),
        ("greet=deny", 502, "FUNCTION_ACCESS_DENIED"),
        ("greet=cut", 502, "LAMBDA_FAILED"),
    ] {
        backend.lambda.clear_faults();
        backend.lambda.add_fault(fault.parse().unwrap());
        let refused = backend.envoy.send(Method::GET, "/greet", &[("x-request-id", "r-9")], "").await;
        assert_eq!((refused.status, &refused.json()["reason"]), (status, &json!(reason)));
        assert_eq!(refused.header("retry-after"), if status == 429 { "3" } else { "" });
    }
    backend.lambda.clear_faults();
    // The route names a policy that does not exist.
    let other = Envoy::start(
        "ext_proc.yaml",
        &backend.service.address,
        &backend.application,
        &[("value: greet", "value: nobody")],
    )
    .await;
    let unknown = other.get("/greet").await;
    assert_eq!((unknown.status, &unknown.json()["reason"]), (404, &json!("POLICY_NOT_FOUND")));
    backend.service.stop().await;
    assert_eq!(backend.envoy.get("/greet").await.status, 500, "the service is down");
    assert_eq!(backend.application.reached().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_that_cannot_work_is_overridden_or_refused() {
    let streamed = ("request_body_mode: BUFFERED", "request_body_mode: STREAMED");
    let partial = ("request_body_mode: BUFFERED", "request_body_mode: BUFFERED_PARTIAL");
    let sent = answer(&"x".repeat(200_000));
    for mode in [streamed, partial] {
        let backend = Backend::start(POLICIES, &[mode]).await;
        let made = backend.envoy.send(Method::POST, "/orders", &[], sent.clone()).await;
        assert_eq!((made.status, made.body.len()), (201, 200_000), "{mode:?}");
    }
    let backend =
        Backend::start(POLICIES, &[streamed, ("allow_mode_override: true", "allow_mode_override: false")]).await;
    // In pieces, of which the first is there before the rest.
    let mut stream = tokio::net::TcpStream::connect(backend.envoy.address).await.unwrap();
    let head = "POST /orders HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    // Envoy may have answered and closed by now.
    let _ = stream.write_all(b"2\r\n1}\r\n0\r\n\r\n").await;
    let mut refused = [0; 12];
    stream.read_exact(&mut refused).await.unwrap();
    assert!(refused.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&refused));
    assert_eq!(backend.lambda.runs("answer"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_pass_both_ways() {
    let backend = Backend::start(POLICIES, &[]).await;
    let sent = answer(&"y".repeat(5_000_000));
    for target in ["/orders", "/uploads"] {
        let made = backend.envoy.send(Method::POST, target, &[], sent.clone()).await;
        assert_eq!((made.status, made.body.len()), (201, 5_000_000), "{target}");
    }
    let too_large = backend.envoy.send(Method::POST, "/uploads", &[], vec![b'x'; 7_000_000]).await;
    assert_eq!(too_large.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_slower_than_envoys_patience_asks_for_more() {
    let policies =
        "  orders: {function: answer, event: rest-api}\n  greet: {function: greet, event: http-api, timeout: 5s}\n";
    let backend = Backend::start(policies, &[("message_timeout: 15s", "message_timeout: 0.3s")]).await;
    backend.lambda.add_fault("greet=slow:900ms".parse().unwrap());
    assert_eq!(backend.envoy.get("/greet").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_calls_none_is_lost_and_none_runs_twice() {
    let backend = Backend::start(POLICIES, &[]).await;
    let address = backend.envoy.address;
    let calls = (0..32).map(|caller| {
        tokio::spawn(async move {
            let mut right = 0;
            for call in 0..1000 / 32 + usize::from(caller < 1000 % 32) {
                let name = format!("n{caller}-{call}");
                let target = format!("/greet?name={name}");
                let found = crate::support::envoy::send(address, Method::GET, &target, &[], "").await;
                right += usize::from(found.status == 200 && found.text().contains(&format!("hello, {name}\"")));
            }
            right
        })
    });
    let mut right = 0;
    for call in calls.collect::<Vec<_>>() {
        right += call.await.unwrap();
    }
    assert_eq!((right, backend.lambda.runs("greet")), (1000, 1000));
}

const ENRICH: &str = "  enrich:
    function: echo
    callout:
      headers: {x-customer: /customer/id, x-missing: /nothing}
      remove_headers: [authorization]
      path: /path
      body: /body
      metadata: {tier: /customer}
";

/// The function's output is the call's body here.
fn enrichment() -> String {
    json!({"customer": {"id": 7, "name": "Ada"}, "path": "/v2/orders?by=lambda", "body": {"new": true}}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callout_changes_the_request_that_goes_on() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, ENRICH).await;
    let application = Application::start().await;
    let duplex = [
        ("request_body_mode: BUFFERED", "request_body_mode: FULL_DUPLEX_STREAMED"),
        ("request_trailer_mode: SKIP", "request_trailer_mode: SEND"),
    ];
    for mode in [&[][..], &duplex] {
        let envoy = Envoy::start("callout.yaml", &service.address, &application, mode).await;
        let headers = [("authorization", "Bearer secret"), ("x-customer", "forged"), ("x-kept", "1")];
        let found = envoy.send(Method::POST, "/orders", &headers, enrichment()).await;
        assert_eq!((found.status, &found.json()["target"]), (200, &json!("/v2/orders?by=lambda")), "{found:?}");
        let reached = application.reached().pop().unwrap();
        assert_eq!((reached.header("x-customer"), reached.header("x-kept")), ("7", "1"));
        assert_eq!((reached.header("authorization"), reached.header("x-missing")), ("", ""));
        assert_eq!(&reached.body[..], br#"{"new":true}"#, "{mode:?}");

        // What the output does not say stays.
        let kept = envoy.send(Method::POST, "/orders", &[], "{\"a\": 1}").await;
        assert_eq!((kept.status, &kept.json()["target"]), (200, &json!("/orders")), "{kept:?}");
        assert_eq!(&application.reached().pop().unwrap().body[..], b"{\"a\": 1}");
    }
    let reached = application.reached().len();
    let envoy = Envoy::start("callout.yaml", &service.address, &application, &[]).await;
    lambda.add_fault("echo=deny".parse().unwrap());
    assert_eq!(envoy.send(Method::POST, "/orders", &[], "{}").await.status, 502, "a callout that fails stops the call");
    assert_eq!(application.reached().len(), reached);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callout_changes_the_response() {
    let lambda = lambda().await;
    let policy = "  enrich:\n    function: echo\n    event: http-api\n    callout:\n      phase: response\n      headers: {x-was: \
                  /response/statusCode}\n      body: /response/body\n      remove_headers: [x-from]\n";
    let service = Service::start(&lambda, policy).await;
    let application = Application::start().await;
    let modes = "                                processing_mode: {request_header_mode: SEND, request_body_mode: NONE, response_header_mode: \
                 SEND, response_body_mode: BUFFERED}\n                                # For a policy";
    let replaced = [("                                # For a policy", modes)];
    let envoy = Envoy::start("callout.yaml", &service.address, &application, &replaced).await;
    let found = envoy.get("/orders").await;
    assert_eq!((found.status, found.header("x-was"), found.header("x-from")), (200, "200", ""), "{found:?}");
    assert_eq!(found.json(), json!({"target": "/orders"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_decides_who_may_pass() {
    let lambda = lambda().await;
    let authorizer = |format: &str| {
        format!(
            "  authorize:\n    function: authorize\n    authorizer: {{format: {format}, identity: [header.authorization], \
             headers: {{x-user: user}}}}\n"
        )
    };
    for format in ["http-api", "rest-api"] {
        let service = Service::start(&lambda, &authorizer(format)).await;
        let application = Application::start().await;
        let envoy = Envoy::start("ext_authz.yaml", &service.address, &application, &[]).await;
        let call = async |token: &str, target: &str| {
            let headers = [("authorization", token), ("x-user", "forged")];
            envoy.send(Method::POST, target, if token.is_empty() { &headers[1..] } else { &headers }, "body").await
        };
        let runs = lambda.runs("authorize");
        for target in ["/orders", "/signed/1"] {
            assert_eq!(call("Bearer ada", target).await.status, 200, "{format} {target}");
            assert_eq!(application.reached().pop().unwrap().header("x-user"), "ada");
        }
        assert_eq!(lambda.runs("authorize"), runs + 1, "the answer holds for the same identity");
        assert_eq!(call("Bearer nobody", "/orders").await.status, 403);
        assert_eq!(call("", "/orders").await.status, 401, "who does not say who it is is not even asked for");
        assert_eq!(lambda.runs("authorize"), runs + 2);
        lambda.add_fault("authorize=deny".parse().unwrap());
        assert_eq!(call("Bearer bob", "/orders").await.status, 502, "no answer is no");
        assert_eq!(call("Bearer ada", "/orders").await.status, 200, "but what holds, holds");
        lambda.clear_faults();
        assert_eq!(application.reached().len(), 3);
        assert_eq!(call("", "/public").await.status, 200);
        drop(service);
    }
}
