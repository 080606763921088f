//! The results for people and for scripts, and whether the criteria hold.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Outcome,
    drive::Found,
    run::{Results, Rounds, middle, of},
    target::Target,
};

/// What the service must reach.
#[derive(Debug, Serialize)]
pub(crate) struct Criterion {
    name: String,
    measured: f64,
    limit: f64,
    /// The limit is the least and not the most.
    at_least: bool,
    holds: bool,
}

#[expect(clippy::print_stdout, reason = "the results are for people")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// All criteria that were measured, in the order in which they were set.
pub(crate) fn criteria(results: &Results) -> Vec<Criterion> {
    let mut criteria = Vec::new();
    let mut most = |name: &str, measured, limit| criteria.push(Criterion::new(name, measured, limit, false));
    let none = Rounds::default();
    let calls = |target| of(&results.calls, target).unwrap_or(&none);
    let cpu = |this: &Found, other: &Found| this.cpu_us / other.cpu_us;
    most("CPU a call, of Envoy's filter", calls(Target::Service).against(calls(Target::Envoy), cpu), 0.6);
    most("CPU a call, of the floor", calls(Target::Service).against(calls(Target::Floor), cpu), 1.1);

    let latency = of(&results.latency, Target::Service).unwrap_or(&none);
    most(
        "p50 added to a direct call, us",
        latency.against(&results.direct, |this, other| this.p50_us - other.p50_us),
        150.0,
    );
    most(
        "p99 added to a direct call, us",
        latency.against(&results.direct, |this, other| this.p99_us - other.p99_us),
        1000.0,
    );

    for payload in results.payloads.iter().filter(|payload| payload.bytes > 512 * 1024) {
        let rounds = |target| of(&payload.targets, target).unwrap_or(&none);
        let name = format!("CPU a call at {:.0} MB, of the floor", megabytes(payload.bytes));
        most(&name, rounds(Target::Service).against(rounds(Target::Floor), cpu), 1.3);
    }
    let footprint = &results.footprint;
    most("copies of an event in memory", footprint.bodies_of_events, 2.0);
    most("copies of an answer in memory", footprint.bodies_of_answers, 2.0);
    most("a cached client, KB", footprint.client_kb, 24.0);
    most("start to ready with 10,000 policies, ms", footprint.ready_many_ms, 1000.0);
    most("10,000 policies, MB", footprint.idle_many_mb - footprint.idle_mb, 100.0);
    most("start to ready with 100 policies, ms", footprint.ready_ms, 100.0);
    most("the binary, MB", footprint.binary_mb, 40.0);
    most("resident when idle, MB", footprint.idle_mb, 30.0);
    let telling = results.telemetry.iter().map(|[off, on]| on / off).collect();
    most("CPU a call with all telemetry, of none", middle(telling), 1.1);
    let [one, two] = &results.workers;
    criteria.push(if results.workers_share {
        // What two saturated workers would answer: twice a second of CPU time, by what a call takes of it.
        let gain = two.against(one, |two, one| 2.0 * one.cpu_us / two.cpu_us);
        Criterion::new("calls two workers have CPU time for, of one", gain, 1.8, true)
    } else {
        let gain = two.against(one, |two, one| two.calls_per_second / one.calls_per_second);
        Criterion::new("calls a second with two workers, of one", gain, 1.8, true)
    });
    criteria
}

pub(crate) fn print(results: &Results, criteria: &[Criterion]) {
    let half = results
        .latency_in_flight
        .map_or("at half of each one's calls/s".to_owned(), |few| format!("with {few} in flight"));
    say(&format!("\n200 bytes, 64 in flight; latency {half}\n"));
    say("target      CPU us/call    calls/s   cores    p50 us    p99 us   p999 us    RSS MB");
    for series in &results.calls {
        let found = series.rounds.median();
        let half = of(&results.latency, series.target).map(Rounds::median).unwrap_or(found);
        say(&row(&series.target.to_string(), &found, &half));
    }
    let direct = results.direct.median();
    let (p50, p99, p999) = (direct.p50_us, direct.p99_us, direct.p999_us);
    say(&format!("{:10}{:>32}{p50:10.0}{p99:10.0}{p999:10.0}{:>10}", "direct", "", ""));
    if let Some(worst) = results.calls.iter().map(|series| series.rounds.median().cores()).reduce(f64::min)
        && worst < 0.9
    {
        say("\nDISTURBED: other processes took part of the targets' core, so trust no latency and repeat the run");
    }

    say("\nCPU us/call with other payloads (echo) and upstreams\n");
    for payload in &results.payloads {
        say(&line(&format!("{} bytes, {} in flight", payload.bytes, payload.in_flight), &payload.targets));
    }
    say(&line("an upstream of 20 ms", &results.slow));
    let [one, two] = results.workers.each_ref().map(Rounds::median);
    say(&format!(
        "the service with one worker {:.0} calls/s at {:.1} us, with two {:.0} at {:.1}",
        one.calls_per_second, one.cpu_us, two.calls_per_second, two.cpu_us
    ));
    let (off, on) = results.telemetry.iter().map(|[off, on]| (*off, *on)).unzip();
    let (off, on) = (middle(off), middle(on));
    say(&format!(
        "without metrics, access lines and spans {off:.1} us, with all of them, pushed to a collector, {on:.1}"
    ));
    say("");
    criteria.iter().for_each(|criterion| say(&criterion.to_string()));
}

fn row(name: &str, found: &Found, half: &Found) -> String {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let resident = found.resident_kb as f64 * 1024.0 / 1e6;
    format!(
        "{name:10}{:13.1}{:11.0}{:8.2}{:10.0}{:10.0}{:10.0}{resident:10.1}",
        found.cpu_us,
        found.calls_per_second,
        found.cores(),
        half.p50_us,
        half.p99_us,
        half.p999_us
    )
}

fn line(what: &str, series: &[crate::run::Series]) -> String {
    let figures: Vec<_> =
        series.iter().map(|series| format!("{} {:.0}", series.target, series.rounds.median().cpu_us)).collect();
    format!("{what:32} {}", figures.join(", "))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// The medians and the criteria, and all rounds behind them.
pub(crate) fn json(results: &Results, criteria: &[Criterion]) -> Outcome<String> {
    let medians: Vec<Value> = results
        .calls
        .iter()
        .map(|series| {
            let half = of(&results.latency, series.target).map(Rounds::median);
            json!({"target": series.target, "peak": series.rounds.median(), "half_load": half})
        })
        .collect();
    let all = json!({"machine": results.machine, "medians": medians, "direct": results.direct.median(),
        "criteria": criteria, "results": results});
    Ok(serde_json::to_string_pretty(&all)?)
}

impl Criterion {
    fn new(name: &str, measured: f64, limit: f64, at_least: bool) -> Self {
        // NaN, where there was nothing to measure, holds nothing.
        let holds = if at_least { measured >= limit } else { measured <= limit };
        Self { name: name.to_owned(), measured, limit, at_least, holds }
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, bound) =
            (if self.holds { "holds" } else { "FAILS" }, if self.at_least { "least" } else { "most" });
        write!(f, "{verdict}  {:42}{:9.2}   at {bound} {}", self.name, self.measured, self.limit)
    }
}
