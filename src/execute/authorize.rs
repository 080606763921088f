//! Functions that decide whether a call may pass, and for how long their answers hold.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant as StdInstant},
};

use bytes::Bytes;
use moka::{Expiry, sync::Cache};
use tokio::time::Instant;

use super::{Choice, Engine, FunctionError, Input, Output, Request};
use crate::{
    error::Error,
    event::{
        self, Front, Malformed,
        authorization::{Authorizer, Denial, Verdict},
    },
    policy::{Caller, Policy, callers, secret::Fingerprint},
    trace::Trace,
};

/// The most answers that are kept: about 1 KB each.
const MOST: u64 = 65_536;
/// What a function of API Gateway says to have the caller told that it is unknown.
const UNAUTHORIZED: &str = "Unauthorized";

/// Who asks whether a call may pass.
#[derive(Debug)]
pub struct Asking {
    /// The gateway.
    pub caller: Caller,
    /// When it stops waiting.
    pub deadline: Option<Instant>,
    /// Through which front it asks, for the access log.
    pub rpc: &'static str,
    /// The trace of the call.
    pub trace: Trace,
}

/// Whether a call may pass.
#[derive(Debug)]
pub enum Decision {
    /// It may; this is what the function says of the caller.
    Allowed(Arc<Verdict>),
    /// It may not; this is what the caller is told.
    Refused(event::Reply),
}

/// The answers that hold, by a fingerprint of whom they are about, so that no token is a key.
#[derive(Debug)]
pub(super) struct Verdicts {
    cache: Cache<Fingerprint, Held>,
    /// Of the configuration: what was decided under another does not hold.
    generation: AtomicU64,
}

#[derive(Clone, Debug)]
struct Held {
    verdict: Arc<Verdict>,
    ttl: Duration,
}

#[derive(Debug)]
struct EachItsOwn;

impl Expiry<Fingerprint, Held> for EachItsOwn {
    fn expire_after_create(&self, _: &Fingerprint, held: &Held, _: StdInstant) -> Option<Duration> {
        Some(held.ttl)
    }

    fn expire_after_update(
        &self,
        _: &Fingerprint,
        held: &Held,
        _: StdInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(held.ttl)
    }
}

impl Verdicts {
    pub(super) fn new() -> Self {
        let cache = Cache::builder().max_capacity(MOST).expire_after(EachItsOwn).build();
        Self { cache, generation: AtomicU64::new(0) }
    }

    /// Nothing holds any more.
    pub(super) fn forget(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cache.invalidate_all();
    }

    /// Under what the answer for an identity is kept; nothing where none may be.
    fn key(&self, policy: &Policy, authorizer: &Authorizer, identity: &[String]) -> Option<Fingerprint> {
        if identity.is_empty() || authorizer.ttl.is_zero() {
            return None;
        }
        let generation = self.generation.load(Ordering::Acquire).to_le_bytes();
        let own = [Some(&generation[..]), Some(policy.name.as_str().as_bytes())];
        Some(Fingerprint::of(own.into_iter().chain(identity.iter().map(|part| Some(part.as_bytes())))))
    }
}

impl Engine {
    /// Asks a policy's function whether a call may pass, unless its answer for this identity still holds.
    ///
    /// Of two calls that come together with an identity that is new, each asks: a function that decides may run twice.
    ///
    /// # Errors
    /// As the contract's table has them: there is no answer of the function, and nobody passes.
    pub async fn authorize(
        &self,
        asking: Asking,
        policy: Arc<Policy>,
        authorizer: &Authorizer,
        mut call: event::Call,
    ) -> Result<Decision, Error> {
        let Asking { caller, deadline, rpc, trace } = asking;
        call.hide(callers::HEADER);
        // An answer that is kept is for those who may ask.
        policy.callers.check(&caller, policy.name.as_str())?;
        let refused = |denial| Ok(Decision::Refused(authorizer.refusal(denial, &call.request_id)));
        let front = Front { region: policy.target.region.as_str(), target_group_arn: None };
        let arn = authorizer.arn(&call, front);
        let line = self.line(rpc, policy.name.as_str()).of(&call.request_id).by(&caller).within(trace);
        let Some(identity) = authorizer.identify(&call) else {
            let reply = authorizer.refusal(Denial::Unauthenticated, &call.request_id);
            let missing =
                Error::field("identity", "is missing: the call has not all that the policy's authorizer knows it by");
            line.told(reply.status).failed(&missing.with_about(policy.about()));
            return Ok(Decision::Refused(reply));
        };
        let key = self.verdicts.key(&policy, authorizer, &identity);
        let verdict = match key.and_then(|key| self.verdicts.cache.get(&key)) {
            Some(held) => {
                line.reached().invokes(policy.target.clone());
                line.held(held.verdict.allows(&arn));
                held.verdict
            }
            None => {
                let event = authorizer.encode(&call, &identity, front);
                let request = Request::new(caller, Choice::Found(Arc::clone(&policy)), Input::Payload(event), deadline);
                let mut reply = match self.execute(request.told_by(&line)).await {
                    Ok(reply) => reply,
                    Err(error) => {
                        line.failed(&error);
                        return Err(error);
                    }
                };
                let verdict = match (&reply.error, &reply.output) {
                    (None, Output::Payload(output)) => authorizer.decode(output),
                    // A function that has not run has not answered either.
                    _ => Err(Malformed::NotAuthorizer),
                };
                if let (None, Err(why)) = (&reply.error, &verdict) {
                    reply.error = Some(FunctionError::malformed(*why, Bytes::new()));
                }
                let verdict = verdict.map_err(|_| match &reply.error {
                    Some(error) if error.message == UNAUTHORIZED => Denial::Unauthenticated,
                    _ => Denial::Broken,
                });
                let allowed = verdict.as_ref().is_ok_and(|verdict| verdict.allows(&arn));
                let told = match &verdict {
                    Ok(_) if allowed => reply.status,
                    Ok(_) => Denial::Denied.status(),
                    Err(denial) => denial.status(),
                };
                line.decided(allowed).told(told).answered(reply.answered());
                match verdict {
                    Ok(verdict) => Arc::new(verdict),
                    Err(denial) => return refused(denial),
                }
            }
        };
        if let Some(key) = key {
            // Kept from the first answer on, and not longer for being asked for.
            self.verdicts
                .cache
                .entry(key)
                .or_insert_with(|| Held { verdict: Arc::clone(&verdict), ttl: authorizer.ttl });
        }
        if verdict.allows(&arn) { Ok(Decision::Allowed(verdict)) } else { refused(Denial::Denied) }
    }
}
