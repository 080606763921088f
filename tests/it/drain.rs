//! The end of a process and of its connections under load: what stops lets every call end, and no call is made twice.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lambda_policy::{local::Lambda, pb::policy_service_client::PolicyServiceClient};
use prost::Message;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    binary::Process,
    lifecycle::http_status,
    support::{
        Directory, Service, channel, client, config,
        envoy::{Application, Envoy, send},
        eventually, lambda,
        load::{Load, Tally},
        proxy::Proxy,
        request,
    },
};

const POLICIES: &str = "  echo: {function: echo}\n  stream: {function: stream}\n  greet: {function: greet, event: http-api}\n  \
                        orders: {function: greet, event: http-api}\n";

/// Two processes at most behind a load balancer that gives each connection to those that are ready, as Kubernetes does.
struct Fleet {
    file: std::path::PathBuf,
    running: Vec<Process>,
    balancer: Proxy,
    _directory: Directory,
}

impl Fleet {
    async fn start(lambda: &Lambda) -> Self {
        let directory = Directory::new();
        let text = config(lambda, "", POLICIES).replace("drain_delay: 0s", "drain_delay: 1s");
        let file = directory.write("f.yaml", &text);
        let (first, second) = tokio::join!(started(&file), started(&file));
        let balancer = Proxy::over(vec![address(&first), address(&second)]).await;
        Self { file, running: vec![first, second], balancer, _directory: directory }
    }

    /// A new process comes, and the oldest goes once that is ready.
    async fn replace_oldest(&mut self) {
        self.running.push(started(&self.file).await);
        let mut oldest = self.running.remove(0);
        let probe = oldest.address("admin").unwrap();
        oldest.signal("TERM");
        let asked = Instant::now();
        eventually("readiness off", async || (http_status(&probe, "/readyz").await == 503).then_some(())).await;
        assert!(asked.elapsed() < Duration::from_millis(800), "at once: {:?}", asked.elapsed());
        self.balancer.turn_to(self.running.iter().map(address).collect());
        assert_eq!(eventually("the end", async || oldest.exit_code()).await, 0, "{}", oldest.said());
        assert!(!oldest.said().contains("calls are cut"));
    }

    /// Clients with connections of their own.
    async fn clients(&self, count: usize) -> Vec<PolicyServiceClient<Channel>> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(client(&self.balancer.address.to_string()).await);
        }
        clients
    }
}

async fn started(file: &Path) -> Process {
    let process = Process::serve(file, &[("LAMBDA_POLICY_LOG", "info")]);
    let probe = eventually("the service", async || process.address("admin")).await;
    eventually("readiness", async || (http_status(&probe, "/readyz").await == 200).then_some(())).await;
    process
}

fn address(process: &Process) -> std::net::SocketAddr {
    process.address("grpc").unwrap().parse().unwrap()
}

fn none_lost(what: &str, tally: &Tally) {
    assert!(tally.is_whole(), "{what}: {} lost of {}: {:?}", tally.failed.len(), tally.answered, tally.failed.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_no_call_and_runs_none_twice() {
    let lambda = lambda().await;
    let mut fleet = Fleet::start(&lambda).await;
    let clients = fleet.clients(4).await;
    let load = Load::of([clients.clone(), clients.clone()].concat(), "echo");
    let streams = Load::of_streams(clients, "stream");
    load.more(100).await;
    for _ in 0..2 {
        fleet.replace_oldest().await;
    }
    load.more(100).await;
    let (calls, streams) = (load.stop().await, streams.stop().await);
    none_lost("calls", &calls);
    none_lost("streams", &streams);
    assert_eq!(lambda.runs("echo"), calls.answered, "each call ran once");
    assert_eq!(lambda.runs("stream"), streams.answered, "each stream ran once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_envoy_loses_no_request() {
    let lambda = lambda().await;
    let mut fleet = Fleet::start(&lambda).await;
    let application = Application::start().await;
    let envoy = Envoy::start("ext_proc.yaml", &fleet.balancer.address.to_string(), &application, &[]).await;
    let at = envoy.address;
    eventually("the first answer", async || (envoy.get("/orders").await.status == 200).then_some(())).await;
    let before = lambda.runs("greet");
    let load = Load::start(vec![at; 4], |at, _| async move {
        let answer = send(at, Method::GET, "/orders", &[], "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Ok(())
    });
    load.more(50).await;
    for _ in 0..2 {
        fleet.replace_oldest().await;
    }
    load.more(50).await;
    let tally = load.stop().await;
    assert_eq!(lambda.runs("greet") - before, tally.answered, "each request ran once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_reach_their_age_lose_no_call() {
    let lambda = lambda().await;
    let service = Service::start_with(&config(&lambda, "max_connection_age: 1s", POLICIES), None).await;
    let proxy = Proxy::start(&service.address).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&proxy.address.to_string()).await);
    }
    let load = Load::of([clients.clone(), clients.clone()].concat(), "echo");
    let streams = Load::of_streams(clients, "stream");
    tokio::time::sleep(Duration::from_millis(3500)).await;
    let (calls, streams) = (load.stop().await, streams.stop().await);
    none_lost("calls", &calls);
    none_lost("streams", &streams);
    assert_eq!((lambda.runs("echo"), lambda.runs("stream")), (calls.answered, streams.answered));
    assert!((12..=24).contains(&proxy.accepted()), "each of four is made anew three times: {}", proxy.accepted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_fails_its_calls_and_none_runs_twice() {
    let lambda = lambda().await;
    let mut fleet = Fleet::start(&lambda).await;
    let clients = fleet.clients(4).await;
    let load = Load::of([clients.clone(), clients.clone()].concat(), "echo");
    for _ in 0..2 {
        load.more(100).await;
        let killed = fleet.running.remove(0);
        killed.signal("KILL");
        fleet.running.push(started(&fleet.file).await);
        fleet.balancer.turn_to(fleet.running.iter().map(address).collect());
    }
    load.more(100).await;
    let tally = load.stop().await;
    for failed in &tally.failed {
        assert!(matches!(failed.code, Code::Unavailable | Code::Unknown | Code::Cancelled), "{failed:?}");
        assert_eq!(failed.reason, "", "nobody was left to say anything: {failed:?}");
    }
    // Those in flight may have run; whatever was sent again had never left.
    let (runs, failed) = (lambda.runs("echo"), tally.failed.len() as u64);
    assert!(
        (tally.answered..=tally.answered + failed).contains(&runs),
        "{runs} runs of {} and {failed}",
        tally.answered
    );
    let mut bodies = HashMap::<_, usize>::new();
    for request in lambda.requests() {
        *bodies.entry(request.body).or_default() += 1;
    }
    assert!(bodies.values().all(|count| *count == 1), "each call was sent once");
}

#[tokio::test]
async fn a_call_that_is_still_received_when_the_service_stops_is_served_and_a_watch_ends() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let mut process = started(&directory.write("f.yaml", &config(&lambda, "", POLICIES))).await;
    let stream = tokio::net::TcpStream::connect(address(&process)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let message = request("echo", r#"{"n":1}"#).encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&message);
    let (pieces, body) = tokio::sync::mpsc::channel(1);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(body));
    let call = http::Request::post("http://x/lambdapolicy.v1.PolicyService/ExecutePolicy")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let (first, second) = framed.split_at(7);
    let piece = |bytes: &[u8]| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(bytes)));
    pieces.send(piece(first)).await.unwrap();
    let answer = tokio::spawn(sender.send_request(call));

    let mut health = HealthClient::new(channel(&address(&process).to_string()).await);
    let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    process.signal("TERM");
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    // By now everybody has heard of GOAWAY.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(process.exit_code(), None, "the call is in flight");
    pieces.send(piece(second)).await.unwrap();
    drop(pieces);
    let answer = answer.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(lambda.runs("echo"), 1);
    connection.await.unwrap().unwrap();
    assert_eq!(eventually("the end", async || process.exit_code()).await, 0);
}

/// Clients of HTTP/1.1 that keep their connections until an answer says that it is the last one, and try one address after
/// the other to connect.
async fn keep_alive(
    addresses: &[std::net::SocketAddr],
    until: &std::sync::atomic::AtomicBool,
) -> (u64, u64, Vec<String>) {
    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::TcpStream,
    };
    const CALL: &[u8] = b"GET /v1/policies/greet/http/x HTTP/1.1\r\nhost: x\r\n\r\n";
    let (mut answered, mut last, mut lost, mut open) = (0, 0, Vec::new(), None);
    while !until.load(std::sync::atomic::Ordering::Relaxed) {
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => {
                let mut found = None;
                for address in addresses {
                    found = found.or(TcpStream::connect(address).await.ok());
                }
                BufReader::new(found.expect("one of them serves"))
            }
        };
        let call = async {
            connection.write_all(CALL).await?;
            let (mut length, mut close, mut line) = (0, false, String::new());
            while connection.read_line(&mut line).await? > 2 {
                let lower = line.to_ascii_lowercase();
                length = lower.strip_prefix("content-length: ").map_or(length, |text| text.trim().parse().unwrap());
                close |= lower.trim() == "connection: close";
                line.clear();
            }
            let whole = !line.is_empty();
            connection.read_exact(&mut vec![0; length]).await?;
            if whole { Ok(close) } else { Err(std::io::Error::other("closed before an answer")) }
        };
        match call.await {
            Ok(close) => {
                answered += 1;
                last += u64::from(close);
                open = (!close).then_some(connection);
            }
            Err(error) => lost.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (answered, last, lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_http_1_lose_no_call_when_a_process_ends_or_a_connection_is_old() {
    let lambda = lambda().await;
    let directory = Directory::new();
    let text = config(&lambda, "max_connection_age: 1s", POLICIES).replace("drain_delay: 0s", "drain_delay: 500ms");
    let file = directory.write("f.yaml", &text);
    let (mut first, second) = tokio::join!(started(&file), started(&file));
    let addresses = [address(&first), address(&second)];
    let until = std::sync::atomic::AtomicBool::new(false);
    let clients = futures::future::join_all((0..16).map(|_| keep_alive(&addresses, &until)));
    let restart = async {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        first.signal("TERM");
        assert_eq!(eventually("the end", async || first.exit_code()).await, 0, "{}", first.said());
        tokio::time::sleep(Duration::from_millis(200)).await;
        until.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (ended, ()) = tokio::join!(clients, restart);
    let mut answers = 0;
    for (answered, last, lost) in ended {
        assert!(lost.is_empty(), "{} of {answered} lost: {lost:?}", lost.len());
        assert!(last >= 2, "old connections end with an answer that says so: {last}");
        answers += answered;
    }
    assert_eq!(lambda.runs("greet"), answers, "each call ran once");
}
