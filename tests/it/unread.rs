//! A log that nobody reads: calls go on, what is lost is told, and the process ends.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use lambda_policy::local::Lambda;
use serde_json::Value;

use crate::{
    binary::PROGRAM,
    support::{Directory, admin, client, config, eventually, execute, lambda, request},
};

const CALLS: usize = 2_000;

/// A service whose lines were read up to the one that tells where it serves, and are not any more.
struct Unread {
    child: Child,
    log: Option<BufReader<ChildStderr>>,
    address: String,
    admin: String,
    _lambda: Lambda,
    _directory: Directory,
}

impl Unread {
    async fn start() -> Self {
        let (lambda, directory) = (lambda().await, Directory::new());
        let file = directory.write("f.yaml", &config(&lambda, "", "  echo: {function: echo}\n"));
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(file)
            .env("LAMBDA_POLICY_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let serving = log.by_ref().lines().map(|line| told(&line.unwrap())).find(|line| line["message"] == "serving");
        let serving = serving.unwrap();
        let of = |which: &str| serving[which].as_str().unwrap().to_owned();
        let (address, admin) = (of("grpc"), of("admin"));
        Self { child, log: Some(log), address, admin, _lambda: lambda, _directory: directory }
    }

    /// Calls it over some connections, of which each has its answer.
    async fn call(&self, calls: usize) {
        let clients = futures::future::join_all((0..4).map(|_| client(&self.address))).await;
        for _ in 0..calls / 100 {
            let made = (0..100).map(|number| execute(&clients[number % 4], request("echo", "{}")));
            let answered = futures::future::join_all(made);
            let answered = tokio::time::timeout(Duration::from_secs(10), answered).await.expect("none hangs");
            assert!(answered.iter().all(Result::is_ok));
        }
    }

    /// What is lost, by the metric and by the status.
    async fn lost(&self) -> u64 {
        let (_, _, text) = admin(&self.admin, "GET", "/metrics", "*/*", "").await;
        let lost = text.lines().find_map(|line| line.strip_prefix("lambda_policy_telemetry_lines_dropped_total "));
        let (_, _, status) = admin(&self.admin, "GET", "/status", "*/*", "").await;
        let dropped = &told(&status)["telemetry"]["dropped"];
        let count = dropped["lines"]["count"].as_u64().unwrap();
        assert_eq!(lost.unwrap().parse(), Ok(count as f64));
        assert_eq!(dropped["lines"]["last"].is_string(), count > 0);
        assert_eq!(dropped["spans"], Value::Null, "there are none");
        count
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn told(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[tokio::test]
async fn who_does_not_read_the_log_stops_no_call_and_learns_later_what_is_lost() {
    let mut service = Unread::start().await;
    assert_eq!(service.lost().await, 0);
    service.call(CALLS).await;
    let lost = service.lost().await;
    assert!(lost > 100, "{lost}");

    let lines = Arc::new(Mutex::new(Vec::new()));
    let (log, kept) = (service.log.take().unwrap(), Arc::clone(&lines));
    thread::spawn(move || log.lines().for_each(|line| kept.lock().unwrap().push(told(&line.unwrap()))));
    // No call is needed for that.
    let news = eventually("what is lost", async || {
        let lines = lines.lock().unwrap();
        lines
            .iter()
            .find(|line| line["message"] == "log lines are lost, as standard error was not read in time")
            .cloned()
    })
    .await;
    assert_eq!(news["lines"], lost);
    service.call(100).await;
    let written = |lines: &[Value]| lines.iter().filter(|line| line["message"] == "call").count() as u64;
    eventually("all others", async || (written(&lines.lock().unwrap()) + lost >= CALLS as u64 + 100).then_some(()))
        .await;
    let lost = service.lost().await;
    assert_eq!(written(&lines.lock().unwrap()) + lost, CALLS as u64 + 100);
}

#[tokio::test]
async fn a_service_whose_log_is_not_read_stops_in_time() {
    let mut service = Unread::start().await;
    service.call(CALLS).await;
    assert!(service.lost().await > 0);
    let began = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &service.child.id().to_string()]).status().unwrap().success());
    let ended = eventually("its end", async || service.child.try_wait().unwrap()).await;
    assert!(ended.success() && began.elapsed() < Duration::from_secs(8), "{ended} after {:?}", began.elapsed());
}
