//! What is counted on the way to Lambda, for whoever reads it: atomics, as a call passes them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// So many hosts have counts of their own; the others share those of [`OTHER`].
const MOST_HOSTS: usize = 64;
/// The name of the hosts beyond the most.
const OTHER: &str = "_other";

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// What is counted.
#[derive(Debug)]
pub struct Figures {
    /// Lookups of a client.
    pub(super) lookups: Count,
    /// Clients that were built.
    pub built: Count,
    /// Clients that were dropped from the pool.
    pub evicted: Count,
    /// Loads of the service's own credentials.
    pub service: Loads,
    /// Loads of roles' credentials.
    pub roles: Loads,
    responses: [(&'static str, Count); 18],
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// How loads of credentials ended.
#[derive(Debug, Default)]
pub struct Loads {
    /// With credentials.
    pub ok: Count,
    /// AWS said no.
    pub rejected: Count,
    /// Nothing could be learnt.
    pub unavailable: Count,
}

/// What is counted of an endpoint's host.
#[derive(Debug, Default)]
pub struct Host {
    /// Requests that were to be sent.
    pub(super) requests: Count,
    /// Connections that were made.
    pub opened: Count,
    /// Connections that could not be made.
    pub failed: Count,
}

impl Count {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count by now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Host {
    /// Requests that found a connection.
    pub fn reused(&self) -> u64 {
        self.requests.get().saturating_sub(self.opened.get() + self.failed.get())
    }
}

impl Default for Figures {
    fn default() -> Self {
        let statuses = [
            "200", "202", "204", "400", "401", "403", "404", "408", "409", "410", "413", "415", "429", "500", "502",
            "503", "504", OTHER,
        ];
        Self {
            lookups: Count::default(),
            built: Count::default(),
            evicted: Count::default(),
            service: Loads::default(),
            roles: Loads::default(),
            responses: statuses.map(|status| (status, Count::default())),
            hosts: Mutex::default(),
        }
    }
}

impl Figures {
    /// Calls that found their client.
    pub fn hits(&self) -> u64 {
        self.lookups.get().saturating_sub(self.built.get())
    }

    /// Counts an answer of Lambda's by its status.
    pub(super) fn answered(&self, status: &str) {
        let counted = self.responses.iter().find(|(known, _)| *known == status).or(self.responses.last());
        if let Some((_, count)) = counted {
            count.add();
        }
    }

    /// Lambda's answers by status, `_other` among them.
    pub fn responses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.responses.iter().map(|(status, count)| (*status, count.get()))
    }

    /// The counts of a host.
    pub(super) fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if hosts.len() < MOST_HOSTS || hosts.contains_key(name) { name } else { OTHER };
        Arc::clone(hosts.entry(name.to_owned()).or_default())
    }

    /// Every host that has been called, and its counts.
    pub fn hosts(&self) -> Vec<(String, Arc<Host>)> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.iter().map(|(name, host)| (name.clone(), Arc::clone(host))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_beyond_the_most_share_their_counts() {
        let figures = Figures::default();
        for number in 0..1000 {
            figures.host(&format!("{number}.example")).opened.add();
        }
        let hosts = figures.hosts();
        assert_eq!(hosts.len(), MOST_HOSTS + 1);
        assert_eq!(hosts.iter().map(|(_, host)| host.opened.get()).sum::<u64>(), 1000);
        assert!(hosts.iter().any(|(name, host)| name == OTHER && host.opened.get() == 1000 - MOST_HOSTS as u64));
    }

    #[test]
    fn a_status_without_a_name_of_its_own_is_an_other_one() {
        let figures = Figures::default();
        for status in ["200", "200", "418", "599"] {
            figures.answered(status);
        }
        let counted: Vec<_> = figures.responses().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("200", 2), (OTHER, 2)]);
    }
}
