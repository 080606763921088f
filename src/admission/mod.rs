//! Which calls may begin: as many as there are places and room for, of functions that are not left alone for a while.

mod astray;
mod bodies;
mod breaker;
mod connections;
mod gate;
mod lanes;
mod seldom;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;

pub use self::{
    astray::{Astray, Strays},
    bodies::{Bodies, Held},
    breaker::{State, Trial, opens},
    connections::{Connections, Place, Refusal},
    gate::Permit,
};
use self::{
    gate::{Full, Gate, Places},
    lanes::{Lanes, Strangers},
};
use crate::{
    error::{Error, Kind},
    policy::{Deadline, Policies, Policy, Qualifier, Target},
};

/// What every call passes.
#[derive(Debug)]
pub struct Admission {
    connections: Arc<Connections>,
    astray: Arc<Astray>,
    gate: Arc<Gate>,
    bodies: Arc<Bodies>,
    closed: AtomicBool,
    lanes: ArcSwap<Lanes>,
    /// The places of all policies that calls bring, and of those whose name is no longer configured.
    strangers: Arc<Places>,
    strange: Strangers,
}

/// How much there may be at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls in flight.
    pub in_flight: usize,
    /// Bytes of the bodies of requests, and as many of those of answers.
    pub bytes: usize,
}

/// A call that may begin. Both parts last for as long as the call does, wherever that goes on.
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    /// Its place.
    pub permit: Permit,
    /// To be told how the call went.
    pub trial: Trial,
}

/// What there is of one policy's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// In flight.
    pub in_flight: usize,
    /// Waiting for a place.
    pub waiting: usize,
    /// Refused so far, as OVERLOADED.
    pub refused: u64,
}

impl Admission {
    /// For these policies.
    pub fn new(limits: Limits, policies: &Policies) -> Self {
        let gate = Gate::new(limits.in_flight);
        let admission = Self {
            connections: Arc::default(),
            astray: Arc::default(),
            bodies: Bodies::new(limits.bytes),
            closed: AtomicBool::new(false),
            lanes: ArcSwap::default(),
            strangers: Places::new(&gate),
            strange: Strangers::new(),
            gate,
        };
        admission.replace(policies);
        admission
    }

    /// The connections that calls come by.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The requests that are no calls, as nothing is served at their path.
    pub fn astray(&self) -> &Arc<Astray> {
        &self.astray
    }

    /// Holds the calls from now on to what these policies say.
    pub fn replace(&self, policies: &Policies) {
        let lanes = Lanes::new(policies, &self.lanes.load(), &self.gate);
        self.strangers.set_limit(policies.inline.as_ref().and_then(|inline| inline.limits.max_in_flight));
        self.gate.set_alone(lanes.len() + usize::from(policies.inline.is_some()) <= 1);
        self.lanes.store(Arc::new(lanes));
    }

    /// Lets a call begin: refuses it at once if its function's breaker is open, and gives it a place, for which it may
    /// wait shortly.
    ///
    /// # Errors
    /// [`Kind::ShuttingDown`] once the gate is closed; [`Kind::BreakerOpen`]; [`Kind::Overloaded`] if there is no place
    /// in time, or too many wait for one, or bodies hold too many bytes.
    pub async fn admit(
        &self,
        policy: &Policy,
        qualifier: Option<&Qualifier>,
        bytes: usize,
        deadline: Deadline,
    ) -> Result<Admitted, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Kind::ShuttingDown, "the service is stopping: call another replica"));
        }
        let (places, trial) = self.lane(policy, qualifier, deadline.is_whole())?;
        let overloaded = |error: Error| {
            places.note_refusal();
            error
        };
        // It is held while the call waits, too.
        let mut large = (bytes > bodies::SMALL).then(|| self.bodies.hold());
        if let Some(large) = &mut large {
            large.add(bytes).map_err(overloaded)?;
        }
        let mut permit = places.enter(deadline.at()).await.map_err(|full| overloaded(full.error()))?;
        if let Some(large) = large
            && !permit.hold(large, self.bodies.limit())
        {
            return Err(overloaded(bodies::shared()));
        }
        Ok(Admitted { permit, trial })
    }

    fn lane(&self, policy: &Policy, qualifier: Option<&Qualifier>, whole: bool) -> Result<(Arc<Places>, Trial), Error> {
        let lanes = self.lanes.load();
        let lane = lanes.get(&policy.name);
        let trial = match policy.limits.breaker {
            None => Trial::none(),
            Some(settings) => match lane.and_then(|lane| lane.breaker(qualifier)) {
                Some(breaker) => breaker.enter(settings, whole)?,
                None => self.strange.breaker(policy, qualifier).enter(settings, whole)?,
            },
        };
        Ok((Arc::clone(lane.map_or(&self.strangers, |lane| &lane.places)), trial))
    }

    /// Lets nobody in any more; who is in stays in.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.gate.in_flight()
    }

    /// How many calls wait for a place.
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
    }

    /// How much there may be at once.
    pub fn limits(&self) -> Limits {
        Limits { in_flight: self.gate.limit(), bytes: self.bodies.limit() }
    }

    /// The bytes that bodies hold.
    pub fn bodies(&self) -> &Arc<Bodies> {
        &self.bodies
    }

    /// Tells of each policy by its name, and at the end of all inline policies together.
    pub fn policies(&self, mut tell: impl FnMut(&str, Figures)) {
        for (name, lane) in self.lanes.load().all() {
            tell(name.as_str(), lane.places.figures());
        }
        tell(crate::policy::Name::INLINE, self.strangers.figures());
    }

    /// Tells of the breaker of each target that a configured policy has.
    pub fn breakers(&self, mut tell: impl FnMut(&Target, State)) {
        for breaker in self.lanes.load().breakers() {
            tell(&breaker.target, breaker.state());
        }
    }
}

impl Full {
    fn error(self) -> Error {
        let message = match self {
            Self::Policy => "the policy has as many calls in flight as its `max_in_flight` allows",
            Self::Share => {
                "the policy has its share of the calls in flight that `server.max_in_flight` allows: the rest is for others"
            }
            Self::Service => "the service has as many calls in flight as `server.max_in_flight` allows",
        };
        Error::new(Kind::Overloaded, message)
    }
}
