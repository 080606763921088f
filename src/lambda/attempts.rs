//! One invocation in as many attempts as are safe, and what is said when its time is up.

use std::time::Duration;

use http::Response;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout_at};

use super::{
    Ready,
    answer::{answer, read},
    classify,
    invoke::{Answer, Invoke},
    stream::Stream,
    wire::Remedy,
};
use crate::{
    error::{Error, Kind, Ran},
    policy::Deadline,
    trace::{Reached, Step},
};

/// How often a call is sent at the most. Only what provably did not run is sent again, and of that only what a moment
/// may help: a throttled call would come back to a function that has no place for it, so the gateway is told when to.
const MAX_ATTEMPTS: u32 = 3;
/// The longest pause before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// After so long without a connection the network is to blame, not the deadline: TCP has sent its first packet twice.
const TELLING: Duration = Duration::from_secs(1);

/// How far a call has come, for what to say of it when its time is up.
struct Progress<'a> {
    started: Instant,
    /// Whether a connection has taken the request of the current attempt.
    reached: &'a Reached,
    /// How the last attempt failed, if there was one. Nothing ran.
    last: Option<Error>,
    /// Whether other credentials are waited for.
    renewing: bool,
}

impl Ready {
    /// Invokes the function, and again if it provably did not run and there is time for it.
    ///
    /// # Errors
    /// As the contract's table has them. At the deadline the connection is closed, and the error is
    /// [`Kind::Timeout`] if the request had been sent; else it says what the call waited for, and that nothing ran.
    pub async fn invoke(mut self, invoke: &Invoke<'_>, deadline: Deadline) -> Result<Answer, Error> {
        let mut progress = Progress::start(&invoke.reached);
        let answered = timeout_at(deadline.at(), async {
            let (head, body) = self.attempts(invoke, deadline, &mut progress).await?.into_parts();
            let room = self.client.room.take(&body.size_hint()).await;
            match read(body).await {
                Ok(body) => Ok(Answer { room, ..answer(Response::from_parts(head, body)) }),
                Err(why) => Err(classify::broken(&head.headers, &why)),
            }
        })
        .await
        .unwrap_or_else(|_| Err(progress.out_of_time(deadline)));
        answered.map_err(|error| self.stopped(error))
    }

    /// Invokes the function as [`invoke`](Self::invoke) does, and gives the answer as soon as it begins.
    ///
    /// # Errors
    /// As [`invoke`](Self::invoke), until the answer begins.
    pub async fn stream(mut self, invoke: &Invoke<'_>, deadline: Deadline) -> Result<Stream, Error> {
        let mut progress = Progress::start(&invoke.reached);
        let began = timeout_at(deadline.at(), self.attempts(invoke, deadline, &mut progress))
            .await
            .unwrap_or_else(|_| Err(progress.out_of_time(deadline)));
        match began {
            Ok(response) => Ok(Stream::new(response, self.cut)),
            Err(error) => Err(self.stopped(error)),
        }
    }

    /// What broke because the service stops says so.
    fn stopped(&self, error: Error) -> Error {
        if self.cut.is_done() { classify::stopped(error.ran()) } else { error }
    }

    async fn attempts(
        &mut self,
        invoke: &Invoke<'_>,
        deadline: Deadline,
        progress: &mut Progress<'_>,
    ) -> Result<Response<Incoming>, Error> {
        let mut attempt = 1;
        loop {
            let failed = match self.wire()?.send(&self.session, invoke).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let Some(remedy) = failed.remedy.filter(|remedy| remedy.helps(attempt) && !self.cut.is_done()) else {
                return Err(failed.error);
            };
            invoke.reached.unsent();
            match remedy {
                Remedy::Clock => {}
                Remedy::Credentials => {
                    // Only what has them loaded anew is counted: all calls that were refused with them go on with the next.
                    if !self.client.identity.forget(&self.session, || self.client.budget.spend()) {
                        return Err(failed.error);
                    }
                    progress.renewing = true;
                    self.session = tokio::select! {
                        session = self.client.identity.session() => session,
                        () = self.cut.wait() => return Err(failed.error),
                    }
                    .map_err(|reason| classify::credentials(&reason))?;
                    progress.renewing = false;
                }
                Remedy::Time => {
                    let pause = FIRST_PAUSE.saturating_mul(1 << (attempt - 1)).mul_f64(0.5 + fastrand::f64() / 2.0);
                    // An answer that says why is worth more than an attempt that cannot end in time.
                    if Instant::now() + pause >= deadline.at() || !self.client.budget.spend() {
                        return Err(failed.error);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
            invoke.trace.note(Step::Again(remedy.as_str()));
            progress.last = Some(failed.error);
            attempt += 1;
        }
    }
}

impl<'a> Progress<'a> {
    fn start(reached: &'a Reached) -> Self {
        Self { started: Instant::now(), reached, last: None, renewing: false }
    }

    fn out_of_time(self, deadline: Deadline) -> Error {
        if self.reached.is_sent() {
            return deadline.passed("lambda answered: the function may have run");
        }
        if self.renewing {
            return classify::error(Kind::CredentialsUnavailable)
                .with_detail("lambda calls the credentials expired, and no other ones came in time");
        }
        match self.last {
            Some(last) => last,
            None if self.started.elapsed() >= TELLING => {
                classify::error(Kind::LambdaUnreachable).with_detail("no connection was made within the call's time")
            }
            None => deadline.passed("there was a connection to lambda").with_ran(Ran::No),
        }
    }
}

impl Remedy {
    /// What is written in a trace of an attempt that it made possible.
    fn as_str(self) -> &'static str {
        match self {
            Self::Time => "connection",
            Self::Credentials => "credentials",
            Self::Clock => "clock",
        }
    }

    /// Whether it may help after so many attempts: what AWS has refused twice it will refuse again.
    fn helps(self, attempts: u32) -> bool {
        match self {
            Self::Clock | Self::Credentials => attempts == 1,
            Self::Time => attempts < MAX_ATTEMPTS,
        }
    }
}
