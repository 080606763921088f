//! The Invoke API, streaming and not: from a signed request to a run of the function and Lambda's answer.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde_json::json;

use super::{
    State,
    faults::Fault,
    functions::Given,
    output::{Run, tail},
    request_id,
    server::{Answer, Cut, full, half},
    sigv4,
    stream::{self, Head},
    sts::decode,
};

/// Lambda quotas: 6 MB synchronous, 1 MB asynchronous.
const MAX_EVENT: (usize, usize) = (6 * 1024 * 1024, 1024 * 1024);

/// The way to call a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// Invoke.
    Whole,
    /// InvokeWithResponseStream.
    Stream,
}

/// The function that a request is for, and the way to call it, if it is a call.
pub(super) fn function_of(request: &Request<Bytes>) -> Option<(Api, String)> {
    let path = request.uri().path();
    [
        (Api::Whole, "/2015-03-31/functions/", "/invocations"),
        (Api::Stream, "/2021-11-15/functions/", "/response-streaming-invocations"),
    ]
    .into_iter()
    .find_map(|(api, prefix, suffix)| Some((api, decode(path.strip_prefix(prefix)?.strip_suffix(suffix)?))))
}

/// Invokes the function that the path names.
pub(super) async fn invoke(state: Arc<State>, api: Api, reference: &str, request: &Request<Bytes>) -> Answer {
    let id = request_id();
    let Some(named) = Named::parse(reference) else {
        let message =
            format!("1 validation error detected: Value '{reference}' at 'functionName' failed to satisfy constraint");
        return refuse(StatusCode::BAD_REQUEST, "ValidationException", &message, &id);
    };
    let Named { name, suffix, .. } = named;
    let region = named.region.map(str::to_owned).or_else(|| sigv4::region(request.headers())).unwrap_or_default();
    let arn = format!(
        "arn:{}:lambda:{region}:{}:function:{name}",
        named.partition.unwrap_or_else(|| partition(&region)),
        named.account.unwrap_or(&state.account),
    );
    let qualifier = request
        .uri()
        .query()
        .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("Qualifier=")).map(decode));
    let qualifier = qualifier.or_else(|| suffix.map(str::to_owned));
    let headers = request.headers();
    let event = request.body();

    let fault = state.fault_for(name, api);
    match fault {
        Some(Fault::Throttle(after)) => return throttled(after, &id),
        Some(Fault::Deny) => {
            let message = format!(
                "User is not authorized to perform: lambda:InvokeFunction on resource: {arn} because no identity-based policy \
                 allows the lambda:InvokeFunction action"
            );
            return refuse(StatusCode::FORBIDDEN, "AccessDeniedException", &message, &id);
        }
        Some(Fault::Expired) => {
            let message = "The security token included in the request is expired";
            return refuse(StatusCode::FORBIDDEN, "ExpiredTokenException", message, &id);
        }
        Some(Fault::Error) => {
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", "Service error.", &id);
        }
        Some(Fault::NotReady) => {
            return refuse(StatusCode::BAD_GATEWAY, "ResourceNotReadyException", "The function is not ready.", &id);
        }
        Some(Fault::Cut) => return Err(Cut),
        Some(Fault::Slow(late)) => tokio::time::sleep(late).await,
        // The others are about the answer.
        _ => {}
    }

    let Some(function) = state.functions.get(name).cloned() else {
        let message = format!("Function not found: {arn}");
        return refuse(StatusCode::NOT_FOUND, "ResourceNotFoundException", &message, &id);
    };
    if let Some(qualifier) = &qualifier
        && !function.qualifiers.is_empty()
        && qualifier != "$LATEST"
        && !function.qualifiers.contains(qualifier)
    {
        let message = format!("Function not found: {arn}:{qualifier}");
        return refuse(StatusCode::NOT_FOUND, "ResourceNotFoundException", &message, &id);
    }

    let kind = text(headers, "x-amz-invocation-type").unwrap_or_else(|| "RequestResponse".to_owned());
    let limit = if kind == "Event" { MAX_EVENT.1 } else { MAX_EVENT.0 };
    if event.len() > limit {
        let message =
            format!("{} byte payload is too large for the {kind} invocation type (limit {limit} bytes)", event.len());
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", &message, &id);
    }
    if !event.is_empty() && serde_json::from_slice::<serde::de::IgnoredAny>(event).is_err() {
        let message = "Could not parse request body into json: Unexpected character";
        return refuse(StatusCode::BAD_REQUEST, "InvalidRequestContentException", message, &id);
    }
    let client_context = match text(headers, "x-amz-client-context").map(|context| BASE64_STANDARD.decode(context)) {
        None => None,
        Some(Ok(json)) => String::from_utf8(json).ok(),
        Some(Err(_)) => {
            let message = "Client context must be a valid Base64-encoded JSON object.";
            return refuse(StatusCode::BAD_REQUEST, "InvalidRequestContentException", message, &id);
        }
    };
    let version = match qualifier.as_deref() {
        None | Some("$LATEST") => "$LATEST".to_owned(),
        Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => number.to_owned(),
        Some(_alias) => "1".to_owned(),
    };
    let given = Given {
        request_id: id.clone(),
        function: name.to_owned(),
        arn: match &qualifier {
            None => arn,
            Some(qualifier) => format!("{arn}:{qualifier}"),
        },
        region,
        version: version.clone(),
        client_context,
        tenant: text(headers, "x-amz-tenant-id"),
        trace: text(headers, "x-amzn-trace-id"),
    };
    let event = if event.is_empty() { Bytes::from_static(b"{}") } else { event.clone() };

    let with_tail = text(headers, "x-amz-log-type").as_deref() == Some("Tail");
    match (kind.as_str(), api) {
        ("DryRun", _) => answer(StatusCode::NO_CONTENT, Bytes::new(), &id, &version),
        ("Event", Api::Whole) => {
            tokio::spawn(async move {
                if let Some(ran) = state.run(&function, &event, &given).await {
                    ran.whole().await;
                }
            });
            answer(StatusCode::ACCEPTED, Bytes::new(), &id, &version)
        }
        ("RequestResponse", _) => {
            let Some(ran) = state.run(&function, &event, &given).await else { return throttled(1, &id) };
            match fault {
                Some(Fault::CutAfter) => {
                    ran.whole().await;
                    return Err(Cut);
                }
                Some(Fault::SlowAnswer(late)) => tokio::time::sleep(late).await,
                _ => {}
            }
            if api == Api::Stream {
                let output = state.streams.count(name, ran.streamed());
                return stream::answer(output, &Head { id: &id, version: &version, tail: with_tail, fault });
            }
            let run = ran.whole().await;
            let body = (fault == Some(Fault::CutMid)).then(|| run.output.clone());
            let mut response = whole(run, with_tail, &id, &version)?;
            if let Some(body) = body {
                response.headers_mut().insert("content-length", HeaderValue::from(body.len()));
                *response.body_mut() = half(&body);
            }
            Ok(response)
        }
        _ => {
            let message = format!("Value '{kind}' at 'invocationType' failed to satisfy constraint");
            refuse(StatusCode::BAD_REQUEST, "InvalidParameterValueException", &message, &id)
        }
    }
}

/// A function as calls name it.
#[derive(Default)]
struct Named<'a> {
    partition: Option<&'a str>,
    region: Option<&'a str>,
    account: Option<&'a str>,
    name: &'a str,
    suffix: Option<&'a str>,
}

impl<'a> Named<'a> {
    /// `arn:PARTITION:lambda:REGION:ACCOUNT:function:NAME`, `ACCOUNT:function:NAME` or `NAME`, each with `:QUALIFIER` or
    /// without.
    fn parse(reference: &'a str) -> Option<Self> {
        let parts: Vec<_> = reference.split(':').collect();
        let (named, rest) = match parts.as_slice() {
            ["arn", partition, "lambda", region, account, "function", rest @ ..] => {
                let (partition, region, account) = (Some(*partition), Some(*region), Some(*account));
                (Self { partition, region, account, ..Self::default() }, rest)
            }
            [account, "function", rest @ ..] if !rest.is_empty() => {
                (Self { account: Some(account), ..Self::default() }, rest)
            }
            rest => (Self::default(), rest),
        };
        match rest {
            [name] => Some(Self { name, ..named }),
            [name, suffix] => Some(Self { name, suffix: Some(suffix), ..named }),
            _ => None,
        }
    }
}

fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        region if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

fn whole(run: Run, with_tail: bool, id: &str, version: &str) -> Answer {
    let mut response = answer(StatusCode::OK, run.output, id, version)?;
    let headers = response.headers_mut();
    if let Some(error) = run.error {
        headers.insert("x-amz-function-error", HeaderValue::from_static(error));
    }
    if with_tail && let Ok(value) = HeaderValue::try_from(tail(run.log, id)) {
        headers.insert("x-amz-log-result", value);
    }
    Ok(response)
}

fn answer(status: StatusCode, body: Bytes, id: &str, version: &str) -> Answer {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in [("x-amzn-requestid", id), ("x-amz-executed-version", version)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

fn throttled(after: u64, id: &str) -> Answer {
    let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.", id)?;
    response.headers_mut().insert("retry-after", HeaderValue::from(Duration::from_secs(after).as_secs()));
    Ok(response)
}

/// A refusal in the form of Lambda's REST-JSON errors.
pub(super) fn refuse(status: StatusCode, code: &'static str, message: &str, id: &str) -> Answer {
    let fault = if status.is_server_error() { "Service" } else { "User" };
    let mut response = Response::new(full(json!({"Type": fault, "Message": message, "message": message}).to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-amzn-errortype", HeaderValue::from_static(code));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert("x-amzn-requestid", id);
    }
    Ok(response)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
