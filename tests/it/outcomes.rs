//! What lines, metrics, spans and the page say of calls whose function answers nothing that is of use, or nothing in time.

use lambda_policy::pb::{
    envoy::{
        extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
        service::{
            auth::v3::{
                AttributeContext, CheckRequest, attribute_context, authorization_client::AuthorizationClient,
                check_response::HttpResponse,
            },
            ext_proc::v3::processing_response::Response as Answer,
        },
    },
    execute_policy_stream_response::Part,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use tonic::Request;

use crate::{
    lines::{Gateway, Told, body, headers},
    support::{admin, channel, client, collector::attribute, eventually, execute, request},
};

impl Told {
    async fn shown(&self, path: &str) -> Value {
        let (_, _, text) = admin(&self.process.address("admin").unwrap(), "GET", path, "*/*", "").await;
        serde_json::from_str(&text).unwrap()
    }

    async fn policy(&self, name: &str) -> Value {
        let shown = self.shown("/policies").await;
        shown["policies"].as_array().unwrap().iter().find(|policy| policy["name"] == name).unwrap().clone()
    }
}

#[tokio::test]
async fn an_authorizer_or_a_callout_that_answers_nonsense_is_an_error_of_its_function() {
    let told = Told::with(
        "  echo: {function: echo}\n  guard: {function: greet, authorizer: {}}\n  \
         enrich: {function: answer, event: http-api, callout: {path: /path}}\n",
    )
    .await;
    let http = attribute_context::HttpRequest { method: "GET".into(), id: "checked".into(), ..Default::default() };
    let request = attribute_context::Request { http: Some(http), ..Default::default() };
    let mut asked = Request::new(CheckRequest {
        attributes: Some(AttributeContext { request: Some(request), ..Default::default() }),
    });
    asked.metadata_mut().insert("x-lambda-policy", "guard".parse().unwrap());
    let mut authz = AuthorizationClient::new(channel(&told.address).await);
    let Some(HttpResponse::DeniedResponse(denied)) = authz.check(asked).await.unwrap().into_inner().http_response
    else {
        panic!("it passes")
    };
    assert_eq!(denied.status.unwrap().code, 500);

    let mut gateway = Gateway::open(&told, "enrich", "processed", BodySendMode::Buffered).await;
    gateway.say(headers("processed"));
    assert!(matches!(gateway.hear().await, Answer::RequestHeaders(_)));
    gateway.say(body("{"));
    assert_eq!(gateway.status().await, 500);

    let metrics = told.metrics().await;
    for (id, policy, error) in
        [("checked", "guard", "isAuthorized (http-api only) or a policyDocument"), ("processed", "enrich", "not JSON")]
    {
        let lines = told.lines_of(id).await;
        let [line] = lines.as_slice() else { panic!("{id}: {lines:?}") };
        let ended = ["outcome", "reason", "ran", "status"].map(|field| line[field].clone());
        assert_eq!(json!(ended), json!(["function_error", "malformed", "yes", 500]), "{line}");
        assert!(line["error"].as_str().is_some_and(|told| told.contains(error)), "{line}");
        let series = format!(
            "lambda_policy_calls_total{{outcome=\"function_error\",policy=\"{policy}\",reason=\"malformed\"}} 1"
        );
        assert!(metrics.contains(&series), "{series}: {metrics}");
        let span = told.span(line).await;
        assert_eq!(attribute(&span.attributes, "error.type"), "500", "{span:?}");
        let shown = told.policy(policy).await;
        assert_eq!(shown["condition"], "failing", "{shown}");
        assert_eq!(shown["calls"]["last_errors"][0]["error"], line["error"], "{shown}");
    }
    let said = told.process.said();
    // The collector of these tests takes no metrics.
    let warns = |line: &&str| line.contains("\"WARN\"") && !line.contains("telemetry cannot be pushed");
    assert_eq!(said.lines().find(warns), None, "a call has one line");
}

#[tokio::test]
async fn a_function_that_never_answers_is_found_where_its_callers_leave_first() {
    let told = Told::with("  echo: {function: echo}\n  hangs: {function: slow, timeout: 20s}\n").await;
    let caller = client(&told.address).await;
    for number in 1..4 {
        let caller = caller.clone();
        let call = tokio::spawn(async move { execute(&caller, request("hangs", r#"{"ms": 9000}"#)).await });
        eventually("the function", async || (told.lambda.runs("slow") == number).then_some(())).await;
        call.abort();
        let lines = || told.lines().into_iter().filter(|line| line["outcome"] == "cancelled").collect::<Vec<_>>();
        eventually("its line", async || (lines().len() as u64 == number).then_some(())).await;
        let line = lines().pop().unwrap();
        assert_eq!((&line["reason"], &line["ran"]), (&"given_up".into(), &"maybe".into()), "{line}");
    }
    let shown = told.policy("hangs").await;
    assert_eq!((&shown["condition"], &shown["breaker"]), (&"given up".into(), &"closed".into()), "{shown}");
    let calls = &shown["calls"];
    assert!(calls["given_up_per_second"].as_f64() > Some(0.0), "{calls}");
    assert_eq!((&calls["errors_per_second"], &calls["by_reason"]), (&json!(0.0), &json!({"given_up": 3})));
    assert_eq!((&calls["by_outcome"]["cancelled"], &calls["by_outcome"]["error"]), (&json!(3), &json!(0)));
    let last = &calls["last_errors"][0];
    assert_eq!((&last["reason"], &last["count"]), (&json!("given_up"), &json!(3)), "{calls}");
    assert_eq!(told.shown("/status").await["calls"]["by_reason"], json!({"given_up": 3}));

    let metrics = told.metrics().await;
    let of = |name: &str, labels: &[&str]| {
        let has = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        metrics.lines().find(has).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let cancelled = ["outcome=\"cancelled\"", "policy=\"hangs\"", "reason=\"given_up\""];
    assert_eq!(of("lambda_policy_calls_total", &cancelled), Some(3.0), "{metrics}");
    let labels = ["error_type=\"cancelled\"", "policy=\"hangs\""];
    assert_eq!(of("rpc_client_call_duration_seconds_count", &labels), Some(3.0), "{metrics}");
    assert!(of("rpc_client_call_duration_seconds_sum", &labels) > Some(0.0), "{metrics}");
}

#[tokio::test]
async fn a_stream_without_an_end_says_what_is_known_of_it() {
    let told = Told::with(
        "  echo: {function: echo}\n  stream: {function: stream}\n  short: {function: stream, idle_timeout: 300ms}\n",
    )
    .await;
    let mut caller = client(&told.address).await;
    let open = request("stream", r#"{"chunks": 1000, "every": 20}"#);
    let mut parts = caller.execute_policy_stream(open).await.unwrap().into_inner();
    let Some(Part::Start(start)) = parts.message().await.unwrap().unwrap().part else { panic!("it does not start") };
    assert!(matches!(parts.message().await.unwrap().unwrap().part, Some(Part::Chunk(_))));
    drop(parts);
    let line = told.line("the line of who left", |line| line["outcome"] == "cancelled").await;
    let known = ["ran", "status", "aws_request_id", "version", "reason"].map(|field| line[field].clone());
    assert_eq!(json!(known), json!(["yes", 200, start.request, start.version, null]), "{line}");
    assert!(line["output_bytes"].as_u64() >= Some(8), "{line}");
    let invoked = told.span_of(SpanKind::Client, &line).await;
    assert_eq!(attribute(&invoked.attributes, "aws.request_id"), start.request, "{invoked:?}");
    assert_eq!(told.policy("stream").await["condition"], "ok", "to leave a stream is no giving up");

    for (fault, policy, reason) in [("cut-stream:300", "stream", "LAMBDA_FAILED"), ("stall:5s", "short", "TIMEOUT")] {
        told.lambda.clear_faults();
        told.lambda.add_fault(format!("stream={fault}").parse().unwrap());
        let mut parts = caller.execute_policy_stream(request(policy, r#"{"every": 5}"#)).await.unwrap().into_inner();
        while let Ok(Some(_)) = parts.message().await {}
        let line = told.line(reason, |line| line["reason"] == reason).await;
        assert!(line["output_bytes"].as_u64() >= Some(8) && line["aws_request_id"].is_string(), "{line}");
        assert!(line["version"].is_string(), "{line}");
    }
}
