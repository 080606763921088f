//! Pushing metrics and spans by OTLP over gRPC. An endpoint that is down costs a counter and a log line.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::SpanData,
};

use super::spans::Lost;

/// How long a push may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where to push, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// The address, for example `http://localhost:4317`.
    pub endpoint: String,
    /// Between two pushes of metrics; spans wait five seconds at the most.
    pub interval: Duration,
    /// Whether spans are pushed, and of which share of the calls whose callers have not decided.
    pub traces: Option<f64>,
}

/// An exporter that counts its failures.
pub(super) struct Counted {
    exporter: MetricExporter,
    failures: Arc<AtomicU64>,
}

/// An exporter to an endpoint; it connects when it has something to push.
///
/// # Errors
/// If the endpoint is no address.
pub(super) fn exporter(at: &Otlp, failures: Arc<AtomicU64>) -> Result<Counted, String> {
    let exporter = to(MetricExporter::builder().with_tonic(), at).build().map_err(|error| error.to_string())?;
    Ok(Counted { exporter, failures })
}

fn to<B: WithExportConfig + WithTonicConfig>(builder: B, at: &Otlp) -> B {
    let builder = builder.with_endpoint(&at.endpoint).with_timeout(TIMEOUT);
    match at.endpoint.starts_with("https:") {
        true => builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()),
        false => builder,
    }
}

/// An exporter of spans that counts its failures, and what waits no more.
#[derive(Debug)]
pub(super) struct Spans {
    exporter: SpanExporter,
    failures: Arc<AtomicU64>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<Lost>,
}

/// The same for spans.
///
/// # Errors
/// If the endpoint is no address.
pub(super) fn spans(
    at: &Otlp,
    failures: &Arc<AtomicU64>,
    waiting: &Arc<AtomicUsize>,
    lost: &Arc<Lost>,
) -> Result<Spans, String> {
    let exporter = to(SpanExporter::builder().with_tonic(), at).build().map_err(|error| error.to_string())?;
    let (failures, waiting, lost) = (Arc::clone(failures), Arc::clone(waiting), Arc::clone(lost));
    Ok(Spans { exporter, failures, waiting, lost })
}

impl opentelemetry_sdk::trace::SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let exported = self.exporter.export(batch).await;
        if exported.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.lost.refused.fetch_add(u64::try_from(count).unwrap_or_default(), Ordering::Relaxed);
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl PushMetricExporter for Counted {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let exported = self.exporter.export(metrics).await;
        if exported.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        exported
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}
