//! What the service takes besides the calls: memory, time to start, the size of its file.

use std::{fs, time::Duration};

use serde::Serialize;

use crate::{
    Outcome, cpu,
    drive::{self, Lane},
    process::Plan,
    run::middle,
    service::{self, PROGRAM, Started},
    upstream::{self, Upstream},
};

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Footprint {
    pub binary_mb: f64,
    /// From the start of the process until it is ready, with 100 policies and with 10,000.
    pub ready_ms: f64,
    pub ready_many_ms: f64,
    /// Resident memory before any call.
    pub idle_mb: f64,
    pub idle_many_mb: f64,
    /// What each policy adds when it is first called, connections left out.
    pub client_kb: f64,
    /// The most memory with large bodies, in bodies: large events with small answers, and the other way round.
    pub bodies_of_events: f64,
    pub bodies_of_answers: f64,
}

const MANY: usize = 10_000;
/// Fewer than the service keeps clients.
const CLIENTS: usize = 2000;
const LARGE: usize = 6_000_000;
const LARGE_IN_FLIGHT: usize = 8;
/// How often a start is measured.
const STARTS: usize = 5;

pub(crate) fn measure(plan: &Plan) -> Outcome<Footprint> {
    crate::report::say("memory and start ...");
    let small = Upstream::start(&plan.upstream, &upstream::Args { reply: Some(200), delay_ms: 0, threads: 1 })?;
    let large = Upstream::start(&plan.upstream, &upstream::Args { reply: Some(LARGE), delay_ms: 0, threads: 1 })?;
    let (ready_ms, idle_mb) = start(plan, &small, service::POLICIES)?;
    let (ready_many_ms, idle_many_mb) = start(plan, &small, MANY)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(Footprint {
        binary_mb: fs::metadata(PROGRAM)?.len() as f64 / 1e6,
        ready_ms,
        ready_many_ms,
        idle_mb,
        idle_many_mb,
        client_kb: client(plan, &small)?,
        bodies_of_events: bodies(plan, &small, LARGE, 200)?,
        bodies_of_answers: bodies(plan, &large, 200, LARGE)?,
    })
}

/// Milliseconds until ready, and megabytes then.
fn start(plan: &Plan, upstream: &Upstream, policies: usize) -> Outcome<(f64, f64)> {
    let (mut ready, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let started = service::start(&plan.target, upstream.address, policies)?;
        ready.push(started.ready_after.as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(100));
        idle.push(bytes(&started, "VmRSS")? / 1e6);
    }
    Ok((middle(ready), middle(idle)))
}

/// What the clients of so many policies add, each.
fn client(plan: &Plan, upstream: &Upstream) -> Outcome<f64> {
    let started = service::start(&plan.target, upstream.address, CLIENTS)?;
    // First the connections and the buffers.
    let args = args(&started);
    args.run(plan)?;
    let before = bytes(&started, "VmRSS")?;
    drive::Args { policies: CLIENTS, ..args }.run(plan)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok((bytes(&started, "VmRSS")? - before) / 1024.0 / (CLIENTS - service::POLICIES) as f64)
}

/// How many bodies of a call are in memory at the most, the idle process left out.
fn bodies(plan: &Plan, upstream: &Upstream, payload: usize, reply: usize) -> Outcome<f64> {
    // The allocator keeps freed memory for a moment; told not to, what is resident is what is in use.
    let started =
        service::start_with(&plan.target, upstream.address, service::POLICIES, &[("MIMALLOC_PURGE_DELAY", "0")], "")?;
    let before = bytes(&started, "VmRSS")?;
    drive::Args { payload, reply, in_flight: LARGE_IN_FLIGHT, ..args(&started) }.run(plan)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok((bytes(&started, "VmHWM")? - before) / (LARGE * LARGE_IN_FLIGHT) as f64)
}

fn args(started: &Started) -> drive::Args {
    drive::Args::new(Lane::Grpc, started.address, Some(started.process.pid()), 1.0)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn bytes(started: &Started, which: &str) -> Outcome<f64> {
    Ok(cpu::resident(started.process.pid(), which)? as f64 * 1024.0)
}
