//! A fixed number of calls a second: a slow answer delays no other call, and is not hidden by one that was not made.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{Args, Caller, Shared};
use crate::Outcome;

/// More calls than these are not made at once, as after a moment in which the machine did something else: those that are
/// due wait, and their wait counts.
const MOST_IN_FLIGHT: usize = 512;
/// So far behind at the end, the target cannot keep up, and the drive fails.
const TOO_LATE: Duration = Duration::from_secs(1);

/// Until `stop`; gives the latencies of the calls that were counted, in nanoseconds from the moment that each was due.
pub(super) async fn drive(
    callers: Vec<Caller>,
    number: usize,
    rate: f64,
    args: &Args,
    shared: &Arc<Shared>,
) -> Outcome<Vec<u64>> {
    #[expect(clippy::cast_precision_loss, reason = "a handful of threads")]
    let (threads, number) = (args.threads as f64, number as f64);
    let gap = Duration::from_secs_f64(threads / rate);
    // The threads take turns.
    let mut due = Instant::now() + gap.mul_f64(number / threads);
    let mut calls = JoinSet::new();
    let mut latencies = Vec::new();
    for caller in callers.iter().cycle() {
        // Timers are too coarse, so the thread looks at the clock whenever it has nothing else to do.
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        while let Some(ended) = calls.try_join_next() {
            latencies.extend(ended??);
        }
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        while calls.len() >= MOST_IN_FLIGHT
            && let Some(ended) = calls.join_next().await
        {
            latencies.extend(ended??);
        }
        calls.spawn(one(caller.clone(), due, Arc::clone(shared)));
        due += gap;
    }
    if due.elapsed() > TOO_LATE {
        return Err(format!("the target cannot answer {rate} calls a second").into());
    }
    while let Some(ended) = calls.join_next().await {
        latencies.extend(ended??);
    }
    Ok(latencies)
}

async fn one(mut caller: Caller, due: Instant, shared: Arc<Shared>) -> Outcome<Option<u64>> {
    caller.call(shared.turn()).await?;
    shared.calls.fetch_add(1, Ordering::Relaxed);
    let counted = shared.counting.load(Ordering::Relaxed);
    Ok(counted.then(|| u64::try_from(due.elapsed().as_nanos())).transpose()?)
}
