//! Three replicas, each a process at a loopback address of its own, behind the real Envoy with
//! `deploy/gateways/envoy/cluster.yaml`: calls by ext_proc and by the contract, while replicas restart, die, hang, are slow,
//! and get other policies and keys.
//!
//! A call has an id, which is in the function's event. So it is known of each how often its function ran.

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use lambda_policy::{
    local::{Builtin, Function, Lambda, Options},
    pb::policy_service_client::PolicyServiceClient,
};
use tokio::{
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tonic::transport::Channel;

use crate::{
    binary::Process,
    support::{
        Directory, channel, client_of, config,
        envoy::{Application, Envoy},
        eventually, lambda_with, request,
    },
};

/// Calls in a second by each of the two ways.
const RATE: u32 = 60;
/// How long a call may take: longer than any disturbance that a replica survives.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a function takes: there are calls in flight whenever something happens.
const FUNCTION: &str = "*=slow-answer:30ms";
const OLD: (&str, &str) = (Lambda::KEY_ID, Lambda::SECRET);
const NEW: (&str, &str) = ("AKIDNEW", "the-secret-after-the-rotation");

/// The way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    ExtProc,
    Contract,
}

/// A call that has ended.
#[derive(Debug)]
struct Call {
    way: Way,
    id: String,
    begun: Instant,
    took: Duration,
    /// Why it was lost.
    lost: Option<String>,
}

/// What became of the calls of one way.
#[derive(Debug, Default)]
struct Tally {
    calls: usize,
    lost: usize,
    /// Of those that were lost.
    lost_but_ran: usize,
    twice: usize,
    slowest: Duration,
}

struct Replica {
    process: Process,
    address: SocketAddr,
    file: PathBuf,
}

struct Cluster {
    lambda: Lambda,
    directory: Directory,
    replicas: Vec<Replica>,
    application: Application,
    envoy: Envoy,
    table: Vec<String>,
    numbers: Arc<AtomicU64>,
}

/// The same port at three addresses, as a Service has it.
fn addresses() -> [SocketAddr; 3] {
    let all = |port| [2, 3, 4].map(|n| SocketAddr::from(([127, 0, 0, n], port)));
    let free = || {
        let port = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port();
        all(port).iter().all(|address| TcpListener::bind(address).is_ok()).then(|| all(port))
    };
    (0..100).find_map(|_| free()).expect("a port that is free at three addresses")
}

fn endpoints(addresses: &[SocketAddr]) -> String {
    let endpoint = |address: &SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!("              - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}\n")
    };
    addresses.iter().map(endpoint).collect::<String>().trim_end().to_owned()
}

/// Policies that differ in the function for HTTP clients.
fn text(lambda: &Lambda, address: SocketAddr, function: &str) -> String {
    let policies = format!("  greet: {{function: {function}, event: http-api}}\n  echo: {{function: echo}}\n");
    let keys = format!("access_key_id: {}, secret_access_key: {}", OLD.0, OLD.1);
    config(lambda, "drain_timeout: 10s, workers: 1, load_reports: per-call", &policies)
        .replace("drain_delay: 0s", "drain_delay: 2s")
        .replacen("127.0.0.1:0", &address.to_string(), 1)
        .replace(&keys, "access_key_id: {file: id}, secret_access_key: {file: secret}")
}

async fn start(file: PathBuf, address: SocketAddr) -> Replica {
    let process = Process::serve(&file, &[("LAMBDA_POLICY_LOG", "warn,lambda_policy::app=info")]);
    let replica = Replica { process, address, file };
    eventually("a replica", async || tokio::net::TcpStream::connect(address).await.ok()).await;
    replica
}

impl Cluster {
    async fn start() -> Self {
        let mut options = Options::default();
        options.functions.extend(["hello-1", "hello-2"].map(|name| Function::builtin(name, Builtin::Greet)));
        let lambda = lambda_with(options).await;
        lambda.add_fault(FUNCTION.parse().unwrap());
        lambda.set_key(NEW.0, NEW.1.into());
        let directory = Directory::new();
        directory.write("id", OLD.0);
        directory.write("secret", OLD.1);
        let mut replicas = Vec::new();
        for (n, address) in addresses().into_iter().enumerate() {
            let file = directory.write(&format!("{n}.yaml"), &text(&lambda, address, "hello-1"));
            replicas.push(start(file, address).await);
        }
        let application = Application::start().await;
        let envoy = envoy(&replicas, &application, &[]).await;
        let numbers = Arc::default();
        let cluster = Self { lambda, directory, replicas, application, envoy, table: Vec::new(), numbers };
        cluster.warm(cluster.envoy.address).await;
        cluster
    }

    /// Waits until Envoy has found every replica healthy.
    async fn warm(&self, envoy: SocketAddr) {
        let client = client_of(channel(&envoy.to_string()).await);
        eventually("an answer", async || client.clone().execute_policy(request("echo", "{}")).await.ok()).await;
        sleep(Duration::from_millis(500)).await;
    }

    /// Calls through an Envoy both ways while `disturb` does what it does and for at least so long.
    async fn load<T>(&self, envoy: SocketAddr, least: Duration, disturb: impl Future<Output = T>) -> (Vec<Call>, T) {
        let contract = client_of(channel(&envoy.to_string()).await);
        let http: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut calls = JoinSet::new();
        let mut ticks = interval(Duration::from_secs(1) / RATE);
        let load = async {
            loop {
                ticks.tick().await;
                let id = format!("call-{}.", self.numbers.fetch_add(1, Ordering::Relaxed));
                calls.spawn(by_contract(contract.clone(), id.clone() + "c"));
                calls.spawn(by_ext_proc(http.clone(), envoy, id + "e"));
            }
        };
        let disturbed = async {
            let (disturbed, ()) = tokio::join!(disturb, sleep(least));
            disturbed
        };
        let disturbed = tokio::select! {
            disturbed = disturbed => disturbed,
            () = load => unreachable!("it goes on"),
        };
        (calls.join_all().await, disturbed)
    }

    /// Counts, and adds a line for each way to the table.
    fn tally(&mut self, what: &str, calls: &[Call]) -> BTreeMap<Way, Tally> {
        let mut runs: HashMap<String, usize> = HashMap::new();
        for request in self.lambda.requests().into_iter().filter(|request| request.signed_by.is_some()) {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let id = body.split("call-").nth(1).and_then(|rest| rest.get(..rest.find(['.'])? + 2));
            *runs.entry(format!("call-{}", id.unwrap_or_default())).or_default() += 1;
        }
        let mut tallies: BTreeMap<Way, Tally> = BTreeMap::new();
        for call in calls {
            let ran = runs.get(&call.id).copied().unwrap_or_default();
            let tally = tallies.entry(call.way).or_default();
            tally.calls += 1;
            tally.lost += usize::from(call.lost.is_some());
            tally.lost_but_ran += usize::from(call.lost.is_some() && ran > 0);
            tally.twice += usize::from(ran > 1);
            tally.slowest = tally.slowest.max(call.took);
            assert!(ran > 0 || call.lost.is_some(), "{what}: answered without a run: {call:?}");
        }
        for (way, Tally { calls, lost, lost_but_ran, twice, slowest }) in &tallies {
            self.table.push(format!(
                "{what:<28} {:<9} {calls:>5} {lost:>5} {lost_but_ran:>9} {twice:>6} {:>8} ms",
                format!("{way:?}"),
                slowest.as_millis()
            ));
        }
        assert!(tallies.values().all(|tally| tally.twice == 0), "{what}: {tallies:?}");
        tallies
    }

    /// Starts a replica again at its address, with its file.
    async fn restart(&mut self, n: usize) {
        let Replica { address, file, .. } = &self.replicas[n];
        self.replicas[n] = start(file.clone(), *address).await;
    }
}

async fn envoy(replicas: &[Replica], application: &Application, replaced: &[(&str, &str)]) -> Envoy {
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    let (all, port) = (endpoints(&addresses), addresses[0].port());
    let one = format!(
        "              - endpoint: {{address: {{socket_address: {{address: lambda-policy, port_value: {port}}}}}}}"
    );
    let replaced: Vec<_> = [(&*one, &*all), ("interval: 1s", "interval: 0.2s"), ("- timeout: 1s", "- timeout: 0.5s")]
        .into_iter()
        .chain(replaced.iter().copied())
        .collect();
    Envoy::start("cluster.yaml", &addresses[0].to_string(), application, &replaced).await
}

async fn by_contract(mut client: PolicyServiceClient<Channel>, id: String) -> Call {
    let begun = Instant::now();
    let answered = timeout(PATIENCE, client.execute_policy(request("echo", &format!(r#"{{"id": "{id}"}}"#)))).await;
    let lost = match answered {
        Ok(Ok(_)) => None,
        Ok(Err(status)) => Some(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Some("no answer".to_owned()),
    };
    Call { way: Way::Contract, id, begun, took: begun.elapsed(), lost }
}

async fn by_ext_proc(client: Client<HttpConnector, Full<Bytes>>, envoy: SocketAddr, id: String) -> Call {
    let begun = Instant::now();
    let call = http::Request::get(format!("http://{envoy}/greet?name={id}")).body(Full::default()).unwrap();
    let answer = timeout(PATIENCE, async {
        let answer = client.request(call).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body = String::from_utf8_lossy(&body);
        (status == 200 && body.contains(&id)).then_some(()).ok_or_else(|| format!("{status}: {body}"))
    });
    let lost = answer.await.unwrap_or_else(|_| Err("no answer".to_owned())).err();
    Call { way: Way::ExtProc, id, begun, took: begun.elapsed(), lost }
}

fn none_lost(what: &str, calls: &[Call]) {
    let lost: Vec<_> = calls.iter().filter(|call| call.lost.is_some()).collect();
    assert!(lost.is_empty(), "{what}: {lost:?}");
}

#[expect(clippy::print_stdout, reason = "the table of what was counted")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_that_may_be_sent_again_is_lost_and_none_runs_twice() {
    let begun = Instant::now();
    let mut cluster = Cluster::start().await;
    let address = cluster.envoy.address;

    // Each replica is asked to stop, ends its calls, and comes back.
    for n in 0..cluster.replicas.len() {
        let Replica { mut process, address: own, file } = cluster.replicas.remove(n);
        let again = async move {
            process.signal("TERM");
            assert_eq!(eventually("the end of a replica", async || process.exit_code()).await, 0);
            let replica = start(file, own).await;
            // What minReadySeconds is for: Envoy looks five times a second.
            sleep(Duration::from_millis(600)).await;
            replica
        };
        let (calls, replica) = cluster.load(address, Duration::ZERO, again).await;
        cluster.replicas.insert(n, replica);
        let what = format!("rolling restart, {} of 3", n + 1);
        cluster.tally(&what, &calls);
        none_lost(&what, &calls);
    }

    // One replica dies with the calls that it has.
    let dying = &cluster.replicas[0].process;
    let (calls, killed) = cluster
        .load(address, Duration::from_secs(2), async {
            sleep(Duration::from_millis(500)).await;
            dying.signal("KILL");
            Instant::now()
        })
        .await;
    cluster.tally("a replica is killed", &calls);
    for call in calls.iter().filter(|call| call.lost.is_some()) {
        // Only those that it may have taken: they were begun before, or before Envoy heard of it.
        assert!(call.begun < killed + Duration::from_secs(1), "{call:?}");
        let why = call.lost.as_deref().unwrap_or_default();
        assert!(call.way == Way::ExtProc || why.contains("connection termination"), "{call:?}");
    }
    let lost = calls.iter().filter(|call| call.lost.is_some()).count();
    assert!(lost <= RATE as usize, "{lost} are lost, though about two are in flight in each replica");
    cluster.restart(0).await;
    cluster.warm(address).await;

    // One replica hangs and comes back: what it was sent waits, and everything else goes elsewhere.
    let hanging = &cluster.replicas[1].process;
    let stop = Duration::from_millis(2500);
    let (calls, ()) = cluster
        .load(address, Duration::from_secs(3), async {
            hanging.signal("STOP");
            sleep(stop).await;
            hanging.signal("CONT");
        })
        .await;
    cluster.tally("a replica hangs for 2.5 s", &calls);
    none_lost("a replica hangs", &calls);
    let caught = calls.iter().filter(|call| call.took > Duration::from_secs(1)).count();
    assert!(caught > 0, "some were sent to it before Envoy noticed");
    cluster.table.push(format!("    {caught} of {} calls waited for it", calls.len()));
    cluster.warm(address).await;

    // All replicas get another policy and other keys, of which the old ones are refused afterwards.
    let change = async {
        sleep(Duration::from_millis(500)).await;
        for (n, replica) in cluster.replicas.iter().enumerate() {
            cluster.directory.write(&format!("{n}.yaml"), &text(&cluster.lambda, replica.address, "hello-2"));
        }
        cluster.directory.write("id", NEW.0);
        cluster.directory.write("secret", NEW.1);
        // The files are looked at once a second, and read when they rest.
        eventually("the new keys everywhere", async || {
            let requests = cluster.lambda.requests();
            let mut last = requests.iter().rev().take(60);
            last.all(|request| request.signed_by.as_deref() == Some(NEW.0)).then_some(())
        })
        .await;
        cluster.lambda.remove_key(OLD.0);
        sleep(Duration::from_millis(500)).await;
    };
    let (calls, ()) = cluster.load(address, Duration::ZERO, change).await;
    cluster.tally("other policies and keys", &calls);
    none_lost("other policies and keys", &calls);
    assert!(cluster.lambda.runs("hello-2") > 0);

    // One replica takes its calls to a Lambda that is slow: by turns it gets its third, by weight next to nothing.
    let slow = lambda_with(Options::default()).await;
    slow.set_key(NEW.0, NEW.1.into());
    slow.add_fault("*=slow-answer:300ms".parse().unwrap());
    let file = cluster.directory.write("slow.yaml", &text(&slow, cluster.replicas[2].address, "greet"));
    cluster.replicas[2].process.signal("KILL");
    eventually("its end", async || cluster.replicas[2].process.exit_code()).await;
    cluster.replicas[2].file = file;
    cluster.restart(2).await;
    let weights = "load_balancing_policy:
        policies:
          - typed_extension_config:
              name: envoy.load_balancing_policies.client_side_weighted_round_robin
              typed_config:
                \"@type\": type.googleapis.com/envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin
                blackout_period: 0.2s
                weight_update_period: 0.2s";
    let weighing = envoy(&cluster.replicas, &cluster.application, &[("lb_policy: ROUND_ROBIN", weights)]).await;
    let mut shares = Vec::new();
    for (what, address) in [("a slow replica, by turns", address), ("a slow replica, by weight", weighing.address)] {
        cluster.warm(address).await;
        // The weights need a second of reports.
        let (first, ()) = cluster.load(address, Duration::from_secs(1), async {}).await;
        none_lost(what, &first);
        let ran = slow.runs("echo");
        let (calls, ()) = cluster.load(address, Duration::from_secs(2), async {}).await;
        none_lost(what, &calls);
        let contract = calls.iter().filter(|call| call.way == Way::Contract).count();
        let share = (slow.runs("echo") - ran) as f64 / contract as f64;
        cluster
            .table
            .push(format!("{what:<28} Contract  {contract:>5}   share of the slow one {:>3.0} %", share * 100.0));
        shares.push(share);
    }
    println!(
        "{:<28} {:<9} {:>5} {:>5} {:>9} {:>6} {:>11}\n{}\n{:.1} s",
        "",
        "way",
        "calls",
        "lost",
        "of it ran",
        "twice",
        "slowest",
        cluster.table.join("\n"),
        begun.elapsed().as_secs_f64()
    );
    assert!(shares[0] > 0.25 && shares[1] < 0.2, "{shares:?}");
}
