//! Invoking: a client for the policy's access, credentials, and as many attempts as are safe.

mod classify;
mod connector;
mod identity;
mod invoke;
mod pool;
#[cfg(test)]
mod referee;
mod refresh;
mod sign;
mod wire;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use self::wire::{Remedy, Wire};
pub use self::{
    connector::{install_crypto, on_worker},
    invoke::{Answer, Invoke},
};
use crate::{
    error::{Error, Kind, Ran},
    policy::Access,
};

/// How often a call is sent at the most. Only what provably did not run is sent again.
const MAX_ATTEMPTS: u32 = 3;
/// The longest pause before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// AWS Lambda, through clients and connections that all calls share.
#[derive(Debug)]
pub struct Lambda {
    pool: pool::Pool,
}

/// A client that has credentials.
#[derive(Debug)]
pub struct Ready {
    client: Arc<pool::Client>,
    session: Arc<refresh::Session>,
}

impl Lambda {
    /// For this many workers, each with connections of its own. Nothing is connected yet.
    pub fn new(workers: usize) -> Self {
        Self { pool: pool::Pool::new(workers) }
    }

    /// The client for this access, once it has credentials.
    ///
    /// # Errors
    /// [`Kind::CredentialsUnavailable`], [`Kind::CredentialsRejected`], or [`Kind::Timeout`] at the deadline.
    pub async fn ready(&self, access: &Access, deadline: Instant) -> Result<Ready, Error> {
        let client = self.pool.client(access);
        let session = timeout_at(deadline, client.identity.session())
            .await
            .map_err(|_| Error::new(Kind::Timeout, "the time was up before there were credentials").with_ran(Ran::No))?
            .map_err(|reason| classify::credentials(&reason))?;
        Ok(Ready { client, session })
    }
}

impl Ready {
    /// Invokes the function, and again if it provably did not run and there is time for it.
    ///
    /// # Errors
    /// As the contract's table has them; [`Kind::Timeout`] at the deadline, when the connection is closed.
    pub async fn invoke(mut self, invoke: &Invoke<'_>, deadline: Instant) -> Result<Answer, Error> {
        timeout_at(deadline, self.attempts(invoke, deadline)).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Timeout, "the time was up before lambda answered: the function may have run"))
        })
    }

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

    async fn attempts(&mut self, invoke: &Invoke<'_>, deadline: Instant) -> Result<Answer, Error> {
        let mut attempt = 1;
        loop {
            let failed = match self.wire()?.send(&self.session, invoke).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let Some(remedy) = failed.remedy.filter(|remedy| remedy.helps(attempt)) else { return Err(failed.error) };
            match remedy {
                Remedy::Clock => {}
                Remedy::Credentials => {
                    self.client.identity.forget(&self.session);
                    self.session =
                        self.client.identity.session().await.map_err(|reason| classify::credentials(&reason))?;
                }
                Remedy::Time => {
                    let pause = FIRST_PAUSE.saturating_mul(1 << (attempt - 1)).mul_f64(0.5 + fastrand::f64() / 2.0);
                    // An answer that says why is worth more than an attempt that cannot end in time.
                    if Instant::now() + pause >= deadline {
                        return Err(failed.error);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
            attempt += 1;
        }
    }
}

impl Remedy {
    /// Whether it may help after so many attempts: what AWS has refused twice it will refuse again.
    fn helps(self, attempts: u32) -> bool {
        match self {
            Self::Clock | Self::Credentials => attempts == 1,
            Self::Time => attempts < MAX_ATTEMPTS,
        }
    }
}
