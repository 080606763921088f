//! What tokio says of its runtimes: each worker's thread has one.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::RuntimeMetrics;

use super::{
    metrics::Metrics,
    names::{self, Metric, WORKER},
};

/// The runtimes whose figures are read.
#[derive(Clone, Default)]
pub(super) struct Runtimes(Arc<Mutex<Vec<(String, RuntimeMetrics)>>>);

impl Runtimes {
    pub(super) fn add(&self, worker: String, runtime: RuntimeMetrics) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((worker, runtime));
    }

    pub(super) fn observe(&self, metrics: &Metrics) {
        let each = |metric: &'static Metric, read: fn(&RuntimeMetrics) -> f64| {
            let runtimes = self.clone();
            metrics.observe(metric, move |readings| {
                for (worker, runtime) in &*runtimes.0.lock().unwrap_or_else(PoisonError::into_inner) {
                    readings.put(read(runtime), &[(&WORKER, worker)]);
                }
            });
        };
        // A runtime of one thread has one worker.
        each(&names::RUNTIME_BUSY, |runtime| runtime.worker_total_busy_duration(0).as_secs_f64());
        each(&names::RUNTIME_PARKS, |runtime| runtime.worker_park_count(0) as f64);
        each(&names::RUNTIME_TASKS, |runtime| runtime.num_alive_tasks() as f64);
        each(&names::RUNTIME_QUEUE, |runtime| runtime.global_queue_depth() as f64);
    }
}
