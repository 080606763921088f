//! The functions that are built in.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    chunks,
    output::{Ran, Run},
};

/// A function that needs no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// Answers with the event.
    Echo,
    /// Greets, as JSON or as an HTTP answer if the event is an HTTP call.
    Greet,
    /// Waits for `ms` milliseconds, 1000 unless the event says otherwise.
    Slow,
    /// Fails; with `{"handled": true}` as a function that reports the failure itself.
    Fail,
    /// Answers with `bytes` bytes of text, 1 MiB unless the event says otherwise.
    Large,
    /// Answers an HTTP call with the answer that the call's body is, in the words of the format.
    Answer,
    /// Decides as an authorizer: `Authorization: Bearer NAME` lets everybody but `nobody` pass.
    Authorize,
    /// Answers with what it was given besides the event.
    Context,
    /// Writes `chunks` (5) chunks of `bytes` bytes (`chunk 1` and the end of the line), one `every` 100 ms, and fails
    /// after `fail_after`. An HTTP call asks in its query or, as JSON, in its body; its answer begins with the prelude,
    /// of `status` 200, and has server-sent events if `sse` is true. `split` cuts the prelude and the first chunk into
    /// pieces of so many bytes.
    Stream,
}

/// What a function is given besides the event.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub request_id: String,
    pub function: String,
    pub arn: String,
    pub region: String,
    pub version: String,
    pub client_context: Option<String>,
    pub tenant: Option<String>,
    pub trace: Option<String>,
}

impl Given {
    /// What the log says of every run.
    pub(super) fn log(&self) -> Vec<u8> {
        let (id, version) = (&self.request_id, &self.version);
        format!("START RequestId: {id} Version: {version}\nEND RequestId: {id}\n").into()
    }
}

impl Builtin {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("echo", Self::Echo),
        ("greet", Self::Greet),
        ("slow", Self::Slow),
        ("fail", Self::Fail),
        ("large", Self::Large),
        ("answer", Self::Answer),
        ("authorize", Self::Authorize),
        ("context", Self::Context),
        ("stream", Self::Stream),
    ];

    pub(super) async fn run(self, event: &Bytes, given: &Given) -> Ran {
        let asked: Value = serde_json::from_slice(event).unwrap_or_default();
        let mut error = None;
        let output = match self {
            Self::Echo => event.clone(),
            Self::Greet => greet(&asked),
            Self::Slow => {
                let ms = asked["ms"].as_u64().unwrap_or(1000);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                json!({"slept": ms}).to_string().into()
            }
            Self::Fail => {
                error = Some(if asked["handled"] == json!(true) { "Handled" } else { "Unhandled" });
                json!({"errorType": "OrderError", "errorMessage": "the order cannot be placed", "stackTrace": []})
                    .to_string()
                    .into()
            }
            Self::Large => {
                let bytes = usize::try_from(asked["bytes"].as_u64().unwrap_or(1 << 20)).unwrap_or(usize::MAX);
                format!("\"{}\"", "x".repeat(bytes.min(8 << 20))).into()
            }
            Self::Answer => asked["body"].as_str().unwrap_or("null").to_owned().into(),
            Self::Authorize => authorize(&asked),
            Self::Context => json!({
                "requestId": given.request_id,
                "functionName": given.function,
                "invokedFunctionArn": given.arn,
                "functionVersion": given.version,
                "clientContext": given.client_context.as_deref().map(|text| {
                    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
                }),
                "tenantId": given.tenant,
                "traceId": given.trace,
            })
            .to_string()
            .into(),
            Self::Stream => return Ran::Stream(chunks::stream(&asked, given)),
        };
        Ran::Whole(Run { output, error, log: given.log() })
    }
}

fn authorize(event: &Value) -> Bytes {
    let headers = event["headers"].as_object();
    let mut headers = headers.into_iter().flatten().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let name = headers.next().and_then(|(_, value)| value.as_str()?.strip_prefix("Bearer "));
    let (allowed, name) = (name.is_some_and(|name| name != "nobody"), name.unwrap_or_default());
    let context = json!({"user": name});
    match &event["methodArn"] {
        // The answer may be kept, so it is about the whole stage and not about this method alone.
        Value::String(arn) => json!({
            "principalId": name,
            "policyDocument": {"Version": "2012-10-17", "Statement": [{
                "Action": "execute-api:Invoke",
                "Effect": if allowed { "Allow" } else { "Deny" },
                "Resource": arn.split('/').take(2).chain(["*"]).collect::<Vec<_>>().join("/"),
            }]},
            "context": context,
        }),
        _ => json!({"isAuthorized": allowed, "context": context}),
    }
    .to_string()
    .into()
}

fn greet(event: &Value) -> Bytes {
    let http = event.get("requestContext").is_some();
    let name = if http { event["queryStringParameters"]["name"].as_str() } else { event["name"].as_str() };
    let message = json!({"message": format!("hello, {}", name.unwrap_or("world"))}).to_string();
    if !http {
        return message.into();
    }
    json!({"statusCode": 200, "headers": {"content-type": "application/json"}, "body": message}).to_string().into()
}
