//! Start, reload and stop, and the commands, as an operator meets them.

use std::time::Duration;

use lambda_policy::{config::Config, local::Lambda};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    binary::{Process, run},
    support::{Directory, channel, client, config, eventually, execute, lambda, request},
};

async fn served(process: &mut Process) -> String {
    eventually("the service", async || process.address("grpc")).await
}

#[tokio::test]
async fn a_stop_turns_health_off_and_lets_the_call_in_flight_end() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let text = config(&lambda, "", "  slow: {function: slow}\n").replace("drain_delay: 0s", "drain_delay: 1s");
    let file = directory.write("f.yaml", &text);
    let mut process = Process::serve(&file, &[]);
    let address = served(&mut process).await;
    let probe = process.address("admin").unwrap();
    eventually("readiness", async || (http_status(&probe, "/readyz").await == 200).then_some(())).await;

    let caller = client(&address).await;
    let call = tokio::spawn(async move { execute(&caller, request("slow", r#"{"ms": 2000}"#)).await });
    eventually("the call in flight", async || (lambda.runs("slow") == 1).then_some(())).await;
    let mut health = HealthClient::new(channel(&address).await);
    process.signal("TERM");
    eventually("NOT_SERVING", async || {
        let answer = health.check(HealthCheckRequest { service: String::new() }).await.ok()?;
        (answer.into_inner().status() == ServingStatus::NotServing).then_some(())
    })
    .await;
    assert_eq!(http_status(&probe, "/readyz").await, 503);
    assert_eq!(http_status(&probe, "/livez").await, 200);
    assert!(call.await.unwrap().is_ok(), "the call in flight ended well");
    assert_eq!(eventually("the end", async || process.exit_code()).await, 0);
}

#[tokio::test]
async fn calls_that_do_not_end_in_time_do_not_keep_the_service_from_stopping() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let text = config(&lambda, "drain_timeout: 300ms", "  slow: {function: slow}\n");
    let mut process = Process::serve(&directory.write("f.yaml", &text), &[]);
    let caller = client(&served(&mut process).await).await;
    let call = tokio::spawn(async move { execute(&caller, request("slow", r#"{"ms": 60000}"#)).await });
    eventually("the call in flight", async || (lambda.runs("slow") == 1).then_some(())).await;
    process.signal("TERM");
    assert_eq!(eventually("the end", async || process.exit_code()).await, 0);
    let failed = call.await.unwrap().unwrap_err();
    assert_eq!((failed.reason.as_str(), failed.ran.as_str()), ("LAMBDA_FAILED", "maybe"));
    assert!(failed.status.message().contains("the service stopped"), "{}", failed.status.message());
}

#[tokio::test]
async fn a_call_that_still_waits_for_credentials_at_the_end_did_not_run() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let keys = format!("access_key_id: {}, secret_access_key: {}", Lambda::KEY_ID, Lambda::SECRET);
    let role = format!("{{{keys}, assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/r'}}}}");
    let text = config(&lambda, "drain_timeout: 300ms", &format!("  role: {{function: echo, credentials: {role}}}\n"));
    lambda.set_sts_silent(true);
    let mut process = Process::serve(&directory.write("f.yaml", &text), &[]);
    let caller = client(&served(&mut process).await).await;
    let call = tokio::spawn(async move { execute(&caller, request("role", "{}")).await });
    eventually("the call of STS", async || (!lambda.requests().is_empty()).then_some(())).await;
    process.signal("TERM");
    assert_eq!(eventually("the end", async || process.exit_code()).await, 0);
    let failed = call.await.unwrap().unwrap_err();
    assert_eq!((failed.reason.as_str(), failed.ran.as_str()), ("SHUTTING_DOWN", "no"));
}

#[tokio::test]
async fn a_refused_file_takes_effect_once_what_it_lacked_is_there() {
    let lambda = lambda().await;
    lambda.set_key("AKIDNEW", "secret-new".into());
    let directory = Directory::new();
    let file = directory.write("f.yaml", &config(&lambda, "", "  echo: {function: echo}\n"));
    let mut process = Process::serve(&file, &[]);
    let caller = client(&served(&mut process).await).await;
    let keys = "{access_key_id: AKIDNEW, secret_access_key: {file: newsec}}";
    let policies = format!("  new: {{function: echo, credentials: {keys}}}\n");
    directory.write("f.yaml", &config(&lambda, "max_in_flight: 7", &policies));
    eventually("the complaint", async || process.said().contains("newsec cannot be read").then_some(())).await;
    execute(&caller, request("echo", "{}")).await.unwrap();
    directory.write("newsec", "secret-new\n");
    eventually("the new policy", async || execute(&caller, request("new", "{}")).await.ok()).await;
    assert!(execute(&caller, request("echo", "{}")).await.is_err(), "the old one is gone with the old file");
    eventually("what is said of a restart", async || {
        let said = process.said();
        let line = said.lines().find(|line| line.contains("need a restart"))?;
        line.contains("\"server.max_in_flight\"").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_changes_while_the_service_starts_is_noticed() {
    let lambda = lambda().await;
    let directory = Directory::new();
    directory.write("secret", "old");
    let keys = format!("{{access_key_id: {}, secret_access_key: {{file: secret}}}}", Lambda::KEY_ID);
    let text = config(&lambda, "", &format!("  echo: {{function: echo, credentials: {keys}}}\n"));
    let file = directory.write("f.yaml", &text);
    let config = Config::load(&file).unwrap();
    directory.write("secret", Lambda::SECRET);
    let service = crate::support::Service::run(config, Some(file)).await;
    eventually("the new secret", async || service.json("echo", "{}").await.ok()).await;
}

#[tokio::test]
async fn a_variables_last_line_break_is_no_part_of_the_secret() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let keys = "{access_key_id: {env: ITS_ID}, secret_access_key: {env: ITS_SECRET}}";
    let text = config(&lambda, "", &format!("  echo: {{function: echo, credentials: {keys}}}\n"));
    let (id, secret) = (format!("{}\n", Lambda::KEY_ID), format!("{}\r\n", Lambda::SECRET));
    let environment = [("ITS_ID", &*id), ("ITS_SECRET", &*secret)];
    let mut process = Process::serve(&directory.write("f.yaml", &text), &environment);
    let caller = client(&served(&mut process).await).await;
    execute(&caller, request("echo", "{}")).await.unwrap();
}

#[tokio::test]
async fn sighup_reads_the_file_again() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let file = directory.write("f.yaml", &config(&lambda, "", "  echo: {function: echo}\n"));
    let mut process = Process::serve(&file, &[]);
    let caller = client(&served(&mut process).await).await;
    execute(&caller, request("echo", "{}")).await.unwrap();
    directory.write("f.yaml", &config(&lambda, "", "  echo: {function: echo}\n  second: {function: echo}\n"));
    process.signal("HUP");
    eventually("the second policy", async || execute(&caller, request("second", "{}")).await.ok()).await;
    directory.write("f.yaml", "policies: {second: 1}");
    process.signal("HUP");
    eventually("the complaint", async || {
        process.said().contains("policies.second: is a single value: expected a map").then_some(())
    })
    .await;
    execute(&caller, request("second", "{}")).await.unwrap();
}

#[tokio::test]
async fn a_pipe_in_a_files_place_is_told_and_keeps_neither_reload_nor_the_end_waiting() {
    let lambda = lambda().await;
    let directory = Directory::new();
    directory.write("secret", Lambda::SECRET);
    let keys = format!("{{access_key_id: {}, secret_access_key: {{file: secret}}}}", Lambda::KEY_ID);
    let policies = |name: &str| config(&lambda, "", &format!("  {name}: {{function: echo, credentials: {keys}}}\n"));
    let file = directory.write("f.yaml", &policies("first"));
    let mut process = Process::serve(&file, &[]);
    let caller = client(&served(&mut process).await).await;
    let admin = process.address("admin").unwrap();
    let replace_by_pipe = |name: &str| {
        let path = directory.0.join(name);
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    };
    let told = async |process: &Process, what: &str| {
        let expected = format!("{what} cannot be read: it is a pipe: expected a regular file");
        eventually(&expected, async || process.said().contains(&expected).then_some(())).await;
    };
    for (pipe, what, text, policy) in
        [("f.yaml", "f.yaml:", policies("second"), "second"), ("secret", "secret", Lambda::SECRET.to_owned(), "second")]
    {
        let path = replace_by_pipe(pipe);
        process.signal("HUP");
        told(&process, what).await;
        execute(&caller, request(if pipe == "secret" { "second" } else { "first" }, "{}")).await.unwrap();
        std::fs::remove_file(path).unwrap();
        directory.write(pipe, &text);
        process.signal("HUP");
        eventually("the repaired file", async || execute(&caller, request(policy, "{}")).await.ok()).await;
    }
    let (_, _, metrics) = crate::support::admin(&admin, "GET", "/metrics", "*/*", "").await;
    let failures = metrics.lines().find(|line| line.starts_with("lambda_policy_config_reload_failures_total"));
    let failures = failures.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap();
    assert!(failures >= 2.0, "{failures}");
    replace_by_pipe("f.yaml");
    process.signal("HUP");
    process.signal("TERM");
    assert_eq!(eventually("the end", async || process.exit_code()).await, 0);
}

#[tokio::test]
async fn the_default_chain_is_the_services_own_identity() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let role = "{assume_role: {role_arn: 'arn:aws:iam::123456789012:role/r'}}";
    let policies =
        format!("  own: {{function: echo, credentials: default}}\n  role: {{function: echo, credentials: {role}}}\n");
    let file = directory.write("f.yaml", &config(&lambda, "", &policies));
    let environment = [("AWS_ACCESS_KEY_ID", Lambda::KEY_ID), ("AWS_SECRET_ACCESS_KEY", Lambda::SECRET)];
    let mut process = Process::serve(&file, &environment);
    let caller = client(&served(&mut process).await).await;
    execute(&caller, request("own", "{}")).await.unwrap();
    assert_eq!(lambda.requests().last().unwrap().signed_by.as_deref(), Some(Lambda::KEY_ID));
    execute(&caller, request("role", "{}")).await.unwrap();
    assert!(lambda.requests().last().unwrap().signed_by.as_deref().unwrap().starts_with("ASIA"));
}

#[test]
fn a_wrong_configuration_is_told_with_line_and_column_and_nothing_starts() {
    let directory = Directory::new();
    let file = directory.write("f.yaml", "server: {listen: here}\npolices: {}\n");
    let file = file.to_str().unwrap();
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", file]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("{file}:1:18: server.listen: `here` is not an address")), "{said}");
        assert!(said.contains(&format!("{file}:2:1: polices: is not a setting: did you mean `policies`?")), "{said}");
    }
    let output = run(&["check", "--config", "/no/such/file.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/no/such/file.yaml: cannot be read"));
}

#[test]
fn a_port_in_use_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let directory = Directory::new();
    for (setting, text) in [
        ("server.listen", format!("server: {{listen: '{address}'}}\nadmin: {{listen: '127.0.0.1:0'}}\n")),
        ("admin.listen", format!("server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '{address}'}}\n")),
    ] {
        let file = directory.write("f.yaml", &text);
        let output = run(&["serve", "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{setting}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("{setting}: {address} cannot be listened on")), "{said}");
    }
}

#[tokio::test]
async fn call_prints_the_answer_and_exits_with_1_on_an_error() {
    let lambda = lambda().await;
    let service =
        crate::support::Service::start(&lambda, "  greet: {function: greet}\n  fail: {function: fail, log: tail}\n")
            .await;
    let directory = Directory::new();
    let event = directory.write("event.json", r#"{"name": "Ada"}"#);
    let data = format!("@{}", event.display());
    let address = service.address.clone();
    let call = async |arguments: &[&str]| {
        let arguments: Vec<_> =
            ["call"].iter().chain(arguments).chain(&["--address", &address]).map(|a| (*a).to_owned()).collect();
        tokio::task::spawn_blocking(move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
            .await
            .unwrap()
    };
    let output = call(&["greet", "--data", &data]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"message\":\"hello, Ada\"}\n");

    let output = call(&["fail"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the function failed (unhandled): OrderError") && said.contains("START RequestId"), "{said}");

    let output = call(&["nobody", "--data", "{"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("INVALID_REQUEST (InvalidArgument)") && said.contains("  json: is not JSON"), "{said}");
    let closed = ["call", "greet", "--address", "127.0.0.1:1"];
    let output = tokio::task::spawn_blocking(move || run(&closed)).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "nobody listens there, which is no fault of the command");
    let output = call(&["nobody"]).await;
    assert!(String::from_utf8(output.stderr).unwrap().contains("POLICY_NOT_FOUND (NotFound)"));
}

#[tokio::test]
async fn dev_takes_over_a_changed_file_and_still_calls_its_own_lambda() {
    let directory = Directory::new();
    let text = "server: {listen: '127.0.0.1:0', drain_delay: 0s}\nadmin: {listen: '127.0.0.1:0'}\ndefaults: {region: us-east-1, \
                credentials: default}\npolicies:\n  greet: {function: greet}\n";
    let file = directory.write("f.yaml", text);
    let mut process = Process::start("dev", &file, &[]);
    let caller = client(&served(&mut process).await).await;
    execute(&caller, request("greet", "{}")).await.unwrap();
    directory.write("f.yaml", &format!("{text}  echo: {{function: echo}}\n"));
    eventually("the new policy", async || execute(&caller, request("echo", "{}")).await.ok()).await;
    directory.write("f.yaml", &format!("{text}  echo: 1\n"));
    process.signal("HUP");
    eventually("the refusal", async || process.said().contains("configuration not reloaded").then_some(())).await;
    execute(&caller, request("echo", "{}")).await.unwrap();
}

/// The lines of the log with this message.
fn lines(process: &Process, message: &str) -> Vec<serde_json::Value> {
    let said = process.said();
    let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

#[tokio::test]
async fn the_log_says_why_an_output_is_malformed_what_a_function_threw_and_why_a_breaker_opened() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let policies = "  garbled: {function: echo, event: alb}\n  fail: {function: fail}\n  \
                    broken: {function: large, breaker: {failures: 2, open: 60s}}\n";
    let mut process = Process::serve(&directory.write("f.yaml", &config(&lambda, "", policies)), &[]);
    let caller = client(&served(&mut process).await).await;
    let http = lambda_policy::pb::HttpRequest { method: "GET".into(), path: "/".into(), ..Default::default() };
    let input = Some(lambda_policy::pb::execute_policy_request::Input::Http(http));
    let garbled = lambda_policy::pb::ExecutePolicyRequest { input, ..request("garbled", "") };
    execute(&caller, garbled).await.unwrap();
    execute(&caller, request("fail", "{}")).await.unwrap();
    lambda.add_fault("large=error".parse().unwrap());
    for _ in 0..2 {
        execute(&caller, request("broken", "{}")).await.unwrap_err();
    }
    let opens = eventually("the line", async || lines(&process, "a breaker opens").pop()).await;
    assert_eq!((&opens["reason"], &opens["policy"]), (&"LAMBDA_FAILED".into(), &"broken".into()), "{opens}");
    let calls = eventually("the calls", async || Some(lines(&process, "call")).filter(|calls| calls.len() == 4)).await;
    let by = |policy: &str| calls.iter().find(|call| call["policy"] == policy).unwrap();
    let (garbled, fail) = (by("garbled"), by("fail"));
    assert!(garbled["error"].as_str().unwrap().starts_with("statusCode is missing"), "{garbled}");
    assert_eq!(garbled.get("error_type"), None);
    assert_eq!((&fail["error_type"], fail.get("error")), (&"OrderError".into(), None), "{fail}");
    assert!(!process.said().contains("the order cannot be placed"), "what the function says is its payload");
}

#[test]
fn the_demo_shows_that_every_answer_is_right() {
    let output = run(&["demo"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("WRONG"));
}

#[test]
fn the_schema_is_json() {
    let output = run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["properties"]["policies"]["type"], "object");
}

pub(crate) async fn http_status(address: &str, path: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
