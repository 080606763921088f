//! One pipeline of metrics for all who read them.
//!
//! The SDK makes a pipeline for each reader and records every value in each of them, though all that are read here add up
//! since the start in the same way. So scraping and pushing are one reader to it.

use std::{sync::Weak, time::Duration};

use opentelemetry_prometheus::PrometheusExporter;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{InstrumentKind, PeriodicReader, Pipeline, Temporality, data::ResourceMetrics, reader::MetricReader},
};

use super::otlp::Counted;

/// Who scrapes, and who is pushed to, if there is somebody.
#[derive(Debug)]
pub(super) struct Readers {
    pub scraped: PrometheusExporter,
    pub pushed: Option<PeriodicReader<Counted>>,
}

impl MetricReader for Readers {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        if let Some(pushed) = &self.pushed {
            pushed.register_pipeline(Weak::clone(&pipeline));
        }
        self.scraped.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.scraped.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.pushed.as_ref().map_or(Ok(()), MetricReader::force_flush)
    }

    /// The last push comes first, as it reads once more.
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let pushed = self.pushed.as_ref().map_or(Ok(()), |pushed| pushed.shutdown_with_timeout(timeout));
        pushed.and(self.scraped.shutdown_with_timeout(timeout))
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.scraped.temporality(kind)
    }
}
