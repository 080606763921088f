//! Invoking: a client for the policy's access, credentials, and as many attempts as are safe.

mod answer;
mod attempts;
mod body;
mod budget;
mod classify;
mod connector;
mod cut;
pub mod figures;
mod identity;
mod invoke;
mod pool;
#[doc(hidden)]
pub mod probe;
#[cfg(test)]
mod referee;
mod refresh;
mod resolve;
mod room;
mod said;
mod sign;
mod stream;
mod wire;

use std::{collections::HashMap, sync::Arc};

use tokio::time::timeout_at;

use self::wire::Wire;
pub use self::{
    connector::{install_crypto, on_worker, trust},
    identity::chain_of,
    invoke::{Answer, Api, Invoke},
    refresh::{Standing, Trouble},
    room::Taken,
    stream::{Part, Stream},
    wire::server,
};
use crate::{
    error::{Error, Kind, Ran},
    policy::{Access, Deadline, secret::Fingerprint},
};

/// AWS Lambda, through clients and connections that all calls share.
#[derive(Debug)]
pub struct Lambda {
    pool: pool::Pool,
    cut: cut::Cut,
}

/// A client that has credentials.
#[derive(Debug)]
pub struct Ready {
    client: Arc<pool::Client>,
    session: Arc<refresh::Session>,
    cut: cut::Cut,
}

impl Lambda {
    /// For this many workers, each with connections of its own, and with room for so many bytes of answers. Nothing is
    /// connected yet.
    pub fn new(workers: usize, answers: usize) -> Self {
        let cut = cut::Cut::default();
        Self { pool: pool::Pool::new(workers, answers, &cut), cut }
    }

    /// What has been counted so far.
    pub fn figures(&self) -> &figures::Figures {
        self.pool.figures()
    }

    /// How many clients the pool has.
    pub fn clients(&self) -> u64 {
        self.pool.clients()
    }

    /// How each identity stands, by [`Access::identity_key`]; that of the service itself has no key.
    pub fn standings(&self) -> HashMap<Option<Fingerprint>, Standing> {
        self.pool.standings()
    }

    /// The client for this access, once it has credentials.
    ///
    /// # Errors
    /// [`Kind::CredentialsUnavailable`], [`Kind::CredentialsRejected`], or [`Kind::Timeout`] at the deadline.
    pub async fn ready(&self, access: &Access, deadline: Deadline) -> Result<Ready, Error> {
        let client = self.pool.client(access);
        client.budget.save();
        let session = tokio::select! {
            // In this order the ones at hand cost no look at anything else.
            biased;
            session = timeout_at(deadline.at(), client.identity.session()) => session,
            () = self.cut.wait() => return Err(classify::stopped(Ran::No)),
        };
        let session = session
            .map_err(|_| deadline.passed("there were credentials").with_ran(Ran::No))?
            .map_err(|reason| classify::credentials(&reason))?;
        Ok(Ready { client, session, cut: self.cut.clone() })
    }

    /// Ends every call now: those that may have run with [`Kind::LambdaFailed`], the others with
    /// [`Kind::ShuttingDown`].
    pub fn cut(&self) {
        self.cut.cut();
    }
}

impl Ready {
    /// The signed request as it would be sent now, for measuring.
    ///
    /// # Errors
    /// [`Kind::FunctionMisconfigured`] if AWS has no such endpoint; [`Kind::CredentialsRejected`] if a key cannot be sent.
    pub fn request(&self, invoke: &Invoke<'_>) -> Result<http::Request<bytes::Bytes>, Error> {
        let wire = self.wire()?;
        wire.request(&self.session, invoke, &wire.stamp())
    }

    fn wire(&self) -> Result<&Wire, Error> {
        let wire = self.client.wire.as_ref();
        wire.map_err(|error| classify::error(Kind::FunctionMisconfigured).with_detail(error.clone()))
    }
}
