//! The run: every target in turns, the median of the rounds, and the criteria on top.

use std::{fs, net::SocketAddr, path::PathBuf, thread, time::Duration};

use serde::Serialize;

use crate::{
    Outcome,
    collector::Collector,
    cpu::{self, First, Machine},
    drive::{self, Found, Lane},
    envoy,
    footprint::{self, Footprint},
    process::Plan,
    report, service,
    target::{Running, Target},
    upstream::{self, Upstream},
};

/// How the run is made.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// How long each drive counts
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// How often each target is driven
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Half a second and three rounds: within a minute, for a first look
    #[arg(long)]
    pub quick: bool,
    /// Where the results go as JSON
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/load.json"))]
    pub out: PathBuf,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub machine: Machine,
    pub seconds: f64,
    pub rounds: usize,
    /// 200-byte payloads, 64 in flight; latencies at half of each one's calls a second.
    pub calls: Vec<Series>,
    pub latency: Vec<Series>,
    /// The upstream called directly and signed.
    pub direct: Rounds,
    /// So many in flight made about half of the load, where the load shares a core and cannot keep to a rate.
    pub latency_in_flight: Option<usize>,
    pub payloads: Vec<Payload>,
    /// An upstream that takes 20 ms.
    pub slow: Vec<Series>,
    /// The service on one core, and on two.
    pub workers: [Rounds; 2],
    /// The two cores were also those of the load, so that only CPU time tells what they could do alone.
    pub workers_share: bool,
    /// Microseconds of CPU a call without metrics, lines and spans, and with all of them, pushed to a collector: of each start.
    pub telemetry: Vec<[f64; 2]>,
    pub footprint: Footprint,
}

/// What the rounds of one target found.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    pub target: Target,
    pub rounds: Rounds,
}

/// The finds of all rounds, in order.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Rounds(pub Vec<Found>);

/// The floor and the service with events and answers of one size.
#[derive(Debug, Serialize)]
pub(crate) struct Payload {
    pub bytes: usize,
    pub in_flight: usize,
    pub targets: Vec<Series>,
}

/// The sizes of payloads, and how many calls are in flight with each.
const PAYLOADS: [(usize, usize); 3] = [(16 * 1024, 64), (1024 * 1024, 16), (6_000_000, 4)];
/// How long the functions of the slow run take.
const SLOW_MS: u64 = 20;
/// How often a second the upstream is called directly: so seldom that no call waits for another.
const DIRECT: f64 = 4000.0;
/// How many times longer than others the drive is that tells what telemetry costs.
const LONGER: f64 = 3.0;
/// After so long all spans are pushed.
const PUSHED: Duration = Duration::from_secs(6);
/// How many in flight make about half of the service's load.
const FEW: usize = 4;

struct Run {
    plan: Plan,
    seconds: f64,
    warm_up: f64,
    rounds: usize,
    /// Of all but the first drives.
    fewer_rounds: usize,
}

pub(crate) fn main(options: &Options) -> Outcome<()> {
    let (seconds, rounds, warm_up) =
        if options.quick { (0.5, 3, 0.3) } else { (options.seconds, options.rounds.max(1), 0.4) };
    let run = Run { plan: Plan::here()?, seconds, warm_up, rounds, fewer_rounds: rounds.div_ceil(2) };
    let machine = Machine::here()?;
    let _first = First::claim();
    report::say(&format!("{machine}\n{}", run.plan));
    envoy::install()?;

    let (calls, latency, direct) = run.calls()?;
    let results = Results {
        machine,
        seconds,
        rounds,
        calls,
        latency,
        direct,
        latency_in_flight: run.few(),
        payloads: PAYLOADS.iter().map(|&(bytes, in_flight)| run.payload(bytes, in_flight)).collect::<Outcome<_>>()?,
        slow: run.slow()?,
        workers: run.workers()?,
        telemetry: run.telemetry()?,
        workers_share: run.plan.is_full(),
        footprint: footprint::measure(&run.plan)?,
    };
    let criteria = report::criteria(&results);
    report::print(&results, &criteria);
    fs::write(&options.out, report::json(&results, &criteria)?)?;
    report::say(&format!("\nwritten to {}", options.out.display()));
    Ok(())
}

impl Run {
    /// Throughput and CPU with all in flight, then latency at half of the throughput.
    fn calls(&self) -> Outcome<(Vec<Series>, Vec<Series>, Rounds)> {
        let upstream = self.upstream(Some(200), 0)?;
        let targets = self.start(&Target::ALL, &upstream)?;
        report::say("64 in flight ...");
        let calls = self.alternate(&targets, self.rounds, |running| Ok(self.drive(running)))?;

        report::say("latency at half load ...");
        // A load that shares its core waits for it, and what it then finds due at once would be counted as the target's.
        let few = self.few();
        let half = |target| few.is_none().then(|| median(&calls, target).calls_per_second / 2.0);
        let in_flight = few.unwrap_or(64);
        let mut direct = Rounds::default();
        let latency = self.alternate(&targets, self.fewer_rounds, |running| {
            if running.target == Target::Service {
                let mut args = self.drive(running);
                (args.lane, args.address, args.pid) = (Lane::Direct, upstream.address, None);
                (args.rate, args.in_flight) = (few.is_none().then_some(DIRECT), in_flight);
                // The target's core is idle meanwhile, and a caller that signs itself needs one of its own.
                direct.0.push(args.run_on(&self.plan.target, false)?);
            }
            Ok(drive::Args { rate: half(running.target), in_flight, ..self.drive(running) })
        })?;
        Ok((calls, latency, direct))
    }

    fn payload(&self, bytes: usize, in_flight: usize) -> Outcome<Payload> {
        report::say(&format!("{bytes} bytes ..."));
        let upstream = self.upstream(None, 0)?;
        let targets = self.start(&[Target::Floor, Target::Service], &upstream)?;
        let targets = self.alternate(&targets, self.fewer_rounds, |running| {
            Ok(drive::Args { payload: bytes, reply: bytes, in_flight, ..self.drive(running) })
        })?;
        Ok(Payload { bytes, in_flight, targets })
    }

    fn slow(&self) -> Outcome<Vec<Series>> {
        report::say(&format!("an upstream of {SLOW_MS} ms ..."));
        let upstream = self.upstream(Some(200), SLOW_MS)?;
        let targets = self.start(&Target::ALL, &upstream)?;
        self.alternate(&targets, self.fewer_rounds, |running| Ok(self.drive(running)))
    }

    /// One core and two, with the upstream and the load on the cores that two leave.
    fn workers(&self) -> Outcome<[Rounds; 2]> {
        report::say("two workers ...");
        let (rest, threads) = (&self.plan.rest, self.plan.rest.count());
        let upstream = Upstream::start(rest, &upstream::Args { reply: Some(200), delay_ms: 0, threads })?;
        let one = Target::Service.start(&self.plan.target, upstream.address)?;
        let two = Target::Service.start(&self.plan.pair, upstream.address)?;
        let mut found = [Rounds::default(), Rounds::default()];
        for _ in 0..self.rounds {
            for (running, rounds) in [&one, &two].into_iter().zip(&mut found) {
                let args = drive::Args { threads, connections: 8, in_flight: 128, ..self.drive(running) };
                rounds.0.push(args.run_on(rest, self.plan.is_full())?);
            }
        }
        Ok(found)
    }

    /// The same calls with nothing told of them, and with everything.
    ///
    /// What the machine does besides changes a call's CPU time by a third within tenths of a second, which is more than what is
    /// looked for. So both are driven at the same time on one core, where they take turns of a few milliseconds; and they are
    /// started anew for each round, as a process also owes something to the addresses that it happened to get.
    fn telemetry(&self) -> Outcome<Vec<[f64; 2]>> {
        report::say("telemetry off and on ...");
        let upstream = self.upstream(Some(200), 0)?;
        let collector = Collector::start(&self.plan.upstream)?;
        (0..self.rounds).map(|_| self.off_and_on(upstream.address, collector.address)).collect()
    }

    fn off_and_on(&self, upstream: SocketAddr, collector: SocketAddr) -> Outcome<[f64; 2]> {
        let start = |to| -> Outcome<_> {
            let started = service::start_telling(&self.plan.target, upstream, to)?;
            let running = Running { target: Target::Service, process: started.process, address: started.address };
            // Clients and connections are made.
            drive::Args { seconds: 0.1, ..self.drive(&running) }.run(&self.plan)?;
            let before = cpu::time(running.process.pid())?;
            Ok((running, before))
        };
        let both = [start(None)?, start(Some(collector))?];
        let found = thread::scope(|scope| {
            let drives = both.each_ref().map(|(running, _)| {
                let args = drive::Args { seconds: LONGER * self.seconds, warm_up: 0.0, ..self.drive(running) };
                scope.spawn(move || args.run(&self.plan))
            });
            drives.map(|drive| drive.join().unwrap_or_else(|_| Err("a drive panicked".into())))
        });
        // That is the calls' cost, too.
        thread::sleep(PUSHED);
        let mut each = [0.0; 2];
        for ((each, (running, before)), found) in each.iter_mut().zip(&both).zip(found) {
            let took = cpu::time(running.process.pid())?.saturating_sub(*before);
            #[expect(clippy::cast_precision_loss, reason = "far fewer calls than 2^52")]
            let calls = found?.calls as f64;
            *each = took.as_secs_f64() * 1e6 / calls;
        }
        Ok(each)
    }

    fn few(&self) -> Option<usize> {
        self.plan.is_tight().then_some(FEW)
    }

    fn upstream(&self, reply: Option<usize>, delay_ms: u64) -> Outcome<Upstream> {
        Upstream::start(&self.plan.upstream, &upstream::Args { reply, delay_ms, threads: 1 })
    }

    fn start(&self, targets: &[Target], upstream: &Upstream) -> Outcome<Vec<Running>> {
        targets.iter().map(|target| target.start(&self.plan.target, upstream.address)).collect()
    }

    /// The calls that every target gets.
    fn drive(&self, running: &Running) -> drive::Args {
        let pid = Some(running.process.pid());
        let args = drive::Args::new(running.target.lane(), running.address, pid, self.seconds);
        drive::Args { warm_up: self.warm_up, ..args }
    }

    /// Drives the targets in turns, there and back, so that a drift of the machine meets all alike.
    fn alternate(
        &self,
        targets: &[Running],
        rounds: usize,
        mut args: impl FnMut(&Running) -> Outcome<drive::Args>,
    ) -> Outcome<Vec<Series>> {
        let mut series: Vec<_> =
            targets.iter().map(|running| Series { target: running.target, rounds: Rounds::default() }).collect();
        for round in 0..rounds {
            let mut turns: Vec<_> = targets.iter().zip(&mut series).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for (running, series) in turns {
                let found = args(running)?.run(&self.plan);
                series.rounds.0.push(found.map_err(|error| format!("{}: {error}", running.target))?);
            }
        }
        Ok(series)
    }
}

impl Rounds {
    /// The median of each figure by itself.
    pub(crate) fn median(&self) -> Found {
        let of = |figure: fn(&Found) -> f64| middle(self.0.iter().map(figure).collect());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole numbers that were made floats"
        )]
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        Found {
            calls: of(|found| found.calls as f64) as u64,
            cpu_us: of(|found| found.cpu_us),
            calls_per_second: of(|found| found.calls_per_second),
            p50_us: of(|found| found.p50_us),
            p99_us: of(|found| found.p99_us),
            p999_us: of(|found| found.p999_us),
            resident_kb: of(|found| found.resident_kb as f64) as u64,
            most_resident_kb: of(|found| found.most_resident_kb as f64) as u64,
        }
    }

    /// The median of what a figure is to that of the same round of another: neighbours in time have the same noise.
    pub(crate) fn against(&self, other: &Self, how: fn(&Found, &Found) -> f64) -> f64 {
        middle(self.0.iter().zip(&other.0).map(|(this, other)| how(this, other)).collect())
    }
}

/// The rounds of a target.
pub(crate) fn of(series: &[Series], target: Target) -> Option<&Rounds> {
    series.iter().find(|series| series.target == target).map(|series| &series.rounds)
}

fn median(series: &[Series], target: Target) -> Found {
    of(series, target).map_or_else(|| Rounds::default().median(), Rounds::median)
}

/// The median; NaN of nothing.
pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.len() % 2, values.get(half), half.checked_sub(1).and_then(|below| values.get(below))) {
        (1, Some(middle), _) => *middle,
        (_, Some(above), Some(below)) => f64::midpoint(*above, *below),
        _ => f64::NAN,
    }
}
