//! A fixed number of calls in flight: each answer brings the next call.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::task::JoinSet;

use super::{Args, Caller, Shared};
use crate::Outcome;

/// Until `stop`; gives the latencies of the calls that were counted, in nanoseconds.
pub(super) async fn drive(callers: Vec<Caller>, args: &Args, shared: &Arc<Shared>) -> Outcome<Vec<u64>> {
    let mut workers = JoinSet::new();
    for caller in callers.iter().cycle().take(args.in_flight.div_ceil(args.threads)) {
        workers.spawn(work(caller.clone(), Arc::clone(shared)));
    }
    let mut latencies = Vec::new();
    while let Some(ended) = workers.join_next().await {
        latencies.extend(ended??);
    }
    Ok(latencies)
}

async fn work(mut caller: Caller, shared: Arc<Shared>) -> Outcome<Vec<u64>> {
    let mut latencies = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        caller.call(shared.turn()).await?;
        shared.calls.fetch_add(1, Ordering::Relaxed);
        if shared.counting.load(Ordering::Relaxed) {
            latencies.push(u64::try_from(began.elapsed().as_nanos())?);
        }
    }
    Ok(latencies)
}
