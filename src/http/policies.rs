//! The policies for operators: what each does, without a secret, and what becomes of its calls.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::{
    admission::State,
    execute::Engine,
    policy::{Name, Policy, endpoint::Endpoint},
    telemetry::{Failure, Figures, names},
};

/// Every configured policy by name, then calls that brought their own and calls whose name no policy has, if there were any.
pub(super) fn shown(engine: &Engine) -> Value {
    let policies = engine.policies();
    let (mut figures, expiries, breakers) = (engine.figures(), engine.expiries(), engine.breakers());
    let mut places = HashMap::new();
    engine.admission().policies(|name, figures| {
        places.insert(name.to_owned(), figures);
    });
    let mut named: Vec<_> = policies.named.values().collect();
    named.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut rows = Vec::with_capacity(named.len() + 2);
    for policy in named {
        let name = policy.name.as_str();
        let mut row = described(policy);
        let held = places.get(name).copied().unwrap_or_default();
        row.insert("in_flight".to_owned(), json!(held.in_flight));
        row.insert("waiting".to_owned(), json!(held.waiting));
        let breaker = breakers.get(&Engine::breaker_key(&policy.target)).map(|state| match state {
            State::Closed => "closed",
            State::HalfOpen => "half-open",
            State::Open => "open",
        });
        row.insert("breaker".to_owned(), json!(breaker));
        row.insert("calls".to_owned(), counted(&figures.remove(name).unwrap_or_default()));
        if let (Some(expiry), Some(Value::Object(credentials))) = (expiries.get(name), row.get_mut("credentials")) {
            credentials.insert("expire_in_seconds".to_owned(), json!(expiry.as_secs()));
        }
        rows.push(Value::Object(row));
    }
    for name in [Name::INLINE, names::UNKNOWN_POLICY] {
        if let Some(figures) = figures.remove(name) {
            rows.push(json!({"name": name, "calls": counted(&figures)}));
        }
    }
    json!({"in_flight": engine.admission().in_flight(), "policies": rows})
}

fn described(policy: &Policy) -> Map<String, Value> {
    let access = &policy.access;
    let credentials = access.credentials();
    let mut shown = json!({
        "name": policy.name.as_str(),
        "title": policy.title,
        "function": policy.target.function.as_str(),
        "qualifier": policy.target.qualifier.as_ref().map(|qualifier| qualifier.as_str()),
        "region": policy.target.region.as_str(),
        "invocation": policy.invocation.as_str(),
        "timeout_seconds": policy.timeout.get().as_secs_f64(),
        "credentials": {
            "kind": credentials.kind(),
            "role": credentials.role().map(|role| role.role_arn.as_str()),
        },
        "endpoint": match access.endpoint() {
            Endpoint::Url(url) => Some(url.as_str()),
            Endpoint::Regional | Endpoint::Variant { .. } => None,
        },
    });
    std::mem::take(shown.as_object_mut().unwrap_or(&mut Map::new()))
}

fn counted(figures: &Figures) -> Value {
    let count = |wanted: Option<&str>| {
        let ended = figures.calls.iter().filter(|(outcome, ..)| wanted.is_none_or(|wanted| outcome == wanted));
        ended.map(|(_, _, count)| count).sum::<u64>()
    };
    let mut by_outcome = Map::new();
    for outcome in names::OUTCOMES {
        by_outcome.insert(outcome.to_owned(), json!(count(Some(outcome))));
    }
    let reasons: Map<_, _> =
        figures.calls.iter().filter_map(|(_, reason, count)| Some((reason.clone()?, json!(count)))).collect();
    let quantile = |quantile| figures.quantile(quantile).map(|seconds| (seconds * 1e6).round() / 1e6);
    json!({
        "total": count(None),
        "by_outcome": by_outcome,
        "by_reason": reasons,
        "seconds": {"p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99)},
        "last_errors": figures.last_errors.iter().map(failure).collect::<Vec<_>>(),
    })
}

fn failure(failure: &Failure) -> Value {
    json!({
        "at": humantime::format_rfc3339_millis(failure.at).to_string(),
        "outcome": failure.outcome,
        "reason": failure.reason,
        "error": Some(failure.error.as_str()).filter(|error| !error.is_empty()),
        "detail": failure.detail,
        "request_id": failure.request_id,
        "aws_request_id": failure.aws_request_id,
        "trace_id": failure.trace_id,
    })
}
