//! One invocation on the wire: the signed request, and the answer read.
//!
//! The SDK's orchestrator is most of what a call costs, so Invoke is built here from the SDK's own parts: its
//! endpoint rules and its credentials. The SDK's client is the referee: the tests send the same calls through both, and
//! compare the requests header for header and the results.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::SystemTime,
};

use aws_sdk_lambda::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use bytes::Bytes;
use futures::FutureExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri,
    header::{AUTHORIZATION, USER_AGENT},
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::body::Incoming;

use super::{
    answer::{Refusal, pause, read, request_id, text},
    body::Body as RequestBody,
    classify,
    connector::{Connector, Unsent},
    figures::Host,
    identity::chain_of,
    invoke::{Api, Invoke},
    refresh::Session,
    said,
    sign::{Canonical, Signer, Stamp, canonical_path, normalized},
};
use crate::{
    error::{Error, Kind},
    policy::{Access, Invocation, Log, endpoint::Endpoint},
    trace::Step,
};

/// From how many seconds on a clock is taken for wrong; AWS bears five minutes.
const SKEWED: i64 = 240;

/// Where a client's requests go, and who signs them.
#[derive(Debug)]
pub(super) struct Wire {
    connector: Connector,
    host: Arc<Host>,
    target: Target,
    signer: Signer,
    /// How many seconds AWS's clock is ahead of this machine's.
    skew: AtomicI64,
}

/// An endpoint's address, taken apart.
#[derive(Debug)]
struct Target {
    scheme: Scheme,
    authority: Authority,
    /// As the `Host` header has it: without the scheme's own port.
    host: String,
    base: String,
    /// Whether every path here is signed with its segments as they are.
    normal: bool,
}

/// How an attempt failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: Error,
    /// What would help another attempt, which cannot run the function twice.
    pub remedy: Option<Remedy>,
}

/// What helps another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing was sent: some time.
    Time,
    /// AWS calls the credentials expired: other ones.
    Credentials,
    /// AWS calls the clock wrong, and it is set right now.
    Clock,
}

impl Wire {
    /// # Errors
    /// If AWS has no such endpoint, for example no FIPS one in a region.
    pub(super) fn new(access: &Access, connector: Connector) -> Result<Self, String> {
        let target = Target::of(access)?;
        Ok(Self {
            host: connector.host(&Uri::from(target.authority.clone())),
            connector,
            target,
            signer: Signer::new(access.region().as_str()),
            skew: AtomicI64::new(0),
        })
    }

    /// Sends the request once, notes when a connection has taken it, and gives the answer whose body is still to
    /// be read. A refusal is read here.
    pub(super) async fn send(&self, session: &Arc<Session>, invoke: &Invoke<'_>) -> Result<Response<Incoming>, Failed> {
        let skew = self.skew.load(Ordering::Relaxed);
        let request = self.request(session, invoke, &stamp(skew)).map_err(|error| Failed { error, remedy: None })?;
        let request = request.map(|payload| RequestBody::new(payload, &invoke.reached));
        let response = match self.connector.send(request, &self.host, invoke.trace).await {
            Ok(response) => response,
            Err(error) => return Err(unanswered(&error)),
        };
        self.connector.figures().answered(response.status().as_str());
        invoke.trace.note(Step::Answered(response.status().as_u16()));
        if matches!(response.status().as_u16(), 200 | 202 | 204) {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        match read(body).await {
            Ok(body) => Err(self.refused(&Response::from_parts(head, body), skew)),
            Err(error) => Err(Failed { error: classify::broken(&head.headers, &*error), remedy: None }),
        }
    }

    /// Now, by AWS's clock as far as it is known.
    pub(super) fn stamp(&self) -> Stamp {
        stamp(self.skew.load(Ordering::Relaxed))
    }

    /// The signed request.
    pub(super) fn request(
        &self,
        session: &Arc<Session>,
        invoke: &Invoke<'_>,
        stamp: &Stamp,
    ) -> Result<Request<Bytes>, Error> {
        let path = self.target.path(invoke.target.function.as_str(), invoke.api);
        let query = invoke.qualifier.map(|qualifier| format!("Qualifier={}", encode(qualifier.as_str())));
        let length = invoke.payload.len().to_string();
        let synchronous = invoke.invocation == Invocation::RequestResponse;
        let kind = match invoke.invocation {
            Invocation::RequestResponse => "RequestResponse",
            Invocation::Event => "Event",
            Invocation::DryRun => "DryRun",
        };
        // In the order of their names. Lambda refuses a log type or a client context for events.
        let headers = [
            ("content-length", Some(length.as_str())),
            ("content-type", Some("application/octet-stream")),
            ("host", Some(&*self.target.host)),
            ("x-amz-client-context", invoke.context.filter(|_| synchronous).map(|context| context.as_base64())),
            ("x-amz-date", Some(stamp.as_str())),
            ("x-amz-invocation-type", Some(kind)),
            ("x-amz-log-type", (synchronous && invoke.log == Log::Tail).then_some("Tail")),
            ("x-amz-security-token", session.credentials.session_token()),
            ("x-amz-tenant-id", invoke.tenant.map(|tenant| tenant.as_str())),
        ];
        let mut signed = [("", ""); 9];
        let mut count = 0;
        let mut map = HeaderMap::with_capacity(12);
        for (name, value) in headers {
            let Some(value) = value else { continue };
            if let Some(slot) = signed.get_mut(count) {
                *slot = (name, value);
                count += 1;
            }
            // Parsed values are headers; only a key or a token may have characters that none has.
            let value = HeaderValue::from_str(value).map_err(|_| {
                classify::error(Kind::CredentialsRejected)
                    .with_detail(format!("{name} would have characters that no header has"))
            })?;
            map.insert(HeaderName::from_static(name), value);
        }
        let authorization = self.signer.authorization(
            session,
            stamp,
            &Canonical {
                path: &self.target.signed(&path),
                query: query.as_deref().unwrap_or_default(),
                headers: signed.get(..count).unwrap_or_default(),
                payload: &invoke.payload,
            },
        );
        map.insert(AUTHORIZATION, authorization);
        // Not signed, as by no SDK of AWS: a proxy on the way may add to it.
        if let Some(trace) = invoke.trace.header().and_then(|header| HeaderValue::from_str(header).ok()) {
            map.insert(HeaderName::from_static("x-amzn-trace-id"), trace);
        }
        map.insert(USER_AGENT, HeaderValue::from_static(concat!("lambda-policy/", env!("CARGO_PKG_VERSION"))));

        let path_and_query = match query {
            None => path,
            Some(query) => format!("{path}?{query}"),
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.target.scheme.clone());
        parts.authority = Some(self.target.authority.clone());
        parts.path_and_query = PathAndQuery::from_maybe_shared(Bytes::from(path_and_query)).ok();
        let uri = Uri::from_parts(parts)
            .map_err(|error| classify::error(Kind::FunctionMisconfigured).with_detail(error.to_string()))?;
        let mut request = Request::new(invoke.payload.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = map;
        Ok(request)
    }

    /// What a refusal means of a request that was stamped so many seconds ahead of this machine's clock.
    pub(super) fn refused(&self, response: &Response<Bytes>, skew: i64) -> Failed {
        let refusal = Refusal::read(response);
        let remedy = match refusal.code.as_str() {
            "ExpiredTokenException" | "ExpiredToken" => Some(Remedy::Credentials),
            "InvalidSignatureException" | "RequestExpired" | "RequestTimeTooSkewed" | "AuthFailure" => {
                self.set_clock(response.headers(), skew).then_some(Remedy::Clock)
            }
            _ => None,
        };
        let status = response.status().as_u16();
        let headers = response.headers();
        let retry_after = text(headers, "retry-after").and_then(pause).or(refusal.retry_after);
        let said = format!("lambda answered {status} {}", said::refusal(status, &refusal.code, &refusal.message));
        let error = classify::refusal(classify::kind(status, &refusal.code), said)
            .with_retry_after(retry_after)
            .with_aws_request_id(request_id(headers));
        Failed { error, remedy }
    }

    /// Sets the clock by the answer's date. Says whether the request's stamp was wrong by more than AWS bears: another
    /// call may have set the clock meanwhile.
    fn set_clock(&self, headers: &HeaderMap, skew: i64) -> bool {
        let Some(date) = text(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok()) else {
            return false;
        };
        let [theirs, ours] = [date, SystemTime::now()].map(|time| i64::try_from(seconds(time)).unwrap_or_default());
        let ahead = theirs - ours;
        self.skew.store(ahead, Ordering::Relaxed);
        (ahead - skew).abs() >= SKEWED
    }
}

/// The host and port that calls with this access go to, if AWS has such an endpoint.
pub fn server(access: &Access) -> Option<(String, u16)> {
    let Target { scheme, authority, .. } = Target::of(access).ok()?;
    Some((authority.host().to_owned(), authority.port_u16().unwrap_or(default_port(&scheme))))
}

fn default_port(scheme: &Scheme) -> u16 {
    if *scheme == Scheme::HTTPS { 443 } else { 80 }
}

impl Target {
    fn of(access: &Access) -> Result<Self, String> {
        let address = match access.endpoint() {
            Endpoint::Url(url) => url.as_str().to_owned(),
            Endpoint::Regional => resolve(access, false, false)?,
            Endpoint::Variant { fips, dual_stack } => resolve(access, *fips, *dual_stack)?,
        };
        let wrong = || format!("{address} is no address");
        let parts = address.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(wrong()) };
        let host = match authority.port_u16() {
            Some(port) if port != default_port(&scheme) => authority.to_string(),
            Some(_) | None => authority.host().to_owned(),
        };
        let base = parts.path_and_query.map(|path| path.path().trim_end_matches('/').to_owned()).unwrap_or_default();
        // What follows has such segments only for a function that is called by dots, which AWS has none of.
        let normal = !base.contains("//") && !base.contains("/.");
        Ok(Self { scheme, authority, host, base, normal })
    }

    fn signed(&self, path: &str) -> String {
        if self.normal { canonical_path(path) } else { canonical_path(&normalized(path)) }
    }

    fn path(&self, function: &str, api: Api) -> String {
        let (before, behind) = match api {
            Api::Invoke => ("/2015-03-31/functions/", "/invocations"),
            Api::InvokeWithResponseStream => ("/2021-11-15/functions/", "/response-streaming-invocations"),
        };
        let mut path = String::with_capacity(self.base.len() + function.len() + 64);
        path.push_str(&self.base);
        path.push_str(before);
        push_encoded(&mut path, function);
        path.push_str(behind);
        path
    }
}

/// AWS's own address, by the SDK's rules for partitions and variants.
fn resolve(access: &Access, fips: bool, dual_stack: bool) -> Result<String, String> {
    let params = Params::builder()
        .region(access.region().as_str())
        .use_fips(fips)
        .use_dual_stack(dual_stack)
        .build()
        .map_err(|error| error.to_string())?;
    // The rules are a table: there is nothing to wait for.
    let resolved = DefaultResolver::new().resolve_endpoint(&params).now_or_never();
    match resolved {
        Some(Ok(endpoint)) => Ok(endpoint.url().to_owned()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the endpoint was not resolved at once".to_owned()),
    }
}

fn stamp(skew: i64) -> Stamp {
    Stamp::new(seconds(SystemTime::now()).saturating_add_signed(skew))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Percent-encodes what stands in function names and qualifiers beside unreserved characters.
fn push_encoded(path: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            ':' => path.push_str("%3A"),
            '$' => path.push_str("%24"),
            other => path.push(other),
        }
    }
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 4);
    push_encoded(&mut encoded, text);
    encoded
}

fn unanswered(error: &Unsent) -> Failed {
    match error {
        Unsent::NotConnected(cause) => Failed {
            error: classify::error(Kind::LambdaUnreachable).with_detail(chain_of(&**cause)),
            remedy: Some(Remedy::Time),
        },
        Unsent::Broken(cause) => {
            Failed { error: classify::error(Kind::LambdaFailed).with_detail(chain_of(&**cause)), remedy: None }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::policy::{
        Region,
        credentials::{Base, Credentials},
        endpoint::Url,
    };

    #[test]
    fn an_endpoint_has_a_host_and_a_port() {
        let url = |text: &str| Endpoint::Url(Url::parse(text).unwrap());
        let variant = |fips, dual_stack| Endpoint::Variant { fips, dual_stack };
        for (region, endpoint, expected) in [
            ("eu-central-1", Endpoint::Regional, ("lambda.eu-central-1.amazonaws.com", 443)),
            ("cn-north-1", Endpoint::Regional, ("lambda.cn-north-1.amazonaws.com.cn", 443)),
            ("us-east-1", variant(true, false), ("lambda-fips.us-east-1.amazonaws.com", 443)),
            ("us-east-1", variant(false, true), ("lambda.us-east-1.api.aws", 443)),
            ("us-east-1", url("https://vpce-1.test/base"), ("vpce-1.test", 443)),
            ("us-east-1", url("http://127.0.0.1:9001"), ("127.0.0.1", 9001)),
            ("us-east-1", url("http://localhost"), ("localhost", 80)),
        ] {
            let region = Region::parse(region).unwrap();
            let access = Access::new(region, Credentials::new(Base::Service, None), endpoint, None);
            let (host, port) = server(&access).unwrap();
            assert_eq!((host.as_str(), port), expected);
        }
    }
}
