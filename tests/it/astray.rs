//! Requests at whose path nothing is served: whoever runs the service hears of them, and of where they come from.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use lambda_policy::pb::ListPoliciesRequest;
use serde_json::{Value, json};

use crate::{
    binary::Process,
    support::{Directory, admin, config, eventually, lambda, raw},
};

const SERVICE: &str = "lambdapolicy.v1.PolicyService";

#[tokio::test]
async fn the_log_has_one_of_each_protocol_a_minute_and_the_status_counts_them() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let file = directory.write("f.yaml", &config(&lambda, "", "  echo: {function: echo}\n"));
    let process = Process::serve(&file, &[("LAMBDA_POLICY_LOG", "info")]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let port = process.address("admin").unwrap();
    let status =
        async || -> Value { serde_json::from_str(&admin(&port, "GET", "/status", "*/*", "").await.2).unwrap() };
    let none = json!({"count": 0, "last": null});
    assert_eq!(status().await["astray"], json!({"grpc": none, "http": none}));

    let (services, methods) = ("lambdapolicy.v1.PolicyServise/ListPolicies", format!("{SERVICE}/ListPolicys"));
    for method in [services, &methods, &methods] {
        raw(&address, method, "9S", &ListPoliciesRequest::default()).await;
    }
    let long = format!("/v1/policy/p01/http/{}?token=secret", "x".repeat(1000));
    assert_eq!(admin(&address, "GET", &long, "*/*", "").await.0, 404);
    assert_eq!(admin(&address, "GET", "/favicon.ico", "*/*", "").await.0, 404);
    // None of these is astray: what is served, and what has the line of a call.
    raw(&address, &format!("{SERVICE}/ListPolicies"), "9S", &ListPoliciesRequest::default()).await;
    for path in ["/v1/policies", "/v1/policies/echo/htp/", "/v1/policies/nobody/http/"] {
        admin(&address, "GET", path, "*/*", "").await;
    }
    let status = status().await;
    assert_eq!((&status["astray"]["grpc"]["count"], &status["astray"]["http"]["count"]), (&json!(3), &json!(2)));
    assert!(status["astray"]["grpc"]["last"].is_string() && status["astray"]["http"]["last"].is_string(), "{status}");

    let mut lines = eventually("a line of each protocol", async || {
        let said = process.said();
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines = lines.filter(|line| line["message"].as_str().is_some_and(|told| told.contains("go astray")));
        Some(lines.collect::<Vec<_>>()).filter(|lines| lines.len() >= 2)
    })
    .await;
    // Each worker keeps its own until it is idle.
    lines.sort_by_key(|line| line["protocol"].as_str().map(str::to_owned));
    let [grpc, http] = &lines[..] else { panic!("once a minute: {lines:?}") };
    for (line, protocol, method, path) in
        [(grpc, "grpc", "POST", format!("/{services}")), (http, "http", "GET", long[..200].to_owned())]
    {
        for (field, expected) in [
            ("level", json!("WARN")),
            ("protocol", json!(protocol)),
            ("method", json!(method)),
            ("path", json!(path)),
            ("peer", json!("127.0.0.1")),
            ("requests", json!(1)),
        ] {
            assert_eq!(line[field], expected, "{field}: {line}");
        }
    }
    assert!(!process.said().contains("secret"), "a query is nobody's business");
}

#[tokio::test]
async fn plain_http_at_the_path_of_an_rpc_is_told_so_by_http_and_no_call() {
    let lambda = lambda().await;
    let service = crate::support::Service::start(&lambda, "  echo: {function: echo}\n").await;
    let ask = async |version: Version, method: &str, kind: Option<&str>| {
        let mut client = Client::builder(TokioExecutor::new());
        let client = client.timer(TokioTimer::new()).http2_only(version == Version::HTTP_2).build_http();
        let uri = format!("http://{}/{SERVICE}/ExecutePolicy", service.address);
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let response = client.request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status.as_u16(), head.headers.contains_key("grpc-status"), body.collect().await.unwrap().to_bytes().len())
    };
    for (version, method, kind) in [
        (Version::HTTP_11, "GET", None),
        (Version::HTTP_2, "GET", None),
        (Version::HTTP_11, "OPTIONS", None),
        (Version::HTTP_2, "POST", Some("application/json")),
    ] {
        assert_eq!(ask(version, method, kind).await, (415, false, 0), "{version:?} {method}");
    }
    assert_eq!(ask(Version::HTTP_2, "POST", Some("application/grpc")).await.0, 200);
    let scraped = crate::metrics::Scraped::of(&service).await;
    let refused = [("http_response_status_code", "415"), ("http_route", "")];
    assert_eq!(scraped.sum("http_server_request_duration_seconds_count", &refused), 4.0);
    assert_eq!(scraped.sum("rpc_server_call_duration_seconds_count", &[]), 1.0);
    assert_eq!(scraped.sum("lambda_policy_calls_total", &[("outcome", "error"), ("reason", "INVALID_REQUEST")]), 1.0);
    let (_, _, status) = admin(&service.admin, "GET", "/status", "*/*", "").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["astray"]["http"]["count"], 4, "{status}");
}
