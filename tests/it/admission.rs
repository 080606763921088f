//! Many calls at once: who may begin, who waits, who is told to come back, and that nobody keeps the others out.

use std::time::{Duration, Instant};

use lambda_policy::{local::Lambda, pb::ExecutePolicyResponse};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Failed, Service, config, eventually, execute, lambda, request};

type Call = JoinHandle<Result<ExecutePolicyResponse, Failed>>;

async fn start(lambda: &Lambda, server: &str, policies: &str) -> Service {
    Service::start_with(&config(lambda, server, policies), None).await
}

fn call(service: &Service, policy: &'static str, json: String) -> Call {
    let client = service.client.clone();
    tokio::spawn(async move { execute(&client, request(policy, &json)).await })
}

fn is_overloaded(failed: &Failed) {
    assert_eq!((failed.code, failed.reason.as_str(), failed.ran.as_str()), (Code::Unavailable, "OVERLOADED", "no"));
    assert!(failed.status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()));
}

#[tokio::test]
async fn a_policy_whose_function_hangs_does_not_keep_another_one_out() {
    let lambda = lambda().await;
    let service =
        start(&lambda, "max_in_flight: 8", "  noisy: {function: slow, timeout: 3s}\n  quiet: {function: echo}\n").await;
    let flood: Vec<_> = (0..200).map(|_| call(&service, "noisy", r#"{"ms": 60000}"#.into())).collect();
    eventually("the flood", async || (lambda.runs("slow") >= 5).then_some(())).await;
    for _ in 0..50 {
        let asked = Instant::now();
        service.json("quiet", "{}").await.unwrap();
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    let mut overloaded = 0;
    for call in flood {
        let failed = call.await.unwrap().unwrap_err();
        if failed.reason != "TIMEOUT" {
            is_overloaded(&failed);
            overloaded += 1;
        }
    }
    assert_eq!(lambda.runs("slow") + overloaded, 200, "each ran once, or was refused before it ran");
    assert!(overloaded >= 190, "{overloaded}");
}

#[tokio::test]
async fn a_policys_own_limit_holds_for_it_alone() {
    let lambda = lambda().await;
    let policies = "  narrow: {function: slow, max_in_flight: 2}\n  wide: {function: slow}\n";
    let service = start(&lambda, "", policies).await;
    let held: Vec<_> = (0..2).map(|_| call(&service, "narrow", r#"{"ms": 1500}"#.into())).collect();
    eventually("two calls in flight", async || (lambda.runs("slow") == 2).then_some(())).await;
    let failed = service.json("narrow", r#"{"ms": 0}"#).await.unwrap_err();
    is_overloaded(&failed);
    assert!(failed.status.message().contains("the policy has"), "{}", failed.status.message());
    service.json("wide", r#"{"ms": 0}"#).await.unwrap();
    for call in held {
        call.await.unwrap().unwrap();
    }
    service.json("narrow", r#"{"ms": 0}"#).await.unwrap();
    assert_eq!(lambda.runs("slow"), 4);
}

#[tokio::test]
async fn bodies_in_flight_hold_no_more_than_they_may_and_small_calls_pass() {
    let lambda = lambda().await;
    let policies = "  noisy: {function: slow}\n  quiet: {function: echo}\n  web: {function: echo, event: http-api}\n";
    let service = start(&lambda, "max_mib_in_flight: 64", policies).await;
    let large = |ms: u32| format!(r#"{{"ms": {ms}, "text": "{}"}}"#, "x".repeat(5 << 20));
    // Requests may hold 32 MiB, of which a policy leaves a quarter to the others.
    let flood: Vec<_> = (0..12).map(|_| call(&service, "noisy", large(4000))).collect();
    eventually("large calls in flight", async || (lambda.runs("slow") >= 3).then_some(())).await;
    service.json("quiet", "{}").await.unwrap();
    let mut ran = 0;
    for call in flood {
        match call.await.unwrap() {
            Ok(_) => ran += 1,
            Err(failed) => is_overloaded(&failed),
        }
    }
    assert!((3..=6).contains(&ran), "{ran}");
    assert_eq!(lambda.runs("slow"), ran);
    service.json("noisy", &large(0)).await.unwrap();
}

#[tokio::test]
async fn large_answers_that_come_together_are_all_read() {
    let lambda = lambda().await;
    let service = start(&lambda, "max_mib_in_flight: 64", "  large: {function: large}\n").await;
    let calls: Vec<_> = (0..20).map(|_| call(&service, "large", format!(r#"{{"bytes": {}}}"#, 5 << 20))).collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap().error.is_none());
    }
}
