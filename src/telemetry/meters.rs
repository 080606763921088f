//! One policy's figures: instruments bound to its name, and its last failures.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram},
};

use super::{
    exemplars::{Exemplar, Exemplars},
    metrics::Instruments,
    names::{self, FUNCTION_ERRORS, Label, OUTCOMES},
    spans::Ended,
    tally::Tally,
};
use crate::{error::Kind as Reason, trace::Trace};

/// How many ways there are to end: well, by an error of the function, without an answer, or without its caller.
const ENDS: usize = 2 + FUNCTION_ERRORS.len() + Reason::ALL.len();

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The function answered.
    Ok,
    /// The function answered with an error, which this one of [`FUNCTION_ERRORS`] reported.
    FunctionError(&'static str),
    /// There is no answer of the function.
    Error(Reason),
    /// The caller went away.
    Cancelled,
}

/// Where a call's time went, as far as it came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub queue: Option<Duration>,
    pub credentials: Option<Duration>,
    pub lambda: Option<Duration>,
    pub total: Duration,
}

/// Whom a policy invokes, for the labels of what the client measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invoked<'a> {
    /// The function's name.
    pub function: &'a str,
    /// Its region.
    pub region: &'a str,
}

/// A failure, for whoever looks for the last ones.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When the call ended, the latest of several.
    pub at: SystemTime,
    /// When the first of them ended.
    pub since: SystemTime,
    /// How many calls ended so, with nothing else to tell of them than other ids.
    pub count: u64,
    /// As the access line has it.
    pub outcome: &'static str,
    /// As the access line has it.
    pub reason: &'static str,
    /// What the caller was told, or what is wrong with the function's output; empty for an error that the function
    /// reported, whose words are its own.
    pub error: String,
    /// The type of an error that the function reported, made printable.
    pub error_type: Option<String>,
    /// What the operator is told beyond that.
    pub detail: Option<String>,
    /// The gateway's id of the call, if it has one.
    pub request_id: Option<String>,
    /// AWS's id of the request, if there was one.
    pub aws_request_id: Option<String>,
    /// The call's trace, if it has one.
    pub trace_id: Option<String>,
}

impl Failure {
    /// Whether there is nothing to tell of the other one that is not told of this one, but ids.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let told = |failure: &Self| (failure.outcome, failure.reason);
        told(self) == told(other)
            && self.error == other.error
            && self.error_type == other.error_type
            && self.detail == other.detail
    }
}

/// One policy's figures. A series begins with the first call that belongs to it.
#[derive(Debug)]
pub(super) struct Meters {
    pub name: String,
    instruments: Arc<Instruments>,
    invoked: Option<(String, String)>,
    calls: [OnceLock<BoundCounter<u64>>; ENDS],
    durations: [OnceLock<BoundHistogram<f64>>; OUTCOMES.len()],
    queue: OnceLock<BoundHistogram<f64>>,
    credentials: OnceLock<BoundHistogram<f64>>,
    client: [OnceLock<BoundHistogram<f64>>; 1 + Reason::ALL.len()],
    /// For people.
    pub tally: Arc<Tally>,
    exemplars: Exemplars,
}

impl End {
    pub(super) fn outcome(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FunctionError(_) => "function_error",
            Self::Error(_) => "error",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Ok | Self::Cancelled => None,
            Self::FunctionError(kind) => Some(kind),
            Self::Error(reason) => Some(reason.reason()),
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Cancelled => 1,
            Self::FunctionError(kind) => 2 + FUNCTION_ERRORS.iter().position(|known| *known == kind).unwrap_or(0),
            Self::Error(reason) => 2 + FUNCTION_ERRORS.len() + reason as usize,
        }
    }
}

fn attribute(label: &Label, value: &str) -> KeyValue {
    KeyValue::new(label.name, value.to_owned())
}

impl Meters {
    /// What people see goes on with `tally`.
    pub(super) fn new(
        instruments: &Arc<Instruments>,
        name: &str,
        invoked: Option<Invoked<'_>>,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            instruments: Arc::clone(instruments),
            invoked: invoked.map(|invoked| (invoked.function.to_owned(), invoked.region.to_owned())),
            calls: [const { OnceLock::new() }; ENDS],
            durations: [const { OnceLock::new() }; OUTCOMES.len()],
            queue: OnceLock::new(),
            credentials: OnceLock::new(),
            client: [const { OnceLock::new() }; 1 + Reason::ALL.len()],
            tally,
            exemplars: Exemplars::default(),
        }
    }

    /// Whom it invokes, if that is one for all of its calls.
    pub(super) fn invoked(&self) -> Option<Invoked<'_>> {
        self.invoked.as_ref().map(|(function, region)| Invoked { function, region })
    }

    pub(super) fn is_of(&self, invoked: &Invoked<'_>) -> bool {
        self.invoked().is_some_and(|own| own == *invoked)
    }

    /// Records a call that has ended.
    pub(super) fn record(&self, end: End, times: Times) {
        self.tally.count(end, times.total);
        let instruments = &*self.instruments;
        let policy = || attribute(&names::POLICY, &self.name);
        if let Some(calls) = self.calls.get(end.index()) {
            let bind = || {
                let mut labels = vec![policy(), attribute(&names::OUTCOME, end.outcome())];
                labels.extend(end.reason().map(|reason| attribute(&names::REASON, reason)));
                instruments.calls.bind(&labels)
            };
            calls.get_or_init(bind).add(1);
        }
        if let Some(duration) =
            OUTCOMES.iter().position(|outcome| *outcome == end.outcome()).and_then(|at| self.durations.get(at))
        {
            let bind = || instruments.call.bind(&[policy(), attribute(&names::OUTCOME, end.outcome())]);
            duration.get_or_init(bind).record(times.total.as_secs_f64());
        }
        if let Some(queue) = times.queue {
            self.queue.get_or_init(|| instruments.queue.bind(&[policy()])).record(queue.as_secs_f64());
        }
        if let Some(credentials) = times.credentials {
            let bind = || instruments.credentials.bind(&[policy()]);
            self.credentials.get_or_init(bind).record(credentials.as_secs_f64());
        }
        if let Some(lambda) = times.lambda {
            let error = match end {
                End::Error(reason) => Some(reason),
                End::Ok | End::FunctionError(_) | End::Cancelled => None,
            };
            if let Some(client) = self.client.get(error.map_or(0, |reason| 1 + reason as usize)) {
                client.get_or_init(|| instruments.client.bind(&self.client_labels(error))).record(lambda.as_secs_f64());
            }
        }
    }

    fn client_labels(&self, error: Option<Reason>) -> Vec<KeyValue> {
        let mut labels = vec![
            attribute(&names::RPC_SYSTEM, "aws-api"),
            attribute(&names::RPC_METHOD, "Lambda/Invoke"),
            attribute(&names::POLICY, &self.name),
            attribute(&names::INVOKED_PROVIDER, "aws"),
        ];
        labels.extend(error.map(|reason| attribute(&names::ERROR_TYPE, reason.reason())));
        if let Some((function, region)) = &self.invoked {
            labels.push(attribute(&names::INVOKED_NAME, function));
            labels.push(attribute(&names::INVOKED_REGION, region));
        }
        labels
    }

    /// Makes the spans of a call that has ended and was chosen for them, and keeps it beside the durations.
    pub(super) fn trace(&self, trace: &Trace, ended: &Ended<'_>) {
        if let Some(traces) = &self.instruments.traces {
            traces.end(trace, ended);
            self.exemplars.keep(ended.end.outcome(), trace, ended.at.duration_since(ended.started));
        }
    }

    pub(super) fn exemplar(&self, outcome: &str, bound: &str) -> Option<Exemplar> {
        self.exemplars.of(outcome, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_place_of_its_own() {
        let functions = FUNCTION_ERRORS.iter().map(|kind| End::FunctionError(kind));
        let errors = Reason::ALL.into_iter().map(End::Error);
        let ends: Vec<_> = [End::Ok, End::Cancelled].into_iter().chain(functions).chain(errors).collect();
        let places: Vec<_> = ends.iter().map(|end| end.index()).collect();
        assert_eq!(places, (0..ENDS).collect::<Vec<_>>());
        for end in ends {
            assert!(OUTCOMES.contains(&end.outcome()));
        }
    }
}
