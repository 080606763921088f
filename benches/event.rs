//! What a call costs in this module: encode and decode at 1 KB, 64 KB and 6 MB.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{collections::BTreeMap, hint::black_box, time::UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lambda_policy::event::{Call, Format, Front};

const SIZES: [(&str, usize); 3] = [("1KB", 1 << 10), ("64KB", 64 << 10), ("6MB", 6 << 20)];

/// A JSON document of about this size, so that text has its quotes to escape.
fn document(size: usize) -> Vec<u8> {
    let item = r#"{"id":12345,"name":"a name of some length","tags":["one","two"],"price":12.50},"#;
    let mut json = format!("[{}", item.repeat(size / item.len()));
    json.pop();
    json.push(']');
    json.into_bytes()
}

fn call(content_type: &str, body: Vec<u8>) -> Call {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Call {
        method: "POST".into(),
        path: "/orders/space%20value".into(),
        query: "repeat=one&repeat=two&redirect=https%3A%2F%2Fexample.com&plus=a+b".into(),
        headers: vec![
            header("Host", "api.example.com"),
            header("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
            header("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            header("Accept-Encoding", "gzip, deflate, br"),
            header("Authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x"),
            header("Content-Type", content_type),
            header("Cookie", "session=abc123; theme=dark"),
            header("X-Request-Id", "0c9b1bb1-7d3a-4a4e-9c56-0f3f8a3fd1ab"),
            header("X-Probe", "first"),
            header("X-Probe", "second"),
            header("Connection", "keep-alive"),
        ],
        body: Bytes::from(body),
        source_ip: "192.0.2.7".into(),
        scheme: "https".into(),
        authority: "api.example.com".into(),
        protocol: "HTTP/1.1".into(),
        route: "POST /orders/{id}".into(),
        stage: "live".into(),
        path_parameters: [("id".to_owned(), "space%20value".to_owned())].into(),
        stage_variables: BTreeMap::new(),
        request_id: "0c9b1bb1-7d3a-4a4e-9c56-0f3f8a3fd1ab".into(),
        authorizer: None,
        account_id: "123456789012".into(),
        api_id: "abc123".into(),
        received: UNIX_EPOCH,
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let front = Front { region: "eu-central-1", target_group_arn: None };
    for (name, size) in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let text = call("application/json", document(size));
        let binary = call("image/png", vec![0xd7; size]);
        let formats = if size > 1 << 10 { &[Format::HttpApi][..] } else { &Format::ALL };
        for format in formats {
            group.bench_function(BenchmarkId::new(format!("{format}/json"), name), |bencher| {
                bencher.iter(|| black_box(*format).encode(black_box(&text), front).unwrap());
            });
        }
        group.bench_function(BenchmarkId::new("http-api/binary", name), |bencher| {
            bencher.iter(|| Format::HttpApi.encode(black_box(&binary), front).unwrap());
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, size) in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let response = |body: &str, base64: bool| {
            let headers =
                serde_json::json!({"Content-Type": "application/json", "Cache-Control": "no-store", "X-Trace": "abc"});
            let output =
                serde_json::json!({"statusCode": 200, "headers": headers, "body": body, "isBase64Encoded": base64});
            Bytes::from(output.to_string())
        };
        let json = response(std::str::from_utf8(&document(size)).unwrap(), false);
        let plain = response(&"a".repeat(size), false);
        let binary = response(&STANDARD.encode(vec![0xd7_u8; size]), true);
        let inferred = Bytes::from(document(size));
        for (kind, output) in [("json", json), ("plain", plain), ("binary", binary), ("inferred", inferred)] {
            group.bench_function(BenchmarkId::new(format!("http-api/{kind}"), name), |bencher| {
                bencher.iter(|| Format::HttpApi.decode(black_box(&output).clone()).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
