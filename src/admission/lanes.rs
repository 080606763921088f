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
