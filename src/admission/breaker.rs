//! A function's breaker: after failures of the platform in a row its calls are refused for a while, then one tries.
//!
//! Rows and not rates: a function that answers every other call is worth calling. A throttled function is one that
//! answers some calls by its nature, so throttling opens the breaker only when nothing else has happened for a second.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    error::{Error, Kind},
    policy::{Target, limits::Breaker as Settings},
};

/// How long there is nothing but failures before throttling opens the breaker.
const THROTTLED: Duration = Duration::from_secs(1);
/// The longest that Lambda's `Retry-After` keeps it open.
const MAX_OPEN: Duration = Duration::from_secs(60);

/// What a call's end says of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Lambda ran the function or took its event, however that ended.
    Answered,
    /// Lambda did not do its part.
    Failed,
    /// Lambda takes no more calls for now, and says for how long.
    Throttled(Duration),
    /// It says nothing: the caller's fault, or the policy's, or this service's.
    Unknown,
}

/// What callers see of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// One call may try, or does.
    HalfOpen,
}

/// The state machine; the time is told to it.
#[derive(Debug)]
struct Machine {
    state: Phase,
    /// How often it has opened: what began before says nothing of what is now.
    epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// So many failures in a row, of which the first one was then.
    Closed { row: u32, since: Option<Instant> },
    /// Until then, and whether a call tries meanwhile, which it may from then on.
    Open { until: Instant, probing: bool },
}

impl Machine {
    fn new() -> Self {
        Self { state: Phase::Closed { row: 0, since: None }, epoch: 0 }
    }

    /// Lets a call pass, which tells the epoch when it leaves; or says for how long none will, if that is known.
    fn enter(&mut self, now: Instant) -> Result<u64, Option<Duration>> {
        match &mut self.state {
            Phase::Closed { .. } => Ok(self.epoch),
            Phase::Open { probing: true, .. } => Err(None),
            Phase::Open { until, .. } if now < *until => Err(Some(*until - now)),
            Phase::Open { probing, .. } => {
                *probing = true;
                Ok(self.epoch)
            }
        }
    }

    /// Takes note of how a call ended. Returns the new state, if it is another one.
    fn leave(&mut self, epoch: u64, outcome: Outcome, settings: &Settings, now: Instant) -> Option<State> {
        if epoch != self.epoch {
            return None;
        }
        // While it is open, the one call of its epoch is the one that tries.
        match (&mut self.state, outcome) {
            (Phase::Open { probing, .. }, Outcome::Unknown) => {
                *probing = false;
                None
            }
            (Phase::Closed { .. }, Outcome::Unknown) => None,
            (Phase::Open { .. }, Outcome::Answered) => {
                self.state = Phase::Closed { row: 0, since: None };
                Some(State::Closed)
            }
            (Phase::Closed { row, since }, Outcome::Answered) => {
                (*row, *since) = (0, None);
                None
            }
            (Phase::Open { .. }, Outcome::Failed) => self.open(settings.open.get(), now),
            (Phase::Open { .. }, Outcome::Throttled(pause)) => self.open(pause.min(MAX_OPEN), now),
            (Phase::Closed { row, since }, Outcome::Failed | Outcome::Throttled(_)) => {
                *row = row.saturating_add(1);
                let since = *since.get_or_insert(now);
                match outcome {
                    _ if *row < settings.failures => None,
                    Outcome::Throttled(_) if now - since < THROTTLED => None,
                    Outcome::Throttled(pause) => self.open(pause.min(MAX_OPEN), now),
                    _ => self.open(settings.open.get(), now),
                }
            }
        }
    }

    fn open(&mut self, pause: Duration, now: Instant) -> Option<State> {
        self.epoch += 1;
        self.state = Phase::Open { until: now + pause, probing: false };
        Some(State::Open)
    }

    /// The epoch, and whether there is nothing to remember, in one number.
    fn summary(&self) -> u64 {
        self.epoch << 1 | u64::from(matches!(self.state, Phase::Closed { row: 0, .. }))
    }
}

/// The breaker of one target, for all calls and policies that it has.
#[derive(Debug)]
pub(super) struct Breaker {
    /// Whose it is, for the log.
    pub target: Target,
    /// The machine's summary. It is nearly always closed without a failure, and then nobody needs it.
    summary: AtomicU64,
    machine: Mutex<Machine>,
}

/// A call that passed a breaker, and will tell it how it went. One that is dropped tells nothing, and gives its place
/// back.
#[derive(Debug)]
pub struct Trial(Option<Passed>);

#[derive(Debug)]
struct Passed {
    breaker: Arc<Breaker>,
    settings: Settings,
    epoch: u64,
    /// Whether the call has all the time that its policy gives.
    whole: bool,
}

impl Breaker {
    pub(super) fn new(target: Target) -> Self {
        let machine = Machine::new();
        Self { target, summary: AtomicU64::new(machine.summary()), machine: Mutex::new(machine) }
    }

    /// Lets a call pass. `whole` says that it has all the time that its policy gives.
    ///
    /// # Errors
    /// [`Kind::BreakerOpen`] with the time after which it is worth to try again.
    pub(super) fn enter(self: &Arc<Self>, settings: Settings, whole: bool) -> Result<Trial, Error> {
        let epoch = match self.calm() {
            Some(epoch) => epoch,
            None => self.machine().enter(Instant::now()).map_err(|wait| {
                Error::new(Kind::BreakerOpen, "the function's calls have failed in a row: it is left alone for a while")
                    .with_retry_after(wait)
            })?,
        };
        Ok(Trial(Some(Passed { breaker: Arc::clone(self), settings, epoch, whole })))
    }

    pub(super) fn state(&self) -> State {
        match self.machine().state {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { until, probing: false } if Instant::now() < until => State::Open,
            Phase::Open { .. } => State::HalfOpen,
        }
    }

    /// The epoch, if there is nothing to remember.
    fn calm(&self) -> Option<u64> {
        let summary = self.summary.load(Ordering::Acquire);
        (summary & 1 == 1).then_some(summary >> 1)
    }

    /// `error` is why, if a call has failed.
    fn leave(&self, epoch: u64, outcome: Outcome, settings: &Settings, error: Option<&Error>) {
        if matches!(outcome, Outcome::Answered | Outcome::Unknown) && self.calm().is_some() {
            return;
        }
        let mut machine = self.machine();
        let changed = machine.leave(epoch, outcome, settings, Instant::now());
        self.summary.store(machine.summary(), Ordering::Release);
        drop(machine);
        let Target { function, region, qualifier } = &self.target;
        let qualifier = qualifier.as_ref().map_or("", |qualifier| qualifier.as_str());
        match changed {
            Some(State::Open) => tracing::warn!(
                %function,
                qualifier,
                %region,
                policy = error.and_then(Error::about).map(|about| about.policy.as_str()),
                reason = error.map(|error| error.kind().reason()),
                error = error.map(Error::message),
                detail = error.and_then(Error::detail),
                "a breaker opens"
            ),
            Some(_) => tracing::info!(%function, qualifier, %region, "a breaker closes"),
            None => {}
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trial {
    /// For a policy without a breaker.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Tells how an invocation went.
    ///
    /// # Errors
    /// What is told.
    pub fn hear<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Ok(_) => self.answered(),
            Err(error) => self.failed(error),
        }
        result
    }

    /// Lambda has answered: its answer is the function's, a failure of the function's own included.
    pub fn answered(mut self) {
        self.tell(Outcome::Answered, None);
    }

    /// There is no answer of the function.
    pub fn failed(mut self, error: &Error) {
        let whole = self.0.as_ref().is_some_and(|passed| passed.whole);
        self.tell(outcome(error, whole), Some(error));
    }

    fn tell(&mut self, outcome: Outcome, error: Option<&Error>) {
        if let Some(Passed { breaker, settings, epoch, .. }) = self.0.take() {
            breaker.leave(epoch, outcome, &settings, error);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.tell(Outcome::Unknown, None);
    }
}

/// Whether failures of this kind may open a breaker.
pub fn opens(kind: Kind) -> bool {
    outcome(&Error::new(kind, ""), true) != Outcome::Unknown
}

/// What an error says of the platform. A caller with little time must not close the function to the others, so that
/// time was up counts only if it was all that the policy gives.
fn outcome(error: &Error, whole: bool) -> Outcome {
    match error.kind() {
        _ if error.is_own_stop() => Outcome::Unknown,
        Kind::LambdaUnreachable | Kind::LambdaFailed | Kind::FunctionNotReady => Outcome::Failed,
        Kind::Timeout if whole => Outcome::Failed,
        Kind::FunctionThrottled => Outcome::Throttled(error.retry_after().unwrap_or(THROTTLED)),
        Kind::Timeout
        | Kind::InvalidRequest
        | Kind::PayloadTooLarge
        | Kind::CallerUnauthenticated
        | Kind::CallerDenied
        | Kind::PolicyNotFound
        | Kind::FunctionNotFound
        | Kind::FunctionAccessDenied
        | Kind::FunctionMisconfigured
        | Kind::CredentialsUnavailable
        | Kind::CredentialsRejected
        | Kind::Overloaded
        | Kind::BreakerOpen
        | Kind::ShuttingDown => Outcome::Unknown,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;
    use crate::policy::{function::Reference, limits::OpenTime};

    const OPEN: Duration = Duration::from_secs(5);

    fn settings(failures: u32) -> Settings {
        Settings { failures, open: OpenTime::new(OPEN).unwrap() }
    }

    fn breaker() -> Arc<Breaker> {
        let reference = Reference::parse("arn:aws:lambda:us-east-1:123456789012:function:orders").unwrap();
        Arc::new(Breaker::new(Target::new(reference, None, None, None).unwrap()))
    }

    fn error(kind: Kind) -> Error {
        Error::new(kind, "x")
    }

    /// A call that ends at once, if it may begin.
    fn call(breaker: &Arc<Breaker>, end: Result<(), Kind>) -> Result<(), Error> {
        let trial = breaker.enter(settings(3), true)?;
        match end {
            Ok(()) => trial.answered(),
            Err(kind) => trial.failed(&error(kind)),
        }
        Ok(())
    }

    fn opened() -> Arc<Breaker> {
        let breaker = breaker();
        for _ in 0..3 {
            call(&breaker, Err(Kind::LambdaUnreachable)).unwrap();
        }
        assert_eq!(breaker.state(), State::Open);
        breaker
    }

    #[test]
    fn only_the_platforms_failures_are_held_against_a_function() {
        let blamed: Vec<_> = Kind::ALL.into_iter().filter(|k| outcome(&error(*k), true) != Outcome::Unknown).collect();
        let expected = [
            Kind::FunctionThrottled,
            Kind::FunctionNotReady,
            Kind::LambdaUnreachable,
            Kind::LambdaFailed,
            Kind::Timeout,
        ];
        assert_eq!(blamed, expected);
        assert_eq!(outcome(&error(Kind::Timeout), false), Outcome::Unknown, "the caller's own time was up");
        let cut = error(Kind::LambdaFailed).with_own_stop();
        assert_eq!(outcome(&cut, true), Outcome::Unknown, "the service's own stop");
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_of_failures_opens_it_and_an_answer_between_them_does_not_let_it() {
        let breaker = breaker();
        for end in [Err(Kind::Timeout), Err(Kind::LambdaFailed), Ok(()), Err(Kind::Timeout), Err(Kind::InvalidRequest)]
        {
            call(&breaker, end).unwrap();
        }
        call(&breaker, Err(Kind::Timeout)).unwrap();
        assert_eq!(breaker.state(), State::Closed, "two in a row, as a caller's fault does not count");
        call(&breaker, Err(Kind::LambdaFailed)).unwrap();
        let refused = call(&breaker, Ok(())).unwrap_err();
        assert_eq!((refused.kind(), refused.retry_after()), (Kind::BreakerOpen, Some(OPEN)));
        advance(OPEN / 2).await;
        assert_eq!(call(&breaker, Ok(())).unwrap_err().retry_after(), Some(OPEN / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_tries_and_its_end_decides() {
        let breaker = opened();
        advance(OPEN).await;
        assert_eq!(breaker.state(), State::HalfOpen);
        let probe = breaker.enter(settings(3), true).unwrap();
        for _ in 0..100 {
            assert_eq!(call(&breaker, Ok(())).unwrap_err().kind(), Kind::BreakerOpen, "while one tries");
        }
        probe.failed(&error(Kind::Timeout));
        assert_eq!(breaker.state(), State::Open, "and for as long again");
        advance(OPEN).await;
        breaker.enter(settings(3), true).unwrap().answered();
        assert_eq!(breaker.state(), State::Closed);
        call(&breaker, Err(Kind::Timeout)).unwrap();
        assert_eq!(breaker.state(), State::Closed, "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_goes_away_or_says_nothing_lets_another_one_try() {
        let breaker = opened();
        advance(OPEN).await;
        drop(breaker.enter(settings(3), true).unwrap());
        breaker.enter(settings(3), true).unwrap().failed(&error(Kind::InvalidRequest));
        breaker.enter(settings(3), false).unwrap().failed(&error(Kind::Timeout));
        call(&breaker, Ok(())).unwrap();
        assert_eq!(breaker.state(), State::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_began_before_it_opened_says_nothing_of_later() {
        let breaker = breaker();
        let mut late: Vec<_> = (0..20).map(|_| breaker.enter(settings(3), true).unwrap()).collect();
        for trial in late.drain(..5) {
            trial.failed(&error(Kind::LambdaUnreachable));
        }
        advance(OPEN).await;
        late.pop().unwrap().answered();
        assert_eq!(breaker.state(), State::HalfOpen, "an old answer closes nothing");
        call(&breaker, Ok(())).unwrap();
        for trial in late {
            trial.failed(&error(Kind::Timeout));
        }
        assert_eq!(breaker.state(), State::Closed, "old failures open nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_function_is_called_while_it_answers_now_and_then() {
        let breaker = breaker();
        let throttled =
            |seconds| Error::new(Kind::FunctionThrottled, "x").with_retry_after(Some(Duration::from_secs(seconds)));
        for _ in 0..10 {
            for _ in 0..50 {
                breaker.enter(settings(3), true).unwrap().failed(&throttled(7));
                advance(Duration::from_millis(10)).await;
            }
            call(&breaker, Ok(())).unwrap();
        }
        for _ in 0..101 {
            breaker.enter(settings(3), true).unwrap().failed(&throttled(7));
            advance(Duration::from_millis(10)).await;
        }
        let refused = call(&breaker, Ok(())).unwrap_err();
        assert!(refused.retry_after().unwrap() > Duration::from_secs(6), "as long as lambda says");
        advance(Duration::from_secs(7)).await;
        breaker.enter(settings(3), true).unwrap().failed(&throttled(3600));
        assert_eq!(call(&breaker, Ok(())).unwrap_err().retry_after(), Some(MAX_OPEN));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Enter,
        Leave(usize, Outcome),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop_oneof![
            2 => Just(Outcome::Answered),
            4 => Just(Outcome::Failed),
            3 => (0_u64..100).prop_map(|seconds| Outcome::Throttled(Duration::from_secs(seconds))),
            1 => Just(Outcome::Unknown),
        ];
        prop_oneof![
            4 => Just(Step::Enter),
            4 => (any::<usize>(), outcome).prop_map(|(n, outcome)| Step::Leave(n, outcome)),
            1 => (0_u64..8000).prop_map(Step::Wait),
        ]
    }

    /// The same in other words: what there was since the last opening or closing, looked at as a whole each time.
    #[derive(Default)]
    struct Model {
        /// Ends of calls since it was closed last.
        ends: Vec<(Outcome, Instant)>,
        open: Option<(Instant, Option<usize>)>,
        /// Of each call in flight: its number, and how often the breaker had opened when it began.
        flying: Vec<(usize, u64)>,
        opened: u64,
        count: usize,
    }

    impl Model {
        fn enter(&mut self, now: Instant) -> bool {
            if let Some((until, probe)) = &mut self.open {
                if now < *until || probe.is_some() {
                    return false;
                }
                *probe = Some(self.count);
            }
            self.flying.push((self.count, self.opened));
            self.count += 1;
            true
        }

        fn leave(&mut self, at: usize, outcome: Outcome, failures: usize, now: Instant) {
            let (number, opened) = self.flying.remove(at);
            let pause = match outcome {
                Outcome::Throttled(pause) => pause.min(MAX_OPEN),
                _ => OPEN,
            };
            match self.open {
                Some((until, Some(probe))) if probe == number => match outcome {
                    Outcome::Answered => (self.open, self.ends) = (None, Vec::new()),
                    Outcome::Unknown => self.open = Some((until, None)),
                    _ => (self.open, self.opened) = (Some((now + pause, None)), self.opened + 1),
                },
                None if opened == self.opened => {
                    self.ends.push((outcome, now));
                    let row = self.ends.iter().rev().take_while(|(end, _)| *end != Outcome::Answered);
                    let row: Vec<_> = row.filter(|(end, _)| *end != Outcome::Unknown).collect();
                    let long = row.last().is_some_and(|(_, first)| now - *first >= THROTTLED);
                    let counts = matches!(outcome, Outcome::Failed) || matches!(outcome, Outcome::Throttled(_)) && long;
                    if row.len() >= failures && counts {
                        (self.open, self.opened) = (Some((now + pause, None)), self.opened + 1);
                    }
                }
                _ => {}
            }
        }
    }

    proptest! {
        #[test]
        fn it_does_what_the_model_does(failures in 1_usize..6, steps in proptest::collection::vec(step(), 1..200)) {
            let settings = settings(u32::try_from(failures).unwrap());
            let (mut machine, mut model) = (Machine::new(), Model::default());
            let mut passes = Vec::new();
            let mut now = Instant::now();
            for step in steps {
                match step {
                    Step::Enter => {
                        let entered = machine.enter(now);
                        prop_assert_eq!(entered.is_ok(), model.enter(now));
                        passes.extend(entered);
                    }
                    Step::Leave(_, _) if passes.is_empty() => {}
                    Step::Leave(n, outcome) => {
                        let at = n % passes.len();
                        machine.leave(passes.remove(at), outcome, &settings, now);
                        model.leave(at, outcome, failures, now);
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
                match machine.state {
                    Phase::Closed { .. } => prop_assert!(model.open.is_none()),
                    Phase::Open { until, probing } => {
                        prop_assert_eq!(model.open.map(|(until, probe)| (until, probe.is_some())), Some((until, probing)));
                    }
                }
            }
        }
    }
}
