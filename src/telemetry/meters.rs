//! One policy's figures: instruments bound to its name, and its last failures.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::{KeyValue, metrics::BoundHistogram};

use super::{
    durations::Durations,
    exemplars::{Exemplar, Exemplars},
    metrics::Instruments,
    names::{self, Label, Metric, OUTCOMES},
    spans::Ended,
    tally::Tally,
};
use crate::{
    error::{Fault, Kind as Reason},
    trace::Trace,
};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The function answered.
    Ok,
    /// The function answered with an error, which this one of [`names::FUNCTION_ERRORS`] reported.
    FunctionError(&'static str),
    /// There is no answer of the function.
    Error(Reason),
    /// The caller went away.
    Cancelled,
    /// It did while Lambda was asked, and no answer had begun.
    GivenUp,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoked {
    /// The function's name.
    pub function: String,
    /// Its region.
    pub region: String,
    /// The host and port of the endpoint, if AWS has such a one.
    pub server: Option<(String, u16)>,
}

/// One policy's figures. A series begins with the first call that belongs to it.
#[derive(Debug)]
pub(super) struct Meters {
    pub name: Arc<str>,
    instruments: Arc<Instruments>,
    /// Whom it invokes, if that is one for all of its calls.
    pub invoked: Option<Invoked>,
    /// What every call that goes well has.
    kept: OnceLock<Kept>,
    /// Of those that do not.
    calls: [OnceLock<BoundHistogram<f64>>; OUTCOMES.len()],
    client: [OnceLock<BoundHistogram<f64>>; Reason::ALL.len() + 1],
    /// For people.
    pub tally: Arc<Tally>,
    exemplars: Exemplars,
}

#[derive(Debug)]
struct Kept {
    call: Durations,
    queue: Durations,
    credentials: Durations,
    client: Durations,
}

impl End {
    pub(super) fn outcome(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FunctionError(_) => "function_error",
            Self::Error(_) => "error",
            Self::Cancelled | Self::GivenUp => "cancelled",
        }
    }

    /// The outcome's place in [`OUTCOMES`].
    pub(super) fn place(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::FunctionError(_) => 1,
            Self::Error(_) => 2,
            Self::Cancelled | Self::GivenUp => 3,
        }
    }

    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Ok | Self::Cancelled => None,
            Self::FunctionError(kind) => Some(kind),
            Self::Error(reason) => Some(reason.reason()),
            Self::GivenUp => Some(names::GIVEN_UP),
        }
    }

    /// Whether it is the caller's own doing.
    pub(super) fn is_own(self) -> bool {
        match self {
            Self::Ok | Self::FunctionError(_) | Self::Cancelled => false,
            Self::Error(reason) => reason.fault() == Fault::Caller,
            Self::GivenUp => true,
        }
    }

    /// Why Lambda has not answered, and the place of that among the series of what the client measures.
    pub(super) fn unanswered(self) -> Option<(usize, &'static str)> {
        match self {
            Self::Ok | Self::FunctionError(_) | Self::Cancelled => None,
            Self::Error(reason) => Some((reason as usize, reason.reason())),
            Self::GivenUp => Some((Reason::ALL.len(), names::http::CANCELLED)),
        }
    }
}

fn attribute(label: &Label, value: &str) -> KeyValue {
    KeyValue::new(label.name, value.to_owned())
}

impl Meters {
    /// What people see goes on with `tally`.
    pub(super) fn new(instruments: &Arc<Instruments>, name: &str, invoked: Option<Invoked>, tally: Arc<Tally>) -> Self {
        Self {
            name: name.into(),
            instruments: Arc::clone(instruments),
            invoked,
            kept: OnceLock::new(),
            calls: [const { OnceLock::new() }; OUTCOMES.len()],
            client: [const { OnceLock::new() }; Reason::ALL.len() + 1],
            tally,
            exemplars: Exemplars::default(),
        }
    }

    /// Records a call that has ended.
    pub(super) fn record(&self, end: End, times: Times) {
        self.tally.count(end, times.total);
        if !self.instruments.counted {
            return;
        }
        let kept = self.kept.get_or_init(|| self.kept());
        if let Some(queue) = times.queue {
            kept.queue.keep(queue);
        }
        if let Some(credentials) = times.credentials {
            kept.credentials.keep(credentials);
        }
        match end {
            End::Ok => kept.call.keep(times.total),
            End::FunctionError(_) | End::Error(_) | End::Cancelled | End::GivenUp => {
                if let Some(call) = self.calls.get(end.place()) {
                    let labels = || [attribute(&names::POLICY, &self.name), attribute(&names::OUTCOME, end.outcome())];
                    call.get_or_init(|| self.instruments.call.bind(&labels())).record(times.total.as_secs_f64());
                }
            }
        }
        match (times.lambda, end.unanswered()) {
            (None, _) => {}
            (Some(lambda), Some((at, why))) => {
                if let Some(client) = self.client.get(at) {
                    let bind = || self.instruments.client.bind(&self.client_labels(Some(why)));
                    client.get_or_init(bind).record(lambda.as_secs_f64());
                }
            }
            (Some(lambda), None) => kept.client.keep(lambda),
        }
    }

    fn kept(&self) -> Kept {
        let (instruments, policy) = (&*self.instruments, attribute(&names::POLICY, &self.name));
        let durations = |metric: &Metric, histogram| Durations::new(metric.bounds(), histogram);
        let well = [policy.clone(), attribute(&names::OUTCOME, End::Ok.outcome())];
        let policy = [policy];
        Kept {
            call: durations(&names::CALL_DURATION, instruments.call.bind(&well)),
            queue: durations(&names::QUEUE_DURATION, instruments.queue.bind(&policy)),
            credentials: durations(&names::CREDENTIALS_DURATION, instruments.credentials.bind(&policy)),
            client: durations(&names::CLIENT_DURATION, instruments.client.bind(&self.client_labels(None))),
        }
    }

    /// Tells the instruments what is kept from them until somebody reads them.
    pub(super) fn tell(&self) {
        if let Some(Kept { call, queue, credentials, client }) = self.kept.get() {
            [call, queue, credentials, client].into_iter().for_each(Durations::tell);
        }
    }

    fn client_labels(&self, error: Option<&str>) -> Vec<KeyValue> {
        let mut labels = vec![
            attribute(&names::RPC_SYSTEM, "aws-api"),
            attribute(&names::RPC_METHOD, "Lambda/Invoke"),
            attribute(&names::POLICY, &self.name),
            attribute(&names::INVOKED_PROVIDER, "aws"),
        ];
        labels.extend(error.map(|error| attribute(&names::ERROR_TYPE, error)));
        if let Some(Invoked { function, region, server }) = &self.invoked {
            labels.push(attribute(&names::INVOKED_NAME, names::function(function)));
            labels.push(attribute(&names::INVOKED_REGION, region));
            if let Some((host, port)) = server {
                labels.push(attribute(&names::SERVER_ADDRESS, host));
                labels.push(KeyValue::new(names::SERVER_PORT.name, i64::from(*port)));
            }
        }
        labels
    }

    /// Has the spans made of a call that has ended and was chosen for them, and keeps it beside the durations.
    pub(super) fn trace(&self, trace: &Trace, ended: Ended) {
        if let Some(traces) = &self.instruments.traces {
            self.exemplars.keep(ended.end.outcome(), trace, ended.at.duration_since(ended.started));
            traces.end(trace, ended);
        }
    }

    pub(super) fn exemplar(&self, outcome: &str, bound: &str) -> Option<Exemplar> {
        self.exemplars.of(outcome, bound)
    }
}

impl Drop for Meters {
    /// The last call of a policy that is no more has ended.
    fn drop(&mut self) {
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_has_its_place() {
        for end in [End::Ok, End::FunctionError("handled"), End::Error(Reason::Timeout), End::Cancelled, End::GivenUp] {
            assert_eq!(OUTCOMES.get(end.place()), Some(&end.outcome()), "{end:?}");
        }
    }
}
