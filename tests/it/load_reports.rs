//! What callers that balance by weight read behind an answer: ORCA's load reports.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use http::HeaderMap;
use http_body_util::BodyExt;
use lambda_policy::pb::{ExecutePolicyRequest, xds::data::orca::v3::OrcaLoadReport};
use prost::Message;

use crate::support::{Service, config, eventually, lambda, raw, request};

const UNARY: &str = "lambdapolicy.v1.PolicyService/ExecutePolicy";
const STREAM: &str = "lambdapolicy.v1.PolicyService/ExecutePolicyStream";
const NAME: &str = "endpoint-load-metrics-bin";

/// What gRPC takes for the trailers: of an error without messages, they are in the headers.
async fn trailers(address: &str, method: &str, request: &ExecutePolicyRequest) -> HeaderMap {
    let response = raw(address, method, "10S", request).await;
    if response.headers().contains_key("grpc-status") {
        return response.headers().clone();
    }
    assert!(!response.headers().contains_key(NAME), "it is no header of an answer");
    response.into_body().collect().await.unwrap().trailers().unwrap().clone()
}

fn report(trailers: &HeaderMap) -> Option<OrcaLoadReport> {
    let value = trailers.get(NAME)?;
    Some(OrcaLoadReport::decode(&*BASE64_STANDARD_NO_PAD.decode(value).unwrap()).unwrap())
}

#[tokio::test]
async fn every_call_of_the_contract_ends_with_how_loaded_the_replica_is() {
    let lambda = lambda().await;
    let policies = "  echo: {function: echo}\n  slow: {function: slow}\n  down: {function: greet, breaker: none}\n";
    let service =
        Service::start_with(&config(&lambda, "load_reports: per-call, max_in_flight: 10, workers: 1", policies), None)
            .await;
    lambda.add_fault("greet=error".parse().unwrap());
    let address = &service.address;
    let held: Vec<_> = (0..3)
        .map(|_| {
            let client = service.client.clone();
            tokio::spawn(async move { crate::support::execute(&client, request("slow", r#"{"ms": 20000}"#)).await })
        })
        .collect();
    let mut calls = 0;
    let loaded = eventually("a report on three of ten places", async || {
        calls += 1;
        for _ in 0..2 {
            assert_eq!(trailers(address, UNARY, &request("down", "{}")).await["grpc-status"], "13");
        }
        let report = report(&trailers(address, UNARY, &request("echo", "{}")).await)?;
        (report.application_utilization >= 0.3).then_some(report)
    })
    .await;
    assert!(loaded.application_utilization < 0.5, "{loaded:?}");
    assert!((loaded.named_metrics["in_flight"] - loaded.application_utilization * 10.0).abs() < 1e-6, "{loaded:?}");
    assert!(loaded.cpu_utilization > 0.0, "{loaded:?}");
    assert!(loaded.rps_fractional > 0.0 && loaded.eps > 0.0 && loaded.eps < loaded.rps_fractional, "{loaded:?}");
    for (what, method, call) in [
        ("a streamed answer", STREAM, request("echo", "{}")),
        ("an error", UNARY, request("nobody", "{}")),
        ("an error before a stream", STREAM, request("nobody", "{}")),
    ] {
        let trailers = trailers(address, method, &call).await;
        assert!(report(&trailers).is_some(), "{what}: {trailers:?}");
    }
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn nothing_is_reported_unless_it_is_asked_for() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for method in [UNARY, STREAM] {
        let trailers = trailers(&service.address, method, &request("echo", "{}")).await;
        assert_eq!((trailers["grpc-status"].as_bytes(), report(&trailers)), (&b"0"[..], None));
    }
}
