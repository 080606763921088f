//! The load: the same calls for every target, from a process of its own.

mod closed;
mod http2;
mod open;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Outcome, cpu,
    grpc::Invoke as _,
    process::{Cores, Plan, Process},
    service,
    signed::Signed,
};

/// How a target is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lane {
    /// `ExecutePolicy` with the payload.
    Grpc,
    /// A POST of the payload over HTTP/2.
    Http2,
    /// The upstream itself, signed.
    Direct,
}

/// One drive.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    pub lane: Lane,
    #[arg(long)]
    pub address: SocketAddr,
    /// Whose CPU time and memory to read
    #[arg(long)]
    pub pid: Option<u32>,
    #[arg(long)]
    pub seconds: f64,
    /// Before anything is counted
    #[arg(long)]
    pub warm_up: f64,
    #[arg(long)]
    pub in_flight: usize,
    #[arg(long)]
    pub connections: usize,
    #[arg(long)]
    pub threads: usize,
    /// Bytes of an event
    #[arg(long)]
    pub payload: usize,
    /// Bytes of an answer
    #[arg(long)]
    pub reply: usize,
    /// How many policies are called in turns
    #[arg(long)]
    pub policies: usize,
    /// Calls a second, whether or not those before were answered
    #[arg(long)]
    pub rate: Option<f64>,
}

impl Found {
    /// How much of a core the target had: with all in flight less than one if something else took the rest.
    pub(crate) fn cores(&self) -> f64 {
        self.cpu_us * self.calls_per_second / 1e6
    }
}

/// What a drive found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    pub calls: u64,
    /// Microseconds of the target's CPU, user and system, for each call.
    pub cpu_us: f64,
    pub calls_per_second: f64,
    /// Latency in microseconds.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// The target's resident memory after the drive, and at the most so far.
    pub resident_kb: u64,
    pub most_resident_kb: u64,
}

/// What the threads of a drive share.
#[derive(Debug, Default)]
struct Shared {
    turns: AtomicUsize,
    calls: AtomicU64,
    counting: AtomicBool,
    stop: AtomicBool,
}

/// A way to make a call; each clone is for one call at a time.
#[derive(Clone)]
enum Caller {
    Http2(http2::Connection),
    Direct(Arc<Signed>, Bytes),
}

/// A JSON string of `size` bytes, quotes included.
pub(crate) fn json(size: usize) -> Vec<u8> {
    let mut text = vec![b'x'; size];
    if let [first, .., last] = text.as_mut_slice() {
        (*first, *last) = (b'"', b'"');
    }
    text
}

impl Args {
    /// 64 calls in flight over a few connections, as gateways do it, with 200 bytes each way.
    pub(crate) fn new(lane: Lane, address: SocketAddr, pid: Option<u32>, seconds: f64) -> Self {
        Self {
            lane,
            address,
            pid,
            seconds,
            warm_up: 0.4,
            in_flight: 64,
            connections: 4,
            threads: 1,
            payload: 200,
            reply: 200,
            policies: service::POLICIES,
            rate: None,
        }
    }

    /// Drives from a process of its own.
    pub(crate) fn run(&self, plan: &Plan) -> Outcome<Found> {
        self.run_on(&plan.load, plan.is_tight())
    }

    /// Drives from these cores, giving way to the upstream if it is on the same one.
    pub(crate) fn run_on(&self, cores: &Cores, gives_way: bool) -> Outcome<Found> {
        let mut words = vec!["drive".to_owned()];
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        let lane = match self.lane {
            Lane::Grpc => "grpc",
            Lane::Http2 => "http2",
            Lane::Direct => "direct",
        };
        option("lane", lane.to_owned());
        option("address", self.address.to_string());
        option("seconds", self.seconds.to_string());
        option("warm-up", self.warm_up.to_string());
        option("in-flight", self.in_flight.to_string());
        option("connections", self.connections.to_string());
        option("threads", self.threads.to_string());
        option("payload", self.payload.to_string());
        option("reply", self.reply.to_string());
        option("policies", self.policies.to_string());
        if let Some(pid) = self.pid {
            option("pid", pid.to_string());
        }
        if let Some(rate) = self.rate {
            option("rate", rate.to_string());
        }
        Ok(serde_json::from_slice(&Process::answer(cores, gives_way, &words)?)?)
    }
}

#[expect(clippy::print_stdout, reason = "the starter reads what was found")]
pub(crate) fn main(args: &Args) -> Outcome<()> {
    let shared = Arc::new(Shared::default());
    let threads: Vec<_> = (0..args.threads).map(|number| thread(number, args.clone(), Arc::clone(&shared))).collect();

    std::thread::sleep(Duration::from_secs_f64(args.warm_up));
    let (began, calls_before, cpu_before) = (Instant::now(), shared.calls.load(Ordering::Relaxed), args.cpu_time()?);
    shared.counting.store(true, Ordering::Relaxed);
    // A thread that gives up ends the drive, not only its share of it.
    while began.elapsed().as_secs_f64() < args.seconds && !threads.iter().any(JoinHandle::is_finished) {
        std::thread::sleep(Duration::from_millis(5));
    }
    shared.counting.store(false, Ordering::Relaxed);
    let calls = shared.calls.load(Ordering::Relaxed) - calls_before;
    let (cpu, took) = (args.cpu_time()?.saturating_sub(cpu_before), began.elapsed());
    shared.stop.store(true, Ordering::Relaxed);

    let mut latencies = Vec::new();
    for thread in threads {
        latencies.extend(thread.join().map_err(|_| "a thread of the load panicked")??);
    }
    latencies.sort_unstable();
    if calls == 0 || latencies.is_empty() {
        return Err("no call was answered".into());
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer calls than 2^52")]
    let count = calls as f64;
    let resident = |which| args.pid.map_or(Ok(0), |pid| cpu::resident(pid, which));
    let found = Found {
        calls,
        cpu_us: cpu.as_secs_f64() * 1e6 / count,
        calls_per_second: count / took.as_secs_f64(),
        p50_us: quantile(&latencies, 500),
        p99_us: quantile(&latencies, 990),
        p999_us: quantile(&latencies, 999),
        resident_kb: resident("VmRSS")?,
        most_resident_kb: resident("VmHWM")?,
    };
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

impl Args {
    fn cpu_time(&self) -> Outcome<Duration> {
        self.pid.map_or(Ok(Duration::ZERO), cpu::time)
    }

    /// The callers of one thread, one for each of its connections.
    async fn callers(&self) -> Outcome<Vec<Caller>> {
        if self.lane == Lane::Direct {
            return Ok(vec![Caller::Direct(Arc::new(Signed::new(self.address)), json(self.payload).into())]);
        }
        let mut callers = Vec::new();
        for _ in 0..self.connections.div_ceil(self.threads) {
            callers.push(Caller::Http2(http2::Connection::open(self).await?));
        }
        Ok(callers)
    }
}

impl Shared {
    /// Whose turn it is: all policies are called equally often.
    fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

impl Caller {
    /// One call: policy number `turn`, modulo the number of policies.
    async fn call(&mut self, turn: usize) -> Outcome<()> {
        match self {
            Self::Http2(connection) => connection.call(turn).await,
            Self::Direct(signed, payload) => signed.invoke(&service::policy(0), payload.clone()).await.map(drop),
        }
    }
}

/// A thread with its share of the connections and calls; it gives the latencies in nanoseconds.
fn thread(number: usize, args: Args, shared: Arc<Shared>) -> JoinHandle<Outcome<Vec<u64>>> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let callers = args.callers().await?;
            match args.rate {
                None => closed::drive(callers, &args, &shared).await,
                Some(rate) => open::drive(callers, number, rate, &args, &shared).await,
            }
        })
    })
}

/// In microseconds.
fn quantile(sorted: &[u64], thousandths: usize) -> f64 {
    let place = (sorted.len() * thousandths / 1000).min(sorted.len().saturating_sub(1));
    Duration::from_nanos(sorted.get(place).copied().unwrap_or_default()).as_secs_f64() * 1e6
}
