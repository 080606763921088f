//! The policies that have figures of their own, and the two names that stand for all others.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use super::{
    meters::{Invoked, Meters},
    metrics::{Instruments, Readings},
    names,
};
use crate::policy::Name;

/// The figures of each policy by its name.
#[derive(Debug)]
pub(super) struct Policies {
    named: ArcSwap<HashMap<Box<str>, Arc<Meters>>>,
    inline: Arc<Meters>,
    unknown: Arc<Meters>,
}

impl Policies {
    pub(super) fn new(instruments: &Arc<Instruments>) -> Self {
        let meters = |name| Arc::new(Meters::new(instruments, name, None, Arc::default()));
        Self { named: ArcSwap::default(), inline: meters(Name::INLINE), unknown: meters(names::UNKNOWN_POLICY) }
    }

    /// The policies in force: others have no figures of their own from now on.
    pub(super) fn set<'a>(&self, instruments: &Arc<Instruments>, policies: impl Iterator<Item = (&'a Name, Invoked)>) {
        let before = self.named.load();
        let meters = |name: &Name, invoked: Invoked| match before.get(name.as_str()) {
            Some(meters) if meters.invoked.as_ref() == Some(&invoked) => Arc::clone(meters),
            other => {
                let tally = other.map_or_else(Arc::default, |meters| Arc::clone(&meters.tally));
                Arc::new(Meters::new(instruments, name.as_str(), Some(invoked), tally))
            }
        };
        let all = policies.map(|(name, invoked)| (name.as_str().into(), meters(name, invoked))).collect();
        self.named.store(Arc::new(all));
    }

    /// The figures of a policy by the name that a call has for it.
    pub(super) fn of(&self, policy: &str) -> Arc<Meters> {
        self.find(policy).unwrap_or_else(|| Arc::clone(&self.unknown))
    }

    /// The same by the name that its series have.
    pub(super) fn find(&self, policy: &str) -> Option<Arc<Meters>> {
        match policy {
            Name::INLINE => Some(Arc::clone(&self.inline)),
            names::UNKNOWN_POLICY => Some(Arc::clone(&self.unknown)),
            name => self.named.load().get(name).cloned(),
        }
    }

    pub(super) fn each(&self, mut tell: impl FnMut(&Meters)) {
        let named = self.named.load();
        for meters in named.values().chain([&self.inline, &self.unknown]) {
            tell(meters);
        }
    }

    /// Tells the instruments what is kept from them until somebody reads them.
    pub(super) fn tell(&self) {
        self.each(Meters::tell);
    }

    /// Reads [`names::CALLS`].
    pub(super) fn calls(&self, readings: &Readings<'_>) {
        self.each(|meters| {
            meters.tally.ended(|outcome, reason, count| {
                let labels = [
                    (&names::POLICY, &*meters.name),
                    (&names::OUTCOME, outcome),
                    (&names::REASON, reason.unwrap_or_default()),
                ];
                readings.put(count as f64, labels.get(..2 + usize::from(reason.is_some())).unwrap_or_default());
            });
        });
    }
}
