//! The admin port, as an operator uses it.

use lambda_policy::local::Lambda;
use serde_json::{Value, json};

use crate::{
    binary::Process,
    support::{Directory, Service, admin, client, config, eventually, execute, lambda, request},
};

async fn shown(service: &Service, path: &str) -> Value {
    let (status, kind, body) = admin(&service.admin, "GET", path, "*/*", "").await;
    assert_eq!((status, kind.as_str()), (200, "application/json"), "{path}");
    assert!(!body.contains(Lambda::SECRET), "{path} has a secret: {body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn policies_show_what_they_do_and_what_became_of_their_calls() {
    let lambda = lambda().await;
    let role = format!(
        "{{access_key_id: {}, secret_access_key: {}, assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/r'}}}}",
        Lambda::KEY_ID,
        Lambda::SECRET
    );
    let policies = format!(
        "  echo: {{function: 'echo:live', title: Echo}}\n  fail: {{function: fail}}\n  role: {{function: echo, credentials: {role}}}\n"
    );
    let service = Service::start(&lambda, &policies).await;
    for _ in 0..3 {
        service.json("echo", "{}").await.unwrap();
    }
    service.json("role", "{}").await.unwrap();
    service.json("fail", "{}").await.unwrap();
    lambda.add_fault("fail=throttle:7".parse().unwrap());
    service.json("fail", "{}").await.unwrap_err();
    service.json("nobody", "{}").await.unwrap_err();

    let shown = shown(&service, "/policies").await;
    assert_eq!(shown["in_flight"], 0);
    let policies = shown["policies"].as_array().unwrap();
    let names: Vec<_> = policies.iter().map(|policy| policy["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["echo", "fail", "role", "_unknown"]);
    let echo = &policies[0];
    assert_eq!(
        (&echo["title"], &echo["qualifier"], &echo["region"]),
        (&json!("Echo"), &json!("live"), &json!("us-east-1"))
    );
    assert_eq!(echo["credentials"], json!({"kind": "keys", "role": null}));
    assert_eq!((&echo["calls"]["total"], &echo["calls"]["by_outcome"]["ok"]), (&json!(3), &json!(3)));
    let [p50, p99] = ["p50", "p99"].map(|quantile| echo["calls"]["seconds"][quantile].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99 && p99 < 10.0, "{echo}");
    let fail = &policies[1]["calls"];
    assert_eq!(fail["by_outcome"], json!({"ok": 0, "function_error": 1, "error": 1, "cancelled": 0}));
    assert_eq!(fail["by_reason"], json!({"unhandled": 1, "FUNCTION_THROTTLED": 1}));
    let last = fail["last_errors"].as_array().unwrap();
    let reasons: Vec<_> = last.iter().map(|error| error["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["FUNCTION_THROTTLED", "unhandled"], "the latest first");
    for error in last {
        assert!(error["aws_request_id"].as_str().is_some_and(|id| !id.is_empty()), "{error}");
        humantime::parse_rfc3339(error["at"].as_str().unwrap()).unwrap();
    }
    let expires = policies[2]["credentials"]["expire_in_seconds"].as_u64().unwrap();
    assert!((3000..=3600).contains(&expires));
    assert_eq!(policies[3]["calls"]["by_reason"], json!({"POLICY_NOT_FOUND": 1}));

    let all = &self::shown(&service, "/status").await["calls"];
    assert_eq!(all["by_reason"], json!({"unhandled": 1, "FUNCTION_THROTTLED": 1, "POLICY_NOT_FOUND": 1}));
    let last = all["last_errors"].as_array().unwrap();
    let told: Vec<_> =
        last.iter().map(|error| [&error["policy"], &error["reason"]].map(|text| text.as_str().unwrap())).collect();
    assert_eq!(told, [["_unknown", "POLICY_NOT_FOUND"], ["fail", "FUNCTION_THROTTLED"], ["fail", "unhandled"]]);
    assert_eq!(all["history"].get("p99"), None, "it is each policy's own");
}

#[tokio::test]
async fn the_configuration_is_shown_as_it_is_in_force_without_a_secret() {
    let lambda = lambda().await;
    let service = Service::start(&lambda, "  echo: {function: echo, timeout: 3s}\n").await;
    let shown = shown(&service, "/config").await;
    assert_eq!(shown["policies"]["echo"]["timeout"], "3s");
    assert_eq!(shown["policies"]["echo"]["credentials"]["secret_access_key"], "[redacted]");
    assert_eq!(shown["server"]["drain_timeout"], "30s", "defaults are shown, too");
}

#[tokio::test]
async fn the_level_of_the_log_is_changed_while_the_service_runs() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let file = directory.write("f.yaml", &config(&lambda, "", "  echo: {function: echo}\n"));
    let process = Process::serve(&file, &[("LAMBDA_POLICY_LOG", "info")]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let probe = process.address("admin").unwrap();
    let level = async |method: &str, body: &str| {
        let (status, _, said) = admin(&probe, method, "/log-level", "*/*", body).await;
        (status, said.trim().to_owned())
    };
    assert_eq!(level("GET", "").await, (200, "info".to_owned()));
    let caller = client(&address).await;
    let call = async |id: &str| {
        let http = lambda_policy::pb::HttpRequest {
            method: "GET".into(),
            path: "/".into(),
            request_id: id.into(),
            ..Default::default()
        };
        let input = Some(lambda_policy::pb::execute_policy_request::Input::Http(http));
        execute(&caller, lambda_policy::pb::ExecutePolicyRequest { input, ..request("echo", "") }).await.unwrap();
    };
    call("the-first").await;
    let line = eventually("the line of the call", async || {
        let said = process.said();
        let line = said.lines().find(|line| line.contains("the-first"))?;
        serde_json::from_str::<Value>(line).ok()
    })
    .await;
    assert_eq!(
        (&line["policy"], &line["outcome"], &line["ran"], &line["request_id"]),
        (&json!("echo"), &json!("ok"), &json!("yes"), &json!("the-first"))
    );
    for field in ["event_bytes", "output_bytes", "queue_us", "credentials_us", "lambda_us", "total_us"] {
        assert!(line[field].is_u64(), "{field}: {line}");
    }

    assert_eq!(level("PUT", "lambda_polcy=debug").await.1, "info,lambda_polcy=debug", "the rest is not silenced");
    assert_eq!(level("PUT", "warn\n").await, (200, "warn".to_owned()));
    call("the-second").await;
    assert_eq!(level("PUT", "info,lambda_policy::grpc=debug").await.0, 200);
    call("the-third").await;
    eventually("the third line", async || process.said().contains("the-third").then_some(())).await;
    assert!(!process.said().contains("the-second"), "calls are not told at warn");
    assert_eq!(level("GET", "").await.1, "info,lambda_policy::grpc=debug");

    let (status, why) = level("PUT", "loud").await;
    assert_eq!(status, 400);
    assert!(why.contains("`loud` is no level"), "{why}");
    assert!(level("PUT", "hyper=trace").await.1.contains("stays at `warn`"));
    assert_eq!(level("PUT", &"x".repeat(100_000)).await.0, 413);
    assert_eq!(level("GET", "").await.1, "info,lambda_policy::grpc=debug", "what is wrong changes nothing");
    assert_eq!(level("POST", "info").await.0, 405);

    for (before, now) in [("info,lambda_policy::grpc=debug", "off"), ("off", "info")] {
        assert_eq!(level("PUT", now).await.0, 200);
        let line = eventually("a line of the change", async || {
            let said = process.said();
            let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let told = |line: &Value| line["message"] == "the log's level is changed" && line["now"] == now;
            let told: Vec<_> = lines.filter(told).collect();
            Some(told).filter(|told| !told.is_empty())
        })
        .await;
        assert_eq!(
            (line.len(), &line[0]["before"], &line[0]["level"]),
            (1, &json!(before), &json!("WARN")),
            "{line:?}"
        );
        let status: Value = serde_json::from_str(&admin(&probe, "GET", "/status", "*/*", "").await.2).unwrap();
        assert_eq!(status["telemetry"]["log_level"], now, "who misses lines sees why");
    }
}

#[tokio::test]
async fn a_wrong_level_of_the_environment_is_told_and_silences_nothing() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let file = directory.write("f.yaml", &config(&lambda, "", "  echo: {function: echo}\n"));
    for (wrong, why) in [("loud", "`loud` is no level"), ("info, hyper=trace", "`hyper` stays at `warn`")] {
        let process = Process::serve(&file, &[("LAMBDA_POLICY_LOG", wrong)]);
        let address = eventually("the service", async || process.address("grpc")).await;
        execute(&client(&address).await, request("echo", "{}")).await.unwrap();
        let lines = eventually("the line of the call", async || {
            let lines: Vec<Value> = process.said().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            Some(lines).filter(|lines| lines.iter().any(|line| line["message"] == "call"))
        })
        .await;
        let told = lines.iter().find(|line| line["variable"] == "LAMBDA_POLICY_LOG").unwrap();
        assert_eq!(told["level"], "ERROR");
        assert!(told["why"].as_str().unwrap().contains(why), "{told}");
    }
}

#[tokio::test]
async fn who_is_not_ready_says_why() {
    let lambda = lambda().await;
    let text = config(&lambda, "drain_timeout: 5s", "  slow: {function: slow}\n")
        .replace("drain_delay: 0s", "drain_delay: 2s");
    let directory = Directory::new();
    let mut process = Process::serve(&directory.write("f.yaml", &text), &[]);
    let address = eventually("the service", async || process.address("grpc")).await;
    let probe = process.address("admin").unwrap();
    let ready = async || admin(&probe, "GET", "/readyz", "*/*", "").await;
    eventually("readiness", async || (ready().await.0 == 200).then_some(())).await;
    let caller = client(&address).await;
    let call = tokio::spawn(async move { execute(&caller, request("slow", r#"{"ms": 4000}"#)).await });
    eventually("the call in flight", async || (lambda.runs("slow") == 1).then_some(())).await;
    process.signal("TERM");
    for expected in ["waits for load balancers", "draining"] {
        eventually(expected, async || {
            let (status, _, why) = ready().await;
            (status == 503 && why.contains(expected)).then_some(())
        })
        .await;
    }
    assert!(call.await.unwrap().is_ok());
    assert_eq!(eventually("the end", async || process.exit_code()).await, 0);
}
