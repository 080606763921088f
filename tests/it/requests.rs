//! The metric of requests by plain HTTP: what it tells them apart by, how they end, and which are none of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    metrics::Scraped,
    support::{Service, eventually, lambda},
};

const COUNT: &str = "http_server_request_duration_seconds_count";
const FACADE: &str = "/v1/policies/{policy}/http/{*path}";
const EXECUTE: &str = "/v1/policies/{policy}";
const LIST: &str = "/v1/policies";

const POLICIES: &str = "  greet: {function: greet, event: http-api}
  answer: {function: answer, event: function-url}
  stream: {function: stream, event: function-url, stream: true}
  slow: {function: slow, event: http-api}
  gone: {function: echo, event: http-api, endpoint: {url: 'http://127.0.0.1:9'}}
";

/// What the series of a request has for labels; none where the text is empty.
struct Told {
    method: &'static str,
    scheme: &'static str,
    route: &'static str,
    status: &'static str,
    version: &'static str,
    error: &'static str,
}

impl Told {
    fn labels(&self) -> [(&'static str, &'static str); 6] {
        [
            ("http_request_method", self.method),
            ("url_scheme", self.scheme),
            ("http_route", self.route),
            ("http_response_status_code", self.status),
            ("network_protocol_version", self.version),
            ("error_type", self.error),
        ]
    }
}

fn version(told: &str) -> Version {
    match told {
        "1.0" => Version::HTTP_10,
        "2" => Version::HTTP_2,
        _ => Version::HTTP_11,
    }
}

/// A request over a connection of its own, which is to be read.
async fn ask(address: &str, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
    let tcp = TokioIo::new(TcpStream::connect(address).await.unwrap());
    if request.version() == Version::HTTP_2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), tcp).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }
}

fn request(address: &str, method: &str, path: &str, told: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(format!("http://{address}{path}")).version(version(told));
    request.header("host", "a").header("content-type", "application/json").body(Full::from(body.to_owned())).unwrap()
}

/// The status of its answer, once all of that has come.
async fn answered(address: &str, request: Request<Full<Bytes>>) -> u16 {
    let (head, body) = ask(address, request).await.into_parts();
    body.collect().await.unwrap();
    head.status.as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_told_apart_by_what_they_ask_for_and_how_they_are_answered() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let address = &service.address;
    let teapot = r#"{"statusCode": 418, "body": "tea"}"#;
    let unregistered = r#"{"statusCode": 299, "body": "x"}"#;
    let failing = r#"{"statusCode": 599, "body": "x"}"#;
    let bodiless = r#"{"statusCode": 204, "body": "not sent"}"#;
    let unchanged = r#"{"statusCode": 304, "body": "not sent"}"#;
    let requests = [
        ("1.1", "GET", "/v1/policies/greet/http/hello?name=Ada", "", FACADE, "200", ""),
        ("2", "GET", "/v1/policies/greet/http", "", FACADE, "200", ""),
        ("1.0", "GET", "/v1/policies/greet/http/", "", FACADE, "200", ""),
        ("1.1", "HEAD", "/v1/policies/greet/http/a", "", FACADE, "200", ""),
        ("2", "HEAD", "/v1/policies/greet/http/a", "", FACADE, "200", ""),
        ("1.1", "QUERY", "/v1/policies/greet/http/a", "", FACADE, "200", ""),
        ("1.1", "PROPFIND", "/v1/policies/greet/http/a", "", FACADE, "200", ""),
        ("1.1", "POST", "/v1/policies/answer/http/", teapot, FACADE, "418", ""),
        ("2", "POST", "/v1/policies/answer/http/", unregistered, FACADE, "200", ""),
        ("1.1", "POST", "/v1/policies/answer/http/", failing, FACADE, "500", "500"),
        ("1.1", "POST", "/v1/policies/answer/http/", bodiless, FACADE, "204", ""),
        ("1.1", "POST", "/v1/policies/answer/http/", unchanged, FACADE, "304", ""),
        ("2", "GET", "/v1/policies/stream/http/?chunks=3&every=1&status=202", "", FACADE, "202", ""),
        ("1.1", "GET", "/v1/policies/stream/http/?chunks=3&every=1&status=204", "", FACADE, "204", ""),
        ("1.1", "GET", "/v1/policies/nobody/http/", "", FACADE, "404", ""),
        ("1.1", "GET", "/v1/policies/gone/http/", "", FACADE, "503", "503"),
        ("1.1", "POST", "/v1/policies/greet:execute", r#"{"json": "{}"}"#, EXECUTE, "200", ""),
        ("1.1", "POST", "/v1/policies/greet:execute", "{", EXECUTE, "400", ""),
        ("1.1", "GET", "/v1/policies/greet:execute", "", EXECUTE, "405", ""),
        ("1.1", "GET", "/v1/policies", "", LIST, "200", ""),
        ("1.1", "HEAD", "/v1/policies", "", LIST, "200", ""),
        ("1.1", "DELETE", "/v1/policies", "", LIST, "405", ""),
        ("1.1", "GET", "/v1/policies/", "", "", "404", ""),
        ("2", "GET", "/nothing", "", "", "404", ""),
    ];
    for (version, method, path, body, route, status, error) in requests {
        let got = answered(address, request(address, method, path, version, body)).await;
        assert_eq!(got / 100, status.parse::<u16>().unwrap() / 100, "{method} {path}");
        let method = if method == "PROPFIND" { "_OTHER" } else { method };
        let told = Told { method, scheme: "http", route, status, version, error };
        assert_eq!(Scraped::of(&service).await.sum(COUNT, &told.labels()), 1.0, "{version} {method} {path} {body}");
    }
    let mut behind = request(address, "GET", "/v1/policies", "1.1", "");
    behind.headers_mut().insert("x-forwarded-proto", "https".parse().unwrap());
    answered(address, behind).await;
    let scraped = Scraped::of(&service).await;
    assert_eq!(scraped.sum(COUNT, &[("url_scheme", "https"), ("http_route", LIST)]), 1.0, "as the client came");
    assert_eq!(scraped.sum(COUNT, &[]), requests.len() as f64 + 1.0, "and nothing the admin port was asked for");
    assert!(!scraped.has("rpc_server_call_duration_seconds_count"), "none is an RPC");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rpc_is_none_of_them() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    service.json("greet", "{}").await.unwrap();
    for (version, kind, path) in [
        ("1.1", "application/grpc-web+proto", "/lambdapolicy.v1.PolicyService/ListPolicies"),
        ("2", "application/grpc-web+proto", "/lambdapolicy.v1.PolicyService/ListPolicies"),
        ("2", "application/grpc", "/v1/policies/nobody/http/"),
    ] {
        let mut call = request(&service.address, "POST", path, version, "\0\0\0\0\0");
        call.headers_mut().insert("content-type", kind.parse().unwrap());
        answered(&service.address, call).await;
    }
    let scraped = Scraped::of(&service).await;
    for (method, code, expected) in [
        ("lambdapolicy.v1.PolicyService/ExecutePolicy", "OK", 1.0),
        ("lambdapolicy.v1.PolicyService/ListPolicies", "OK", 2.0),
        ("_OTHER", "UNIMPLEMENTED", 1.0),
    ] {
        let labels = [("rpc_method", method), ("rpc_response_status_code", code)];
        assert_eq!(scraped.sum("rpc_server_call_duration_seconds_count", &labels), expected, "{method}");
    }
    assert!(!scraped.has(COUNT), "nothing counts twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_end_with_their_answers_or_say_why_not() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let address = &service.address;
    for version in ["1.1", "2"] {
        let told =
            |status, error| Told { method: "GET", scheme: "http", route: FACADE, status, version, error }.labels();
        let whole = request(address, "GET", "/v1/policies/stream/http/?chunks=3&every=100", version, "");
        answered(address, whole).await;
        let scraped = Scraped::of(&service).await;
        let took = scraped.sum("http_server_request_duration_seconds_sum", &told("200", ""));
        assert!((0.2..5.0).contains(&took), "{took} s, to the end of the answer");

        let broken = "/v1/policies/stream/http/?chunks=9&every=5&fail_after=2";
        let answer = ask(address, request(address, "GET", broken, version, "")).await;
        answer.into_body().collect().await.unwrap_err();
        assert_eq!(Scraped::of(&service).await.sum(COUNT, &told("200", "broken_off")), 1.0);

        let long = "/v1/policies/stream/http/?chunks=1000&every=20";
        let mut answer = ask(address, request(address, "GET", long, version, "")).await;
        answer.body_mut().frame().await.unwrap().unwrap();
        drop(answer);
        eventually("a client that went away", async || {
            (Scraped::of(&service).await.sum(COUNT, &told("200", "cancelled")) == 1.0).then_some(())
        })
        .await;

        let runs = lambda.runs("slow");
        let slow = tokio::spawn({
            let address = address.clone();
            async move { ask(&address, request(&address, "GET", "/v1/policies/slow/http/", version, "")).await }
        });
        eventually("the call", async || (lambda.runs("slow") > runs).then_some(())).await;
        slow.abort();
        eventually("a client that did not wait", async || {
            (Scraped::of(&service).await.sum(COUNT, &told("", "cancelled")) == 1.0).then_some(())
        })
        .await;
    }
    assert_eq!(Scraped::of(&service).await.sum(COUNT, &[]), 8.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_cannot_make_values() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, POLICIES).await;
    let address = &service.address;
    for number in 0..200 {
        let path = match number % 4 {
            0 => format!("/v1/policies/nobody-{number}/http/{number}"),
            1 => format!("/v1/policies/nobody-{number}:execute"),
            2 => format!("/v1/{number}"),
            _ => format!("/{number}.Service/Method"),
        };
        let mut odd = request(address, &format!("METHOD{}", number / 8), &path, "1.1", "");
        for (name, value) in [("host", "h"), ("x-forwarded-proto", "p"), ("user-agent", "a"), ("content-type", "c")] {
            odd.headers_mut().insert(name, format!("{value}{number}").parse().unwrap());
        }
        answered(address, odd).await;
    }
    // What is no HTTP is no request.
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\nno header\r\n\r\n").await.unwrap();
    tcp.read_to_end(&mut Vec::new()).await.unwrap();
    let scraped = Scraped::of(&service).await;
    let series = scraped.series().into_iter().filter(|series| series.starts_with(COUNT));
    assert_eq!(series.count(), 3, "a route of each status, and none");
    assert_eq!(scraped.sum(COUNT, &[]), 200.0);
    for (label, expected) in [
        ("http_request_method", BTreeSet::from(["_OTHER"])),
        ("http_route", BTreeSet::from([FACADE, EXECUTE])),
        ("url_scheme", BTreeSet::from(["http"])),
        ("network_protocol_version", BTreeSet::from(["1.1"])),
    ] {
        assert_eq!(scraped.values(label), expected);
    }
}
