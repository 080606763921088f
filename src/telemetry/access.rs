//! The access log: one line a call, with what it takes to answer "what happened to this request".
//!
//! No payload and no secret is ever a field.

mod written;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    meters::{End, Meters, Times},
    metrics::Metrics,
    names::UNKNOWN_POLICY,
    spans::Ended,
};
use crate::{
    error::{About, Fault},
    policy::{Caller, Name, Qualifier, Target, callers::Origin},
    trace::{Reached, Trace},
};

/// The most characters of an id that the gateway gave.
const MOST_ID: usize = 128;
/// What took less to be received was there.
const RECEIVED: Duration = Duration::from_millis(1);

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
    /// What the caller wrote, where the figures are not that policy's.
    policy: Option<String>,
    /// Whether that is a policy's name all the same.
    unread: bool,
    request_id: String,
    /// Who made it, by its name in the configuration.
    caller: Option<Name>,
    /// From where.
    origin: Option<Origin>,
    trace: Trace,
    /// What the caller was told, if that is a status of HTTP.
    status: Option<u16>,
    /// Whether an answer that comes in pieces has begun, or a gateway is told by gRPC's status: nothing else tells how it ended.
    begun: bool,
    /// How far the call has come, for when its caller goes away.
    reached: Reached,
    receipt: Receipt,
    /// What an authorizer's call comes to, `allowed` or `refused`.
    verdict: Option<&'static str>,
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
            unread: false,
            request_id: String::new(),
            caller: None,
            origin: None,
            trace: Trace::default(),
            status: None,
            begun: false,
            reached: Reached::new(started),
            receipt: Receipt::None,
            verdict: None,
            began: started,
            started,
            ended: false,
        }
    }

    /// Says that nobody has read the call. Who may not call a policy must not change its figures by naming it, nor does its
    /// function answer for how slowly somebody sends: the line has the name, and the figures are those of none.
    #[must_use]
    pub fn unread(mut self, metrics: &Metrics) -> Self {
        let named = std::mem::replace(&mut self.meters, metrics.of(UNKNOWN_POLICY));
        self.unread = self.policy.is_none();
        self.policy.get_or_insert_with(|| named.name.to_string());
        self
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

    /// Says which status of HTTP the caller is told, in the place of Lambda's.
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

    /// Says whether an authorizer lets the gateway's call pass.
    #[must_use]
    pub fn decided(mut self, allowed: bool) -> Self {
        self.verdict = Some(if allowed { "allowed" } else { "refused" });
        self
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
            // That Lambda was asked is to be counted, and that it took so long at least.
            End::GivenUp => Times { lambda, total, ..Times::default() },
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
                verdict: self.verdict,
                invoked: self.reached.invoked().cloned(),
                aws_request_id: aws_request_id.filter(|id| !id.is_empty()).map(Box::from),
                refused: self.refused(end),
            };
            self.meters.trace(&self.trace, ended);
        }
        (at, at.duration_since(self.began))
    }

    /// The function that the call invokes, the qualifier that was chosen for it, and the region. Until then it is the configured
    /// policy's, or that of a policy that the call brought, which the error is about.
    fn invoked<'a>(&'a self, about: Option<&'a About>) -> [Option<&'a str>; 3] {
        if let Some(Target { function, region, qualifier }) = self.reached.invoked() {
            return [Some(function.as_str()), qualifier.as_ref().map(Qualifier::as_str), Some(region.as_str())];
        }
        let configured =
            self.meters.invoked.as_ref().map(|invoked| (invoked.function.as_str(), invoked.region.as_str()));
        let about = about.map(|about| (about.function.as_str(), about.region.as_str()));
        let (function, region) = configured.or(about.filter(|(function, _)| !function.is_empty())).unzip();
        [function, None, region]
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
