//! Figures of calls and credentials as JSON.

use serde_json::{Map, Value, json};

use crate::{
    admission,
    error::Kind,
    lambda::Standing,
    telemetry::{Failure, Figures, INTERVAL, names},
};

/// What became of calls; with `history` also when.
pub(super) fn counted(figures: &Figures, history: bool) -> Value {
    let by_outcome = names::OUTCOMES.iter().zip(figures.ended);
    let by_outcome: Map<_, _> = by_outcome.map(|(outcome, count)| ((*outcome).to_owned(), json!(count))).collect();
    let by_reason: Map<_, _> =
        figures.reasons.iter().map(|(reason, count)| ((*reason).to_owned(), json!(count))).collect();
    let quantile = |quantile| figures.quantile(quantile).map(rounded);
    let mut counted = json!({
        "total": figures.ended.iter().sum::<u64>(),
        "by_outcome": by_outcome,
        "by_reason": by_reason,
        "per_second": thousandths(figures.recent.calls),
        "errors_per_second": thousandths(figures.recent.errors),
        "given_up_per_second": thousandths(figures.recent.given_up),
        "seconds": {"p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99)},
        "last_errors": figures.last_errors.iter().map(failure).collect::<Vec<_>>(),
    });
    if let (true, Value::Object(counted)) = (history, &mut counted) {
        let counts = |counts: &[f32]| counts.iter().map(|count| *count as u64).collect::<Vec<_>>();
        let history = json!({
            "interval_seconds": INTERVAL.as_secs(),
            "calls": counts(figures.calls()),
            "errors": counts(figures.errors()),
            "p99": figures.slow().iter().map(|slow| slow.map(rounded)).collect::<Vec<_>>(),
        });
        counted.insert("history".to_owned(), history);
    }
    counted
}

/// How credentials stand, as far as there is something to say.
pub(super) fn standing(standing: &Standing) -> Map<String, Value> {
    let mut shown = Map::new();
    if let Some(expiry) = standing.expires_in {
        shown.insert("expire_in_seconds".to_owned(), json!(expiry.as_secs()));
    }
    if let Some(trouble) = &standing.trouble {
        let failure = json!({
            "at": time(trouble.at),
            "failures": trouble.failures,
            "rejected": trouble.rejected,
            "detail": trouble.detail,
        });
        shown.insert("failure".to_owned(), failure);
    }
    shown
}

/// A time as RFC 3339 has it.
pub(super) fn time(time: std::time::SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A failure, and how many there were of the same kind.
pub(super) fn failure(failure: &Failure) -> Value {
    json!({
        "at": time(failure.at),
        "since": time(failure.since),
        "count": failure.count,
        "outcome": failure.outcome,
        "reason": failure.reason,
        "callers_own": failure.own,
        "opens_breakers": Kind::ALL.into_iter().any(|kind| kind.reason() == failure.reason && admission::opens(kind)),
        "error": Some(failure.error.as_str()).filter(|error| !error.is_empty()),
        "error_type": failure.error_type,
        "detail": failure.detail,
        "request_id": failure.request_id,
        "aws_request_id": failure.aws_request_id,
        "trace_id": failure.trace_id,
    })
}

/// Seconds to tenths of a millisecond.
fn rounded(seconds: f32) -> f64 {
    (f64::from(seconds) * 1e4).round() / 1e4
}

fn thousandths(rate: f64) -> f64 {
    (rate * 1e3).round() / 1e3
}
