//! The lines as they are written, by how a call has ended.

use std::time::{Duration, Instant, SystemTime};

use super::{Answered, Line};
use crate::{
    error::{Error, Fault, Kind, Ran},
    telemetry::{failures::Failure, meters::End, names::GIVEN_UP},
    trace::Hex,
};

/// The most characters of the type of a function's error.
const MOST_TYPE: usize = 64;

impl Line {
    /// Writes the line of a call that the function answered.
    pub fn answered(mut self, answered: Answered<'_>) {
        let end = answered.error_kind.map_or(End::Ok, End::FunctionError);
        let times = (Some(answered.queue), Some(answered.credentials), Some(answered.lambda));
        // Of an event that is queued, and a dry run, nobody knows.
        let ran = (answered.status == 200).then_some("yes");
        let (at, total) = self.end(end, times, ran, Some(answered.aws_request_id));
        let trace_id = self.trace.id();
        let error_type = answered.error_type.map(printable);
        let [function, qualifier, region] = self.invoked(None);
        tracing::info!(
            rpc = self.rpc,
            policy = self.policy(),
            caller = self.caller(),
            outcome = end.outcome(),
            reason = end.reason(),
            verdict = self.verdict,
            error = answered.error,
            error_type = error_type.as_deref(),
            request_id = self.request_id(),
            trace_id = trace_id.as_ref().map(Hex::as_str),
            ran,
            function,
            qualifier,
            region,
            status = self.status.unwrap_or(answered.status),
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

    /// Writes the line of a call that is answered by a verdict of the function that holds from before: nothing ran.
    pub fn held(self, allowed: bool) {
        let mut line = self.decided(allowed);
        let (at, total) = line.end(End::Ok, (None, None, None), Some(Ran::No.as_str()), None);
        let trace_id = line.trace.id();
        let [function, qualifier, region] = line.invoked(None);
        tracing::info!(
            rpc = line.rpc,
            policy = line.policy(),
            caller = line.caller(),
            outcome = End::Ok.outcome(),
            verdict = line.verdict,
            held = true,
            request_id = line.request_id(),
            trace_id = trace_id.as_ref().map(Hex::as_str),
            ran = Ran::No.as_str(),
            function,
            qualifier,
            region,
            receive_us = line.receive(at).map(micros),
            total_us = micros(total),
            "call"
        );
    }

    /// Writes the line of a call without an answer: as a warning unless only its caller can act on it.
    pub fn failed(mut self, error: &Error) {
        self.fail(error);
    }

    fn fail(&mut self, error: &Error) {
        if error.is_broken_off() {
            // Dropped, it says so.
            return;
        }
        let (spent, end) = (error.spent(), End::Error(error.kind()));
        let (credentials, lambda) = (spent.and_then(|s| s.credentials), spent.and_then(|s| s.lambda));
        let times = (spent.and_then(|spent| spent.queue), credentials, lambda);
        let reached = self.reached.clone();
        let answer = reached.answer();
        let aws_request_id = error.aws_request_id().or(answer.map(|answer| answer.aws_request_id.as_str()));
        let (at, total) = self.end(end, times, Some(error.ran().as_str()), aws_request_id);
        let (trace_id, refused) = (self.trace.id(), self.refused(end));
        let [function, qualifier, region] = self.invoked(error.about());
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
                    function,
                    qualifier,
                    region,
                    aws_request_id,
                    version = answer.map(|answer| answer.version.as_str()),
                    event_bytes = spent.map(|spent| spent.event_bytes),
                    output_bytes = answer.map(|_| reached.handed_on()),
                    receive_us = self.receive(at).map(micros),
                    queue_us = spent.and_then(|spent| spent.queue).map(micros),
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
        let wanted = self.policy.as_ref().filter(|_| self.unread || error.kind() == Kind::PolicyNotFound);
        let wanted = wanted.map(|name| format!("the call names `{name}`"));
        let wanted = wanted.or_else(|| refused.map(|origin| format!("the call comes from {origin}")));
        let detail = error.detail().or(wanted.as_deref());
        self.meters.tally.keep(Failure {
            error: error.message().to_owned(),
            detail: detail.map(str::to_owned),
            fields: error.violations().iter().map(|wrong| wrong.field.as_str()).collect::<Vec<_>>().join(", "),
            ..self.failure(end, error.kind().reason(), aws_request_id)
        });
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
            own: end.is_own(),
            fields: String::new(),
            error: String::new(),
            error_type: None,
            detail: None,
            request_id: self.request_id().map(str::to_owned),
            aws_request_id: aws_request_id.map(str::to_owned),
            trace_id: self.trace.id().map(|id| id.as_str().to_owned()),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            let reached = self.reached.clone();
            if let Some((status, error)) = reached.refused() {
                self.status = Some(*status);
                return self.fail(error);
            }
            let (answer, spent) = (reached.answer(), reached.spent(Instant::now()));
            let ran = if answer.is_some() { "yes" } else { reached.ran().as_str() };
            let aws_request_id = answer.map(|answer| answer.aws_request_id.as_str());
            let (credentials, lambda) = (spent.and_then(|s| s.credentials), spent.and_then(|s| s.lambda));
            let times = (spent.and_then(|spent| spent.queue), credentials, lambda);
            let given_up = reached.is_sent() && !self.begun;
            let end = if given_up { End::GivenUp } else { End::Cancelled };
            let (at, total) = self.end(end, times, Some(ran), aws_request_id);
            let trace_id = self.trace.id();
            let [function, qualifier, region] = self.invoked(None);
            tracing::info!(
                rpc = self.rpc,
                policy = self.policy(),
                caller = self.caller(),
                outcome = end.outcome(),
                reason = end.reason(),
                request_id = self.request_id(),
                trace_id = trace_id.as_ref().map(Hex::as_str),
                ran,
                function,
                qualifier,
                region,
                status = answer.map(|_| self.status.unwrap_or(200)),
                aws_request_id,
                version = answer.map(|answer| answer.version.as_str()),
                event_bytes = spent.map(|spent| spent.event_bytes),
                output_bytes = answer.map(|_| reached.handed_on()),
                receive_us = self.receive(at).map(micros),
                queue_us = spent.and_then(|spent| spent.queue).map(micros),
                credentials_us = credentials.map(micros),
                lambda_us = lambda.map(micros),
                total_us = micros(total),
                "call"
            );
            if given_up {
                self.meters.tally.keep(Failure {
                    error: "the caller went away before an answer had begun".to_owned(),
                    ..self.failure(end, GIVEN_UP, aws_request_id)
                });
            }
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
