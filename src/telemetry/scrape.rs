//! The metrics as text.

use std::fmt;

use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text, text as openmetrics},
    metrics::{MetricType as Type, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
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
        let [open, text] = ["application/openmetrics-text", "text/plain"].map(|kind| quality(accept, kind));
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The form's media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How much a media type is wanted (RFC 9110, 12.5.1), where it is named.
fn quality(accept: &str, kind: &str) -> f32 {
    let wanted = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().filter(|named| named.eq_ignore_ascii_case(kind))?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        weight.map_or(Some(1.0), |weight| weight.parse().ok())
    });
    wanted.fold(0.0, f32::max)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_written_for_whoever_asks_for_it() {
        let asks = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
        for asks in [asks, "text/plain, Application/OpenMetrics-Text", "application/openmetrics-text"] {
            assert_eq!(Form::accepted(asks), Form::OpenMetrics, "{asks}");
        }
        for other in [
            "",
            "*/*",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0,text/plain",
            "application/openmetrics-text; version=1.0.0; q=0.000",
            "application/openmetrics-text;q=0.5, text/plain;q=0.6",
            "application/openmetrics-texts",
        ] {
            assert_eq!(Form::accepted(other), Form::Prometheus, "{other}");
        }
    }
}
