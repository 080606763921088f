//! The access log: one line a call, with what it takes to answer "what happened to this request".
//!
//! No payload and no secret is ever a field.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    meters::{End, Failure, Meters, Times},
    metrics::Metrics,
    spans::Ended,
};
use crate::{
    error::{Error, Fault, Kind},
    policy::{Caller, Name, callers::Origin},
    trace::{Hex, Reached, Trace},
};

/// The most characters of an id that the gateway gave.
const MOST_ID: usize = 128;
/// What took less to be received was there.
const RECEIVED: Duration = Duration::from_millis(1);

/// The most characters of the type of a function's error.
const MOST_TYPE: usize = 64;

/// What the line says of a call that the function answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Lambda's status.
    pub status: u16,
    /// Who reported an error of the function, if there is one.
    pub error_kind: Option<&'static str>,
    /// What is wrong with the output, in this service's words.
    pub error: Option<&'a str>,
    /// The type of the error that the function reported, in the function's words.
    pub error_type: Option<&'a str>,
    /// AWS's id of the request.
    pub aws_request_id: &'a str,
    /// The version that ran.
    pub version: &'a str,
    /// The time waiting for admission.
    pub queue: Duration,
    /// The time waiting for credentials.
    pub credentials: Duration,
    /// The time invoking.
    pub lambda: Duration,
    /// The event's size.
    pub event_bytes: usize,
    /// The output's size.
    pub output_bytes: usize,
}

/// A call whose line is still to be written, and which is still to be counted. If it is dropped before, the caller went away.
#[derive(Debug)]
pub struct Line {
    meters: Arc<Meters>,
    rpc: &'static str,
    /// What the caller wrote, where that is no policy's name.
    policy: Option<String>,
    request_id: String,
    /// Who made it, by its name in the configuration.
    caller: Option<Name>,
    /// From where.
    origin: Option<Origin>,
    trace: Trace,
    /// What the caller was told, if that is a status of HTTP.
    status: Option<u16>,
    /// Whether an answer that comes in pieces has begun.
    begun: bool,
    /// How far the call has come, for when its caller goes away.
    reached: Reached,
    receipt: Receipt,
    /// When the gateway began.
    began: Instant,
    /// When the call did.
    started: Instant,
    ended: bool,
}

/// Whether the front itself waits for what the function is to get.
#[derive(Clone, Copy, Debug)]
enum Receipt {
    /// It was there.
    None,
    /// It comes.
    Coming,
    /// It took so long.
    Took(Duration),
}

impl Line {
    /// Begins the line of a call; without a policy's name the call brought its own.
    pub fn start(metrics: &Metrics, rpc: &'static str, policy: &str) -> Self {
        let name = if policy.is_empty() { Name::INLINE } else { policy };
        let meters = metrics.of(name);
        // The name is the caller's text unless a policy is found by it.
        let policy = (*name != *meters.name).then(|| name.chars().take(64).collect());
        let started = Instant::now();
        Self {
            meters,
            rpc,
            policy,
            request_id: String::new(),
            caller: None,
            origin: None,
            trace: Trace::default(),
            status: None,
            begun: false,
            reached: Reached::new(started),
            receipt: Receipt::None,
            began: started,
            started,
            ended: false,
        }
    }

    /// Says who makes the call, if that is known.
    #[must_use]
    pub fn by(mut self, caller: &Caller) -> Self {
        (self.caller, self.origin) = (caller.known().cloned(), caller.origin());
        self
    }

    /// Says which trace the call belongs to.
    #[must_use]
    pub fn within(mut self, trace: Trace) -> Self {
        self.trace = trace;
        self
    }

    /// The trace that the call belongs to.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Where it is noted how far the call has come.
    pub fn reached(&self) -> &Reached {
        &self.reached
    }

    /// Says when the gateway began with what is a call only now: its span and the line's total begin there, and the policy's
    /// figures with the call, as how long a gateway or its upstream took is not for these to say.
    #[must_use]
    pub fn since(mut self, began: Instant) -> Self {
        self.began = began;
        self.receipt = Receipt::Took(self.started.saturating_duration_since(began));
        self
    }

    /// Says that the call's body is waited for from now on.
    #[must_use]
    pub fn receiving(mut self) -> Self {
        self.receipt = Receipt::Coming;
        self
    }

    /// Says that the body is here, or will not come.
    pub fn received(&mut self) {
        self.receipt = Receipt::Took(self.began.elapsed());
    }

    /// Says that an answer has begun, with this status if that is one of HTTP.
    #[must_use]
    pub fn begun(mut self, status: Option<u16>) -> Self {
        (self.begun, self.status) = (true, status);
        self
    }

    /// Says that the gateway is told by gRPC's status, as its own protocol has no words for it.
    #[must_use]
    pub fn by_status(mut self) -> Self {
        self.begun = true;
        self
    }

    /// Says which status of HTTP the caller is told.
    #[must_use]
    pub fn told(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Says which of the gateway's requests the call is, if the gateway said so.
    #[must_use]
    pub fn of(mut self, request_id: &str) -> Self {
        self.request_id = request_id.chars().take(MOST_ID).collect();
        self
    }

    /// Writes the line of a call that the function answered.
    pub fn answered(mut self, answered: Answered<'_>) {
        let end = answered.error_kind.map_or(End::Ok, End::FunctionError);
        let times = (Some(answered.queue), Some(answered.credentials), Some(answered.lambda));
        // Of an event that is queued, and a dry run, nobody knows.
        let ran = (answered.status == 200).then_some("yes");
        let (at, total) = self.end(end, times, ran, Some(answered.aws_request_id));
        let trace_id = self.trace.id();
        let error_type = answered.error_type.map(printable);
        tracing::info!(
            rpc = self.rpc,
            policy = self.policy(),
            caller = self.caller(),
            outcome = end.outcome(),
            reason = end.reason(),
            error = answered.error,
            error_type = error_type.as_deref(),
            request_id = self.request_id(),
            trace_id = trace_id.as_ref().map(Hex::as_str),
            ran,
            status = answered.status,
            aws_request_id = answered.aws_request_id,
            version = answered.version,
            event_bytes = answered.event_bytes,
            output_bytes = answered.output_bytes,
            receive_us = self.receive(at).map(micros),
            queue_us = micros(answered.queue),
            credentials_us = micros(answered.credentials),
            lambda_us = micros(answered.lambda),
            total_us = micros(total),
            "call"
        );
        if let End::FunctionError(kind) = end {
            self.meters.tally.keep(Failure {
                error: answered.error.unwrap_or_default().to_owned(),
                error_type,
                ..self.failure(end, kind, Some(answered.aws_request_id))
            });
        }
    }

    /// Writes the line of a call without an answer: as a warning unless only its caller can act on it.
    pub fn failed(mut self, error: &Error) {
        if error.is_broken_off() {
            // Dropped, it says so.
            return;
        }
        let (about, spent, end) = (error.about(), error.spent(), End::Error(error.kind()));
        let (credentials, lambda) = (spent.and_then(|s| s.credentials), spent.and_then(|s| s.lambda));
        let times = (spent.map(|spent| spent.queue), credentials, lambda);
        let (at, total) = self.end(end, times, Some(error.ran().as_str()), error.aws_request_id());
        let (trace_id, refused) = (self.trace.id(), self.refused(end));
        macro_rules! failed {
            ($level:ident) => {
                tracing::$level!(
                    rpc = self.rpc,
                    policy = self.policy(),
                    caller = self.caller(),
                    peer = refused.map(tracing::field::display),
                    outcome = end.outcome(),
                    reason = end.reason(),
                    request_id = self.request_id(),
                    trace_id = trace_id.as_ref().map(Hex::as_str),
                    ran = error.ran().as_str(),
                    error = error.message(),
                    detail = error.detail(),
                    function = about.map(|a| a.function.as_str()).filter(|f| !f.is_empty()),
                    region = about.map(|a| a.region.as_str()).filter(|r| !r.is_empty()),
                    aws_request_id = error.aws_request_id(),
                    event_bytes = spent.map(|spent| spent.event_bytes),
                    receive_us = self.receive(at).map(micros),
                    queue_us = spent.map(|spent| micros(spent.queue)),
                    credentials_us = credentials.map(micros),
                    lambda_us = lambda.map(micros),
                    total_us = micros(total),
                    "call"
                )
            };
        }
        match error.kind().fault() {
            Fault::Caller => failed!(info),
            Fault::Policy | Fault::Aws | Fault::Service => failed!(warn),
        }
        let wanted = self.policy.as_ref().filter(|_| error.kind() == Kind::PolicyNotFound);
        let wanted = wanted.map(|name| format!("the call names `{name}`"));
        let wanted = wanted.or_else(|| refused.map(|origin| format!("the call comes from {origin}")));
        let detail = error.detail().or(wanted.as_deref());
        self.meters.tally.keep(Failure {
            error: error.message().to_owned(),
            detail: detail.map(str::to_owned),
            ..self.failure(end, error.kind().reason(), error.aws_request_id())
        });
    }

    /// Counts the call, makes its spans, and tells when it ended and how long it took.
    fn end(
        &mut self,
        end: End,
        (queue, credentials, lambda): (Option<Duration>, Option<Duration>, Option<Duration>),
        ran: Option<&'static str>,
        aws_request_id: Option<&str>,
    ) -> (Instant, Duration) {
        self.ended = true;
        let at = Instant::now();
        let total = at.duration_since(self.started);
        let spent = match end {
            // How long something takes is not told by what nobody waited for.
            End::Cancelled => Times { total, ..Times::default() },
            End::Ok | End::FunctionError(_) | End::Error(_) => Times { queue, credentials, lambda, total },
        };
        self.meters.record(end, spent);
        if self.trace.spans().is_some() {
            let ended = Ended {
                rpc: self.rpc,
                policy: Arc::clone(&self.meters.name),
                end,
                ran,
                started: self.began,
                received: self.receive(at),
                queue,
                at,
                status: self.status,
                begun: self.begun,
                aws_request_id: aws_request_id.filter(|id| !id.is_empty()).map(Box::from),
                refused: self.refused(end),
            };
            self.meters.trace(&self.trace, ended);
        }
        (at, at.duration_since(self.began))
    }

    /// Where a call comes from that fails for its caller's fault: by that its gateway is found.
    fn refused(&self, end: End) -> Option<Origin> {
        let is_callers = matches!(end, End::Error(kind) if kind.fault() == Fault::Caller);
        self.origin.filter(|_| is_callers)
    }

    /// How long the call was received, if that took any time.
    fn receive(&self, at: Instant) -> Option<Duration> {
        let took = match self.receipt {
            Receipt::None => return None,
            Receipt::Coming => at.duration_since(self.began),
            Receipt::Took(took) => took,
        };
        (took >= RECEIVED).then_some(took)
    }

    /// The call as one of the policy's last failures.
    fn failure(&self, end: End, reason: &'static str, aws_request_id: Option<&str>) -> Failure {
        let now = SystemTime::now();
        Failure {
            at: now,
            since: now,
            count: 1,
            outcome: end.outcome(),
            reason,
            error: String::new(),
            error_type: None,
            detail: None,
            request_id: self.request_id().map(str::to_owned),
            aws_request_id: aws_request_id.map(str::to_owned),
            trace_id: self.trace.id().map(|id| id.as_str().to_owned()),
        }
    }

    fn policy(&self) -> &str {
        self.policy.as_deref().unwrap_or(&self.meters.name)
    }

    fn caller(&self) -> Option<&str> {
        self.caller.as_ref().map(Name::as_str)
    }

    fn request_id(&self) -> Option<&str> {
        Some(self.request_id.as_str()).filter(|id| !id.is_empty())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            let (ran, spent) = (self.reached.ran().as_str(), self.reached.spent(Instant::now()));
            let (credentials, lambda) = (spent.and_then(|s| s.credentials), spent.and_then(|s| s.lambda));
            let times = (spent.map(|spent| spent.queue), credentials, lambda);
            let (at, total) = self.end(End::Cancelled, times, Some(ran), None);
            let invoked = self.meters.invoked();
            let trace_id = self.trace.id();
            tracing::info!(
                rpc = self.rpc,
                policy = self.policy(),
                caller = self.caller(),
                outcome = End::Cancelled.outcome(),
                request_id = self.request_id(),
                trace_id = trace_id.as_ref().map(Hex::as_str),
                ran,
                function = invoked.map(|invoked| invoked.function),
                region = invoked.map(|invoked| invoked.region),
                event_bytes = spent.map(|spent| spent.event_bytes),
                receive_us = self.receive(at).map(micros),
                queue_us = spent.map(|spent| micros(spent.queue)),
                credentials_us = credentials.map(micros),
                lambda_us = lambda.map(micros),
                total_us = micros(total),
                "call"
            );
        }
    }
}

/// The type of a function's error as a name: what no name has in it may be a message, or meant to mislead who reads it.
fn printable(name: &str) -> String {
    let shown = |c: char| if c.is_alphanumeric() || c.is_ascii_punctuation() { c } else { '_' };
    name.chars().take(MOST_TYPE).map(shown).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_functions_error_type_is_short_and_printable() {
        for (name, expected) in [
            ("Runtime.ExitError", "Runtime.ExitError"),
            ("orders::Größe<u8>", "orders::Größe<u8>"),
            ("not a name\n{\"level\":\"fake\"}", "not_a_name_{\"level\":\"fake\"}"),
            ("\u{202e}a\u{0}b\u{1b}[31m", "_a_b_[31m"),
        ] {
            assert_eq!(printable(name), expected);
        }
        assert_eq!(printable(&"x".repeat(1000)).len(), MOST_TYPE);
    }
}
