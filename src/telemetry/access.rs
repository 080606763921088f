//! The access log: one line a call, with what it takes to answer "what happened to this request".
//!
//! No payload and no secret is ever a field.

use std::time::{Duration, Instant};

use crate::{
    error::{Error, Fault},
    policy::Name,
};

/// What the line says of a call that the function answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Lambda's status.
    pub status: u16,
    /// Who reported an error of the function, if there is one.
    pub error_kind: Option<&'static str>,
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
}

/// A call whose line is still to be written. If it is dropped unwritten, the caller went away.
#[derive(Debug)]
pub struct Line {
    rpc: &'static str,
    policy: String,
    started: Instant,
    ended: bool,
}

impl Line {
    /// Begins the line of a call; without a policy's name the call brought its own.
    pub fn start(rpc: &'static str, policy: &str) -> Self {
        let name = if policy.is_empty() { Name::INLINE } else { policy };
        // The name is the caller's text until a policy is found by it.
        let policy = if name.len() <= 64 { name.to_owned() } else { name.chars().take(64).collect() };
        Self { rpc, policy, started: Instant::now(), ended: false }
    }

    /// Writes the line of a call that the function answered.
    pub fn answered(mut self, answered: Answered<'_>) {
        self.ended = true;
        tracing::info!(
            rpc = self.rpc,
            policy = self.policy,
            outcome = if answered.error_kind.is_some() { "function_error" } else { "ok" },
            error_kind = answered.error_kind,
            status = answered.status,
            aws_request_id = answered.aws_request_id,
            version = answered.version,
            queue_us = micros(answered.queue),
            credentials_us = micros(answered.credentials),
            lambda_us = micros(answered.lambda),
            total_us = self.total_us(),
            "call"
        );
    }

    /// Writes the line of a call without an answer: as a warning unless only its caller can act on it.
    pub fn failed(mut self, error: &Error) {
        self.ended = true;
        let about = error.about();
        macro_rules! failed {
            ($level:ident) => {
                tracing::$level!(
                    rpc = self.rpc,
                    policy = self.policy,
                    outcome = "error",
                    reason = error.kind().reason(),
                    ran = error.ran().as_str(),
                    error = error.message(),
                    detail = error.detail(),
                    function = about.map(|a| a.function.as_str()).filter(|f| !f.is_empty()),
                    region = about.map(|a| a.region.as_str()).filter(|r| !r.is_empty()),
                    aws_request_id = error.aws_request_id(),
                    total_us = self.total_us(),
                    "call"
                )
            };
        }
        match error.kind().fault() {
            Fault::Caller => failed!(info),
            Fault::Policy | Fault::Aws | Fault::Service => failed!(warn),
        }
    }

    fn total_us(&self) -> u64 {
        micros(self.started.elapsed())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            tracing::info!(
                rpc = self.rpc,
                policy = self.policy,
                outcome = "cancelled",
                total_us = self.total_us(),
                "call"
            );
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
