//! The contract over plain HTTP: as JSON, as gRPC-Web, and through gateways that transcode or pass it on.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use http::Method;
use lambda_policy::{grpc::descriptor, local::Lambda};
use serde_json::json;

use crate::support::{
    Directory, Service, config,
    envoy::{Application, Envoy, replace, send},
    eventually, lambda,
};

const POLICIES: &str = "  greet: {function: greet}\n  orders: {function: answer, event: rest-api}\n  fail: {function: fail}\n  slow: {function: slow, \
                        timeout: 100ms}\n";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn post(service: &Service, path: &str, body: &str) -> crate::support::envoy::Answer {
    send(service.address.parse().unwrap(), Method::POST, path, JSON, body.to_owned()).await
}

#[tokio::test]
async fn the_contract_is_called_with_json() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let found = post(&service, "/v1/policies/greet:execute", r#"{"json": "{\"name\": \"Ada\"}"}"#).await;
    assert_eq!((found.status, found.header("content-type")), (200, "application/json"));
    let answer = found.json();
    assert_eq!((&answer["status"], &answer["json"]), (&json!(200), &json!(r#"{"message":"hello, Ada"}"#)));
    assert!(answer["timing"]["totalUs"].is_string(), "64-bit numbers are text in protobuf's JSON: {answer}");

    let failed = post(&service, "/v1/policies/fail:execute", r#"{"json": "{}"}"#).await.json();
    assert_eq!((&failed["error"]["kind"], &failed["error"]["type"]), (&json!("UNHANDLED"), &json!("OrderError")));

    for (path, body, status, reason) in [
        ("/v1/policies/nobody:execute", r#"{"json": "{}"}"#, 404, "POLICY_NOT_FOUND"),
        ("/v1/policies/greet:execute", r#"{"json": "{"}"#, 400, "INVALID_REQUEST"),
        ("/v1/policies/greet:execute", "{", 400, "INVALID_REQUEST"),
        ("/v1/policies/greet:run", "{}", 400, "INVALID_REQUEST"),
        ("/v1/policies/-:execute", r#"{"lambda": {"function": "f"}, "json": "{}"}"#, 403, "CALLER_DENIED"),
        ("/v1/policies/slow:execute", r#"{"json": "{}"}"#, 504, "TIMEOUT"),
    ] {
        let refused = post(&service, path, body).await;
        assert_eq!((refused.status, &refused.json()["reason"]), (status, &json!(reason)), "{path} {body}");
        assert_eq!(reason == "TIMEOUT", refused.json().to_string().contains("the policy's `timeout` of 100ms passed"));
    }
    lambda.add_fault("greet=throttle:3".parse().unwrap());
    let throttled = post(&service, "/v1/policies/greet:execute", r#"{"json": "{}"}"#).await;
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, "3"));

    let listed = send(service.address.parse().unwrap(), Method::GET, "/v1/policies", &[], "").await.json();
    assert_eq!(listed["policies"][0]["name"], "fail");
    assert!(!listed.to_string().contains(Lambda::SECRET));
}

#[tokio::test]
async fn a_policy_comes_with_the_body_where_that_is_allowed() {
    let lambda = lambda().await;
    let service = Service::start_with(&config(&lambda, "inline_policies: allow", POLICIES), None).await;
    let lambda = json!({"function": "greet", "awsAccessKeyId": Lambda::KEY_ID, "awsSecretAccessKey": Lambda::SECRET});
    let body = json!({"lambda": lambda, "json": "{}"}).to_string();
    assert_eq!(post(&service, "/v1/policies/-:execute", &body).await.json()["status"], 200);
    let both = post(&service, "/v1/policies/greet:execute", &body).await;
    assert_eq!((both.status, &both.json()["reason"]), (400, &json!("INVALID_REQUEST")), "one of the two");
}

#[tokio::test]
async fn grpc_web_works_over_http_1() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let address = service.address.parse().unwrap();
    let headers = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
    let target = "/lambdapolicy.v1.PolicyService/ListPolicies";
    let listed = send(address, Method::POST, target, &headers, &b"\0\0\0\0\0"[..]).await;
    assert_eq!((listed.status, listed.header("content-type")), (200, "application/grpc-web+proto"));
    let text = String::from_utf8_lossy(&listed.body);
    assert!(text.contains("greet") && text.contains("grpc-status:0"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_transcodes_the_contract() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let application = Application::start().await;
    let directory = Directory::new();
    let file = directory.0.join("descriptors.pb");
    std::fs::write(&file, descriptor::set(true)).unwrap();
    let replaced =
        [("proto_descriptor: /etc/lambda-policy/descriptors.pb", &*format!("proto_descriptor: {}", file.display()))];
    let envoy = Envoy::start("transcoder.yaml", &service.address, &application, &replaced).await;
    let call = async |policy: &str, body: &str| {
        envoy.send(Method::POST, &format!("/v1/policies/{policy}:execute"), JSON, body.to_owned()).await
    };
    let found = call("greet", r#"{"json": "{\"name\": \"Ada\"}"}"#).await;
    assert_eq!((found.status, &found.json()["json"]), (200, &json!(r#"{"message":"hello, Ada"}"#)), "{found:?}");
    let unknown = call("nobody", r#"{"json": "{}"}"#).await;
    let details = unknown.json();
    assert_eq!((unknown.status, &details["details"][0]["reason"]), (404, &json!("POLICY_NOT_FOUND")), "{details}");
    assert_eq!(envoy.get("/v1/policies").await.json()["policies"][2]["name"], "orders");
}

/// A running nginx; it ends when it is dropped.
struct Nginx(Child, #[expect(dead_code, reason = "kept while nginx runs")] Directory);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "who runs the tests is told what they leave out")]
async fn nginx_passes_calls_on() {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        eprintln!("nginx is not installed, so its configuration was not tested");
        return;
    }
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let address = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let directory = Directory::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/gateways/nginx/nginx.conf");
    let text = std::fs::read_to_string(file).unwrap();
    let text = replace(&text, "127.0.0.1:8081", &address.to_string());
    let text = replace(&text, "127.0.0.1:50051", &service.address);
    let place = directory.0.display();
    let text = format!("pid {place}/pid;\nerror_log {place}/error.log;\ndaemon off;\n{text}");
    let text = replace(
        &text,
        "http {",
        &format!(
            "http {{\n    access_log off;\n    client_body_temp_path {place}/body;\n    proxy_temp_path {place}/proxy;\n    fastcgi_temp_path {place}/f;\n    uwsgi_temp_path {place}/u;\n    scgi_temp_path {place}/s;"
        ),
    );
    let file = directory.write("nginx.conf", &text);
    let child =
        Command::new("nginx").args(["-c", &file.to_string_lossy(), "-g", "master_process off;"]).spawn().unwrap();
    let _nginx = Nginx(child, directory);
    eventually("nginx listens", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    let sent = json!({"statusCode": 418, "body": "tea", "headers": {"x-a": "1"}}).to_string();
    let found = send(address, Method::POST, "/orders/7?x=1", JSON, sent).await;
    assert_eq!((found.status, found.text(), found.header("x-a")), (418, "tea", "1"));
    let large = json!({"statusCode": 200, "body": "y".repeat(5_000_000)}).to_string();
    let found = send(address, Method::POST, "/orders", JSON, large).await;
    assert_eq!((found.status, found.body.len()), (200, 5_000_000));
    let greeted = send(address, Method::POST, "/v1/policies/greet:execute", JSON, r#"{"json": "{}"}"#).await;
    assert_eq!(greeted.json()["status"], 200);
}
