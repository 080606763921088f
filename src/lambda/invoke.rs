//! What is invoked and what comes back, whichever way it travels.

use bytes::Bytes;

use super::room::Taken;
use crate::{
    event::fault::Fault,
    policy::{ClientContext, Invocation, Log, Qualifier, Target, Tenant},
    trace::{Reached, Trace},
};

/// What to invoke, and how.
#[derive(Debug)]
pub struct Invoke<'a> {
    /// By which of Lambda's two ways.
    pub api: Api,
    /// The function and where it is.
    pub target: &'a Target,
    /// The version or alias.
    pub qualifier: Option<&'a Qualifier>,
    /// The type.
    pub invocation: Invocation,
    /// Whether the end of the log is wanted.
    pub log: Log,
    /// Client context.
    pub context: Option<&'a ClientContext>,
    /// Tenant.
    pub tenant: Option<&'a Tenant>,
    /// The trace that goes on in the function.
    pub trace: &'a Trace,
    /// Where it is noted that the request was sent.
    pub reached: Reached,
    /// The event.
    pub payload: Bytes,
}

/// Lambda's two ways to invoke and to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// The answer comes as a whole.
    Invoke,
    /// The answer comes as the function writes it (Lambda API reference, `InvokeWithResponseStream`).
    InvokeWithResponseStream,
}

/// What Lambda answered.
#[derive(Debug)]
pub struct Answer {
    /// 200, 202 or 204.
    pub status: u16,
    /// The function's output.
    pub payload: Bytes,
    /// Set if the output is an error of the function.
    pub fault: Option<Fault>,
    /// The version that ran.
    pub version: String,
    /// AWS's id of the request.
    pub request_id: String,
    /// The end of the log.
    pub log: String,
    /// What a large output holds until it is passed on.
    pub room: Option<Taken>,
}
