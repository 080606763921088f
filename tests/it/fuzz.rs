//! The fuzz targets, with the seeds and with changes of them.

use std::{fs, path::Path};

use lambda_policy::pb::{
    ExecutePolicyRequest, Header, HttpRequest, LambdaPolicy,
    apigee::MessageContext,
    envoy::{
        config::core::v3::{HeaderMap, HeaderValue},
        service::{
            auth::v3::{AttributeContext, CheckRequest, attribute_context},
            ext_proc::v3::{HttpHeaders, ProcessingRequest, processing_request},
        },
    },
    execute_policy_request::Input,
    tyk,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use prost::Message;

#[path = "../../fuzz/targets.rs"]
#[allow(unreachable_pub, reason = "the other crate that has it wants it so")]
mod targets;

/// What the changes start from, beside what stands in `fuzz/corpus`.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds: Vec<_> =
        fs::read_dir(corpus).into_iter().flatten().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    let texts: &[&str] = match target {
        "config" => &[
            "server: {listen: '127.0.0.1:0'}\ndefaults: {region: us-east-1}\npolicies:\n  a: {function: 'f:live', event: http-api, timeout: 1s}\n",
        ],
        "import" => &[
            "openapi: 3.0.3\nx-ibm-configuration:\n  assembly:\n    execute:\n      - lambda: {title: t, region: us-east-1, lambda-function: f}\n",
            "_format_version: '3.0'\nservices:\n- name: s\n  url: http://x\n  routes:\n  - paths: [/a]\n    plugins:\n    - name: aws-lambda\n      config: {function_name: f, aws_region: us-east-1}\n",
        ],
        "json" => &[
            r#"{"http": {"method": "GET", "path": "/a", "headers": [{"name": "a", "value": "b"}]}}"#,
            r#"{"lambda": {"function": "f", "region": "us-east-1"}, "payload": "e30="}"#,
        ],
        "jwt" => &[
            r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "kid": "1"}]}"#,
            "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJpIiwiYXVkIjoiYSIsImV4cCI6OTk5OTk5OTk5OX0.AAAA",
        ],
        "facade" => &["/a%20b?c=d&e\na=b; c=d\n{}", "?%ff\n1S\n"],
        "names" => {
            &["arn:aws:lambda:us-east-1:123456789012:function:f:live", "*.example.com", "https://x:1", "header.a"]
        }
        "opening" | "decode_output" | "lambda" => {
            &[r#"x{"statusCode": 201, "headers": {"a": "b"}, "body": "e30=", "isBase64Encoded": true}"#]
        }
        _ => &[],
    };
    seeds.extend(texts.iter().map(|text| text.as_bytes().to_vec()));
    let header = |key: &str, value: &str| HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    let headers =
        vec![header(":method", "GET"), header(":path", "/r/a?b"), header(":authority", "a.x"), header("x", "y")];
    match target {
        "execute" | "web" => {
            let http = HttpRequest {
                method: "GET".into(),
                path: "/a".into(),
                headers: vec![Header { name: "a".into(), value: "b".into() }],
                authorizer: "{}".into(),
                ..Default::default()
            };
            let lambda = LambdaPolicy { function: "f".into(), region: "us-east-1".into(), ..Default::default() };
            let named =
                ExecutePolicyRequest { policy: "api".into(), input: Some(Input::Http(http)), ..Default::default() };
            let own = ExecutePolicyRequest {
                lambda: Some(lambda),
                input: Some(Input::Json("{}".into())),
                ..Default::default()
            };
            seeds.extend([named.encode_to_vec(), own.encode_to_vec()]);
        }
        "ext_proc" => {
            let headers = HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream: true };
            let request = processing_request::Request::RequestHeaders(headers);
            seeds.push(ProcessingRequest { request: Some(request), ..Default::default() }.encode_to_vec());
        }
        "ext_authz" => {
            let http =
                attribute_context::HttpRequest { method: "GET".into(), path: "/r/a".into(), ..Default::default() };
            let request = attribute_context::Request { http: Some(http), ..Default::default() };
            let attributes = AttributeContext { request: Some(request), ..Default::default() };
            seeds.push(CheckRequest { attributes: Some(attributes) }.encode_to_vec());
        }
        "tyk" => {
            let request = tyk::MiniRequestObject { method: "GET".into(), url: "/a".into(), ..Default::default() };
            let object = tyk::Object { hook_name: "api".into(), request: Some(request), ..Default::default() };
            seeds.push(object.encode_to_vec());
        }
        "apigee" => seeds.push(MessageContext::default().encode_to_vec()),
        _ => {}
    }
    seeds.push(Vec::new());
    seeds
}

/// Changes of a seed: bytes that are others, a piece that is cut out or twice there, and an end.
fn change(seed: &[u8], changes: &[(u8, prop::sample::Index, prop::sample::Index, u8)]) -> Vec<u8> {
    let mut data = seed.to_vec();
    for (kind, at, to, byte) in changes {
        if data.is_empty() {
            data.push(*byte);
            continue;
        }
        let (at, to) = (at.index(data.len()), to.index(data.len()));
        let (from, to) = (at.min(to), at.max(to));
        match kind % 5 {
            0 => data[at] = *byte,
            1 => data[at] ^= 1 << (byte % 8),
            2 => drop(data.drain(from..to)),
            3 => data.splice(to..to, data[from..to.min(from + 64)].to_vec()).for_each(drop),
            _ => data.insert(at, *byte),
        }
    }
    data
}

#[test]
fn no_input_makes_a_panic() {
    for (name, target) in targets::ALL {
        let seeds = seeds(name);
        seeds.iter().for_each(|seed| target(seed));
        let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
        let any_change = (any::<u8>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>());
        let input = (any::<prop::sample::Index>(), prop::collection::vec(any_change, 1..6));
        let run = runner.run(&input, |(seed, changes)| {
            target(&change(&seeds[seed.index(seeds.len())], &changes));
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn each_target_is_one_of_cargo_fuzz() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(directory.join("Cargo.toml")).unwrap();
    let files = fs::read_dir(directory.join("fuzz_targets")).unwrap().count();
    assert_eq!(files, targets::ALL.len());
    for (name, _) in targets::ALL {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
