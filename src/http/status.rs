//! The service as a whole for operators: whether it wants calls, its configuration, and what all calls share.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::figures::{counted, failure, standing, time};
use crate::{
    admission::Strays,
    execute::Engine,
    policy::{callers::Callers, credentials::Base},
    telemetry::{Loss, Metrics, log},
};

/// The most bytes that are kept of why a configuration was refused.
const MOST_REASONS: usize = 8 * 1024;

/// What became of the last attempt to take over another configuration.
#[derive(Debug)]
pub(super) struct Reload {
    at: SystemTime,
    /// Why it was refused, if it was.
    error: Option<String>,
    /// The settings that have changed, and need a restart.
    needs_restart: Vec<&'static str>,
}

impl Reload {
    pub(super) fn accepted(needs_restart: Vec<&'static str>) -> Self {
        Self { at: SystemTime::now(), error: None, needs_restart }
    }

    pub(super) fn refused(why: &str) -> Self {
        let error = match why.char_indices().map(|(at, _)| at).find(|at| *at >= MOST_REASONS) {
            Some(end) => format!("{}\n… and more: `lambda-policy check` tells all", &why[..end]),
            None => why.to_owned(),
        };
        Self { at: SystemTime::now(), error: Some(error), needs_restart: Vec::new() }
    }
}

/// All of it.
pub(super) fn shown(engine: &Engine, ready: Result<(), &str>, reload: Option<&Reload>, uptime: Duration) -> Value {
    let (policies, admission, lambda) = (engine.policies(), engine.admission(), engine.lambda());
    let (generation, refused) = engine.metrics().configurations();
    let reload = reload.map(|reload| {
        json!({
            "at": time(reload.at),
            "accepted": reload.error.is_none(),
            "error": reload.error,
            "needs_restart": reload.needs_restart,
        })
    });
    let mut hosts = lambda.figures().hosts();
    hosts.sort_by(|(a, one), (b, other)| other.failed.get().cmp(&one.failed.get()).then_with(|| a.cmp(b)));
    let hosts = hosts.iter().map(|(name, host)| {
        json!({"host": name, "opened": host.opened.get(), "failed": host.failed.get(), "reused": host.reused()})
    });
    // Who does not use the service's own identity is not to worry about it.
    let own = policies.named.values().any(|policy| matches!(policy.access.credentials().base(), Base::Service));
    let own = own.then(|| lambda.standings().remove(&None)).flatten().map(|found| standing(&found));
    let closed = admission.connections().refused().map(|(reason, count)| (reason.to_owned(), json!(count)));
    let closed: Map<_, _> = closed.collect();
    let certificates = engine.metrics().certificates().all();
    let certificates = certificates.iter().map(|certificate| {
        json!({"role": certificate.role, "expires_in_seconds": certificate.left(), "trouble": certificate.trouble()})
    });
    json!({
        "now": time(SystemTime::now()),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": uptime.as_secs(),
        "ready": ready.is_ok(),
        "readiness": ready.err().unwrap_or("ready"),
        "configuration": {
            "generation": generation,
            "refused": refused,
            "policies": policies.named.len(),
            "last_reload": reload,
        },
        "in_flight": admission.in_flight(),
        "in_flight_limit": admission.limits().in_flight,
        "waiting": admission.waiting(),
        "bodies_bytes": admission.bodies().held(),
        "bodies_bytes_limit": admission.limits().bytes,
        "connections": {
            "open": admission.connections().open(),
            "limit": admission.connections().most(),
            "refused": closed,
        },
        "astray": {"grpc": strays(&admission.astray().grpc), "http": strays(&admission.astray().http)},
        "certificates": certificates.collect::<Vec<_>>(),
        "own_credentials": own,
        "issuers": policies.callers.as_ref().map(issuers).unwrap_or_default(),
        "clients": {
            "live": lambda.clients(),
            "built": lambda.figures().built.get(),
            "evicted": lambda.figures().evicted.get(),
        },
        "hosts": hosts.collect::<Vec<_>>(),
        "calls": calls(engine.metrics()),
        "telemetry": {
            "log_level": log::level(),
            "otlp": otlp(engine.metrics()),
            "dropped": {
                "lines": dropped(engine.metrics().lost_lines()),
                "spans": engine.metrics().lost_spans().map(dropped),
            },
        },
    })
}

/// The addresses that keys for callers' tokens are fetched from, and how that goes.
fn issuers(callers: &Callers) -> Vec<Value> {
    let shown = callers.remotes().map(|(caller, remote)| {
        let failing = remote
            .failing()
            .map(|failing| json!({"since": time(failing.since), "failures": failing.failures, "error": failing.error}));
        json!({"caller": caller.as_str(), "url": remote.url().as_str(), "known": remote.is_known(), "failing": failing})
    });
    shown.collect()
}

/// What became of all calls, and the last failures with their policies.
fn calls(metrics: &Metrics) -> Value {
    let mut calls = counted(&metrics.total(), true);
    if let Some(calls) = calls.as_object_mut() {
        // It cannot be put together from that of each policy.
        calls.get_mut("history").and_then(Value::as_object_mut).and_then(|history| history.remove("p99"));
        let last = metrics.last_failures().into_iter().map(|(policy, last)| {
            let mut shown = failure(&last);
            if let Some(shown) = shown.as_object_mut() {
                shown.insert("policy".to_owned(), json!(policy));
            }
            shown
        });
        calls.insert("last_errors".to_owned(), last.collect());
    }
    calls
}

/// How many requests went astray, and when the last one did.
fn strays(strays: &Strays) -> Value {
    json!({"count": strays.count(), "last": strays.last().map(time)})
}

/// How much was lost, and when last.
fn dropped(loss: Loss) -> Value {
    json!({"count": loss.count, "last": loss.last.map(time)})
}

/// How it goes with what is pushed; `None` if nothing is.
fn otlp(metrics: &Metrics) -> Option<Map<String, Value>> {
    let endpoint = metrics.pushes().first()?.endpoint();
    let signals = metrics.pushes().iter().map(|pushes| {
        let failing = pushes.failing().map(|failing| json!({"since": time(failing.since), "error": failing.error}));
        (pushes.signal().to_owned(), json!({"failures": pushes.failures(), "failing": failing}))
    });
    Some(signals.chain([("endpoint".to_owned(), json!(endpoint))]).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_reasons_is_cut_between_characters() {
        let reload = Reload::refused(&"é".repeat(MOST_REASONS));
        let error = reload.error.unwrap();
        assert!(error.len() < MOST_REASONS + 100 && error.ends_with("tells all"), "{}", error.len());
        assert_eq!(Reload::refused("short").error.unwrap(), "short");
    }
}
