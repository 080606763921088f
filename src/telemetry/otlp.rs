//! Pushing metrics and spans by OTLP over gRPC. An endpoint that is down is counted, shown, and logged once a minute.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::SpanData,
};

use tokio::time::Instant;

use super::{
    partial::{self, Refused},
    spans::Lost,
};

/// How long a push may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is logged that pushing still fails.
const REMIND: Duration = Duration::from_secs(60);
/// The most characters of why it fails.
const MOST_ERROR: usize = 300;

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

/// How the pushes of one signal go.
#[derive(Debug)]
pub struct Pushes {
    signal: &'static str,
    endpoint: String,
    failures: AtomicU64,
    state: Mutex<Option<(Failing, Instant)>>,
}

/// The last push has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When the first one in a row has.
    pub since: SystemTime,
    /// Why the last one has.
    pub error: String,
}

/// What there is to log.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Fails(String),
    Works,
}

impl Pushes {
    pub(super) fn new(signal: &'static str, to: Option<&Otlp>) -> Self {
        let endpoint = to.map(|to| to.endpoint.clone()).unwrap_or_default();
        Self { signal, endpoint, failures: AtomicU64::new(0), state: Mutex::new(None) }
    }

    /// What is pushed: `metrics` or `traces`.
    pub fn signal(&self) -> &'static str {
        self.signal
    }

    /// Where to.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// How many have failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Since when they fail, if the last one has.
    pub fn failing(&self) -> Option<Failing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(failing, _)| failing.clone())
    }

    /// Takes note of a push of which a part may have been refused, which counts as a failure: it will be again.
    fn ended(&self, exported: &OTelSdkResult, refused: Option<&Refused>) {
        let partly = refused.map(|refused| Err(OTelSdkError::InternalFailure(refused.to_string())));
        self.heard(partly.as_ref().unwrap_or(exported));
    }

    fn heard(&self, result: &OTelSdkResult) {
        let (signal, endpoint) = (self.signal, &self.endpoint);
        match self.news(result) {
            Some(News::Fails(error)) => {
                let failures = self.failures();
                tracing::warn!(signal, endpoint, error, failures, "telemetry cannot be pushed");
            }
            Some(News::Works) => tracing::info!(signal, endpoint, "telemetry is pushed again"),
            None => {}
        }
    }

    /// Takes note of how a push went: what fails on is news once in [`REMIND`].
    fn news(&self, result: &OTelSdkResult) -> Option<News> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match result {
            Ok(()) => return state.take().map(|_| News::Works),
            Err(OTelSdkError::InternalFailure(why)) => why.chars().take(MOST_ERROR).collect::<String>(),
            Err(error) => error.to_string(),
        };
        self.failures.fetch_add(1, Ordering::Relaxed);
        let (before, now) = (state.take(), Instant::now());
        let since = before.as_ref().map_or_else(SystemTime::now, |(failing, _)| failing.since);
        let told = before.map(|(_, told)| told).filter(|told| now.duration_since(*told) < REMIND);
        *state = Some((Failing { since, error: error.clone() }, told.unwrap_or(now)));
        told.is_none().then_some(News::Fails(error))
    }
}

/// An exporter that counts its failures.
pub(super) struct Counted {
    exporter: MetricExporter,
    pushes: Arc<Pushes>,
}

/// An exporter to an endpoint; it connects when it has something to push.
///
/// # Errors
/// If the endpoint is no address.
pub(super) fn exporter(at: &Otlp, pushes: Arc<Pushes>) -> Result<Counted, String> {
    let exporter = to(MetricExporter::builder().with_tonic(), at).build().map_err(|error| error.to_string())?;
    Ok(Counted { exporter, pushes })
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
    pushes: Arc<Pushes>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<Lost>,
}

/// The same for spans.
///
/// # Errors
/// If the endpoint is no address.
pub(super) fn spans(
    at: &Otlp,
    pushes: &Arc<Pushes>,
    waiting: &Arc<AtomicUsize>,
    lost: &Arc<Lost>,
) -> Result<Spans, String> {
    let exporter = to(SpanExporter::builder().with_tonic(), at).build().map_err(|error| error.to_string())?;
    let (pushes, waiting, lost) = (Arc::clone(pushes), Arc::clone(waiting), Arc::clone(lost));
    Ok(Spans { exporter, pushes, waiting, lost })
}

impl opentelemetry_sdk::trace::SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let (exported, refused) = partial::heard(self.exporter.export(batch)).await;
        self.pushes.ended(&exported, refused.as_ref());
        let lost = match &exported {
            Ok(()) => refused.map_or(0, |refused| refused.count),
            Err(_) => u64::try_from(count).unwrap_or_default(),
        };
        if lost > 0 {
            self.lost.refused.add(lost);
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
        let (exported, refused) = partial::heard(self.exporter.export(metrics)).await;
        self.pushes.ended(&exported, refused.as_ref());
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_down_is_news_at_first_once_a_minute_and_when_it_is_back() {
        let pushes = Pushes::new("metrics", None);
        let down = || pushes.news(&Err(OTelSdkError::InternalFailure("refused".to_owned())));
        let fails = Some(News::Fails("refused".to_owned()));
        assert_eq!(pushes.news(&Ok(())), None, "it has always worked");
        assert_eq!(down(), fails);
        let since = pushes.failing().map(|failing| failing.since);
        for _ in 0..2 {
            for _ in 0..5 {
                advance(REMIND / 6).await;
                assert_eq!(down(), None);
            }
            advance(REMIND / 6).await;
            assert_eq!(down(), fails);
        }
        assert_eq!(pushes.failing().map(|failing| failing.since), since);
        assert_eq!(pushes.news(&Ok(())), Some(News::Works));
        assert_eq!((pushes.news(&Ok(())), pushes.failing(), pushes.failures()), (None, None, 13));
        assert_eq!(down(), fails, "at once, though a minute has not passed");
    }

    #[test]
    fn a_long_reason_is_cut() {
        let pushes = Pushes::new("metrics", None);
        pushes.news(&Err(OTelSdkError::InternalFailure("é".repeat(10_000))));
        assert_eq!(pushes.failing().map(|failing| failing.error.chars().count()), Some(MOST_ERROR));
    }
}
