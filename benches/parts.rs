//! What the parts of a warm call cost: decoding, finding the policy and its client, signing, encoding, counting. The events are in
//! `event.rs`, the whole in `load/`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, path::Path, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use lambda_policy::{
    config::Config,
    lambda::{self, Api, Invoke, Lambda},
    pb::{
        ExecutePolicyRequest, ExecutePolicyResponse, Timing, execute_policy_request::Input,
        execute_policy_response::Output,
    },
    policy::{Deadline, Policies},
    telemetry::{
        Form, Invoked, Metrics, Rpcs,
        access::{Answered, Line},
    },
    trace::{Reached, Trace},
};
use prost::Message;
use tokio::time::Instant;

fn policies() -> Policies {
    let mut text = String::from("policies:\n");
    for number in 0..100 {
        text.push_str(&format!(
            "  policy-{number}: {{function: 'arn:aws:lambda:us-east-1:123456789012:function:f{number}', credentials: \
             {{access_key_id: AKID{number}, secret_access_key: secret{number}}}}}\n"
        ));
    }
    Config::parse(&text, Path::new("parts")).unwrap().policies
}

fn payload() -> Bytes {
    Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(192)))
}

fn messages(c: &mut Criterion) {
    let request = ExecutePolicyRequest {
        policy: "policy-50".to_owned(),
        input: Some(Input::Payload(payload())),
        ..Default::default()
    };
    let encoded = Bytes::from(request.encode_to_vec());
    c.bench_function("decode a request", |b| {
        b.iter(|| ExecutePolicyRequest::decode(black_box(encoded.clone())).unwrap())
    });
    let response = ExecutePolicyResponse {
        status: 200,
        output: Some(Output::Payload(payload())),
        version: "$LATEST".to_owned(),
        request: "00000000-0000-0000-0000-000000000000".to_owned(),
        timing: Some(Timing { queue_us: 1, credentials_us: 1, lambda_us: 1000, total_us: 1002 }),
        ..Default::default()
    };
    c.bench_function("encode a response", |b| b.iter(|| black_box(&response).encode_to_vec()));
}

fn way_to_lambda(c: &mut Criterion) {
    lambda::install_crypto();
    let policies = policies();
    c.bench_function("find a policy", |b| b.iter(|| policies.named.get(black_box("policy-50")).unwrap()));

    let policy = &policies.named["policy-50"];
    let lambda = Lambda::new(1, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deadline = Deadline::new(Instant::now(), policy.timeout, None);
    c.bench_function("find its client, with credentials", |b| {
        b.iter(|| runtime.block_on(lambda.ready(black_box(&policy.access), deadline)).unwrap());
    });

    let ready = runtime.block_on(lambda.ready(&policy.access, deadline)).unwrap();
    let invoke = Invoke {
        api: Api::Invoke,
        target: &policy.target,
        qualifier: None,
        invocation: policy.invocation,
        log: policy.log,
        context: None,
        tenant: None,
        trace: &Trace::default(),
        reached: Reached::default(),
        payload: payload(),
    };
    c.bench_function("make the signed request", |b| b.iter(|| ready.request(black_box(&invoke)).unwrap()));
}

fn telemetry(c: &mut Criterion) {
    let policies = policies();
    let metrics = Metrics::new(true, None, 0).unwrap();
    let invoked = Invoked { function: "f".into(), region: "us-east-1".into(), server: Some(("127.0.0.1".into(), 80)) };
    metrics.set_policies(policies.named.keys().map(|name| (name, invoked.clone())));
    let answered = Answered {
        status: 200,
        error_kind: None,
        error: None,
        error_type: None,
        aws_request_id: "00000000-0000-0000-0000-000000000000",
        version: "$LATEST",
        queue: Duration::from_micros(1),
        credentials: Duration::from_micros(1),
        lambda: Duration::from_millis(1),
        event_bytes: 200,
        output_bytes: 200,
    };
    c.bench_function("count a call", |b| {
        b.iter(|| Line::start(&metrics, "ExecutePolicy", black_box("policy-50")).answered(answered));
    });
    let rpcs = Rpcs::new(metrics.clone(), ["lambdapolicy.v1.PolicyService/ExecutePolicy".to_owned()]);
    c.bench_function("count an rpc", |b| {
        b.iter(|| {
            rpcs.ended(
                rpcs.method(black_box("/lambdapolicy.v1.PolicyService/ExecutePolicy")),
                0,
                Duration::from_millis(1),
            )
        });
    });
    for name in policies.named.keys() {
        Line::start(&metrics, "ExecutePolicy", name.as_str()).answered(answered);
    }
    c.bench_function("show the metrics of a hundred policies", |b| {
        b.iter(|| metrics.scrape(Form::Prometheus).map(|text| text.len()))
    });
}

criterion_group!(benches, messages, way_to_lambda, telemetry);
criterion_main!(benches);
