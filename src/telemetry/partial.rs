//! Pushes of which a collector takes a part only. OTLP has that in an answer that is a success, and the exporter tells it to the
//! log alone: it is read off its line, for the push that it is about, and no line of the exporter's own is written.

use std::{cell::Cell, fmt};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

tokio::task_local! {
    static HEARD: Cell<Option<Refused>>;
}

/// What a collector has refused of a push.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// How much.
    pub count: u64,
    what: &'static str,
    why: String,
}

/// A layer of the log that hears the exporter.
pub(super) struct Ear;

/// The end of a push, and what was refused of it.
pub(super) async fn heard<T>(push: impl Future<Output = T>) -> (T, Option<Refused>) {
    HEARD.scope(Cell::new(None), async { (push.await, HEARD.with(Cell::take)) }).await
}

impl<S: Subscriber> Layer<S> for Ear {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if !event.metadata().target().starts_with("opentelemetry") {
            return true;
        }
        let mut refused = Refused::default();
        event.record(&mut refused);
        if refused.count > 0 {
            // Only a push has somebody who waits for it.
            let _ = HEARD.try_with(|heard| heard.set(Some(refused)));
        }
        false
    }
}

impl Visit for Refused {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.what = match field.name() {
            "rejected_spans" => "spans",
            "rejected_data_points" => "data points",
            _ => return,
        };
        self.count = u64::try_from(value).unwrap_or_default();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "error_message" {
            value.clone_into(&mut self.why);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, what, why } = self;
        write!(f, "the collector refuses {count} {what} of a push: {why}")
    }
}
