//! What the system says of this process. Elsewhere than on Linux it says nothing.

use std::time::Instant;

use super::{metrics::Metrics, names};

/// Has the process' figures read.
pub(super) fn observe(metrics: &Metrics) {
    let started = Instant::now();
    metrics.observe(&names::PROCESS_UPTIME, move |readings| readings.put(started.elapsed().as_secs_f64(), &[]));
    #[cfg(target_os = "linux")]
    linux::observe(metrics);
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::process::{LimitValue, Process, Stat};

    use crate::telemetry::{
        metrics::Metrics,
        names::{self, CPU_MODE, Metric},
    };

    fn stat() -> Option<Stat> {
        Process::myself().and_then(|process| process.stat()).ok()
    }

    pub(super) fn observe(metrics: &Metrics) {
        let ticks = procfs::ticks_per_second() as f64;
        let page = procfs::page_size() as f64;
        metrics.observe(&names::PROCESS_CPU, move |readings| {
            if let Some(stat) = stat() {
                readings.put(stat.utime as f64 / ticks, &[(&CPU_MODE, "user")]);
                readings.put(stat.stime as f64 / ticks, &[(&CPU_MODE, "system")]);
            }
        });
        let one = |metric: &'static Metric, read: fn(&Process) -> Option<f64>, scale: f64| {
            metrics.observe(metric, move |readings| {
                if let Some(value) = Process::myself().ok().as_ref().and_then(read) {
                    readings.put(value * scale, &[]);
                }
            });
        };
        one(&names::PROCESS_MEMORY, |process| Some(process.stat().ok()?.rss as f64), page);
        one(&names::PROCESS_VIRTUAL, |process| Some(process.stat().ok()?.vsize as f64), 1.0);
        one(&names::PROCESS_THREADS, |process| Some(process.stat().ok()?.num_threads as f64), 1.0);
        one(&names::PROCESS_FILES, |process| Some(process.fd_count().ok()? as f64), 1.0);
        let limit = |process: &Process| match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Value(most) => Some(most as f64),
            LimitValue::Unlimited => None,
        };
        one(&names::PROCESS_FILES_LIMIT, limit, 1.0);
    }
}
