//! The policies for operators: what each does, without a secret, and what becomes of its calls.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::figures::{counted, standing};
use crate::{
    admission::{self, State},
    execute::Engine,
    lambda::Standing,
    policy::{Name, Policy, endpoint::Endpoint},
    telemetry::{Recent, names},
};

/// Which policies are shown, and what of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// In lower case, what the name, the title or the function has in it.
    matching: String,
    /// At most so many.
    limit: Option<usize>,
    /// The worst first, and not by name.
    worst: bool,
    /// With what became of calls in the last minutes.
    history: bool,
}

/// How a policy's calls do, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Idle,
    Ok,
    Errors,
    GivenUp,
    Failing,
    BreakerOpen,
}

struct Row<'a> {
    name: &'a str,
    policy: Option<&'a Arc<Policy>>,
    breaker: Option<State>,
    standing: Option<&'a Standing>,
    recent: Recent,
    condition: Condition,
}

impl View {
    /// Of a query: `match=TEXT`, `limit=NUMBER`, `order=worst`, `history=true`. What is something else is wrong.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut view = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let spaced = value.replace('+', " ");
            let value = percent_decode_str(&spaced).decode_utf8().map_err(|_| format!("`{key}` is no UTF-8"))?;
            match (key, value.as_ref()) {
                ("match", text) => view.matching = text.to_lowercase(),
                ("limit", number) => {
                    let wrong = |_| format!("`limit` is no number: `{number}`");
                    view.limit = Some(number.parse().map_err(wrong)?);
                }
                ("order", "worst") => view.worst = true,
                ("order", "name") => view.worst = false,
                ("history", "true") => view.history = true,
                ("history", "false") => view.history = false,
                _ => {
                    let known = "match=TEXT, limit=NUMBER, order=worst|name and history=true|false";
                    return Err(format!("`{pair}` is not known here: there are {known}"));
                }
            }
        }
        Ok(view)
    }

    /// Whether it is for a program, which needs no indentation.
    pub(super) fn is_compact(&self) -> bool {
        self.history
    }

    fn takes(&self, name: &str, policy: Option<&Arc<Policy>>) -> bool {
        let has = |text: &str| text.to_lowercase().contains(&self.matching);
        self.matching.is_empty()
            || has(name)
            || policy.is_some_and(|policy| has(&policy.title) || has(policy.target.function.as_str()))
    }
}

/// Every configured policy by name, then calls that brought their own and calls whose name no policy has, if there were
/// any; or as `view` has it.
pub(super) fn shown(engine: &Engine, view: &View) -> Value {
    let policies = engine.policies();
    let (metrics, breakers, standings) = (engine.metrics(), engine.breakers(), engine.standings());
    let mut recents = HashMap::new();
    metrics.recent(|name, recent| {
        recents.insert(name.to_owned(), recent);
    });
    let mut named: Vec<_> = policies.named.values().collect();
    named.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let named = named.into_iter().map(|policy| (policy.name.as_str(), Some(policy)));
    let others = [Name::INLINE, names::UNKNOWN_POLICY].into_iter().filter(|name| recents.contains_key(*name));
    let rows = named.chain(others.map(|name| (name, None))).map(|(name, policy)| {
        let breaker = policy.and_then(|policy| breakers.get(&Engine::breaker_key(&policy.target)).copied());
        let (recent, standing) = (recents.get(name), standings.get(name));
        let condition = Condition::of(breaker, standing, recent);
        Row { name, policy, breaker, standing, recent: recent.copied().unwrap_or_default(), condition }
    });
    let mut rows: Vec<_> = rows.collect();
    let all = rows.len();
    rows.retain(|row| view.takes(row.name, row.policy));
    let matching = rows.len();
    if view.worst {
        // Stable: by name where nothing tells them apart.
        rows.sort_by(Row::worse);
    }
    rows.truncate(view.limit.unwrap_or(usize::MAX));

    let mut places = HashMap::new();
    engine.admission().policies(|name, figures| {
        places.insert(name.to_owned(), figures);
    });
    let shown = |row: &Row<'_>| row.shown(engine, places.get(row.name).copied().unwrap_or_default(), view.history);
    let shown: Vec<_> = rows.iter().map(shown).collect();
    json!({"in_flight": engine.admission().in_flight(), "all": all, "matching": matching, "policies": shown})
}

impl Condition {
    fn of(breaker: Option<State>, standing: Option<&Standing>, recent: Option<&Recent>) -> Self {
        let Recent { calls, errors, given_up, own } = recent.copied().unwrap_or_default();
        // What callers do wrong themselves says nothing of how a right call would have ended.
        let most = |count: f64| count > 0.0 && count * 2.0 >= calls - own;
        match breaker {
            Some(State::Open) => Self::BreakerOpen,
            Some(State::HalfOpen) => Self::Failing,
            _ if standing.is_some_and(|standing| standing.trouble.is_some()) => Self::Failing,
            _ if most(errors - own) => Self::Failing,
            _ if most(given_up) => Self::GivenUp,
            _ if errors > 0.0 => Self::Errors,
            _ if calls > 0.0 => Self::Ok,
            _ => Self::Idle,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Ok => "ok",
            Self::Errors => "errors",
            Self::GivenUp => "given up",
            Self::Failing => "failing",
            Self::BreakerOpen => "breaker open",
        }
    }
}

impl Row<'_> {
    fn worse(&self, other: &Self) -> Ordering {
        let failed = |row: &Self| row.recent.errors - row.recent.own;
        let by_failures = || failed(other).total_cmp(&failed(self));
        let by_errors = || other.recent.errors.total_cmp(&self.recent.errors);
        let by_calls = || other.recent.calls.total_cmp(&self.recent.calls);
        other.condition.cmp(&self.condition).then_with(by_failures).then_with(by_errors).then_with(by_calls)
    }

    fn shown(&self, engine: &Engine, held: admission::Figures, history: bool) -> Value {
        let mut row = self.policy.map(|policy| described(policy)).unwrap_or_default();
        row.insert("name".to_owned(), json!(self.name));
        row.insert("condition".to_owned(), json!(self.condition.as_str()));
        if self.name != names::UNKNOWN_POLICY {
            row.insert("in_flight".to_owned(), json!(held.in_flight));
            row.insert("waiting".to_owned(), json!(held.waiting));
            row.insert("refused".to_owned(), json!(held.refused));
        }
        if self.policy.is_some() {
            let breaker = self.breaker.map(|state| match state {
                State::Closed => "closed",
                State::HalfOpen => "half-open",
                State::Open => "open",
            });
            row.insert("breaker".to_owned(), json!(breaker));
        }
        if let (Some(found), Some(Value::Object(credentials))) = (self.standing, row.get_mut("credentials")) {
            credentials.extend(standing(found));
        }
        let figures = engine.metrics().figures(self.name).unwrap_or_default();
        row.insert("calls".to_owned(), counted(&figures, history));
        Value::Object(row)
    }
}

fn described(policy: &Policy) -> Map<String, Value> {
    let access = &policy.access;
    let credentials = access.credentials();
    let mut shown = json!({
        "title": policy.title,
        "function": policy.target.function.as_str(),
        "qualifier": policy.target.qualifier.as_ref().map(|qualifier| qualifier.as_str()),
        "region": policy.target.region.as_str(),
        "invocation": policy.invocation.as_str(),
        "timeout_seconds": policy.timeout.get().as_secs_f64(),
        "max_in_flight": policy.limits.max_in_flight,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_what_the_query_says() {
        let view =
            |matching: &str, limit, worst, history| View { matching: matching.to_owned(), limit, worst, history };
        for (query, expected) in [
            ("", Ok(View::default())),
            ("match=Ord%C3%89rs+%26&limit=20", Ok(view("ordérs &", Some(20), false, false))),
            ("order=worst&history=true&match=", Ok(view("", None, true, true))),
            ("order=best", Err("`order=best` is not known")),
            ("limit=-1", Err("`limit` is no number")),
            ("match=%FF", Err("`match` is no UTF-8")),
            ("x", Err("`x` is not known")),
        ] {
            match (View::parse(query), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{query}"),
                (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{query}: {found}"),
                (found, _) => panic!("{query}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_worst_is_what_must_be_looked_at_first() {
        let recent = |calls, errors| Some(Recent { calls, errors, ..Recent::default() });
        let given_up = |calls, given_up| Some(Recent { calls, errors: 1.0, given_up, own: 0.0 });
        let own = |calls, errors| Some(Recent { calls, errors, given_up: 0.0, own: 7.0 });
        for (breaker, recent, expected) in [
            (None, None, Condition::Idle),
            (Some(State::Closed), recent(0.0, 0.0), Condition::Idle),
            (Some(State::Closed), recent(9.0, 0.0), Condition::Ok),
            (Some(State::Closed), recent(9.0, 4.0), Condition::Errors),
            (None, recent(9.0, 5.0), Condition::Failing),
            (None, own(9.0, 7.0), Condition::Errors),
            (None, own(9.0, 8.0), Condition::Failing),
            (None, given_up(9.0, 4.0), Condition::Errors),
            (None, given_up(9.0, 5.0), Condition::GivenUp),
            (Some(State::HalfOpen), recent(9.0, 0.0), Condition::Failing),
            (Some(State::Open), recent(9.0, 0.0), Condition::BreakerOpen),
        ] {
            assert_eq!(Condition::of(breaker, None, recent.as_ref()), expected, "{breaker:?} {recent:?}");
        }
        assert!(Condition::BreakerOpen > Condition::Failing && Condition::Failing > Condition::Errors);
    }
}
