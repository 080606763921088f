//! Everything at once, for as long as is wanted: calls, streams, connections, policies, secrets and faults come and go.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;
use lambda_policy::{
    local::Lambda,
    pb::{ExecutePolicyRequest, policy_service_client::PolicyServiceClient},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};

use super::{
    Failed, client_of,
    envoy::send,
    execute,
    proxy::{End, Fault, Proxy, Way},
    request,
};

/// The functions that are called.
const FUNCTIONS: [&str; 4] = ["echo", "slow", "large", "stream"];

/// Callers and what they meet, until they are stopped.
pub(crate) struct Churn {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    lambda: Arc<Lambda>,
    proxy: Arc<Proxy>,
    actors: Vec<JoinHandle<()>>,
}

/// What came of the calls.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub begun: AtomicU64,
    pub answered: AtomicU64,
    /// It was said that the function did not run.
    pub did_not_run: AtomicU64,
    pub may_have_run: AtomicU64,
    /// Nobody said anything: the caller broke off, or its connection.
    pub unknown: AtomicU64,
    pub reloads: AtomicU64,
}

impl Churn {
    /// Calls the service at this address. `reload` is given a new configuration every tenth of a second.
    pub(crate) fn start(
        lambda: Arc<Lambda>,
        proxy: Proxy,
        address: SocketAddr,
        reload: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let (stop, counts, proxy) = (Arc::<AtomicBool>::default(), Arc::<Counts>::default(), Arc::new(proxy));
        let mut actors = Vec::new();
        for number in 0..24_u64 {
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            actors.push(tokio::spawn(async move {
                let random = &mut fastrand::Rng::with_seed(number);
                let mut client = lazy(address);
                while !stop.load(Relaxed) {
                    if random.u8(..) < 20 {
                        client = lazy(address);
                    }
                    one(&client, address, random, &counts).await;
                    sleep(Duration::from_millis(random.u64(..4))).await;
                }
            }));
        }
        actors.push({
            let (stop, counts, lambda, proxy) =
                (Arc::clone(&stop), Arc::clone(&counts), Arc::clone(&lambda), Arc::clone(&proxy));
            tokio::spawn(async move {
                let random = &mut fastrand::Rng::with_seed(99);
                for version in 1.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    if version % 5 == 0 {
                        reload("policies: {echo: {function: 'a b'}}");
                    } else {
                        reload(&configuration(&lambda, &proxy, version));
                        counts.reloads.fetch_add(1, Relaxed);
                    }
                    for _ in 0..2 {
                        harm(&lambda, &proxy, random);
                        sleep(Duration::from_millis(50)).await;
                    }
                }
            })
        });
        Self { stop, counts, lambda, proxy, actors }
    }

    /// Lets every call end, and checks what was said of them against what ran.
    pub(crate) async fn stop(self) -> (Arc<Lambda>, Arc<Counts>, Arc<Proxy>) {
        self.stop.store(true, Relaxed);
        for actor in self.actors {
            actor.await.unwrap();
        }
        self.proxy.arm(Fault::Nothing);
        self.lambda.clear_faults();
        let runs: u64 = FUNCTIONS.iter().map(|function| self.lambda.runs(function)).sum();
        let counts = &self.counts;
        let [answered, maybe, unknown] =
            [&counts.answered, &counts.may_have_run, &counts.unknown].map(|count| count.load(Relaxed));
        assert!(runs >= answered, "{runs} runs, {counts:?}");
        assert!(runs <= answered + maybe + unknown, "what did not run ran, or ran twice: {runs} runs, {counts:?}");
        (self.lambda, self.counts, self.proxy)
    }
}

/// A configuration of the churn's policies. Each version has a key of its own, which Lambda knows by now.
pub(crate) fn configuration(lambda: &Lambda, proxy: &Proxy, version: u32) -> String {
    let (id, secret) = (format!("AKID{version}"), format!("secret-of-{version}"));
    lambda.set_key(&id, secret.clone().into());
    if version > 50 {
        lambda.remove_key(&format!("AKID{}", version - 50));
    }
    let keys = format!("{{access_key_id: {id}, secret_access_key: {secret}}}");
    let role = format!(
        "{{access_key_id: {id}, secret_access_key: {secret}, assume_role: {{role_arn: 'arn:aws:iam::123456789012:role/r{}'}}}}",
        version % 7
    );
    let harmed = format!("endpoint: {{url: 'http://{}'}}", proxy.address);
    let sometimes = if version.is_multiple_of(2) { "  sometimes: {function: echo, breaker: none}\n" } else { "" };
    let policies = format!(
        "  echo: {{function: echo, credentials: {keys}}}\n  slow: {{function: slow, max_in_flight: 4, credentials: {keys}}}\n  \
         large: {{function: large, credentials: {role}}}\n  stream: {{function: stream, idle_timeout: 300ms}}\n  \
         harmed: {{function: echo, timeout: 300ms, breaker: none, credentials: {keys}, {harmed}}}\n  \
         harmed-stream: {{function: stream, timeout: 600ms, idle_timeout: 200ms, breaker: none, {harmed}}}\n  \
         broken: {{function: echo, timeout: 300ms}}\n{sometimes}"
    );
    super::config(lambda, "max_connection_age: 1s, max_in_flight: 64", &policies)
}

/// Another fault in the place of the last.
fn harm(lambda: &Lambda, proxy: &Proxy, random: &mut fastrand::Rng) {
    let ends = [End::Close, End::Reset, End::Stall];
    let end = ends[random.usize(..3)];
    let way = if random.bool() { Way::Up } else { Way::Down };
    proxy.arm(match random.u8(..6) {
        // One that is never read would be idle, and nobody could tell it from one that was forgotten.
        0 if end != End::Stall => Fault::AtOnce(end),
        1 => Fault::Late(Duration::from_millis(20)),
        2 | 3 => Fault::After(way, random.usize(..3000), end),
        4 => Fault::Instead(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", end),
        _ => Fault::Nothing,
    });
    if random.u8(..10) == 0 {
        proxy.end_all(end);
    }
    lambda.clear_faults();
    let faults = ["throttle", "error", "cut", "cut-after", "cut-mid", "not-ready", "slow:50ms", "cut-stream:100"];
    lambda.add_fault(format!("*={}*3", faults[random.usize(..faults.len())]).parse().unwrap());
    lambda.set_clock_ahead(Duration::from_secs(if random.u8(..20) == 0 { 3600 } else { 0 }));
    if random.u8(..10) == 0 {
        lambda.expire_sessions();
    }
}

fn lazy(address: SocketAddr) -> PolicyServiceClient<Channel> {
    client_of(Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy())
}

/// One call of any kind.
async fn one(client: &PolicyServiceClient<Channel>, address: SocketAddr, random: &mut fastrand::Rng, counts: &Counts) {
    counts.begun.fetch_add(1, Relaxed);
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(random.usize(..2000)));
    let call = match random.u8(..12) {
        0 => request("slow", r#"{"ms": 30}"#),
        1 => request("large", r#"{"bytes": 200000}"#),
        2 => request("echo", &format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000))),
        3 => return counts.count(streamed(client, "stream", random).await),
        4 => return counts.count(streamed(client, "harmed-stream", random).await),
        5 => {
            // The caller goes away.
            let call = execute(client, request("slow", r#"{"ms": 1000}"#));
            let ended = timeout(Duration::from_millis(random.u64(..50)), call).await;
            return counts.count(ended.map_err(|_| None).and_then(|ended| ended.map(drop).map_err(Some)));
        }
        6 => {
            let target = "/v1/policies/stream/http/x?chunks=2&every=5";
            let answer = timeout(Duration::from_secs(5), send(address, Method::GET, target, &[], "")).await;
            counts.count(if answer.is_ok_and(|answer| answer.status == 200) { Ok(()) } else { Err(None) });
            return;
        }
        7 => request("missing", "{}"),
        8 => request("sometimes", &text),
        9 => request("broken", &text),
        10 => request("harmed", &text),
        _ => request("echo", &text),
    };
    counts.count(execute(client, call).await.map(drop).map_err(Some));
}

/// A stream that is read to its end, or left in the middle.
async fn streamed(
    client: &PolicyServiceClient<Channel>,
    policy: &str,
    random: &mut fastrand::Rng,
) -> Result<(), Option<Failed>> {
    let call: ExecutePolicyRequest = request(policy, r#"{"chunks": 8, "every": 5, "bytes": 20000}"#);
    let failed = |status| Some(Failed::from(status));
    let mut stream = client.clone().execute_policy_stream(call).await.map_err(failed)?.into_inner();
    let most = if random.bool() { usize::MAX } else { random.usize(..6) };
    for _ in 0..most {
        if stream.message().await.map_err(failed)?.is_none() {
            return Ok(());
        }
    }
    Err(None)
}

impl Counts {
    fn count(&self, ended: Result<(), Option<Failed>>) {
        let count = match ended {
            Ok(()) => &self.answered,
            Err(Some(failed)) => match (failed.reason.as_str(), failed.ran.as_str()) {
                (_, "no") => &self.did_not_run,
                (_, "maybe") => &self.may_have_run,
                _ => &self.unknown,
            },
            Err(None) => &self.unknown,
        };
        count.fetch_add(1, Relaxed);
    }
}

/// For how long, unless `LAMBDA_POLICY_SOAK` says for how many seconds.
pub(crate) fn length() -> Duration {
    let asked = std::env::var("LAMBDA_POLICY_SOAK").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(4))
}

/// How many files a process has open.
pub(crate) fn open_files(process: u32) -> usize {
    std::fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd")).unwrap().count()
}

/// How many KiB of memory a process has.
pub(crate) fn memory(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
