//! The metrics as text, and what they say of each policy.

use std::{collections::HashMap, fmt};

use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text, text as openmetrics},
    metrics::{MetricType as Type, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::{
    meters::Failure,
    names::{self, CALL_DURATION, CALLS},
};

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Form {
    /// What an `Accept` header asks for.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The form's media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What the metrics say of a policy.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Calls by outcome and reason.
    pub calls: Vec<(String, Option<String>, u64)>,
    /// The upper bounds of the durations in seconds, and how many calls took at most as long.
    durations: Vec<(f64, u64)>,
    /// The last failures, the latest first.
    pub last_errors: Vec<Failure>,
}

/// Metric families as the encoders take them.
#[derive(Debug)]
struct Families(Vec<MetricFamily>);

pub(super) fn text(families: Vec<MetricFamily>, form: Form) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    // Writing into memory does not fail, and a value that has no form is none of ours.
    let _ = match form {
        Form::Prometheus => prometheus_text::encode(&mut text, &registry),
        Form::OpenMetrics => openmetrics::encode(&mut text, &registry),
    };
    text
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let (name, kind) = match family.get_field_type() {
                // The encoder puts the suffix on again.
                MetricType::COUNTER => (family.name().trim_end_matches("_total"), Type::Counter),
                MetricType::GAUGE => (family.name(), Type::Gauge),
                MetricType::HISTOGRAM => (family.name(), Type::Histogram),
                MetricType::SUMMARY | MetricType::UNTYPED => continue,
            };
            let help = family.help().trim_end_matches('.');
            let mut described = encoder.encode_descriptor(name, help, None, kind)?;
            for metric in family.get_metric() {
                let labels: Vec<_> = metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                let encoder = described.encode_family(&labels)?;
                match kind {
                    Type::Counter => ConstCounter::new(metric.get_counter().get_value()).encode(encoder)?,
                    Type::Gauge => ConstGauge::new(metric.get_gauge().get_value()).encode(encoder)?,
                    _ => histogram(encoder, metric)?,
                }
            }
        }
        Ok(())
    }
}

fn histogram(mut encoder: prometheus_client::encoding::MetricEncoder<'_>, metric: &Metric) -> fmt::Result {
    let histogram = metric.get_histogram();
    let (mut before, mut buckets) = (0, Vec::with_capacity(histogram.get_bucket().len() + 1));
    for bucket in histogram.get_bucket() {
        buckets.push((bucket.upper_bound(), bucket.cumulative_count().saturating_sub(before)));
        before = bucket.cumulative_count();
    }
    let count = histogram.get_sample_count();
    if buckets.last().is_none_or(|(bound, _)| bound.is_finite()) {
        buckets.push((f64::INFINITY, count.saturating_sub(before)));
    }
    encoder.encode_histogram::<NoLabelSet>(histogram.get_sample_sum(), count, &buckets, None)
}

/// What the metrics say of each policy, by its name.
pub(super) fn figures(families: &[MetricFamily]) -> HashMap<String, Figures> {
    let mut figures: HashMap<String, Figures> = HashMap::new();
    let (calls, duration) = (CALLS.prometheus(), CALL_DURATION.prometheus());
    for family in families {
        for metric in family.get_metric() {
            let label = |name: &str| {
                metric.get_label().iter().find(|label| label.name() == name).map(|label| label.value().to_owned())
            };
            let Some(policy) = label(names::POLICY.name) else { continue };
            if family.name() == calls {
                let count = metric.get_counter().get_value() as u64;
                let outcome = label(names::OUTCOME.name).unwrap_or_default();
                figures.entry(policy).or_default().calls.push((outcome, label(names::REASON.name), count));
            } else if family.name() == duration {
                figures.entry(policy).or_default().add(metric);
            }
        }
    }
    figures
}

impl Figures {
    fn add(&mut self, metric: &Metric) {
        let buckets = metric.get_histogram().get_bucket();
        if self.durations.is_empty() {
            self.durations = buckets.iter().map(|bucket| (bucket.upper_bound(), 0)).collect();
        }
        for ((_, count), bucket) in self.durations.iter_mut().zip(buckets) {
            *count += bucket.cumulative_count();
        }
    }

    /// A quantile of the durations in seconds, as `histogram_quantile` of Prometheus has it; `None` without a call.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let total: u64 = self.calls.iter().map(|(_, _, count)| count).sum();
        let rank = quantile * total as f64;
        let mut below = (0.0, 0);
        for (bound, count) in &self.durations {
            if *count as f64 >= rank && *count > below.1 && bound.is_finite() {
                let share = (rank - below.1 as f64) / (count - below.1) as f64;
                return Some(below.0 + (bound - below.0) * share);
            }
            if bound.is_finite() {
                below = (*bound, *count);
            }
        }
        // Beyond the last bound nothing is known but that.
        (total > 0).then_some(below.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let calls = |count| vec![("ok".to_owned(), None, count)];
        let figures = Figures {
            calls: calls(100),
            durations: vec![(0.1, 50), (0.2, 90), (1.0, 98), (f64::INFINITY, 100)],
            last_errors: Vec::new(),
        };
        for (quantile, expected) in [(0.25, 0.05), (0.5, 0.1), (0.7, 0.15), (0.9, 0.2), (0.94, 0.6), (0.99, 1.0)] {
            let found = figures.quantile(quantile).unwrap_or_default();
            assert!((found - expected).abs() < 1e-9, "{quantile}: {found}");
        }
        assert_eq!(Figures::default().quantile(0.5), None);
    }

    #[test]
    fn openmetrics_is_written_for_whoever_asks_for_it() {
        let asks = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
        assert_eq!(Form::accepted(asks), Form::OpenMetrics);
        for other in ["", "*/*", "text/plain;version=0.0.4"] {
            assert_eq!(Form::accepted(other), Form::Prometheus, "{other}");
        }
    }
}
