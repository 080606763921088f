//! The metrics of one service: OpenTelemetry's instruments, and what reads them.
//!
//! A call's figures are recorded through instruments that are bound to their labels once, which is 20 times as cheap as
//! finding the series by its labels for each call. What is known elsewhere anyway is read when somebody looks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    Key, KeyValue,
    metrics::{AsyncInstrument, Histogram, Meter, MeterProvider},
};
use opentelemetry_sdk::{
    Resource,
    metrics::{Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream},
};
use prometheus::Registry;

use super::{
    certificates::Certificates,
    exemplars,
    failures::Failure,
    losses::Loss,
    meters::{Invoked, Meters},
    names::{self, Kind, Label, Metric},
    otlp::{self, Otlp, Pushes},
    policies::Policies,
    process,
    readers::Readers,
    scrape,
    tally::{Clock, Figures, Recent},
    traces::Traces,
    writer,
};
use crate::{
    policy::Name,
    trace::{Context, Trace},
};

/// How many series a metric may have that tells policies apart, or the statuses that functions answer, or [`EACH_POLICY`] of each
/// policy if those are more; more are one series, `otel.metric.overflow`. The SDK takes memory for all of them at once, 50 bytes
/// each.
pub(super) const MOST_SERIES: usize = 3_500;
/// Its calls end well, or in some of the ways that there are to fail.
const EACH_POLICY: usize = 8;
/// The same of the others, whose labels bound them far below.
const MOST_OTHERS: usize = 200;

/// Which of several replicas a process is (semantic conventions, service).
const INSTANCE: &str = "service.instance.id";
/// How long the last push may take.
const SHUT_DOWN: Duration = Duration::from_secs(5);

/// The metrics of one service.
pub struct Metrics {
    provider: SdkMeterProvider,
    registry: Registry,
    meter: Meter,
    pub(super) instruments: Arc<Instruments>,
    pushed: Vec<Arc<Pushes>>,
    policies: Arc<Policies>,
    generation: Arc<AtomicU64>,
    reload_failures: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    runtimes: super::runtime::Runtimes,
    certificates: Certificates,
    clock: Clock,
}

/// What is recorded as it happens.
#[derive(Debug)]
pub(super) struct Instruments {
    /// Whether somebody may read them.
    pub counted: bool,
    pub call: Histogram<f64>,
    pub queue: Histogram<f64>,
    pub credentials: Histogram<f64>,
    pub client: Histogram<f64>,
    pub server: Histogram<f64>,
    pub requests: Histogram<f64>,
    pub traces: Option<Traces>,
}

/// Takes what an observed metric is at the moment, series by series.
pub struct Readings<'a> {
    put: &'a dyn Fn(f64, &[KeyValue]),
}

impl Metrics {
    /// Metrics that are scraped, and pushed where `push` says, which needs a runtime that lives as long as they do. If they are
    /// not `counted`, there are none: an instrument that nobody reads does nothing, and spans are pushed all the same. The
    /// more `policies` there are, the more series a metric may have.
    ///
    /// # Errors
    /// If the endpoint to push to is none.
    pub fn new(counted: bool, push: Option<&Otlp>, policies: usize) -> Result<Arc<Self>, String> {
        let by_policy = MOST_SERIES.max(EACH_POLICY * policies);
        let (registry, resource) = (Registry::new(), resource());
        let scraped = opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false);
        let scraped = scraped.build().map_err(|error| error.to_string())?;
        let mut provider = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            // An error would be a limit of 0, or bounds that are not in order.
            .with_view(move |instrument: &Instrument| {
                let metric = names::ALL.iter().find(|metric| metric.name == instrument.name());
                let many = [names::POLICY.name, names::QUALIFIER.name, names::http::ROUTE.name];
                let has_many = |metric: &&Metric| metric.labels.iter().any(|label| many.contains(&label.name));
                let most = if metric.is_some_and(has_many) { by_policy } else { MOST_OTHERS };
                let mut stream = Stream::builder().with_cardinality_limit(most);
                if let Some(Metric { kind: Kind::Histogram(bounds), .. }) = metric {
                    // What is kept and told later has lost the least and the most.
                    let boundaries = bounds.to_vec();
                    stream = stream
                        .with_aggregation(Aggregation::ExplicitBucketHistogram { boundaries, record_min_max: false });
                }
                stream.build().ok()
            });
        let signals = ["metrics", "traces"];
        let [pushes, span_pushes] = signals.map(|signal| Arc::new(Pushes::new(signal, push)));
        let mut traces = None;
        let mut pushed = Vec::new();
        if let Some(push) = push
            && let Some(ratio) = push.traces
        {
            traces = Some(Traces::new(push, ratio, &resource, &span_pushes)?);
            pushed.push(Arc::clone(&span_pushes));
        }
        if counted {
            let reader = push.map(|push| -> Result<_, String> {
                pushed.push(Arc::clone(&pushes));
                let exporter = otlp::exporter(push, Arc::clone(&pushes))?;
                Ok(PeriodicReader::builder(exporter).with_interval(push.interval).build())
            });
            provider = provider.with_reader(Readers { scraped, pushed: reader.transpose()? });
        }
        let provider = provider.build();
        let meter = provider.meter("lambda-policy");
        let instruments = Arc::new(Instruments {
            counted,
            call: histogram(&meter, &names::CALL_DURATION),
            queue: histogram(&meter, &names::QUEUE_DURATION),
            credentials: histogram(&meter, &names::CREDENTIALS_DURATION),
            client: histogram(&meter, &names::CLIENT_DURATION),
            server: histogram(&meter, &names::SERVER_DURATION),
            requests: histogram(&meter, &names::REQUEST_DURATION),
            traces,
        });
        let metrics = Self {
            provider,
            registry,
            meter,
            pushed,
            policies: Arc::new(Policies::new(&instruments)),
            instruments,
            generation: Arc::default(),
            reload_failures: Arc::default(),
            refused: Arc::default(),
            runtimes: super::runtime::Runtimes::default(),
            certificates: Certificates::default(),
            clock: Clock::start(),
        };
        metrics.observe_own([pushes, span_pushes]);
        Ok(Arc::new(metrics))
    }

    fn observe_own(&self, pushes: [Arc<Pushes>; 2]) {
        let policies = Arc::clone(&self.policies);
        self.observe(&names::CALLS, move |readings| {
            // The SDK asks what is observed before it reads what was recorded.
            policies.tell();
            policies.calls(readings);
        });
        let read = |figure: &Arc<AtomicU64>| {
            let figure = Arc::clone(figure);
            move |readings: &Readings<'_>| readings.put(figure.load(Ordering::Relaxed) as f64, &[])
        };
        self.observe(&names::CONFIG_GENERATION, read(&self.generation));
        self.observe(&names::CONFIG_FAILURES, read(&self.reload_failures));
        self.observe(&names::CONFIG_REFUSED, read(&self.refused));
        self.observe(&names::EXPORT_FAILURES, move |readings| {
            for pushes in &pushes {
                readings.put(pushes.failures() as f64, &[(&names::SIGNAL, pushes.signal())]);
            }
        });
        let lost = self.instruments.traces.as_ref().map(|traces| Arc::clone(traces.lost())).unwrap_or_default();
        self.observe(&names::SPANS_DROPPED, move |readings| {
            for (reason, count) in [("queue_full", &lost.full), ("not_taken", &lost.refused)] {
                readings.put(count.count() as f64, &[(&names::LOST, reason)]);
            }
        });
        self.observe(&names::LINES_DROPPED, |readings| readings.put(writer::lost().count as f64, &[]));
        self.observe(&names::BUILD_INFO, |readings| {
            readings.put(1.0, &[(&names::VERSION, env!("CARGO_PKG_VERSION"))]);
        });
        process::observe(self);
        self.runtimes.observe(self);
        self.certificates.observe(self);
    }

    /// Has a metric read whenever somebody looks at the metrics.
    pub fn observe(&self, metric: &'static Metric, read: impl Fn(&Readings<'_>) + Send + Sync + 'static) {
        macro_rules! observed {
            ($builder:ident, $number:ty) => {
                self.meter
                    .$builder(metric.name)
                    .with_unit(metric.unit)
                    .with_description(metric.doc)
                    .with_callback(move |observer: &dyn AsyncInstrument<$number>| {
                        read(&Readings { put: &|value, labels| observer.observe(value as $number, labels) });
                    })
                    .build()
            };
        }
        match (metric.kind, metric.unit) {
            (Kind::Counter, "s") => drop(observed!(f64_observable_counter, f64)),
            (Kind::Counter, _) => drop(observed!(u64_observable_counter, u64)),
            (Kind::Gauge, "s") => drop(observed!(f64_observable_gauge, f64)),
            (Kind::Gauge, _) => drop(observed!(u64_observable_gauge, u64)),
            (Kind::Sum, _) => drop(observed!(i64_observable_up_down_counter, i64)),
            // These are recorded and not read.
            (Kind::Histogram(_), _) => {}
        }
    }

    /// The policies in force: others have no figures of their own from now on.
    pub fn set_policies<'a>(&self, policies: impl Iterator<Item = (&'a Name, Invoked)>) {
        self.policies.set(&self.instruments, policies);
    }

    /// The figures of a policy by the name that a call has for it.
    pub(super) fn of(&self, policy: &str) -> Arc<Meters> {
        self.policies.of(policy)
    }

    /// The trace of a call: the one that its caller told of, or one that begins here if the call is chosen for one. Who has
    /// decided whether there are spans is not overruled.
    pub fn trace(&self, told: Option<Context>) -> Trace {
        let with_spans = match (&self.instruments.traces, told.as_ref().and_then(|context| context.sampled)) {
            (None, _) => false,
            (Some(_), Some(sampled)) => sampled,
            (Some(traces), None) => traces.chooses(),
        };
        match (told, with_spans) {
            (None, false) => Trace::default(),
            (told, with_spans) => Trace::new(told, with_spans),
        }
    }

    /// Counts a configuration that took effect.
    pub fn configured(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
    }

    /// Counts a configuration that was wrong.
    pub fn not_configured(&self) {
        self.reload_failures.fetch_add(1, Ordering::Relaxed);
        self.refused.store(1, Ordering::Relaxed);
    }

    /// The certificates that are served with.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Has a runtime's figures read from now on.
    pub fn add_runtime(&self, worker: String, runtime: &tokio::runtime::Handle) {
        self.runtimes.add(worker, runtime.metrics());
    }

    /// All metrics in Prometheus' text format, or in OpenMetrics', if there are any.
    pub fn scrape(&self, form: scrape::Form) -> Option<String> {
        let text = self.instruments.counted.then(|| scrape::text(self.registry.gather(), form))?;
        Some(match form {
            scrape::Form::Prometheus => text,
            scrape::Form::OpenMetrics => {
                exemplars::add(&text, |policy, outcome, bound| self.policies.find(policy)?.exemplar(outcome, bound))
            }
        })
    }

    /// How many configurations took effect, and how many were wrong.
    pub fn configurations(&self) -> (u64, u64) {
        (self.generation.load(Ordering::Relaxed), self.reload_failures.load(Ordering::Relaxed))
    }

    /// Remembers what became of calls since the last time, and logs what has become of certificates: to be called every
    /// [`super::INTERVAL`].
    pub fn sample(&self) {
        self.policies.each(|meters| {
            meters.tally.sample();
            // Nobody may have read them for long, and it is not to be much when somebody does.
            meters.tell();
        });
        self.clock.sampled();
        self.certificates.look();
    }

    /// Tells of each policy that was called, by its name.
    pub fn recent(&self, mut tell: impl FnMut(&str, Recent)) {
        self.policies.each(|meters| {
            if let Some(recent) = meters.tally.recent(&self.clock) {
                tell(&meters.name, recent);
            }
        });
    }

    /// What became of a policy's calls, by the name that a call has for it; `None` if there were none.
    pub fn figures(&self, policy: &str) -> Option<Figures> {
        self.of(policy).tally.figures(&self.clock)
    }

    /// How it goes with what is pushed: metrics, spans, both or nothing.
    pub fn pushes(&self) -> &[Arc<Pushes>] {
        &self.pushed
    }

    /// Lines of the log that are lost. They are the process's.
    pub fn lost_lines(&self) -> Loss {
        writer::lost()
    }

    /// Spans that are lost, if there are spans.
    pub fn lost_spans(&self) -> Option<Loss> {
        let lost = self.instruments.traces.as_ref()?.lost();
        Some(lost.full.read().and(lost.refused.read()))
    }

    /// The last failures of all calls, the latest first, each with its policy.
    pub fn last_failures(&self) -> Vec<(String, Failure)> {
        let mut all = Vec::new();
        self.policies.each(|meters| {
            meters.tally.add_failures(&meters.name, &mut all);
        });
        all
    }

    /// What became of all calls, without their failures.
    pub fn total(&self) -> Figures {
        let mut total = Figures::default();
        self.policies.each(|meters| {
            meters.tally.add_to(&mut total, &self.clock);
        });
        total
    }

    /// Pushes what has not been pushed, and ends. It blocks, for five seconds at the most.
    pub fn shut_down(&self) {
        std::thread::scope(|scope| {
            if let Some(traces) = &self.instruments.traces {
                scope.spawn(|| traces.shut_down(SHUT_DOWN));
            }
            // A failure is counted and logged where it happens.
            let _ = self.provider.shutdown_with_timeout(SHUT_DOWN);
        });
    }
}

impl Readings<'_> {
    /// One series' value. Labels without one of the metric's own would be a mistake that the tests find.
    pub fn put(&self, value: f64, labels: &[(&'static Label, &str)]) {
        let labels: Vec<_> = labels.iter().map(|(label, value)| KeyValue::new(label.name, value.to_string())).collect();
        (self.put)(value, &labels);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn histogram(meter: &Meter, metric: &Metric) -> Histogram<f64> {
    meter.f64_histogram(metric.name).with_unit(metric.unit).with_description(metric.doc).build()
}

/// Who sends, the same for metrics and spans. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` come first.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let mut builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    // Without it a collector takes the series of several replicas for one.
    if given.get(&Key::from_static_str(INSTANCE)).is_none() {
        builder = builder.with_attribute(KeyValue::new(INSTANCE, uuid::Uuid::new_v4().to_string()));
    }
    if named { builder.build() } else { builder.with_service_name("lambda-policy").build() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::telemetry::access::Line;

    /// Series of calls, and whether some are one, after a call of each of so many policies.
    fn series(expected: usize, policies: usize) -> (usize, bool) {
        let metrics = Metrics::new(true, None, expected).unwrap();
        let names: Vec<Name> = (0..policies).map(|number| Name::parse(&format!("policy-{number}")).unwrap()).collect();
        metrics.set_policies(
            names.iter().map(|name| (name, Invoked { function: "f".into(), region: "us-east-1".into(), server: None })),
        );
        for name in &names {
            drop(Line::start(&metrics, "ExecutePolicy", name.as_str()));
        }
        let text = metrics.scrape(scrape::Form::Prometheus).unwrap();
        let calls =
            text.lines().filter(|line| line.starts_with("lambda_policy_calls_total{") && line.contains("policy=\""));
        (calls.count(), text.contains("otel_metric_overflow=\"true\""))
    }

    #[test]
    fn every_policy_that_was_there_at_the_start_has_series_of_its_own() {
        let many = MOST_SERIES;
        // Each has ended well, by its function's error, without an answer, and once without its caller.
        assert_eq!(series(many, many), (4 * many + 2 * 3, false));
        let (found, overflow) = series(0, many);
        assert!(found <= MOST_SERIES + 1 && overflow, "{found}");
    }
}
