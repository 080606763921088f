//! Invoking: a client for the policy's access, credentials, and as many attempts as are safe.

mod classify;
mod connector;
mod identity;
mod invoke;
mod pool;
mod refresh;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

pub use self::{
    connector::install_crypto,
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
    credentials: aws_credential_types::Credentials,
}

impl Lambda {
    /// Nothing is connected yet.
    pub fn new() -> Self {
        Self { pool: pool::Pool::new() }
    }

    /// The client for this access, once it has credentials.
    ///
    /// # Errors
    /// [`Kind::CredentialsUnavailable`], [`Kind::CredentialsRejected`], or [`Kind::Timeout`] at the deadline.
    pub async fn ready(&self, access: &Access, deadline: Instant) -> Result<Ready, Error> {
        let client = self.pool.client(access);
        let credentials = timeout_at(deadline, client.identity.credentials())
            .await
            .map_err(|_| Error::new(Kind::Timeout, "the time was up before there were credentials").with_ran(Ran::No))?
            .map_err(|reason| classify::credentials(&reason))?;
        Ok(Ready { client, credentials })
    }
}

impl Default for Lambda {
    fn default() -> Self {
        Self::new()
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

    async fn attempts(&mut self, invoke: &Invoke<'_>, deadline: Instant) -> Result<Answer, Error> {
        let mut attempt = 1;
        loop {
            let failed = match invoke::once(&self.client, invoke).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if attempt == MAX_ATTEMPTS {
                return Err(failed.error);
            }
            if failed.expired && attempt == 1 {
                self.client.identity.forget(&self.credentials);
                self.credentials =
                    self.client.identity.credentials().await.map_err(|reason| classify::credentials(&reason))?;
            } else if failed.error.kind() == Kind::LambdaUnreachable {
                let pause = FIRST_PAUSE.saturating_mul(1 << (attempt - 1)).mul_f64(0.5 + fastrand::f64() / 2.0);
                // An answer that says why is worth more than an attempt that cannot end in time.
                if Instant::now() + pause >= deadline {
                    return Err(failed.error);
                }
                tokio::time::sleep(pause).await;
            } else {
                return Err(failed.error);
            }
            attempt += 1;
        }
    }
}
