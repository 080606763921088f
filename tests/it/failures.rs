//! What goes wrong keeps its meaning, and nothing runs twice.

use std::time::Duration;

use lambda_policy::pb::{ExecutePolicyRequest, LambdaPolicy, execute_policy_request::Input};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Service, eventually, full, lambda, request};

#[tokio::test]
async fn every_failure_of_lambda_has_its_reason_and_says_whether_the_function_ran() {
    let lambda = lambda().await;
    let service =
        Service::start(&lambda, "  echo: {function: echo, breaker: none}\n  missing: {function: missing}\n").await;
    let mut runs = 0;
    for (fault, code, reason, ran, really_ran) in [
        ("throttle:7", Code::ResourceExhausted, "FUNCTION_THROTTLED", "no", false),
        ("deny", Code::PermissionDenied, "FUNCTION_ACCESS_DENIED", "no", false),
        ("error", Code::Internal, "LAMBDA_FAILED", "maybe", false),
        ("not-ready", Code::Unavailable, "FUNCTION_NOT_READY", "no", false),
        ("cut", Code::Internal, "LAMBDA_FAILED", "maybe", false),
        ("cut-after", Code::Internal, "LAMBDA_FAILED", "maybe", true),
        ("cut-mid", Code::Internal, "LAMBDA_FAILED", "maybe", true),
    ] {
        lambda.clear_faults();
        lambda.add_fault(format!("echo={fault}").parse().unwrap());
        let sent = lambda.requests().len();
        let failed = service.json("echo", r#"{"a": "some text to be cut in the middle"}"#).await.unwrap_err();
        assert_eq!((failed.code, failed.reason.as_str(), failed.ran.as_str()), (code, reason, ran), "{fault}");
        assert_eq!(lambda.requests().len(), sent + 1, "{fault}: sent once");
        runs += u64::from(really_ran);
        assert_eq!(lambda.runs("echo"), runs, "{fault}");
        let info = failed.status.get_details_error_info().unwrap();
        assert_eq!(info.domain, "lambda-policy");
        for (key, value) in [("policy", "echo"), ("function", "echo"), ("region", "us-east-1")] {
            assert_eq!(info.metadata[key], value, "{fault}: {key}");
        }
        let has_id = info.metadata.contains_key("aws_request_id");
        assert_eq!(has_id, !fault.starts_with("cut"), "{fault}: AWS's request id");
        let message = failed.status.message();
        assert!(!message.contains("127.0.0.1") && !message.contains("123456789012"), "{fault}: {message}");
        if fault.starts_with("throttle") {
            assert_eq!(failed.status.metadata().get("grpc-retry-pushback-ms").unwrap(), "7000");
            let delay = failed.status.get_details_retry_info().unwrap().retry_delay;
            assert_eq!(delay, Some(Duration::from_secs(7)));
        }
    }
    lambda.clear_faults();
    let failed = service.json("missing", "{}").await.unwrap_err();
    assert_eq!((failed.code, failed.reason.as_str()), (Code::NotFound, "FUNCTION_NOT_FOUND"));
    assert!(service.json("echo", "{}").await.is_ok(), "and it goes on");
}

#[tokio::test]
async fn what_never_left_is_sent_again_and_says_so_if_that_does_not_help() {
    let lambda = lambda().await;
    // A port that was free a moment ago, and that nobody listens on.
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let policies = format!(
        "  gone: {{function: echo, endpoint: {{url: 'http://{closed}'}}}}\n  \
         nowhere: {{function: echo, endpoint: {{url: 'http://no-such-host.invalid'}}}}\n"
    );
    let service = Service::start(&lambda, &policies).await;
    for policy in ["gone", "nowhere"] {
        let failed = service.json(policy, "{}").await.unwrap_err();
        assert_eq!((failed.code, failed.reason.as_str()), (Code::Unavailable, "LAMBDA_UNREACHABLE"), "{policy}");
        assert_eq!(failed.ran, "no");
        assert!(!failed.status.message().contains("no-such-host") && !failed.status.message().contains("127.0.0.1"));
    }

    let client = service.client.clone();
    let call = tokio::spawn(async move { crate::support::execute(&client, request("gone", "{}")).await });
    let listener = eventually("the port", async || tokio::net::TcpListener::bind(closed).await.ok()).await;
    let late = lambda_policy::local::Lambda::start(listener, lambda_policy::local::Options::default()).unwrap();
    // Whether the call found the door open depends on when it knocked; that it ran at most once does not.
    let answered = call.await.unwrap().is_ok();
    assert_eq!(late.runs("echo"), u64::from(answered));
}

#[tokio::test]
async fn a_call_that_never_left_when_its_time_was_up_did_not_run() {
    let lambda = lambda().await;
    let (full, _held) = full().await;
    // It takes connections and says nothing, as a TLS handshake that hangs.
    let mute = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let role = "{assume_role: {role_arn: 'arn:aws:iam::123456789012:role/r'}, access_key_id: AKIDLOCAL, \
                secret_access_key: the-secret-of-the-embedded-lambda}";
    let policies = format!(
        "  full: {{function: echo, timeout: 1300ms, endpoint: {{url: 'http://{full}'}}}}\n  \
         mute: {{function: echo, timeout: 1300ms, endpoint: {{url: 'https://{}'}}}}\n  \
         role: {{function: echo, timeout: 1300ms, credentials: {role}}}\n",
        mute.local_addr().unwrap(),
    );
    let service = Service::start(&lambda, &policies).await;
    service.json("role", "{}").await.unwrap();
    lambda.expire_sessions();
    lambda.set_sts_silent(true);
    for (what, policy, payload, code, reason) in [
        ("no place in the backlog", "full", "{}", Code::Unavailable, "LAMBDA_UNREACHABLE"),
        ("a handshake without an answer", "mute", "{}", Code::Unavailable, "LAMBDA_UNREACHABLE"),
        ("refused as expired, and STS hangs", "role", "{}", Code::Unavailable, "CREDENTIALS_UNAVAILABLE"),
    ] {
        let failed = service.json(policy, payload).await.unwrap_err();
        assert_eq!((failed.code, failed.reason.as_str(), failed.ran.as_str()), (code, reason, "no"), "{what}");
    }
    // So soon the network is not to blame yet.
    let failed = crate::support::fail_raw(&service.address, "50m", request("full", "{}")).await;
    assert_eq!((failed.code, failed.reason.as_str()), (Code::DeadlineExceeded, "TIMEOUT"));
    assert_eq!(failed.ran, "no");
    assert_eq!(lambda.runs("echo"), 1, "the first one");
}

#[tokio::test]
async fn a_call_whose_time_is_up_after_it_left_may_have_run_whatever_its_body() {
    let lambda = lambda().await;
    lambda.add_fault("echo=slow-answer:1m".parse().unwrap());
    let service = Service::start(&lambda, "  echo: {function: echo, timeout: 200ms}\n").await;
    for payload in ["", "{}"] {
        let input = Some(Input::Payload(bytes::Bytes::from_static(payload.as_bytes())));
        let failed = service.call(ExecutePolicyRequest { input, ..request("echo", "") }).await.unwrap_err();
        assert_eq!((failed.reason.as_str(), failed.ran.as_str()), ("TIMEOUT", "maybe"), "{payload:?}");
    }
    assert_eq!(lambda.runs("echo"), 2);
}

#[tokio::test]
async fn keys_that_lambda_calls_expired_are_sent_once_as_there_are_no_other_ones() {
    let lambda = lambda().await;
    lambda.add_fault("echo=expired".parse().unwrap());
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    let failed = service.json("echo", "{}").await.unwrap_err();
    assert_eq!((failed.reason.as_str(), failed.ran.as_str()), ("CREDENTIALS_REJECTED", "no"));
    assert_eq!(lambda.requests().len(), 1);
}

#[tokio::test]
async fn a_wrong_request_names_its_fields() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    let valid = || request("echo", "{}");
    for (what, call, field) in [
        ("no policy", ExecutePolicyRequest { policy: String::new(), ..valid() }, "policy"),
        ("both", ExecutePolicyRequest { lambda: Some(LambdaPolicy::default()), ..valid() }, "lambda"),
        ("no input", ExecutePolicyRequest { input: None, ..valid() }, "input"),
        ("no JSON", request("echo", "{'a': 1}"), "json"),
        ("no invocation type", ExecutePolicyRequest { invocation: 99, ..valid() }, "invocation"),
        ("no qualifier", ExecutePolicyRequest { qualifier: "v1.0".into(), ..valid() }, "qualifier"),
        ("no context", ExecutePolicyRequest { context: "{".into(), ..valid() }, "context"),
    ] {
        // An inline policy is denied here, but that there are two of them is the first thing to say.
        let failed = service.call(call).await.unwrap_err();
        assert_eq!((failed.code, failed.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{what}");
        let violations = failed.status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(), [field], "{what}");
        let info = failed.status.get_details_error_info().unwrap().metadata;
        let about = ["policy", "function", "region"].map(|key| info.get(key).map(String::as_str));
        let expected = if field == "policy" { [None; 3] } else { [Some("echo"), Some("echo"), Some("us-east-1")] };
        assert_eq!(about, expected, "{what}");
    }
    let failed = service.json("orders", "{}").await.unwrap_err();
    assert_eq!((failed.code, failed.reason.as_str(), failed.ran.as_str()), (Code::NotFound, "POLICY_NOT_FOUND", "no"));

    let call = ExecutePolicyRequest {
        policy: "echo".into(),
        input: Some(Input::Payload(bytes::Bytes::from_static(b"not json"))),
        ..Default::default()
    };
    let failed = service.call(call).await.unwrap_err();
    assert_eq!(failed.reason, "INVALID_REQUEST", "lambda itself refuses bytes that are no JSON");
    assert!(lambda.requests().len() == 1, "all the others were refused here");
}

#[tokio::test]
async fn more_calls_than_the_limit_wait_shortly_and_are_then_told_to_come_back() {
    let lambda = lambda().await;
    let text = crate::support::config(&lambda, "max_in_flight: 2", "  slow: {function: slow}\n");
    let service = Service::start_with(&text, None).await;
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let client = service.client.clone();
            tokio::spawn(async move { crate::support::execute(&client, request("slow", r#"{"ms": 1500}"#)).await })
        })
        .collect();
    eventually("two calls in flight", async || (lambda.runs("slow") == 2).then_some(())).await;
    let failed = service.json("slow", "{}").await.unwrap_err();
    assert_eq!((failed.code, failed.reason.as_str(), failed.ran.as_str()), (Code::Unavailable, "OVERLOADED", "no"));
    assert!(failed.status.get_details_retry_info().is_some());
    for call in calls {
        assert!(call.await.unwrap().is_ok(), "those in flight end well");
    }
}

#[tokio::test]
async fn what_is_no_message_of_the_contract_is_refused_with_a_reason() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    let mut raw = tonic::client::Grpc::new(crate::support::channel(&service.address).await);
    raw.ready().await.unwrap();
    // Field 1 with a length that is longer than the message.
    let codec = tonic_prost::ProstCodec::<Garbage, lambda_policy::pb::ExecutePolicyResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/lambdapolicy.v1.PolicyService/ExecutePolicy");
    let status = raw.unary(tonic::Request::new(Garbage), path, codec).await.unwrap_err();
    let failed = crate::support::Failed::from(status);
    assert_eq!((failed.code, failed.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
}

/// A message whose encoding is not protobuf.
#[derive(Debug, Default)]
struct Garbage;

impl prost::Message for Garbage {
    fn encode_raw(&self, buffer: &mut impl bytes::BufMut) {
        buffer.put_slice(&[0x0a, 0x7f, b'x']);
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        3
    }

    fn clear(&mut self) {}
}

#[tokio::test]
async fn a_success_that_invoke_does_not_have_is_no_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let lambda = lambda().await;
    let odd = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let policies = format!("  odd: {{function: echo, endpoint: {{url: 'http://{}'}}}}\n", odd.local_addr().unwrap());
    tokio::spawn(async move {
        for status in ["200 OK", "201 Created", "206 Partial Content", "302 Found"] {
            let (mut stream, _) = odd.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let service = Service::start(&lambda, &policies).await;
    service.json("odd", "{}").await.unwrap();
    for status in [201, 206, 302] {
        let failed = service.json("odd", "{}").await.unwrap_err();
        assert_eq!((failed.reason.as_str(), failed.ran.as_str()), ("LAMBDA_FAILED", "maybe"), "{status}");
    }
}
