//! What the metrics read from the engine whenever somebody looks.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use super::Engine;
use crate::{
    admission::{self, State},
    lambda::{
        self, Lambda, Standing,
        figures::{Figures, Host},
    },
    policy::{Policies, Policy, Target, credentials::Base},
    telemetry::{
        Invoked, Metrics, Readings,
        names::{self, Metric},
    },
};

/// Tells the metrics which policies there are.
pub(super) fn set_policies(metrics: &Metrics, policies: &Policies) {
    // To ask the SDK for each of 10,000 policies would take too long.
    let mut servers = HashMap::new();
    for access in policies.named.values().map(|policy| &policy.access) {
        servers.entry((access.region(), access.endpoint())).or_insert_with(|| lambda::server(access));
    }
    metrics.set_policies(policies.named.iter().map(|(name, policy)| {
        let (function, region) = (policy.target.function.as_str().to_owned(), policy.target.region.as_str().to_owned());
        let server = servers.get(&(policy.access.region(), policy.access.endpoint())).cloned().flatten();
        (name, Invoked { function, region, server })
    }));
}

impl Engine {
    /// The metrics that this engine's calls are counted in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The clients and connections that its calls share.
    pub fn lambda(&self) -> &Lambda {
        &self.lambda
    }

    /// Has its figures read with its metrics for as long as it lives.
    pub fn observe(self: &Arc<Self>) {
        let each = |metric: &'static Metric, read: fn(&Self, &Readings<'_>)| {
            let engine: Weak<Self> = Arc::downgrade(self);
            self.metrics.observe(metric, move |readings| {
                if let Some(engine) = engine.upgrade() {
                    read(&engine, readings);
                }
            });
        };
        each(&names::CALLS_IN_FLIGHT, |engine, readings| readings.put(engine.admission.in_flight() as f64, &[]));
        each(&names::CALLS_WAITING, |engine, readings| readings.put(engine.admission.waiting() as f64, &[]));
        each(&names::CALLS_LIMIT, |engine, readings| readings.put(engine.admission.limits().in_flight as f64, &[]));
        each(&names::BODIES_HELD, |engine, readings| readings.put(engine.admission.bodies().held() as f64, &[]));
        each(&names::BODIES_LIMIT, |engine, readings| readings.put(engine.admission.limits().bytes as f64, &[]));
        each(&names::SERVER_CONNECTIONS, |engine, readings| {
            readings.put(engine.admission.connections().open() as f64, &[]);
        });
        each(&names::SERVER_LIMIT, |engine, readings| readings.put(engine.admission.connections().most() as f64, &[]));
        each(&names::SERVER_REFUSED, |engine, readings| {
            for (reason, count) in engine.admission.connections().refused() {
                readings.put(count as f64, &[(&names::REFUSED, reason)]);
            }
        });
        each(&names::CALLS_REJECTED, |engine, readings| policies(engine, readings, |of| of.refused as f64));
        each(&names::POLICY_IN_FLIGHT, |engine, readings| policies(engine, readings, |of| of.in_flight as f64));
        each(&names::POLICY_WAITING, |engine, readings| policies(engine, readings, |of| of.waiting as f64));
        each(&names::BREAKER_STATE, breakers);
        each(&names::CALLERS_KEYS_FAILING, |engine, readings| {
            let policies = engine.policies();
            let remotes = policies.callers.iter().flat_map(|callers| callers.remotes());
            readings.put(remotes.filter(|(_, remote)| remote.failing().is_some()).count() as f64, &[]);
        });
        each(&names::CONFIG_POLICIES, |engine, readings| readings.put(engine.policies().named.len() as f64, &[]));
        each(&names::CLIENTS_LIVE, |engine, readings| readings.put(engine.lambda.clients() as f64, &[]));
        each(&names::CLIENTS_BUILT, |engine, readings| readings.put(engine.lambda.figures().built.get() as f64, &[]));
        each(&names::CLIENTS_HITS, |engine, readings| readings.put(engine.lambda.figures().hits() as f64, &[]));
        each(&names::CLIENTS_EVICTED, |engine, readings| {
            readings.put(engine.lambda.figures().evicted.get() as f64, &[]);
        });
        each(&names::LAMBDA_RESPONSES, |engine, readings| {
            for (status, count) in engine.lambda.figures().responses().filter(|(_, count)| *count > 0) {
                readings.put(count as f64, &[(&names::HTTP_STATUS, status)]);
            }
        });
        each(&names::CONNECTIONS_OPENED, |engine, readings| hosts(engine, readings, |host| host.opened.get()));
        each(&names::CONNECTIONS_FAILED, |engine, readings| hosts(engine, readings, |host| host.failed.get()));
        each(&names::CONNECTIONS_REUSED, |engine, readings| hosts(engine, readings, Host::reused));
        each(&names::CREDENTIALS_LOADS, |engine, readings| loads(engine.lambda.figures(), readings));
        each(&names::CREDENTIALS_EXPIRY, |engine, readings| {
            for (policy, standing) in engine.standings() {
                if let Some(expiry) = standing.expires_in {
                    readings.put(expiry.as_secs_f64(), &[(&names::POLICY, &policy)]);
                }
            }
        });
    }

    /// The breaker of each configured policy's function, by [`Engine::breaker_key`].
    pub fn breakers(&self) -> BTreeMap<[String; 3], State> {
        self.worst(Self::breaker_key)
    }

    /// The same function may be called with several credentials, each with a breaker of its own: the worst one is told.
    fn worst(&self, key: fn(&Target) -> [String; 3]) -> BTreeMap<[String; 3], State> {
        let mut states = BTreeMap::new();
        self.admission.breakers(|target, state| {
            let worst = states.entry(key(target)).or_insert(state);
            if *worst == State::Closed || state == State::Open {
                *worst = state;
            }
        });
        states
    }

    /// What tells functions apart: name, region and qualifier.
    pub fn breaker_key(target: &Target) -> [String; 3] {
        let qualifier = target.qualifier.as_ref().map_or("", |qualifier| qualifier.as_str());
        [target.function.as_str(), target.region.as_str(), qualifier].map(str::to_owned)
    }

    /// How each configured policy's credentials stand, where they are not its own keys.
    pub fn standings(&self) -> BTreeMap<String, Standing> {
        let standings = self.lambda.standings();
        let standing = |policy: &Policy| {
            let credentials = policy.access.credentials();
            let key = match (credentials.role(), credentials.base()) {
                (Some(_), _) => Some(policy.access.identity_key()),
                (None, Base::Service) => None,
                (None, Base::Keys(_)) => return None,
            };
            standings.get(&key).cloned()
        };
        let policies = self.policies();
        policies.named.iter().filter_map(|(name, policy)| Some((name.as_str().to_owned(), standing(policy)?))).collect()
    }
}

fn policies(engine: &Engine, readings: &Readings<'_>, read: fn(admission::Figures) -> f64) {
    engine.admission.policies(|policy, figures| readings.put(read(figures), &[(&names::POLICY, policy)]));
}

fn breakers(engine: &Engine, readings: &Readings<'_>) {
    let by_name = |target: &Target| {
        let [function, region, qualifier] = Engine::breaker_key(target);
        [names::function(&function).to_owned(), region, qualifier]
    };
    for ([function, region, qualifier], state) in engine.worst(by_name) {
        let state: u8 = match state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        let labels = [
            (&names::INVOKED_NAME, function.as_str()),
            (&names::INVOKED_REGION, region.as_str()),
            (&names::QUALIFIER, qualifier.as_str()),
        ];
        readings.put(f64::from(state), &labels);
    }
}

fn hosts(engine: &Engine, readings: &Readings<'_>, read: fn(&Host) -> u64) {
    for (name, host) in engine.lambda.figures().hosts() {
        readings.put(read(&host) as f64, &[(&names::SERVER, &name)]);
    }
}

fn loads(figures: &Figures, readings: &Readings<'_>) {
    for (source, loads) in [("service", &figures.service), ("role", &figures.roles)] {
        for (outcome, count) in [("ok", &loads.ok), ("rejected", &loads.rejected), ("unavailable", &loads.unavailable)]
        {
            if count.get() > 0 {
                readings.put(count.get() as f64, &[(&names::SOURCE, source), (&names::LOADED, outcome)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_that_is_counted_has_its_label() {
        let counted: Vec<_> = Figures::default().responses().map(|(status, _)| status).collect();
        assert_eq!(counted, names::LAMBDA_STATUSES);
    }

    #[test]
    fn every_refusal_that_is_counted_has_its_label() {
        let refusals: Vec<_> = admission::Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
        assert!(matches!(names::REFUSED.values, names::Values::Words(words) if words == refusals));
    }
}
