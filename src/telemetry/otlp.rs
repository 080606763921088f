//! Pushing metrics by OTLP over gRPC. An endpoint that is down costs a counter and a log line.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{MetricExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};

/// How long a push may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where to push, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// The address, for example `http://localhost:4317`.
    pub endpoint: String,
    /// Between two pushes.
    pub interval: Duration,
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
pub(super) fn exporter(to: &Otlp, failures: Arc<AtomicU64>) -> Result<Counted, String> {
    let mut builder = MetricExporter::builder().with_tonic().with_endpoint(&to.endpoint).with_timeout(TIMEOUT);
    if to.endpoint.starts_with("https:") {
        builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    Ok(Counted { exporter: builder.build().map_err(|error| error.to_string())?, failures })
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
