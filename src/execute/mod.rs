//! The engine: every front turns its call into a [`Request`] and gets a [`Reply`] or the one [`Error`].

pub mod answer;
mod arrival;
mod authorize;
mod call;
mod observe;
mod settle;
mod stream;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub use self::arrival::{Arrival, id_of};
pub use self::authorize::{Asking, Decision};
pub use self::call::{
    Choice, EXECUTE, Encrypted, FunctionError, FunctionErrorKind, Input, NO_POLICY, Output, Peer, Reply, Request,
    Sizes, Timing, meant_by, named_in, request_id,
};
pub use self::stream::{End, Part, Streamed};
use crate::{
    admission::{Admission, Admitted, Limits, Permit, Trial},
    error::{Error, Kind, Spent},
    lambda::{Api, Invoke, Lambda, Ready},
    policy::{
        Caller, Deadline, InlineDefaults, Policies, Policy, Qualifier, Target,
        callers::{Identified, Presented},
    },
    telemetry::{Metrics, access::Line},
    trace::{self, Reached, Step, Trace},
};

/// Executes policies.
#[derive(Debug)]
pub struct Engine {
    policies: ArcSwap<Policies>,
    lambda: Lambda,
    admission: Admission,
    verdicts: authorize::Verdicts,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// An engine for these policies, within these limits, on this many workers, whose figures go to these metrics.
    pub fn new(policies: Policies, limits: Limits, workers: usize, metrics: Arc<Metrics>) -> Self {
        observe::set_policies(&metrics, &policies);
        Self {
            lambda: Lambda::new(workers, limits.bytes),
            admission: Admission::new(limits, &policies),
            policies: ArcSwap::from_pointee(policies),
            verdicts: authorize::Verdicts::new(),
            metrics,
        }
    }

    /// The policies in force.
    pub fn policies(&self) -> Arc<Policies> {
        self.policies.load_full()
    }

    /// Puts other policies and callers in force, between two calls.
    pub fn replace(&self, policies: Policies) {
        self.admission.replace(&policies);
        observe::set_policies(&self.metrics, &policies);
        if let (Some(new), Some(old)) = (&policies.callers, &self.policies.load().callers) {
            new.inherit(old);
        }
        self.policies.store(Arc::new(policies));
        self.verdicts.forget();
    }

    /// Begins the access line of a call; without a policy's name the call brought its own.
    pub fn line(&self, rpc: &'static str, policy: &str) -> Line {
        Line::start(&self.metrics, rpc, policy)
    }

    /// The line of a call that nobody has read: whether its caller may call the policy that it names is not known.
    pub fn unread(&self, line: Line) -> Line {
        line.unread(&self.metrics)
    }

    /// The trace of a call: what its front was told by metadata or headers, else what the headers of the HTTP call say that
    /// the gateway passes on, else one that begins here, if the call is chosen for one.
    pub fn trace<'a>(&self, told: Option<trace::Context>, headers: impl Iterator<Item = (&'a str, &'a str)>) -> Trace {
        self.metrics.trace(told.or_else(|| trace::Context::among(headers)))
    }

    /// Lets no new call in.
    pub fn close(&self) {
        self.admission.close();
    }

    /// Ends the calls in flight, each with the error that says whether its function may have run.
    pub fn cut(&self) {
        self.lambda.cut();
    }

    /// What calls pass before they begin.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Whether it matters who calls.
    pub fn has_callers(&self) -> bool {
        self.policies.load().callers.is_some()
    }

    /// Who makes a call, by what it presents.
    pub fn identify(&self, presented: &Presented<'_>) -> Identified {
        self.policies.load().callers.as_ref().map(|callers| callers.identify(presented)).unwrap_or_default()
    }

    /// Where it may be known who calls once an issuer's keys have been fetched anew: resolves when they were, or could not be.
    pub fn renewal(&self, caller: &Caller) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.policies.load().callers.as_ref()?.renewal(caller)
    }

    /// Lets pass who is known, and everybody where nobody has to be: for what is dear before a policy is known.
    ///
    /// # Errors
    /// [`Kind::CallerUnauthenticated`].
    pub fn known(&self, caller: &Caller) -> Result<(), Error> {
        self.policies.load().known(caller)
    }

    /// What a policy that this caller brings starts from.
    ///
    /// # Errors
    /// [`Kind::CallerUnauthenticated`] or [`Kind::CallerDenied`].
    pub fn inline(&self, caller: &Caller) -> Result<InlineDefaults, Error> {
        self.policies.load().inline(caller).cloned()
    }

    /// The error, and which policy it is about, if one of this name is configured. Who may not call it is told only that.
    #[must_use]
    pub fn about(&self, caller: &Caller, name: &str, error: Error) -> Error {
        let policies = self.policies.load();
        match policies.find(caller, name) {
            Ok(policy) => error.with_about(policy.about()),
            Err(refused) if refused.kind() == Kind::PolicyNotFound => error,
            Err(refused) => refused,
        }
    }

    /// Executes one call.
    ///
    /// # Errors
    /// As the contract's table has them: there is no answer of the function.
    pub async fn execute(&self, request: Request) -> Result<Reply, Error> {
        let policy = self.find(&request)?;
        self.invoke(&policy, request).await.map_err(|error| error.with_about(policy.about()))
    }

    /// The policy of a call, if its caller may call it. Together with [`Engine::authorize`] this is the only way to a
    /// function, so that here it is seen to, whichever front the call came through.
    fn find(&self, request: &Request) -> Result<Arc<Policy>, Error> {
        match &request.policy {
            Choice::Named(name) => self.policies.load().find(&request.caller, name).cloned(),
            Choice::Found(policy) => {
                policy.callers.check(&request.caller, policy.name.as_str())?;
                Ok(Arc::clone(policy))
            }
        }
    }

    async fn invoke(&self, policy: &Policy, mut request: Request) -> Result<Reply, Error> {
        let input = request.take_input();
        let Prepared { ready, invoke, form, deadline, clock, trial, permit: _permit } =
            self.prepare(policy, input, &request, Api::Invoke).await?;
        let answer = ready.invoke(&invoke, deadline).await;
        let answer = answer.map_err(|error| error.with_spent(clock.spent()).with_about(policy.about()));
        request.trace.note(Step::Done);
        Ok(settle::settle(policy, form, trial.hear(answer)?, clock))
    }

    /// Everything before the invocation: the event, a place among the calls in flight, and a client with credentials.
    async fn prepare<'a>(
        &self,
        policy: &'a Policy,
        input: Input,
        request: &'a Request,
        api: Api,
    ) -> Result<Prepared<'a>, Error> {
        let started = Instant::now();
        let reached = request.reached.clone().unwrap_or_else(|| Reached::new(started.into_std()));
        let deadline = Deadline::new(started, policy.timeout, request.deadline);

        let qualifier = match &request.qualifier {
            None => policy.target.qualifier.as_ref(),
            Some(chosen) => Some(allowed(policy, chosen)?),
        };
        let (function, region) = (policy.target.function.clone(), policy.target.region.clone());
        reached.invokes(Target { function, region, qualifier: qualifier.cloned() });
        let invocation = request.invocation(policy);
        let (payload, form) = settle::encode(input, policy, &request.trace)?;
        let event_bytes = payload.len();
        let most = invocation.max_payload();
        if payload.len() > most {
            return Err(Error::new(
                Kind::PayloadTooLarge,
                format!(
                    "the event has {} bytes, lambda takes at most {most} for {}",
                    payload.len(),
                    invocation.as_str()
                ),
            )
            .with_spent(Spent { event_bytes, ..Spent::default() }));
        }

        reached.asked(started.into_std(), event_bytes);
        let admitted = self.admission.admit(policy, qualifier, event_bytes, deadline).await;
        let Admitted { permit, trial } = admitted.map_err(|error| {
            error.with_spent(Spent { queue: Some(started.elapsed()), event_bytes, ..Spent::default() })
        })?;
        let admitted = permit.goes_on();
        reached.admitted(admitted.into_std());
        request.trace.note(Step::Admitted);
        let ready = self.lambda.ready(&policy.access, deadline).await.map_err(|error| {
            let credentials = Some(admitted.elapsed());
            error.with_spent(Spent { queue: Some(admitted - started), credentials, lambda: None, event_bytes })
        })?;
        let authorized = Instant::now();
        reached.authorized(authorized.into_std());
        request.trace.note(Step::Authorized);
        let invoke = Invoke {
            api,
            target: &policy.target,
            qualifier,
            invocation,
            log: policy.log,
            context: request.context.as_ref().or(policy.context.as_ref()),
            tenant: request.tenant.as_ref().or(policy.tenant.as_ref()),
            trace: &request.trace,
            reached,
            payload,
        };
        let clock = Clock { started, admitted, authorized, event_bytes };
        Ok(Prepared { permit, trial, ready, invoke, form, deadline, clock })
    }
}

/// A call that is ready to be sent.
struct Prepared<'a> {
    permit: Permit,
    trial: Trial,
    ready: Ready,
    invoke: Invoke<'a>,
    form: settle::Form,
    deadline: Deadline,
    clock: Clock,
}

/// When a call came how far, and with how large an event.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    admitted: Instant,
    authorized: Instant,
    event_bytes: usize,
}

impl Clock {
    /// Where the time went of a call that ends now.
    fn timing(self) -> Timing {
        let ended = Instant::now();
        Timing {
            queue: self.admitted - self.started,
            credentials: self.authorized - self.admitted,
            lambda: ended - self.authorized,
            total: ended - self.started,
        }
    }

    /// The same for a call that fails now.
    fn spent(self) -> Spent {
        let Timing { queue, credentials, lambda, total: _ } = self.timing();
        Spent {
            queue: Some(queue),
            credentials: Some(credentials),
            lambda: Some(lambda),
            event_bytes: self.event_bytes,
        }
    }
}

/// The qualifier that the call chose, if the policy lets it.
fn allowed<'a>(policy: &'a Policy, chosen: &Qualifier) -> Result<&'a Qualifier, Error> {
    policy
        .qualifiers
        .iter()
        .chain(&policy.target.qualifier)
        .find(|allowed| *allowed == chosen)
        .ok_or_else(|| Error::field("qualifier", "is none of the policy's `qualifiers`"))
}
