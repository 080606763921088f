//! The metrics of a service that has served calls, as Prometheus and a collector get them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use lambda_policy::{
    local::Lambda,
    pb::{ExecutePolicyRequest, LambdaPolicy},
    policy::Name,
    telemetry::names::{ALL, Kind, UNKNOWN_POLICY},
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::any_value,
    metrics::v1::metric::Data,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::support::{Directory, Service, admin, config, eventually, lambda, request};

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";

/// A sample: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// The samples of an exposition.
pub(crate) struct Scraped(Vec<Sample>);

impl Scraped {
    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(samples.map(sample).collect())
    }

    pub(crate) async fn of(service: &Service) -> Self {
        let (status, kind, text) = admin(&service.admin, "GET", "/metrics", "*/*", "").await;
        assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(&text)
    }

    /// The sum of the samples of a name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| of.get(*name).map_or("", String::as_str) == *value)
        };
        self.0.iter().filter(|(known, of, _)| known == name && fits(of)).map(|(_, _, value)| value).sum()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, ..)| known == name)
    }

    /// What tells the samples apart.
    pub(crate) fn series(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, labels, _)| format!("{name} {labels:?}")).collect()
    }

    /// The values that a label has anywhere.
    pub(crate) fn values(&self, label: &str) -> BTreeSet<&str> {
        self.0.iter().filter_map(|(_, labels, _)| labels.get(label).map(String::as_str)).collect()
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap();
    let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once("=\"").unwrap();
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    (name.to_owned(), labels.collect(), value.parse().unwrap())
}

fn inline(function: &str) -> ExecutePolicyRequest {
    let lambda = LambdaPolicy {
        function: function.into(),
        aws_access_key_id: Lambda::KEY_ID.into(),
        aws_secret_access_key: Lambda::SECRET.into(),
        ..Default::default()
    };
    ExecutePolicyRequest { lambda: Some(lambda), ..request("", "{}") }
}

/// A service that has served one call of every kind, and a request that is none.
async fn served(lambda: &Lambda) -> Service {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let role = format!(
        "{{access_key_id: {}, secret_access_key: {}, assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/r'}}}}",
        Lambda::KEY_ID,
        Lambda::SECRET
    );
    let policies = format!(
        "  echo: {{function: echo}}\n  fail: {{function: fail}}\n  busy: {{function: context}}\n  \
         gone: {{function: echo, endpoint: {{url: 'http://localhost:{}'}}}}\n  \
         role: {{function: 'arn:aws:lambda:us-east-1:123456789012:function:echo', credentials: {role}}}\n",
        closed.port()
    );
    let service = Service::start_with(&config(lambda, "inline_policies: allow", &policies), None).await;
    lambda.add_fault("context=throttle:7".parse().unwrap());
    for policy in ["echo", "echo", "echo", "role"] {
        service.json(policy, "{}").await.unwrap();
    }
    service.json("fail", "{}").await.unwrap();
    service.json("fail", r#"{"handled": true}"#).await.unwrap();
    service.call(inline("echo")).await.unwrap();
    for policy in ["busy", "gone", "nobody", "no policy at all"] {
        service.json(policy, "{}").await.unwrap_err();
    }
    assert_eq!(admin(&service.address, "GET", "/v1/policies", "*/*", "").await.0, 200);
    service
}

#[tokio::test]
async fn they_say_what_became_of_calls() {
    let lambda = lambda().await;
    let service = served(&lambda).await;
    let scraped = Scraped::of(&service).await;
    for (policy, outcome, reason, expected) in [
        ("echo", "ok", "", 3.0),
        ("role", "ok", "", 1.0),
        ("fail", "function_error", "unhandled", 1.0),
        ("fail", "function_error", "handled", 1.0),
        ("inline", "ok", "", 1.0),
        ("busy", "error", "FUNCTION_THROTTLED", 1.0),
        ("gone", "error", "LAMBDA_UNREACHABLE", 1.0),
        (UNKNOWN_POLICY, "error", "POLICY_NOT_FOUND", 2.0),
    ] {
        let labels = [("policy", policy), ("outcome", outcome)];
        let with_reason = [labels[0], labels[1], ("reason", reason)];
        assert_eq!(scraped.sum("lambda_policy_calls_total", &with_reason), expected, "{policy}: {outcome} {reason}");
        let all = scraped.sum("lambda_policy_calls_total", &labels);
        assert_eq!(scraped.sum("lambda_policy_call_duration_seconds_count", &labels), all, "{policy}: {outcome}");
    }
    assert_eq!(scraped.sum("lambda_policy_calls_total", &[]), 11.0, "and no other call");

    let execute = ("rpc_method", "lambdapolicy.v1.PolicyService/ExecutePolicy");
    let server = "rpc_server_call_duration_seconds_count";
    for (code, error, expected) in
        [("OK", "", 7.0), ("RESOURCE_EXHAUSTED", "", 1.0), ("NOT_FOUND", "", 2.0), ("UNAVAILABLE", "UNAVAILABLE", 1.0)]
    {
        let labels = [execute, ("rpc_system_name", "grpc"), ("rpc_response_status_code", code), ("error_type", error)];
        assert_eq!(scraped.sum(server, &labels), expected, "{code}");
    }

    let client = "rpc_client_call_duration_seconds_count";
    for (policy, name, server, error, expected) in [
        ("echo", "echo", "127.0.0.1", "", 3.0),
        ("inline", "", "", "", 1.0),
        ("busy", "context", "127.0.0.1", "FUNCTION_THROTTLED", 1.0),
        ("gone", "echo", "localhost", "LAMBDA_UNREACHABLE", 1.0),
        (UNKNOWN_POLICY, "", "", "POLICY_NOT_FOUND", 0.0),
    ] {
        let labels = [
            ("policy", policy),
            ("faas_invoked_name", name),
            ("server_address", server),
            ("error_type", error),
            ("rpc_system_name", "aws-api"),
            ("rpc_method", "Lambda/Invoke"),
        ];
        assert_eq!(scraped.sum(client, &labels), expected, "{policy}");
    }
    assert!(scraped.values("server_port").iter().any(|port| lambda.url().ends_with(&format!(":{port}"))));
    for (status, expected) in [("200", 7.0), ("429", 1.0), ("404", 0.0)] {
        let labels = [("http_response_status_code", status)];
        assert_eq!(scraped.sum("lambda_policy_lambda_responses_total", &labels), expected, "{status}");
    }
}

#[tokio::test]
async fn they_say_how_the_service_and_its_way_to_lambda_are() {
    let lambda = lambda().await;
    let service = served(&lambda).await;
    let scraped = Scraped::of(&service).await;
    // One endpoint with keys, the same with a role, and the one that is gone; an inline call shares the first.
    assert_eq!(scraped.sum("lambda_policy_clients_built_total", &[]), 3.0);
    assert_eq!(scraped.sum("lambda_policy_clients_live", &[]), 3.0);
    assert_eq!(scraped.sum("lambda_policy_clients_hits_total", &[]), 6.0);
    let here = [("server_address", "127.0.0.1")];
    let opened = scraped.sum("lambda_policy_connections_opened_total", &here);
    assert_eq!(opened, lambda.connections() as f64);
    // Eight calls came through, and one of STS.
    assert_eq!(scraped.sum("lambda_policy_connections_reused_total", &here), 9.0 - opened);
    assert!(scraped.sum("lambda_policy_connections_failed_total", &[("server_address", "localhost")]) >= 1.0);
    let loads = [("source", "role"), ("outcome", "ok")];
    assert_eq!(scraped.sum("lambda_policy_credentials_loads_total", &loads), 1.0);
    let expiry = scraped.sum("lambda_policy_credentials_expiry_seconds", &[("policy", "role")]);
    assert!((3000.0..=3600.0).contains(&expiry), "{expiry}");
    assert_eq!(
        scraped.sum("lambda_policy_credentials_expiry_seconds", &[("policy", "echo")]),
        0.0,
        "keys do not expire"
    );

    assert_eq!(scraped.sum("lambda_policy_calls_in_flight", &[]), 0.0);
    assert!(scraped.has("lambda_policy_calls_in_flight"), "the autoscaler finds it without a call, too");
    assert_eq!(scraped.sum("lambda_policy_calls_limit", &[]), 1024.0);
    assert_eq!(scraped.sum("lambda_policy_config_generation", &[]), 1.0);
    assert_eq!(scraped.sum("lambda_policy_config_policies", &[]), 5.0);
    assert_eq!(scraped.sum("lambda_policy_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(scraped.sum("target_info", &[("service_name", "lambda-policy")]), 1.0);
    for (name, least) in [
        ("process_cpu_time_seconds_total", 0.01),
        ("process_memory_usage_bytes", 1e6),
        ("process_unix_file_descriptor_count", 3.0),
        ("process_thread_count", 2.0),
        ("lambda_policy_process_file_descriptor_limit", 100.0),
        ("lambda_policy_runtime_parks_total", 1.0),
        ("lambda_policy_runtime_busy_seconds_total", 1e-6),
    ] {
        assert!(scraped.sum(name, &[]) >= least, "{name}");
    }
    assert!(scraped.values("worker").is_superset(&BTreeSet::from(["0", "main"])));
}

#[tokio::test]
async fn calls_in_flight_waiting_and_rejected_are_seen() {
    let lambda = lambda().await;
    let text = config(&lambda, "max_in_flight: 1", "  slow: {function: slow}\n");
    let service = Service::start_with(&text, None).await;
    let caller = service.client.clone();
    let running =
        tokio::spawn(async move { crate::support::execute(&caller, request("slow", r#"{"ms": 2000}"#)).await });
    eventually("the call in flight", async || (lambda.runs("slow") == 1).then_some(())).await;
    let (caller, asked) = (service.client.clone(), request("slow", "{}"));
    let waiting = tokio::spawn(async move { crate::support::execute(&caller, asked).await });
    eventually("the call that waits", async || {
        let scraped = Scraped::of(&service).await;
        assert_eq!(scraped.sum("lambda_policy_calls_in_flight", &[]), 1.0);
        assert_eq!(scraped.sum("lambda_policy_policy_calls_in_flight", &[("policy", "slow")]), 1.0);
        (scraped.sum("lambda_policy_calls_waiting", &[]) == 1.0).then_some(())
    })
    .await;
    assert_eq!(waiting.await.unwrap().unwrap_err().reason, "OVERLOADED");
    let scraped = Scraped::of(&service).await;
    assert_eq!(scraped.sum("lambda_policy_calls_rejected_total", &[("policy", "slow")]), 1.0);
    assert_eq!(scraped.sum("lambda_policy_calls_waiting", &[]), 0.0);
    running.abort();
    let cancelled = [("policy", "slow"), ("outcome", "cancelled")];
    eventually("the caller that went away", async || {
        (Scraped::of(&service).await.sum("lambda_policy_calls_total", &cancelled) == 1.0).then_some(())
    })
    .await;
    let method = [("rpc_response_status_code", "CANCELLED")];
    assert_eq!(Scraped::of(&service).await.sum("rpc_server_call_duration_seconds_count", &method), 1.0);
}

#[tokio::test]
async fn a_streamed_call_counts_when_it_has_ended() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  slow: {function: slow}\n").await;
    let mut client = service.client.clone();
    let mut stream = client.execute_policy_stream(request("slow", r#"{"ms": 100}"#)).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let scraped = Scraped::of(&service).await;
    assert_eq!(scraped.sum("lambda_policy_calls_total", &[("policy", "slow"), ("outcome", "ok")]), 1.0);
    let method =
        [("rpc_method", "lambdapolicy.v1.PolicyService/ExecutePolicyStream"), ("rpc_response_status_code", "OK")];
    assert_eq!(scraped.sum("rpc_server_call_duration_seconds_count", &method), 1.0);
    for name in ["rpc_server_call_duration_seconds_sum", "rpc_client_call_duration_seconds_sum"] {
        let sum = scraped.sum(name, &[]);
        assert!((0.1..5.0).contains(&sum), "{name} is {sum}: to the end of the answer");
    }
}

#[tokio::test]
async fn a_function_that_is_left_alone_is_seen() {
    let lambda = lambda().await;
    let policies = "  echo: {function: 'arn:aws:lambda:us-east-1:123456789012:function:echo:live', breaker: {failures: 3, open: 1m}}\n  \
                    other: {function: context}\n";
    let service = Service::start(&lambda, policies).await;
    lambda.add_fault("echo=error".parse().unwrap());
    let state = async |function: &str, qualifier: &str| {
        let labels = [("faas_invoked_name", function), ("faas_invoked_region", "us-east-1"), ("qualifier", qualifier)];
        Scraped::of(&service).await.sum("lambda_policy_breaker_state", &labels)
    };
    assert_eq!(state("echo", "live").await, 0.0);
    for _ in 0..4 {
        service.json("echo", "{}").await.unwrap_err();
    }
    assert_eq!((state("echo", "live").await, state("context", "").await), (2.0, 0.0));
    let refused = [("policy", "echo"), ("reason", "BREAKER_OPEN")];
    assert_eq!(Scraped::of(&service).await.sum("lambda_policy_calls_total", &refused), 1.0);
    let (_, _, shown) = admin(&service.admin, "GET", "/policies", "*/*", "").await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["policies"][0]["breaker"], &shown["policies"][1]["breaker"]),
        (&"open".into(), &"closed".into())
    );
}

#[tokio::test]
async fn callers_cannot_make_series() {
    let lambda = lambda().await;
    let text = config(&lambda, "inline_policies: allow", "  echo: {function: echo}\n");
    let service = Service::start_with(&text, None).await;
    service.call(inline("echo")).await.unwrap();
    service.json("nobody", "{}").await.unwrap_err();
    service.call(inline("f")).await.unwrap_err();
    let before = Scraped::of(&service).await.series();
    let call = |number: usize| {
        let client = service.client.clone();
        async move {
            let asked = match number % 2 {
                0 => inline(&format!("function-{number}")),
                _ => request(&format!("policy-{number}"), "{}"),
            };
            crate::support::execute(&client, asked).await.unwrap_err()
        }
    };
    for batch in 0..40 {
        futures::future::join_all((0..50).map(|number| call(batch * 50 + number))).await;
    }
    for path in ["unknown.Service/Method", "lambdapolicy.v1.PolicyService/Nothing"] {
        crate::support::raw(&service.address, path, "1S", &request("echo", "{}")).await;
    }
    let scraped = Scraped::of(&service).await;
    assert_eq!(scraped.sum("lambda_policy_calls_total", &[("policy", "inline"), ("outcome", "error")]), 1001.0);
    assert_eq!(scraped.sum("lambda_policy_calls_total", &[("policy", UNKNOWN_POLICY)]), 1001.0);
    assert_eq!(scraped.values("policy"), BTreeSet::from(["echo", Name::INLINE, UNKNOWN_POLICY]));
    assert!(scraped.values("rpc_method").contains("_OTHER"));
    let new: Vec<_> = scraped.series().difference(&before).cloned().collect();
    assert!(new.iter().all(|series| series.contains("_OTHER")), "{new:#?}");
    assert_eq!(new.iter().filter(|series| series.contains("_count")).count(), 1, "unknown methods are one");
}

#[tokio::test]
async fn without_them_calls_are_told_of_all_the_same() {
    let lambda = lambda().await;
    let text = config(&lambda, "", "  echo: {function: echo}\n");
    let service = Service::start_with(&format!("{text}telemetry: {{metrics: off}}\n"), None).await;
    service.json("echo", "{}").await.unwrap();
    let (status, _, said) = admin(&service.admin, "GET", "/metrics", "*/*", "").await;
    assert_eq!((status, said.as_str()), (404, "telemetry.metrics is off\n"));
    let (_, _, shown) = admin(&service.admin, "GET", "/policies", "*/*", "").await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["policies"][0]["calls"]["by_outcome"]["ok"], 1, "{shown}");
}

#[tokio::test]
async fn every_metric_and_label_is_one_that_the_documentation_tells() {
    let lambda = lambda().await;
    let service = served(&lambda).await;
    let (_, kind, text) = admin(&service.admin, "GET", "/metrics", OPENMETRICS, "").await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"));
    let openmetrics = Scraped::parse(&text);
    let plain = Scraped::of(&service).await;
    let shown = |scraped: &Scraped| scraped.0.iter().map(|(name, ..)| name.clone()).collect::<BTreeSet<_>>();
    assert_eq!(shown(&openmetrics), shown(&plain), "both forms show the same");
    for (name, labels, _) in &plain.0 {
        if name == "target_info" {
            continue;
        }
        let suffixes = ["_bucket", "_sum", "_count"];
        let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let is = |known: &str| known == name || known == base;
        let metric = ALL.iter().find(|metric| is(&metric.prometheus())).unwrap_or_else(|| panic!("{name} is not told"));
        for label in labels.keys().filter(|label| *label != "le") {
            let told = metric.labels.iter().any(|known| known.name.replace('.', "_") == *label);
            assert!(told, "{name} has the label {label}, which is not told");
        }
    }
    // Without TLS there is no certificate.
    for metric in ALL.iter().filter(|metric| metric.name != "lambda_policy.tls.certificate.expiry") {
        let name = metric.prometheus();
        let sample = if matches!(metric.kind, Kind::Histogram(_)) { format!("{name}_count") } else { name };
        assert!(plain.has(&sample), "{sample} is told and not there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "who runs the tests is told what they leave out")]
async fn promtool_finds_nothing_to_mend() {
    if Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "promtool is not installed");
        eprintln!("promtool is not installed, so the metrics were not checked by it");
        return;
    }
    let lambda = lambda().await;
    let service = served(&lambda).await;
    let (_, _, text) = admin(&service.admin, "GET", "/metrics", "*/*", "").await;
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut promtool = promtool.stderr(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert_ne!(said.status.code(), Some(1), "the text cannot be parsed");
    let said = String::from_utf8(said.stderr).unwrap();
    // The semantic conventions name gauges so, which promtool takes for parts of histograms.
    let conventional = ["process_thread_count ", "process_unix_file_descriptor_count "];
    let found: Vec<_> = said.lines().filter(|line| !conventional.iter().any(|name| line.starts_with(name))).collect();
    assert!(found.iter().all(|line| line.is_empty()), "{found:#?}");
}

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportMetricsServiceRequest>>>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn pushing(lambda: &Lambda, endpoint: &str) -> String {
    let telemetry = format!("telemetry: {{otlp: {{endpoint: 'http://{endpoint}', interval: 1s}}}}\n");
    telemetry + &config(lambda, "", "  echo: {function: echo}\n")
}

#[tokio::test]
async fn they_are_pushed_where_the_configuration_says_and_once_more_at_the_end() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let collector = Collector::default();
    let service = MetricsServiceServer::new(collector.clone());
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let lambda = lambda().await;
    let mut service = Service::start_with(&pushing(&lambda, &address), None).await;
    // The calls that echo had, and the service's name, as they were pushed last.
    let pushed = || {
        let received = collector.0.lock().unwrap();
        let resource = received.last()?.resource_metrics.first()?;
        let named = resource.resource.as_ref()?.attributes.iter().find(|attribute| attribute.key == "service.name")?;
        let any_value::Value::StringValue(name) = named.value.clone()?.value? else { return None };
        let metrics = resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
        let calls = metrics.into_iter().find(|metric| metric.name == "lambda_policy.calls")?;
        let Data::Sum(sum) = calls.data.as_ref()? else { return None };
        let well = sum.data_points.iter().find(|point| {
            [("policy", "echo"), ("outcome", "ok")].iter().all(|(key, value)| {
                let value = Some(any_value::Value::StringValue((*value).to_owned()));
                point
                    .attributes
                    .iter()
                    .any(|found| found.key == *key && found.value.clone().and_then(|v| v.value) == value)
            })
        })?;
        Some((name, format!("{:?}", well.value)))
    };
    service.json("echo", "{}").await.unwrap();
    let found = eventually("a push", async || pushed()).await;
    assert_eq!(found, ("lambda-policy".to_owned(), "Some(AsInt(1))".to_owned()));
    let received = collector.0.lock().unwrap().clone();
    let metrics = received.iter().flat_map(|request| &request.resource_metrics[0].scope_metrics[0].metrics);
    let memory = metrics.filter(|metric| metric.name == "process.memory.usage").find_map(|metric| metric.data.clone());
    let Some(Data::Sum(memory)) = memory else { panic!("an UpDownCounter, by the conventions: {memory:?}") };
    assert!(!memory.is_monotonic);
    service.json("echo", "{}").await.unwrap();
    service.stop().await;
    assert_eq!(pushed().unwrap().1, "Some(AsInt(2))");
}

#[tokio::test]
async fn a_collector_that_is_down_costs_a_counter_and_is_named() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().to_string();
    let lambda = lambda().await;
    let text = pushing(&lambda, &closed).replace("interval: 1s}", "interval: 1s}, traces: {ratio: 1}");
    let mut service = Service::start_with(&text, None).await;
    eventually("a failed push", async || {
        service.json("echo", "{}").await.unwrap();
        let failures = Scraped::of(&service).await.sum("lambda_policy_telemetry_export_failures_total", &[]);
        (failures >= 1.0).then_some(())
    })
    .await;
    let otlp = eventually("both signals named", async || {
        let (_, _, status) = admin(&service.admin, "GET", "/status", "*/*", "").await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let otlp = &status["telemetry"]["otlp"];
        ["metrics", "traces"].iter().all(|signal| !otlp[signal]["failing"].is_null()).then(|| otlp.clone())
    })
    .await;
    assert_eq!(otlp["endpoint"], format!("http://{closed}"));
    for signal in ["metrics", "traces"] {
        let failing = &otlp[signal]["failing"];
        assert!(failing["error"].as_str().is_some_and(|why| why.contains("refused")), "{otlp}");
        assert!(humantime::parse_rfc3339(failing["since"].as_str().unwrap()).is_ok(), "{otlp}");
        assert!(otlp[signal]["failures"].as_u64() >= Some(1), "{otlp}");
    }
    tokio::time::timeout(std::time::Duration::from_secs(8), service.stop()).await.expect("it stops all the same");
}

#[tokio::test]
async fn a_changed_configuration_counts_whether_it_takes_effect_or_not() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let text = config(&lambda, "", "  echo: {function: echo}\n");
    let file = directory.write("f.yaml", &text);
    let service = Service::start_with(&text, Some(file)).await;
    service.json("echo", "{}").await.unwrap();
    directory.write("f.yaml", "policies: {echo: 1}");
    eventually("the failure", async || {
        let scraped = Scraped::of(&service).await;
        (scraped.sum("lambda_policy_config_reload_failures_total", &[]) == 1.0).then_some(())
    })
    .await;
    assert_eq!(Scraped::of(&service).await.sum("lambda_policy_config_refused", &[]), 1.0, "for as long as it is wrong");
    directory.write("f.yaml", &config(&lambda, "", "  echo: {function: echo}\n  more: {function: echo}\n"));
    eventually("the new configuration", async || {
        let scraped = Scraped::of(&service).await;
        (scraped.sum("lambda_policy_config_generation", &[]) == 2.0).then_some(())
    })
    .await;
    service.json("echo", "{}").await.unwrap();
    service.json("more", "{}").await.unwrap();
    let scraped = Scraped::of(&service).await;
    assert_eq!(scraped.sum("lambda_policy_config_refused", &[]), 0.0);
    for (policy, calls) in [("echo", 2.0), ("more", 1.0)] {
        assert_eq!(scraped.sum("lambda_policy_calls_total", &[("policy", policy)]), calls, "{policy}");
    }
    let (_, _, shown) = admin(&service.admin, "GET", "/config", "*/*", "").await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["policies"]["more"]["function"], "echo", "the admin port shows the one in force");
}
