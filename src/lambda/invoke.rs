//! One invocation: the SDK's request out, the function's answer or the contract's error back.

use aws_sdk_lambda::{
    operation::RequestId,
    primitives::Blob,
    types::{InvocationType, LogType},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;

use super::{classify, pool::Client};
use crate::{
    error::Error,
    event::fault::Fault,
    policy::{ClientContext, Invocation, Log, Qualifier, Target, Tenant},
};

/// What to invoke, and how.
#[derive(Debug)]
pub struct Invoke<'a> {
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
    /// The event.
    pub payload: Bytes,
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
}

/// How an attempt failed.
pub(super) struct Failed {
    pub error: Error,
    /// New credentials may help.
    pub expired: bool,
}

/// Sends the request once.
pub(super) async fn once(client: &Client, invoke: &Invoke<'_>) -> Result<Answer, Failed> {
    let answer = client
        .lambda
        .invoke()
        .function_name(invoke.target.function.as_str())
        .set_qualifier(invoke.qualifier.map(|q| q.as_str().to_owned()))
        .invocation_type(match invoke.invocation {
            Invocation::RequestResponse => InvocationType::RequestResponse,
            Invocation::Event => InvocationType::Event,
            Invocation::DryRun => InvocationType::DryRun,
        })
        // Lambda refuses a log type for events.
        .set_log_type((invoke.log == Log::Tail && is_synchronous(invoke)).then_some(LogType::Tail))
        .set_client_context(
            invoke.context.filter(|_| is_synchronous(invoke)).map(|context| context.as_base64().to_owned()),
        )
        .set_tenant_id(invoke.tenant.map(|t| t.as_str().to_owned()))
        .payload(Blob::from_maybe_shared(invoke.payload.clone()))
        .send()
        .await
        .map_err(|failure| Failed { error: classify::invocation(&failure), expired: classify::is_expired(&failure) })?;

    let request_id = answer.request_id().unwrap_or_default().to_owned();
    let Ok(status @ 200..=299) = u16::try_from(answer.status_code) else {
        let error = classify::error(crate::error::Kind::LambdaFailed)
            .with_aws_request_id(Some(&request_id))
            .with_detail(format!("lambda answered {}", answer.status_code));
        return Err(Failed { error, expired: false });
    };
    let payload = answer.payload.map(|blob| Bytes::from(blob.into_inner())).unwrap_or_default();
    Ok(Answer {
        status,
        fault: answer.function_error.as_deref().map(|reported| Fault::new(reported, &payload)),
        version: answer.executed_version.unwrap_or_default(),
        log: answer.log_result.as_deref().map(decode_log).unwrap_or_default(),
        payload,
        request_id,
    })
}

fn is_synchronous(invoke: &Invoke<'_>) -> bool {
    invoke.invocation == Invocation::RequestResponse
}

/// The tail is cut at 4 KB wherever that is, so its first character may be broken.
fn decode_log(tail: &str) -> String {
    BASE64_STANDARD.decode(tail).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_cut_within_a_character_is_readable() {
        assert_eq!(decode_log("SGVsbG8="), "Hello");
        assert_eq!(decode_log(&BASE64_STANDARD.encode(b"\xa9 caf\xc3\xa9")), "\u{fffd} caf\u{e9}");
        assert_eq!(decode_log("not base64"), "");
    }
}
