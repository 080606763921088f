//! The main job: a policy's function is invoked as the policy and the call say, and its answer comes back.

use bytes::Bytes;
use lambda_policy::pb::{
    ExecutePolicyRequest, HttpRequest, InvocationType, ListPoliciesRequest, execute_policy_request::Input,
    execute_policy_response::Output, function_error::Kind,
};
use tonic::Code;

use crate::support::{Service, eventually, lambda, output, request};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn the_output_has_the_form_of_the_input() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    let bytes = Bytes::from_static(b" {\"a\" : 1} ");
    let http = HttpRequest { method: "POST".into(), body: bytes.clone(), ..Default::default() };
    for (what, input) in [
        ("bytes", Input::Payload(bytes.clone())),
        ("JSON", Input::Json(" {\"a\" : 1} ".into())),
        ("HTTP", Input::Http(http)),
    ] {
        let call = ExecutePolicyRequest { policy: "echo".into(), input: Some(input), ..Default::default() };
        let response = service.call(call).await.unwrap();
        assert_eq!(response.status, 200, "{what}");
        match (what, response.output.unwrap()) {
            ("bytes", Output::Payload(found)) => assert_eq!(found, bytes),
            ("JSON", Output::Json(found)) => assert_eq!(found, " {\"a\" : 1} "),
            ("HTTP", Output::Http(found)) => assert_eq!((found.status, found.body), (200, bytes.clone())),
            (what, other) => panic!("{what} came back as {other:?}"),
        }
        assert!(!response.request.is_empty(), "{what}: AWS's request id");
        assert_eq!(response.version, "$LATEST");
        let timing = response.timing.unwrap();
        assert!(timing.lambda_us > 0 && timing.total_us >= timing.lambda_us, "{what}: {timing:?}");
    }
}

#[tokio::test]
async fn the_call_says_how_the_function_is_invoked_and_else_the_policy_does() {
    let lambda = lambda().await;
    let service =
        Service::start(&lambda, "  echo: {function: echo}\n  queued: {function: echo, invocation: event}\n").await;
    for (policy, invocation, status) in [
        ("echo", InvocationType::Unspecified, 200),
        ("echo", InvocationType::RequestResponse, 200),
        ("echo", InvocationType::Event, 202),
        ("echo", InvocationType::DryRun, 204),
        ("queued", InvocationType::Unspecified, 202),
        ("queued", InvocationType::RequestResponse, 200),
    ] {
        let call = ExecutePolicyRequest { invocation: invocation.into(), ..request(policy, "{}") };
        let response = service.call(call).await.unwrap();
        assert_eq!(response.status, status, "{policy} {invocation:?}");
        assert_eq!(response.output.is_some(), status == 200, "{policy} {invocation:?}");
    }
    eventually("five runs, and none for the dry run", async || (lambda.runs("echo") == 5).then_some(())).await;
}

#[tokio::test]
async fn log_context_tenant_and_version_reach_the_function_and_come_back() {
    let lambda = lambda().await;
    let policies =
        "  context: {function: 'context:7', log: tail, context: {custom: {a: 1}}, tenant: acme, qualifiers: [live]}\n";
    let service = Service::start(&lambda, policies).await;
    let response = service.json("context", "{}").await.unwrap();
    let given = output(&response);
    assert_eq!(given["clientContext"], serde_json::json!({"custom": {"a": 1}}));
    assert_eq!(given["tenantId"], "acme");
    assert_eq!((response.version.as_str(), given["functionVersion"].as_str().unwrap()), ("7", "7"));
    assert_eq!(given["requestId"], response.request);
    assert!(response.log.contains(&format!("START RequestId: {}", response.request)), "{}", response.log);

    let call = ExecutePolicyRequest {
        qualifier: "live".into(),
        context: r#"{"mine":true}"#.into(),
        tenant: "other".into(),
        ..request("context", "{}")
    };
    let given = output(&service.call(call).await.unwrap());
    assert_eq!(given["clientContext"], serde_json::json!({"mine": true}));
    assert_eq!(given["tenantId"], "other");
    assert_eq!(given["invokedFunctionArn"], "arn:aws:lambda:us-east-1:123456789012:function:context:live");

    let call = ExecutePolicyRequest { qualifier: "canary".into(), ..request("context", "{}") };
    let failed = service.call(call).await.unwrap_err();
    assert_eq!((failed.code, failed.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
}

#[tokio::test]
async fn the_log_stays_where_it_is_unless_the_policy_asks_for_it() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    assert_eq!(service.json("echo", "{}").await.unwrap().log, "");
}

#[tokio::test]
async fn a_function_is_named_in_every_form() {
    let lambda = lambda().await;
    let forms = [
        "echo",
        "echo:live",
        "echo:$LATEST",
        "123456789012:function:echo",
        "123456789012:function:echo:live",
        "arn:aws:lambda:us-east-1:123456789012:function:echo",
        "arn:aws:lambda:us-east-1:123456789012:function:echo:3",
    ];
    let policies: String =
        forms.iter().enumerate().map(|(n, form)| format!("  form{n}: {{function: '{form}'}}\n")).collect();
    let service = Service::start(&lambda, &policies).await;
    for (n, form) in forms.iter().enumerate() {
        service.json(&format!("form{n}"), "{}").await.unwrap_or_else(|failed| panic!("{form}: {failed:?}"));
    }
}

#[tokio::test]
async fn a_function_is_told_the_region_and_account_that_its_policy_names() {
    let program = env!("CARGO_BIN_EXE_lambda-policy").to_owned();
    let mut options = lambda_policy::local::Options::default();
    options.functions.push(lambda_policy::local::Function::process("order", vec![program, "function".into()]));
    let lambda = crate::support::lambda_with(options).await;
    let policies = "  arn: {function: 'arn:aws:lambda:eu-west-1:999999999999:function:context:live'}\n  \
                    account: {function: '888888888888:function:context', region: cn-north-1}\n  \
                    name: {function: context, region: ap-south-1}\n  \
                    here: {function: order, region: eu-west-1}\n  there: {function: order, region: us-west-2}\n";
    let service = Service::start(&lambda, policies).await;
    for (policy, arn) in [
        ("arn", "arn:aws:lambda:eu-west-1:999999999999:function:context:live"),
        ("account", "arn:aws-cn:lambda:cn-north-1:888888888888:function:context"),
        ("name", "arn:aws:lambda:ap-south-1:123456789012:function:context"),
    ] {
        let response = service.json(policy, "{}").await.unwrap();
        assert_eq!(output(&response)["invokedFunctionArn"], arn, "{policy}");
    }
    for (policy, region) in [("here", "eu-west-1"), ("there", "us-west-2"), ("here", "eu-west-1")] {
        let order = r#"{"item": "book", "quantity": 2}"#;
        let response = service.json(policy, order).await.unwrap();
        assert_eq!(output(&response)["region"], region, "{policy}: AWS_REGION");
    }
}

#[tokio::test]
async fn the_functions_own_failure_is_an_answer() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  fail: {function: fail}\n").await;
    for (json, kind) in [("{}", Kind::Unhandled), (r#"{"handled": true}"#, Kind::Handled)] {
        let response = service.json("fail", json).await.unwrap();
        let error = response.error.clone().unwrap();
        assert_eq!((response.status, error.kind()), (200, kind));
        assert_eq!((error.r#type.as_str(), error.message.as_str()), ("OrderError", "the order cannot be placed"));
        assert!(error.payload.starts_with(b"{"));
        assert_eq!(output(&response)["errorType"], "OrderError");
    }
    let http = Input::Http(HttpRequest { method: "GET".into(), body: Bytes::from_static(b"{}"), ..Default::default() });
    let call = ExecutePolicyRequest { policy: "fail".into(), input: Some(http), ..Default::default() };
    let response = service.call(call).await.unwrap();
    assert!(response.error.unwrap().payload.starts_with(b"{"), "the gateway is told everything");
    let Some(Output::Http(reply)) = response.output else { panic!("an HTTP answer") };
    assert_eq!(reply.status, 502);
    assert!(
        !String::from_utf8_lossy(&reply.body).contains("OrderError"),
        "the client behind the gateway is told nothing"
    );
}

#[tokio::test]
async fn six_megabytes_pass_both_ways_and_a_byte_more_is_refused_before_it_is_sent() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo}\n").await;
    let json = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));

    let largest = json(6 * MIB);
    let response = service.json("echo", &largest).await.unwrap();
    assert_eq!(response.output, Some(Output::Json(largest)));

    let sent = lambda.requests().len();
    for (what, bytes, invocation) in [
        ("one byte too much", 6 * MIB + 1, InvocationType::RequestResponse),
        ("one byte too much for an event", MIB + 1, InvocationType::Event),
        ("more than a message may have", 9 * MIB, InvocationType::RequestResponse),
        ("far more", 40 * MIB, InvocationType::RequestResponse),
    ] {
        let call = ExecutePolicyRequest { invocation: invocation.into(), ..request("echo", &json(bytes)) };
        let failed = service.call(call).await.unwrap_err();
        assert_eq!((failed.code, failed.reason.as_str()), (Code::InvalidArgument, "PAYLOAD_TOO_LARGE"), "{what}");
        assert_eq!(failed.ran, "no", "{what}");
    }
    assert_eq!(lambda.requests().len(), sent, "nothing was sent");
    let call = ExecutePolicyRequest { invocation: InvocationType::Event.into(), ..request("echo", &json(MIB)) };
    assert_eq!(service.call(call).await.unwrap().status, 202, "an event of exactly 1 MiB");
}

#[tokio::test]
async fn calls_share_connections_and_a_cancelled_call_closes_its_own() {
    let lambda = lambda().await;
    let service = Service::start(
        &lambda,
        "  echo: {function: echo}\n  other: {function: echo, log: tail}\n  slow: {function: slow}\n",
    )
    .await;
    for _ in 0..20 {
        service.json("echo", "{}").await.unwrap();
        service.json("other", "{}").await.unwrap();
    }
    assert_eq!(lambda.connections(), 1);

    let client = service.client.clone();
    let call = tokio::spawn(async move { crate::support::execute(&client, request("slow", r#"{"ms": 60000}"#)).await });
    eventually("the slow run", async || (lambda.runs("slow") == 1).then_some(())).await;
    call.abort();
    eventually("the closed connection", async || (lambda.open() == 0).then_some(())).await;
    service.json("echo", "{}").await.unwrap();
    assert_eq!(lambda.connections(), 2);
}

#[tokio::test]
async fn the_callers_deadline_and_the_policys_timeout_both_end_a_call() {
    let lambda = lambda().await;
    let service =
        Service::start(&lambda, "  slow: {function: slow}\n  short: {function: slow, timeout: 150ms}\n").await;
    let by_caller = crate::support::fail_raw(&service.address, "150m", request("slow", r#"{"ms": 60000}"#)).await;
    let by_policy = service.json("short", r#"{"ms": 60000}"#).await.unwrap_err();
    for (failed, said) in [
        (by_caller, "the caller's deadline passed before lambda answered: the function may have run"),
        (by_policy, "the policy's `timeout` of 150ms passed before lambda answered: the function may have run"),
    ] {
        assert_eq!(failed.status.message(), said);
        assert_eq!((failed.code, failed.reason.as_str()), (Code::DeadlineExceeded, "TIMEOUT"));
        assert_eq!(failed.ran, "maybe");
    }
    assert_eq!(lambda.runs("slow"), 2, "neither was sent again");
    eventually("the closed connections to lambda", async || (lambda.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_real_process_answers_many_calls_at_once() {
    let program = env!("CARGO_BIN_EXE_lambda-policy").to_owned();
    let mut options = lambda_policy::local::Options::default();
    options.functions.push(lambda_policy::local::Function::process("order", vec![program, "function".into()]));
    let lambda = crate::support::lambda_with(options).await;
    let service = Service::start(&lambda, "  order: {function: order, log: tail}\n").await;
    let event = r#"{"item": "book", "quantity": 2, "sleep_ms": 300}"#;
    let answers = futures::future::try_join_all((0..5).map(|_| service.json("order", event))).await.unwrap();
    let mut ids: Vec<_> = answers.iter().map(|answer| output(answer)["process"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "five environments");

    let failed = service.json("order", r#"{"error": true}"#).await.unwrap().error.unwrap();
    assert_eq!((failed.kind(), failed.r#type.as_str()), (Kind::Unhandled, "SoldOut"));
    let crashed = service.json("order", r#"{"crash": true}"#).await.unwrap().error.unwrap();
    assert_eq!(crashed.r#type, "Runtime.ExitError");
    assert!(service.json("order", event).await.unwrap().error.is_none(), "and it goes on");
}

#[tokio::test]
async fn policies_are_listed_by_name_without_their_secrets() {
    let lambda = lambda().await;
    let policies = "  b: {function: echo, title: Second}\n  a: {function: 'echo:live', description: First, timeout: 3s, \
                    qualifiers: [x], credentials: {access_key_id: AKIDHIDDEN, secret_access_key: hunter2, assume_role: \
                    {role_arn: 'arn:aws:iam::123456789012:role/r', external_id: hidden-id}}}\n";
    let service = Service::start(&lambda, policies).await;
    let listed = service.client.clone().list_policies(ListPoliciesRequest {}).await.unwrap().into_inner();
    let names: Vec<_> = listed.policies.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let first = &listed.policies[0];
    assert_eq!((first.title.as_str(), first.qualifier.as_str(), first.timeout_ms), ("lambda", "live", 3000));
    assert_eq!(
        (first.credentials.as_str(), first.assume_role_arn.as_str()),
        ("keys and role", "arn:aws:iam::123456789012:role/r")
    );
    let printed = format!("{listed:?}");
    for secret in ["hunter2", "AKIDHIDDEN", "hidden-id", lambda_policy::local::Lambda::SECRET] {
        assert!(!printed.contains(secret), "{secret}");
    }
}
