//! What each configured policy has of its own: places, and a breaker for each target that its calls may choose.
//!
//! Policies with the same target have one breaker. All of it outlives a change of the configuration, as calls in
//! flight and functions that are down do.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moka::sync::Cache;

use super::{
    breaker::Breaker,
    gate::{Gate, Places},
};
use crate::policy::{Access, Name, Policies, Policy, Qualifier, Target, secret::Fingerprint};

/// The most breakers that are kept for inline policies: about 300 bytes each. One that is dropped is closed.
const MAX_STRANGERS: u64 = 4096;
/// A breaker that no call wanted for so long is dropped: longer than any stays open.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// The lanes of all configured policies.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    named: HashMap<Name, Lane>,
    breakers: HashMap<Fingerprint, Arc<Breaker>>,
}

/// A policy's.
#[derive(Debug)]
pub(super) struct Lane {
    pub places: Arc<Places>,
    breakers: Vec<(Option<Qualifier>, Arc<Breaker>)>,
}

/// The breakers of policies that calls bring.
#[derive(Debug)]
pub(super) struct Strangers(Cache<Fingerprint, Arc<Breaker>>);

impl Lanes {
    /// The lanes for these policies, with what was there before.
    pub(super) fn new(policies: &Policies, before: &Self, gate: &Arc<Gate>) -> Self {
        let mut breakers = HashMap::new();
        let named = policies.named.iter().map(|(name, policy)| {
            let places = before.named.get(name).map_or_else(|| Places::new(gate), |lane| Arc::clone(&lane.places));
            places.set_limit(policy.limits.max_in_flight);
            let own = policy.qualifiers.iter().map(Some).chain([policy.target.qualifier.as_ref()]);
            let own = own.filter(|_| policy.limits.breaker.is_some()).map(|qualifier| {
                let key = key(&policy.access, &policy.target, qualifier);
                let breaker = breakers.entry(key).or_insert_with(|| match before.breakers.get(&key) {
                    Some(breaker) => Arc::clone(breaker),
                    None => Arc::new(Breaker::new(target(policy, qualifier))),
                });
                (qualifier.cloned(), Arc::clone(breaker))
            });
            (name.clone(), Lane { places, breakers: own.collect() })
        });
        Self { named: named.collect(), breakers }
    }

    pub(super) fn get(&self, name: &Name) -> Option<&Lane> {
        self.named.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Name, &Lane)> {
        self.named.iter()
    }

    pub(super) fn breakers(&self) -> impl Iterator<Item = &Arc<Breaker>> {
        self.breakers.values()
    }

    pub(super) fn len(&self) -> usize {
        self.named.len()
    }
}

impl Lane {
    pub(super) fn breaker(&self, qualifier: Option<&Qualifier>) -> Option<&Arc<Breaker>> {
        self.breakers.iter().find(|(own, _)| own.as_ref() == qualifier).map(|(_, breaker)| breaker)
    }
}

impl Strangers {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX_STRANGERS).time_to_idle(IDLE).build())
    }

    pub(super) fn breaker(&self, policy: &Policy, qualifier: Option<&Qualifier>) -> Arc<Breaker> {
        let key = key(&policy.access, &policy.target, qualifier);
        self.0.get_with(key, || Arc::new(Breaker::new(target(policy, qualifier))))
    }
}

fn target(policy: &Policy, qualifier: Option<&Qualifier>) -> Target {
    Target { qualifier: qualifier.cloned(), ..policy.target.clone() }
}

fn key(access: &Access, target: &Target, qualifier: Option<&Qualifier>) -> Fingerprint {
    Fingerprint::of([
        Some(access.key().as_bytes()),
        Some(target.function.as_str().as_bytes()),
        qualifier.map(|qualifier| qualifier.as_str().as_bytes()),
    ])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn policies(own: &str) -> Policies {
        let text = format!(
            "defaults: {{region: us-east-1, credentials: {{access_key_id: A, secret_access_key: s}}}}\npolicies:\n{own}"
        );
        Config::parse(&text, "f".as_ref()).unwrap().policies
    }

    #[test]
    fn targets_are_told_apart_and_outlive_a_change_of_the_configuration() {
        let gate = Gate::new(10);
        let first = Lanes::new(
            &policies(
                "  a: {function: f}\n  b: {function: f, timeout: 1s}\n  other: {function: g}\n  \
                 keys: {function: f, credentials: {access_key_id: B, secret_access_key: s}}\n  \
                 place: {function: f, region: us-west-2}\n  version: {function: 'f:1', qualifiers: ['2', '3']}\n  \
                 off: {function: h, breaker: none}\n",
            ),
            &Lanes::default(),
            &gate,
        );
        let of = |lanes: &Lanes, name: &str| {
            let lane = lanes.get(&Name::parse(name).unwrap()).unwrap();
            (Arc::clone(&lane.places), lane.breakers.iter().map(|(_, breaker)| Arc::clone(breaker)).collect::<Vec<_>>())
        };
        let shared = &of(&first, "a").1[0];
        assert!(Arc::ptr_eq(shared, &of(&first, "b").1[0]));
        for name in ["other", "keys", "place", "version"] {
            assert!(of(&first, name).1.iter().all(|breaker| !Arc::ptr_eq(shared, breaker)), "{name}");
        }
        assert_eq!((of(&first, "version").1.len(), of(&first, "off").1.len()), (3, 0));

        let next = Lanes::new(&policies("  a: {function: f, log: tail}\n  b: {function: g}\n"), &first, &gate);
        assert!(Arc::ptr_eq(&of(&first, "a").0, &of(&next, "a").0), "with its calls in flight");
        assert!(Arc::ptr_eq(shared, &of(&next, "a").1[0]));
        assert!(Arc::ptr_eq(&of(&first, "other").1[0], &of(&next, "b").1[0]), "whatever the policy is called");
        assert_eq!(next.breakers.len(), 2, "what nobody has any more is gone");
    }

    #[test]
    fn fifty_thousand_policies_that_calls_bring_leave_a_bounded_memory() {
        let strangers = Strangers::new();
        let named = policies("  a: {function: f}\n").named;
        let policy = named.values().next().unwrap();
        for n in 0..50_000 {
            strangers.breaker(policy, Some(&Qualifier::parse(&format!("v{n}")).unwrap()));
        }
        strangers.0.run_pending_tasks();
        assert!(strangers.0.entry_count() <= MAX_STRANGERS);
    }
}
