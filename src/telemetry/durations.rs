//! How long calls took, kept by bucket until somebody reads the metrics.
//!
//! The SDK's histogram is a lock behind eight lines of memory. A call has four of its policy's, and between two calls of a policy
//! those of others have driven them out of the caches: that was 4 % of a call's CPU time. Here a call touches one line of each,
//! and the SDK's histogram is told before it is read: of the same count in each bucket, and of the same sum.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use opentelemetry::metrics::BoundHistogram;

/// Durations that the SDK's histogram has not been told of, by its buckets.
#[derive(Debug)]
pub(super) struct Durations {
    bounds: &'static [f64],
    kept: Box<[Kept]>,
    histogram: BoundHistogram<f64>,
}

#[derive(Debug, Default)]
struct Kept {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Durations {
    /// For a histogram with these bounds.
    pub(super) fn new(bounds: &'static [f64], histogram: BoundHistogram<f64>) -> Self {
        Self { bounds, kept: (0..=bounds.len()).map(|_| Kept::default()).collect(), histogram }
    }

    pub(super) fn keep(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(kept) = self.kept.get(self.bounds.partition_point(|bound| *bound < seconds)) {
            kept.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            kept.count.fetch_add(1, Ordering::Release);
        }
    }

    /// Tells the SDK's histogram, of each as long as those of its bucket on average.
    pub(super) fn tell(&self) {
        for (bucket, kept) in self.kept.iter().enumerate() {
            // Most are empty, and to swap those too would write to all the memory of policies that nobody calls.
            let count = if kept.count.load(Ordering::Relaxed) == 0 { 0 } else { kept.count.swap(0, Ordering::Acquire) };
            if count == 0 {
                continue;
            }
            let mean = kept.nanos.swap(0, Ordering::Relaxed) as f64 / 1e9 / count as f64;
            // What is kept at this moment may be in the sum already and in the count the next time.
            let above =
                bucket.checked_sub(1).and_then(|below| self.bounds.get(below)).map_or(0.0, |bound| bound.next_up());
            let most = self.bounds.get(bucket).copied().unwrap_or(f64::MAX);
            for _ in 0..count {
                self.histogram.record(mean.clamp(above, most));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use prometheus::Registry;
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: &[f64] = &[0.001, 0.01, 0.25];

    /// Counts up to each bound and the sum, as they are scraped.
    fn scraped(fill: impl Fn(&BoundHistogram<f64>)) -> (Vec<u64>, f64) {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let histogram = provider.meter("test").f64_histogram("test").with_boundaries(BOUNDS.to_vec()).build();
        fill(&histogram.bind(&[]));
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "test").unwrap();
        let histogram = family.get_metric()[0].get_histogram();
        let counts = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count());
        (counts.chain([histogram.get_sample_count()]).collect(), histogram.get_sample_sum())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn the_sdk_is_told_what_it_would_have_been_told_at_once(
            nanos in proptest::collection::vec(prop_oneof![0..2_000_000_u64, 0..1_000_000_000_u64, Just(250_000_000)], 1..50),
            read in 0..50_usize,
        ) {
            let at_once = scraped(|histogram| {
                nanos.iter().for_each(|nanos| histogram.record(Duration::from_nanos(*nanos).as_secs_f64()));
            });
            let kept = scraped(|histogram| {
                let durations = Durations::new(BOUNDS, histogram.clone());
                for (number, nanos) in nanos.iter().enumerate() {
                    if number == read {
                        durations.tell();
                    }
                    durations.keep(Duration::from_nanos(*nanos));
                }
                durations.tell();
                durations.tell();
            });
            prop_assert_eq!(kept.0, at_once.0);
            prop_assert!((kept.1 - at_once.1).abs() < 1e-6, "{} {}", kept.1, at_once.1);
        }
    }
}
