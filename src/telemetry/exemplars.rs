//! Calls whose traces stand beside the buckets of their policy's durations, in OpenMetrics.
//!
//! OpenTelemetry's SDK keeps none, and the encoder takes such as nobody outside of its crate can make; so they are kept
//! here, and written at the end of the buckets' lines (OpenMetrics 1.0, "Exemplars").

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::names::{CALL_DURATION, OUTCOME, POLICY};
use crate::trace::{Hex, Trace};

/// The last call of each bucket, by outcome and the bucket's number. Only calls that spans are made of come here.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<HashMap<(&'static str, usize), Exemplar>>);

/// A call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    trace: Hex<32>,
    span: Hex<16>,
    took: Duration,
    at: SystemTime,
}

impl Exemplars {
    pub(super) fn keep(&self, outcome: &'static str, trace: &Trace, took: Duration) {
        let (Some(id), Some(spans)) = (trace.id(), trace.spans()) else { return };
        let exemplar = Exemplar { trace: id, span: Hex::of(spans.server.into()), took, at: SystemTime::now() };
        let bucket = CALL_DURATION.bounds().partition_point(|bound| *bound < took.as_secs_f64());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((outcome, bucket), exemplar);
    }

    /// The last call of the bucket with this upper bound, as it is written.
    pub(super) fn of(&self, outcome: &str, bound: &str) -> Option<Exemplar> {
        let bucket = match bound {
            "+Inf" => CALL_DURATION.bounds().len(),
            bound => {
                let bound: f64 = bound.parse().ok()?;
                CALL_DURATION.bounds().iter().position(|known| *known == bound)?
            }
        };
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|((known, at), _)| *known == outcome && *at == bucket).map(|(_, exemplar)| *exemplar)
    }
}

/// The text with the exemplars that there are for a policy, an outcome and a bound.
pub(super) fn add(text: &str, find: impl Fn(&str, &str, &str) -> Option<Exemplar>) -> String {
    let buckets = format!("{}_bucket{{", CALL_DURATION.prometheus());
    let mut with = String::with_capacity(text.len() + 1024);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        with.push_str(line);
        let exemplar = line
            .strip_prefix(&buckets)
            .and_then(|labels| find(label(labels, POLICY.name)?, label(labels, OUTCOME.name)?, label(labels, "le")?));
        if let Some(Exemplar { trace, span, took, at }) = exemplar {
            let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let (trace, span) = (trace.as_str(), span.as_str());
            // Writing into memory does not fail.
            let _ = write!(with, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {} {at:.3}", took.as_secs_f64());
        }
        with.push_str(end);
    }
    with
}

/// A label's value. Those of this metric have nothing that would be escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let labels = labels.split('}').next()?;
    labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_call_of_a_bucket_stands_at_its_line() {
        let (kept, trace) = (Exemplars::default(), Trace::new(None, true));
        kept.keep("ok", &Trace::new(None, true), Duration::from_millis(3));
        kept.keep("ok", &trace, Duration::from_millis(4));
        kept.keep("error", &trace, Duration::from_secs(1000));
        kept.keep("ok", &Trace::default(), Duration::from_millis(20));
        let name = "lambda_policy_call_duration_seconds";
        let line = |outcome: &str, bound: &str| {
            format!("{name}_bucket{{policy=\"a\",outcome=\"{outcome}\",le=\"{bound}\"}} 1")
        };
        let lines = [
            "# TYPE x histogram".to_owned(),
            line("ok", "0.0025"),
            line("ok", "0.005"),
            line("ok", "0.025"),
            line("error", "900.0"),
            line("error", "+Inf"),
            format!("{name}_count{{policy=\"a\",outcome=\"ok\"}} 2"),
            "# EOF".to_owned(),
        ];
        let text = lines.join("\n") + "\n";
        let with = add(&text, |policy, outcome, bound| kept.of(outcome, bound).filter(|_| policy == "a"));
        let (id, span) = (trace.id().unwrap(), Hex::<16>::of(trace.spans().unwrap().server.into()));
        let exemplar = format!(" # {{trace_id=\"{}\",span_id=\"{}\"}} ", id.as_str(), span.as_str());
        let added: Vec<_> =
            with.lines().zip(&lines).map(|(with, line)| with.strip_prefix(line.as_str()).unwrap()).collect();
        assert!(with.ends_with("# EOF\n"));
        for (number, added) in added.iter().enumerate() {
            let (is, none) = (added.starts_with(&exemplar), added.is_empty());
            assert_eq!(
                (is, none),
                if [2, 5].contains(&number) { (true, false) } else { (false, true) },
                "{number}: {added}"
            );
        }
        assert!(added[2].starts_with(&(exemplar + "0.004 ")));
    }
}
