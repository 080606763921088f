//! The SDK as referee of the direct path: the same calls through both, the requests compared header for header, signature
//! included, for a frozen clock; and the same answers read by both.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sdk_lambda::{
    Client,
    config::{
        BehaviorVersion, HttpClient, Region, RuntimeComponents, StalledStreamProtectionConfig, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    primitives::Blob,
    types::{InvocationType, LogType, ResponseStreamingInvocationType},
};
use aws_smithy_async::time::StaticTimeSource;
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;

use super::{
    connector::{Connector, trust},
    cut::Cut,
    invoke::{Api, Invoke},
    refresh::{Identity, Session},
    resolve::Reach,
    sign::Stamp,
    wire::Wire,
};
use crate::{
    policy::{
        Access, ClientContext, Invocation, Log, Qualifier, Region as OwnRegion, Target, Tenant,
        credentials::{Base, Credentials as OwnCredentials},
        endpoint::{Endpoint, Url},
        function::Reference,
    },
    trace::{Context, Reached, Trace},
};

/// 2026-03-01T12:34:56Z.
const NOW: u64 = 1_772_368_496;

/// Answers as it is told, and keeps what it was asked.
#[derive(Clone, Debug)]
struct Canned {
    asked: Arc<Mutex<Option<Request<Bytes>>>>,
    answer: (u16, Vec<(&'static str, &'static str)>, &'static str),
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let canned = self.clone();
        HttpConnectorFuture::new(async move {
            let (head, body) = request.try_into_http1x().unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            *canned.asked.lock().unwrap() = Some(Request::from_parts(head, body));
            let response = canned.response().map(|body| SdkBody::from(body.to_vec()));
            Ok(HttpResponse::try_from(response).unwrap())
        })
    }
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl Canned {
    fn new(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Self {
        Self { asked: Arc::default(), answer: (status, headers.to_vec(), body) }
    }

    fn response(&self) -> Response<Bytes> {
        let (status, headers, body) = &self.answer;
        let mut response = Response::builder().status(*status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(Bytes::from_static(body.as_bytes())).unwrap()
    }
}

struct Call {
    function: &'static str,
    region: &'static str,
    qualifier: Option<&'static str>,
    endpoint: Endpoint,
    token: Option<&'static str>,
    invocation: Invocation,
    log: Log,
    context: Option<&'static str>,
    tenant: Option<&'static str>,
    trace: Trace,
    payload: &'static str,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            function: "orders",
            region: "us-east-1",
            qualifier: None,
            endpoint: Endpoint::Regional,
            token: None,
            invocation: Invocation::RequestResponse,
            log: Log::None,
            context: None,
            tenant: None,
            trace: Trace::default(),
            payload: r#"{"a":1}"#,
        }
    }
}

impl Call {
    fn credentials(&self) -> Credentials {
        let token = self.token.map(str::to_owned);
        Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token, None, "test")
    }

    fn client(&self, canned: &Canned) -> Client {
        let mut config = aws_sdk_lambda::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region))
            .credentials_provider(self.credentials())
            .http_client(canned.clone())
            .time_source(StaticTimeSource::new(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config = match &self.endpoint {
            Endpoint::Regional => config,
            Endpoint::Variant { fips, dual_stack } => config.use_fips(*fips).use_dual_stack(*dual_stack),
            Endpoint::Url(url) => config.endpoint_url(url.as_str()),
        };
        Client::from_conf(config.build())
    }

    async fn by_sdk(&self, canned: &Canned) -> Result<aws_sdk_lambda::operation::invoke::InvokeOutput, Refused> {
        let synchronous = self.invocation == Invocation::RequestResponse;
        let context = self.context.map(|json| ClientContext::parse(json).unwrap().as_base64().to_owned());
        self.client(canned)
            .invoke()
            .function_name(self.function)
            .set_qualifier(self.qualifier.map(str::to_owned))
            .invocation_type(match self.invocation {
                Invocation::RequestResponse => InvocationType::RequestResponse,
                Invocation::Event => InvocationType::Event,
                Invocation::DryRun => InvocationType::DryRun,
            })
            .set_log_type((synchronous && self.log == Log::Tail).then_some(LogType::Tail))
            .set_client_context(context)
            .set_tenant_id(self.tenant.map(str::to_owned))
            .payload(Blob::new(self.payload))
            .customize()
            .mutate_request(self.changes())
            .send()
            .await
            .map_err(|error| Refused::from(&error))
    }

    /// What the SDK's request has otherwise, before it is signed.
    fn changes(&self) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
        let trace = self.trace.clone();
        move |request| {
            // It would be signed, and says what we say in a header of our own.
            request.headers_mut().remove("x-amz-user-agent");
            // It is none of the operation's fields.
            if let Some(header) = trace.header() {
                request.headers_mut().insert("X-Amzn-Trace-Id", header.to_owned());
            }
        }
    }

    /// The same call, its answer in pieces.
    async fn streamed_by_sdk(&self, canned: &Canned) {
        let context = self.context.map(|json| ClientContext::parse(json).unwrap().as_base64().to_owned());
        self.client(canned)
            .invoke_with_response_stream()
            .function_name(self.function)
            .set_qualifier(self.qualifier.map(str::to_owned))
            .invocation_type(ResponseStreamingInvocationType::RequestResponse)
            .set_log_type((self.log == Log::Tail).then_some(LogType::Tail))
            .set_client_context(context)
            .set_tenant_id(self.tenant.map(str::to_owned))
            .payload(Blob::new(self.payload))
            .customize()
            .mutate_request(self.changes())
            .send()
            .await
            .unwrap();
    }

    fn wire(&self) -> Wire {
        crate::lambda::install_crypto();
        let region = OwnRegion::parse(self.region).unwrap();
        let credentials = OwnCredentials::new(Base::Service, None);
        Wire::new(
            &Access::new(region, credentials, self.endpoint.clone(), None),
            Connector::new(1, &Cut::default(), Reach::Routed, trust(), &Arc::default()),
        )
        .unwrap()
    }

    async fn session(&self) -> Arc<Session> {
        Identity::fixed(self.credentials()).session().await.unwrap()
    }

    async fn direct(&self, api: Api) -> Request<Bytes> {
        let reference = Reference::parse(self.function).unwrap();
        let target = Target::new(reference, Some(OwnRegion::parse(self.region).unwrap()), None, None).unwrap();
        let qualifier = self.qualifier.map(|text| Qualifier::parse(text).unwrap());
        let context = self.context.map(|json| ClientContext::parse(json).unwrap());
        let tenant = self.tenant.map(|text| Tenant::parse(text).unwrap());
        let invoke = Invoke {
            api,
            target: &target,
            qualifier: qualifier.as_ref(),
            invocation: self.invocation,
            log: self.log,
            context: context.as_ref(),
            tenant: tenant.as_ref(),
            trace: &self.trace,
            reached: Reached::default(),
            payload: Bytes::from_static(self.payload.as_bytes()),
        };
        self.wire().request(&self.session().await, &invoke, &Stamp::new(NOW)).unwrap()
    }
}

fn traced() -> Trace {
    let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    Trace::new(Some(Context { id, parent: Some(7), sampled: Some(true), state: None }), false)
}

/// What of a refusal counts.
#[derive(Debug, PartialEq)]
struct Refused {
    status: u16,
    code: String,
    message: String,
    request_id: Option<String>,
}

impl<E: ProvideErrorMetadata> From<&SdkError<E>> for Refused
where
    SdkError<E>: RequestId,
{
    fn from(error: &SdkError<E>) -> Self {
        Self {
            status: error.raw_response().map(|raw| raw.status().as_u16()).unwrap_or_default(),
            code: error.code().unwrap_or_default().to_owned(),
            message: error.message().unwrap_or_default().to_owned(),
            request_id: error.request_id().map(str::to_owned),
        }
    }
}

/// The headers that count: not who made the request, and what belongs to the SDK's retries.
fn headers(request: &Request<Bytes>) -> BTreeMap<String, String> {
    let ours = ["user-agent", "amz-sdk-invocation-id", "amz-sdk-request"];
    let kept = request.headers().iter().filter(|(name, _)| !ours.contains(&name.as_str()));
    let mut kept: BTreeMap<_, _> =
        kept.map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned())).collect();
    // The SDK leaves it to the connection; it is signed as it will be sent.
    let host = request.uri().authority().unwrap().as_str().to_owned();
    kept.entry("host".to_owned()).or_insert(host);
    kept
}

#[tokio::test]
async fn the_request_is_the_sdks_own_to_the_last_header() {
    let url = |text: &str| Endpoint::Url(Url::parse(text).unwrap());
    let variant = |fips, dual_stack| Endpoint::Variant { fips, dual_stack };
    let rows = [
        ("a plain call", Call::default()),
        ("an ARN", Call { function: "arn:aws:lambda:us-east-1:123456789012:function:orders", ..Call::default() }),
        ("a partial ARN", Call { function: "123456789012:function:orders", ..Call::default() }),
        ("an alias", Call { qualifier: Some("live"), ..Call::default() }),
        ("$LATEST", Call { qualifier: Some("$LATEST"), ..Call::default() }),
        ("$LATEST.PUBLISHED", Call { qualifier: Some("$LATEST.PUBLISHED"), ..Call::default() }),
        ("an event", Call { invocation: Invocation::Event, ..Call::default() }),
        ("a dry run", Call { invocation: Invocation::DryRun, ..Call::default() }),
        ("the log", Call { log: Log::Tail, ..Call::default() }),
        ("client context", Call { context: Some(r#"{"custom":{"a":"b"}}"#), ..Call::default() }),
        ("a tenant", Call { tenant: Some("acme corp"), ..Call::default() }),
        ("a trace", Call { trace: traced(), ..Call::default() }),
        ("a session token", Call { token: Some("IQoJb3JpZ2luX2VjE//+=="), ..Call::default() }),
        ("a tenant with two spaces", Call { tenant: Some("a  b"), ..Call::default() }),
        ("a tenant with a space before it", Call { tenant: Some(" lead"), ..Call::default() }),
        ("a tenant with spaces after it", Call { tenant: Some("trail  "), ..Call::default() }),
        (
            "everything",
            Call {
                qualifier: Some("7"),
                log: Log::Tail,
                context: Some("{}"),
                tenant: Some("a"),
                token: Some("t"),
                trace: traced(),
                ..Call::default()
            },
        ),
        ("an empty payload", Call { payload: "", ..Call::default() }),
        ("another region", Call { region: "ap-southeast-7", ..Call::default() }),
        ("China", Call { region: "cn-north-1", ..Call::default() }),
        ("GovCloud", Call { region: "us-gov-west-1", ..Call::default() }),
        ("an isolated partition", Call { region: "us-isob-east-1", ..Call::default() }),
        ("the European sovereign cloud", Call { region: "eusc-de-east-1", ..Call::default() }),
        ("FIPS", Call { endpoint: variant(true, false), ..Call::default() }),
        ("dual stack", Call { endpoint: variant(false, true), ..Call::default() }),
        ("FIPS and dual stack", Call { endpoint: variant(true, true), ..Call::default() }),
        (
            "a VPC endpoint",
            Call { endpoint: url("https://vpce-1.lambda.us-east-1.vpce.amazonaws.com"), ..Call::default() },
        ),
        ("a port", Call { endpoint: url("http://127.0.0.1:9000"), ..Call::default() }),
        ("a path", Call { endpoint: url("https://proxy.example/lambda"), ..Call::default() }),
        ("a path with an empty segment", Call { endpoint: url("https://proxy.example/a//b"), ..Call::default() }),
        ("a path with dots", Call { endpoint: url("https://proxy.example/a/./b/../.c"), ..Call::default() }),
        ("a path that is encoded", Call { endpoint: url("https://proxy.example/a%20b//c"), ..Call::default() }),
    ];
    for (what, call) in rows {
        let canned = Canned::new(200, &[], "{}");
        call.by_sdk(&canned).await.unwrap_or_else(|refused| panic!("{what}: {refused:?}"));
        let sdk = canned.asked.lock().unwrap().take().unwrap();
        let direct = call.direct(Api::Invoke).await;
        assert_eq!(direct.method(), sdk.method(), "{what}");
        assert_eq!(direct.uri(), sdk.uri(), "{what}");
        assert_eq!(direct.body(), sdk.body(), "{what}");
        assert_eq!(headers(&direct), headers(&sdk), "{what}");
    }
}

#[tokio::test]
async fn the_request_for_a_stream_is_the_sdks_own_to_the_last_header() {
    let arn = "arn:aws:lambda:us-east-1:123456789012:function:orders";
    let everything = Call {
        qualifier: Some("live"),
        log: Log::Tail,
        context: Some("{}"),
        tenant: Some("acme"),
        token: Some("t"),
        trace: traced(),
        ..Call::default()
    };
    for (what, call) in [
        ("a plain call", Call::default()),
        ("an ARN", Call { function: arn, ..Call::default() }),
        ("everything", everything),
    ] {
        let canned = Canned::new(200, &[], "");
        call.streamed_by_sdk(&canned).await;
        let sdk = canned.asked.lock().unwrap().take().unwrap();
        let direct = call.direct(Api::InvokeWithResponseStream).await;
        assert_eq!((direct.method(), direct.uri(), direct.body()), (sdk.method(), sdk.uri(), sdk.body()), "{what}");
        assert_eq!(headers(&direct), headers(&sdk), "{what}");
    }
}

#[tokio::test]
async fn refusals_are_read_as_the_sdk_reads_them() {
    let id = ("x-amzn-requestid", "r-1");
    for (status, headers, body) in [
        (404, vec![id, ("x-amzn-errortype", "ResourceNotFoundException")], r#"{"Type":"User","Message":"gone"}"#),
        (429, vec![id, ("x-amzn-errortype", "TooManyRequestsException:http://x/")], r#"{"message":"slow down"}"#),
        (400, vec![id], r#"{"__type":"com.amazonaws#InvalidParameterValueException","message":"wrong"}"#),
        (400, vec![id], r#"{"code":"InvalidRequestContentException","message":"no JSON"}"#),
        (403, vec![id, ("x-amzn-errortype", "AccessDeniedException")], r#"{"Message":"no"}"#),
        (500, vec![id, ("x-amzn-errortype", "ServiceException")], "{}"),
        (503, vec![], ""),
        (502, vec![], "<html>bad gateway</html>"),
    ] {
        let call = Call::default();
        let canned = Canned::new(status, &headers, body);
        let by_sdk = call.by_sdk(&canned).await.unwrap_err();
        let refusal = super::answer::Refusal::read(&canned.response());
        let direct = Refused {
            status,
            code: refusal.code,
            message: refusal.message,
            request_id: headers.iter().find(|(name, _)| *name == "x-amzn-requestid").map(|(_, id)| (*id).to_owned()),
        };
        assert_eq!(direct, by_sdk, "{status} {body}");
    }
}

#[tokio::test]
async fn answers_are_read_as_the_sdk_reads_them() {
    let id = ("x-amzn-requestid", "r-1");
    let version = ("x-amz-executed-version", "7");
    for (status, headers, body) in [
        (200, vec![id, version], r#"{"a":1}"#),
        (202, vec![id], ""),
        (204, vec![id], ""),
        (200, vec![id, version, ("x-amz-log-result", "SGVsbG8=")], "null"),
        (200, vec![id, version, ("x-amz-function-error", "Unhandled")], r#"{"errorType":"E","errorMessage":"m"}"#),
        (200, vec![], ""),
    ] {
        let canned = Canned::new(status, &headers, body);
        let sdk = Call::default().by_sdk(&canned).await.unwrap();
        let direct = super::answer::answer(canned.response());
        assert_eq!(i32::from(direct.status), sdk.status_code, "{headers:?}");
        assert_eq!(direct.version, sdk.executed_version().unwrap_or_default());
        assert_eq!(direct.request_id, sdk.request_id().unwrap_or_default());
        assert_eq!(&direct.payload[..], sdk.payload().map(Blob::as_ref).unwrap_or_default());
        assert_eq!(direct.fault.is_some(), sdk.function_error().is_some());
        assert_eq!(direct.log.is_empty(), sdk.log_result().is_none());
    }
}

#[test]
fn a_refusal_says_when_to_try_again_only_where_that_cannot_run_the_function_twice() {
    let hour = Some(Duration::from_secs(3600));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (what, status, header, body, expected) in [
        ("the header", 429, Some("7"), "{}", seconds(7)),
        ("neither", 429, None, "{}", seconds(1)),
        ("the body", 429, None, r#"{"retryAfterSeconds":"3"}"#, seconds(3)),
        ("the body, as a number", 429, None, r#"{"retryAfterSeconds":4}"#, seconds(4)),
        ("the header before the body", 429, Some("2"), r#"{"retryAfterSeconds":"3"}"#, seconds(2)),
        ("no number", 429, Some("soon"), r#"{"retryAfterSeconds":"soon"}"#, seconds(1)),
        ("far too long", 429, Some("99999999999"), "{}", hour),
        ("the largest number", 429, Some("18446744073709551615"), "{}", hour),
        ("more digits than a number has", 429, Some("99999999999999999999999"), "{}", hour),
        ("far too long in the body", 429, None, r#"{"retryAfterSeconds":99999999999}"#, hour),
        ("a failure after which the function may have run", 503, Some("5"), "{}", None),
        ("a function that is not ready", 409, Some("5"), "{}", None),
    ] {
        let headers: Vec<_> = header.iter().map(|seconds| ("retry-after", *seconds)).collect();
        let canned = Canned::new(status, &headers, body);
        let failed = Call::default().wire().refused(&canned.response(), 0);
        assert_eq!(failed.error.retry_after(), expected, "{what}");
    }
}
