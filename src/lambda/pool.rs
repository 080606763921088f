//! Clients and credentials by what they are made of: built once, bounded, dropped when idle.
//!
//! A client is found by a fingerprint of its region, credentials and endpoint, so no secret is a key. A rotated secret
//! has another fingerprint: the next call builds another client, while calls in flight finish on theirs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_smithy_runtime_api::{client::http::SharedHttpClient, shared::IntoShared};
use moka::sync::Cache;

use super::{
    budget::Budget,
    connector::{self, Connector},
    cut::Cut,
    figures::Figures,
    identity,
    refresh::{Identity, Standing},
    resolve::Reach,
    room::Room,
    wire::Wire,
};
use crate::policy::{Access, credentials::Base, secret::Fingerprint};

/// The most clients that are kept: together with their role's credentials about 2 KB each, and 20 us to build one that
/// was dropped.
const MAX_CLIENTS: u64 = 2048;
/// The most roles whose credentials are kept: about 2 KB each, as 20,000 inline roles in turn add 35 MB to the process, and
/// a call of STS for one that was dropped.
const MAX_IDENTITIES: u64 = 16_384;
/// A client that no call wanted for so long is dropped.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// A role's credentials that no call wanted for so long are dropped: not before they usually expire, as STS may be down
/// when the next call comes.
const IDLE_IDENTITY: Duration = Duration::from_secs(60 * 60);

/// The clients of all policies, over one pool of connections.
#[derive(Debug)]
pub(super) struct Pool {
    clients: Cache<Fingerprint, Arc<Client>>,
    identities: Cache<Fingerprint, Arc<Identity>>,
    service: Arc<Identity>,
    budget: Arc<Budget>,
    connector: Connector,
    room: Room,
    http: SharedHttpClient,
    figures: Arc<Figures>,
}

/// The way to Lambda for one access, and whose it is.
#[derive(Debug)]
pub(super) struct Client {
    /// Nothing but the reason, if AWS has no such endpoint.
    pub wire: Result<Wire, String>,
    pub identity: Arc<Identity>,
    /// For large answers.
    pub room: Room,
    /// For attempts beside the first of each call.
    pub budget: Budget,
}

impl Pool {
    pub(super) fn new(workers: usize, answers: usize, cut: &Cut) -> Self {
        let figures = Arc::new(Figures::default());
        let trust = connector::trust();
        let connector = Connector::new(workers, cut, Reach::Routed, trust.clone(), &figures);
        let http: SharedHttpClient = connector.clone().into_shared();
        // Only the service's own identity comes from where metadata is.
        let own: SharedHttpClient = Connector::new(1, cut, Reach::Everything, trust, &figures).into_shared();
        let counts = Arc::clone(&figures);
        let clients = Cache::builder().max_capacity(MAX_CLIENTS).time_to_idle(IDLE);
        Self {
            clients: clients.eviction_listener(move |_, _, _| counts.evicted.add()).build(),
            identities: Cache::builder().max_capacity(MAX_IDENTITIES).time_to_idle(IDLE_IDENTITY).build(),
            service: identity::service(own, &figures),
            budget: Budget::of_all(),
            connector,
            room: Room::new(answers),
            http,
            figures,
        }
    }

    /// The client for this access; callers that come together get the same.
    pub(super) fn client(&self, access: &Access) -> Arc<Client> {
        self.figures.lookups.add();
        self.clients.get_with(access.key(), || {
            self.figures.built.add();
            Arc::new(self.build(access))
        })
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn clients(&self) -> u64 {
        // Without this the count would be that of some time ago.
        self.clients.run_pending_tasks();
        self.clients.entry_count()
    }

    pub(super) fn standings(&self) -> HashMap<Option<Fingerprint>, Standing> {
        let roles = self.identities.iter().map(|(key, identity)| (Some(*key), identity.standing()));
        roles.chain([(None, self.service.standing())]).collect()
    }

    fn build(&self, access: &Access) -> Client {
        Client {
            wire: Wire::new(access, self.connector.clone()),
            identity: self.identity(access),
            room: self.room.clone(),
            budget: Budget::of_one(&self.budget),
        }
    }

    fn identity(&self, access: &Access) -> Arc<Identity> {
        let credentials = access.credentials();
        let base = || match credentials.base() {
            Base::Service => Arc::clone(&self.service),
            Base::Keys(keys) => identity::keys(keys),
        };
        match credentials.role() {
            None => base(),
            Some(role) => self.identities.get_with(access.identity_key(), || {
                identity::role(role, base(), access, self.http.clone(), &self.figures)
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::policy::{
        Region,
        credentials::{AccessKeyId, AccessKeys, AssumeRole, Credentials, RoleArn, SessionDuration, SessionName},
        endpoint::{Endpoint, Url},
        secret::Secret,
    };

    fn access(secret: &str, endpoint: &str) -> Access {
        let keys = AccessKeys {
            id: AccessKeyId::parse("AKIDEXAMPLE").unwrap(),
            secret: Secret::parse(secret.into()).unwrap(),
            session_token: None,
        };
        let role = AssumeRole {
            role_arn: RoleArn::parse("arn:aws:iam::123456789012:role/orders").unwrap(),
            external_id: None,
            session_name: SessionName::default(),
            duration: SessionDuration::default(),
        };
        Access::new(
            Region::parse("us-east-1").unwrap(),
            Credentials::new(Base::Keys(keys), Some(role)),
            Endpoint::Url(Url::parse(endpoint).unwrap()),
            None,
        )
    }

    #[tokio::test]
    async fn equal_access_gets_the_same_client_and_a_rotated_secret_another() {
        crate::lambda::install_crypto();
        let pool = Pool::new(1, 0, &Cut::default());
        let first = pool.client(&access("one", "https://a"));
        assert!(Arc::ptr_eq(&first, &pool.client(&access("one", "https://a"))));
        assert!(!Arc::ptr_eq(&first, &pool.client(&access("two", "https://a"))));
        let elsewhere = pool.client(&access("one", "https://b"));
        assert!(!Arc::ptr_eq(&first, &elsewhere));
        assert!(Arc::ptr_eq(&first.identity, &elsewhere.identity), "one role is assumed once");
    }

    #[tokio::test]
    async fn ten_thousand_secrets_leave_a_bounded_pool() {
        crate::lambda::install_crypto();
        let pool = Pool::new(1, 0, &Cut::default());
        for n in 0..10_000 {
            pool.client(&access(&format!("secret {n}"), "https://a"));
        }
        pool.clients.run_pending_tasks();
        assert!(pool.clients.entry_count() <= MAX_CLIENTS);
    }

    #[tokio::test]
    async fn no_key_and_no_debug_shows_a_secret() {
        crate::lambda::install_crypto();
        let pool = Pool::new(1, 0, &Cut::default());
        pool.client(&access("hunter2", "https://a"));
        let printed = format!("{pool:?}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
