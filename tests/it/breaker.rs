//! Outages: a function that is down is left alone, tried by one call, and not called more often than when it is well.

use std::time::Duration;

use lambda_policy::{
    local::Lambda,
    pb::{ExecutePolicyRequest, LambdaPolicy},
};
use tokio::net::TcpListener;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Directory, Failed, Service, config, eventually, execute, lambda, lambda_with, request};

fn is_open(failed: &Failed) {
    assert_eq!((failed.code, failed.reason.as_str(), failed.ran.as_str()), (Code::Unavailable, "BREAKER_OPEN", "no"));
    let delay = failed.status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(delay > Duration::ZERO && delay <= Duration::from_secs(60), "{delay:?}");
    assert!(failed.status.metadata().contains_key("grpc-retry-pushback-ms"));
}

/// Calls until the breaker is open, and says how often that took.
async fn open(service: &Service, policy: &str, reason: &str) -> usize {
    for n in 0..50 {
        let failed = service.json(policy, "{}").await.unwrap_err();
        if failed.reason == "BREAKER_OPEN" {
            is_open(&failed);
            return n;
        }
        assert_eq!(failed.reason, reason);
    }
    panic!("{policy} is still called")
}

#[tokio::test]
async fn failures_of_the_platform_in_a_row_open_it_and_one_call_tries() {
    let lambda = lambda().await;
    let policies = "  echo: {function: echo, timeout: 400ms, breaker: {failures: 3, open: 1s}}\n  \
                    short: {function: 'echo:live', timeout: 100ms, breaker: {failures: 3, open: 1s}}\n";
    let service = Service::start(&lambda, policies).await;
    let mut runs = 0;
    for (fault, policy, reason, ran) in [
        ("error", "echo", "LAMBDA_FAILED", 0),
        ("cut-after", "echo", "LAMBDA_FAILED", 3),
        ("not-ready", "echo", "FUNCTION_NOT_READY", 0),
        ("slow-answer:1m", "short", "TIMEOUT", 3),
    ] {
        lambda.clear_faults();
        lambda.add_fault(format!("echo={fault}").parse().unwrap());
        assert_eq!(open(&service, policy, reason).await, 3, "{fault}");
        let sent = lambda.requests().len();
        for _ in 0..20 {
            is_open(&service.json(policy, "{}").await.unwrap_err());
        }
        assert_eq!(lambda.requests().len(), sent, "{fault}: nothing is sent");
        runs += ran;
        assert_eq!(lambda.runs("echo"), runs, "{fault}");

        lambda.clear_faults();
        lambda.add_fault("echo=slow-answer:60ms*1".parse().unwrap());
        tokio::time::sleep(Duration::from_millis(1000)).await;
        let calls: Vec<_> = (0..50)
            .map(|_| {
                let client = service.client.clone();
                let call = request(policy, "{}");
                tokio::spawn(async move { execute(&client, call).await })
            })
            .collect();
        let mut refused = 0;
        for call in calls {
            if let Err(failed) = call.await.unwrap() {
                is_open(&failed);
                refused += 1;
            }
        }
        assert!(refused > 0, "{fault}: while one tries the others wait");
        runs += 50 - refused;
        assert_eq!(lambda.runs("echo"), runs, "{fault}: each call ran once or was refused");
        service.json(policy, "{}").await.unwrap();
        runs += 1;
    }
}

#[tokio::test]
async fn what_the_function_the_policy_or_the_caller_got_wrong_does_not_count() {
    let lambda = lambda().await;
    let policies = "  fails: {function: fail}\n  missing: {function: missing}\n  slow: {function: slow}\n  \
                    echo: {function: echo}\n  off: {function: echo, breaker: none, credentials: {access_key_id: \
                    AKIDLOCAL, secret_access_key: wrong}}\n";
    let service = Service::start(&lambda, policies).await;
    for _ in 0..12 {
        assert!(service.json("fails", "{}").await.unwrap().error.is_some());
        assert_eq!(service.json("missing", "{}").await.unwrap_err().reason, "FUNCTION_NOT_FOUND");
        assert_eq!(service.json("off", "{}").await.unwrap_err().reason, "CREDENTIALS_REJECTED");
        let short = crate::support::fail_raw(&service.address, "150m", request("slow", r#"{"ms": 60000}"#)).await;
        assert_eq!(short.reason, "TIMEOUT", "the caller's own time was up");
    }
    service.json("slow", r#"{"ms": 0}"#).await.unwrap();
    lambda.add_fault("echo=deny".parse().unwrap());
    for _ in 0..12 {
        assert_eq!(service.json("echo", "{}").await.unwrap_err().reason, "FUNCTION_ACCESS_DENIED");
    }
}

#[tokio::test]
async fn throttling_without_an_answer_for_a_second_opens_it_for_as_long_as_lambda_says() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    lambda.add_fault("echo=throttle:7".parse().unwrap());
    for _ in 0..20 {
        let failed = service.json("echo", "{}").await.unwrap_err();
        assert_eq!(failed.reason, "FUNCTION_THROTTLED", "others may have found a place meanwhile");
    }
    assert_eq!(lambda.requests().len(), 20, "none is sent again from here");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    open(&service, "echo", "FUNCTION_THROTTLED").await;
    let failed = service.json("echo", "{}").await.unwrap_err();
    let delay = failed.status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(delay > Duration::from_secs(6), "{delay:?}");
    assert_eq!(lambda.runs("echo"), 0);
}

#[tokio::test]
async fn policies_with_one_target_have_one_breaker_and_it_outlives_a_reload() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let policies = "  a: {function: echo}\n  b: {function: echo}\n  other: {function: 'echo:live', qualifiers: [v2]}\n";
    let text = config(&lambda, "inline_policies: allow", policies);
    let file = directory.write("policies.yaml", &text);
    let service = Service::start_with(&text, Some(file)).await;
    lambda.add_fault("echo=error*5".parse().unwrap());
    assert_eq!(open(&service, "a", "LAMBDA_FAILED").await, 5);
    is_open(&service.json("b", "{}").await.unwrap_err());
    service.json("other", "{}").await.unwrap();
    let chosen = ExecutePolicyRequest { qualifier: "v2".into(), ..request("other", "{}") };
    service.call(chosen).await.unwrap();

    let text =
        config(&lambda, "inline_policies: allow", &format!("{policies}  new: {{function: echo, breaker: none}}\n"));
    directory.write("policies.yaml", &text);
    eventually("the new policy", async || service.json("new", "{}").await.ok()).await;
    is_open(&service.json("a", "{}").await.unwrap_err());
}

#[tokio::test]
async fn an_inline_policys_breaker_is_its_own() {
    let lambda = lambda().await;
    let text = config(&lambda, "inline_policies: allow", "  echo: {function: echo}\n");
    let service = Service::start_with(&text, None).await;
    let inline = |function: &str| ExecutePolicyRequest {
        lambda: Some(LambdaPolicy {
            function: function.into(),
            aws_access_key_id: Lambda::KEY_ID.into(),
            aws_secret_access_key: Lambda::SECRET.into(),
            ..Default::default()
        }),
        ..request("", "{}")
    };
    lambda.add_fault("echo=error*5".parse().unwrap());
    for _ in 0..5 {
        assert_eq!(service.call(inline("echo")).await.unwrap_err().reason, "LAMBDA_FAILED");
    }
    is_open(&service.call(inline("echo")).await.unwrap_err());
    service.call(inline("greet")).await.unwrap();
}

/// A port where connections are taken and closed before the TLS handshake, and how many there were.
async fn unreachable() -> (String, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(stream);
        }
    });
    (url, count)
}

#[tokio::test]
async fn an_outage_is_not_amplified() {
    let lambda = lambda().await;
    let (url, attempts) = unreachable().await;
    let endpoint = format!("endpoint: {{url: '{url}'}}");
    let policies =
        format!("  off: {{function: echo, breaker: none, {endpoint}}}\n  on: {{function: echo, {endpoint}}}\n");
    let service = Service::start(&lambda, &policies).await;
    let mut sent = 0;
    for (policy, calls, most) in [("off", 1000, 1000 + 50 + 10), ("on", 1000, 30)] {
        let mut calls: Vec<_> = (0..calls).collect();
        while !calls.is_empty() {
            let some = calls.split_off(calls.len().saturating_sub(20));
            let some = some.into_iter().map(|_| service.json(policy, "{}"));
            for failed in futures::future::join_all(some).await {
                let failed = failed.unwrap_err();
                assert!(["LAMBDA_UNREACHABLE", "BREAKER_OPEN"].contains(&failed.reason.as_str()), "{failed:?}");
                assert_eq!(failed.ran, "no");
            }
        }
        let now = attempts.load(std::sync::atomic::Ordering::SeqCst);
        assert!(now - sent <= most, "{policy}: {} attempts", now - sent);
        sent = now;
    }
}

#[tokio::test]
async fn a_thousand_calls_while_sts_is_down_are_few_calls_of_sts_and_valid_sessions_serve() {
    let lambda = lambda_with(Default::default()).await;
    let role = |name: &str| {
        format!(
            "{{access_key_id: {}, secret_access_key: {}, assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/{name}'}}}}",
            Lambda::KEY_ID,
            Lambda::SECRET
        )
    };
    let policies = format!(
        "  valid: {{function: echo, credentials: {}}}\n  new: {{function: echo, credentials: {}}}\n",
        role("valid"),
        role("new")
    );
    let service = Service::start(&lambda, &policies).await;
    service.json("valid", "{}").await.unwrap();
    lambda.set_sts_down(true);
    let before = lambda.requests().len();
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let client = service.client.clone();
            tokio::spawn(async move { execute(&client, request("new", "{}")).await })
        })
        .collect();
    for _ in 0..20 {
        service.json("valid", "{}").await.unwrap();
    }
    for call in calls {
        let failed = call.await.unwrap().unwrap_err();
        assert!(["CREDENTIALS_UNAVAILABLE", "OVERLOADED"].contains(&failed.reason.as_str()), "{failed:?}");
        assert_eq!(failed.ran, "no");
    }
    // One load is three attempts at the most, and another may have begun after the pause.
    let asked = lambda.requests().len() - before - 20;
    assert!((1..=9).contains(&asked), "{asked} calls of STS");
    assert_eq!(lambda.runs("echo"), 21);
}
