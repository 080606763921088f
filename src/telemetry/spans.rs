//! The spans of a call that was chosen for them and has ended.
//!
//! Their ids are known from the beginning, as Lambda is told of them, and a tracer of the SDK would give others. So a span is
//! made as the SDK's exporters take it, and put into the SDK's queue for them.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Event, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor},
};

use super::{
    losses::Losses,
    meters::End,
    names::{
        self as metrics, GRPC_CODES, GRPC_ERRORS,
        spans::{self as names, Server},
    },
    otlp::{self, Otlp, Pushes},
};
use crate::{
    policy::{Target, callers::Origin},
    trace::{Spans as Ids, Step, Trace, Way},
};

/// So many spans wait to be pushed; more are dropped. Each is about 2 KB.
const MOST: usize = 2_048;
/// So many are pushed together.
const BATCH: usize = 512;
/// They are not kept back for longer, however rarely metrics are pushed.
const DELAY: Duration = Duration::from_secs(5);
/// A call that waited less for its place or for credentials did not wait.
const WAITED: Duration = Duration::from_millis(1);
/// The most characters of a method that nobody knows.
const MOST_METHOD: usize = 32;

/// Makes spans, and has them pushed.
#[derive(Debug)]
pub(super) struct Spans {
    processor: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    lost: Arc<Lost>,
    scope: InstrumentationScope,
}

/// Spans that were not pushed.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Too many waited.
    pub full: Losses,
    /// The endpoint did not take them.
    pub refused: Losses,
}

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Through which front it came, by its name in the access log.
    pub rpc: &'static str,
    pub policy: Arc<str>,
    pub end: End,
    pub ran: Option<&'static str>,
    pub started: Instant,
    /// How long it was received, if that took any time.
    pub received: Option<Duration>,
    /// How long it waited for its place, if it came to that.
    pub queue: Option<Duration>,
    pub at: Instant,
    /// HTTP's status, of an answer by HTTP.
    pub status: Option<u16>,
    /// Whether its answer had begun before it ended.
    pub begun: bool,
    /// What an authorizer decided.
    pub verdict: Option<&'static str>,
    /// The function that it invoked, if it came to choose one.
    pub invoked: Option<Target>,
    pub aws_request_id: Option<Box<str>>,
    /// Where it came from, if it failed for its caller's fault.
    pub refused: Option<Origin>,
}

impl Spans {
    pub(super) fn new(to: &Otlp, resource: &Resource, pushes: &Arc<Pushes>) -> Result<Self, String> {
        let (waiting, lost) = (Arc::default(), Arc::default());
        let exporter = otlp::spans(to, pushes, &waiting, &lost)?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(MOST)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(to.interval.min(DELAY))
            .build();
        let mut processor = BatchSpanProcessor::new(exporter, config);
        processor.set_resource(resource);
        let scope = InstrumentationScope::builder("lambda-policy").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { processor, waiting, lost, scope })
    }

    pub(super) fn lost(&self) -> &Arc<Lost> {
        &self.lost
    }

    /// Pushes what waits, and ends.
    pub(super) fn shut_down(&self, within: Duration) {
        // A failure is counted and logged where it happens.
        let _ = self.processor.shutdown_with_timeout(within);
    }

    /// Makes the spans of a call.
    pub(super) fn end(&self, trace: &Trace, way: &Way, ended: &Ended) {
        let (Some(spans), clock) = (trace.spans(), Clock::now()) else { return };
        if let Some(client) = self.client(trace, spans, ended, way, &clock) {
            self.push(client);
        }
        self.push(self.server(trace, spans, ended, way, &clock));
    }

    /// Puts a span into the queue, if it has room. The SDK would drop it as well, but say so at the end only.
    fn push(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < MOST {
            self.processor.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.full.add(1);
        }
    }

    fn server(&self, trace: &Trace, spans: &Ids, ended: &Ended, way: &Way, clock: &Clock) -> SpanData {
        let (name, mut attributes, status) = served(ended, way);
        attributes.push(KeyValue::new(names::POLICY, Arc::clone(&ended.policy)));
        attributes.push(KeyValue::new(names::OUTCOME, ended.end.outcome()));
        attributes.extend(ended.end.reason().map(|reason| KeyValue::new(names::REASON, reason)));
        attributes.extend(ended.ran.map(|ran| KeyValue::new(names::RAN, ran)));
        attributes.extend(ended.verdict.map(|verdict| KeyValue::new(names::VERDICT, verdict)));
        attributes.extend(ended.refused.map(|origin| KeyValue::new(names::PEER, origin.to_string())));
        let mut events = Vec::new();
        if let Some(took) = ended.received {
            events.push(event(names::RECEIVED, clock.of(ended.started + took), lasted(took)));
        }
        let admitted = way.at(Step::Admitted);
        if let (Some(at), Some(waited)) = (admitted, ended.queue.filter(|waited| *waited >= WAITED)) {
            events.push(event(names::ADMITTED, clock.of(at), lasted(waited)));
        }
        if let (Some(admitted), Some(at)) = (admitted, way.at(Step::Authorized))
            && at.duration_since(admitted) >= WAITED
        {
            events.push(event(names::AUTHORIZED, clock.of(at), lasted(at.duration_since(admitted))));
        }
        let parent = trace.context().and_then(|context| context.parent);
        SpanData {
            parent_span_id: SpanId::from(parent.unwrap_or_default()),
            parent_span_is_remote: parent.is_some(),
            span_kind: SpanKind::Server,
            name,
            attributes,
            status,
            ..self.span(trace, spans.server, (clock.of(ended.started), clock.of(ended.at)), events)
        }
    }

    /// The span that invokes the function, from when there were credentials to do so; none if there were not.
    fn client(&self, trace: &Trace, spans: &Ids, ended: &Ended, way: &Way, clock: &Clock) -> Option<SpanData> {
        let began = way.at(Step::Authorized)?;
        let mut attributes = vec![
            KeyValue::new(names::RPC_SYSTEM, "aws-api"),
            KeyValue::new(names::RPC_METHOD, "Lambda/Invoke"),
            KeyValue::new(names::INVOKED_PROVIDER, "aws"),
        ];
        if let Some((address, port)) = &way.server {
            attributes.push(KeyValue::new(names::SERVER_ADDRESS, address.clone()));
            attributes.push(KeyValue::new(names::SERVER_PORT, i64::from(*port)));
        }
        if let Some(Target { function, region, .. }) = &ended.invoked {
            attributes.push(KeyValue::new(names::INVOKED_NAME, function.name().to_owned()));
            attributes.push(KeyValue::new(names::INVOKED_REGION, region.to_string()));
            attributes.push(KeyValue::new(names::CLOUD_REGION, region.to_string()));
        }
        attributes.extend(ended.aws_request_id.as_ref().map(|id| KeyValue::new(names::REQUEST_ID, id.to_string())));
        let (mut events, mut resent, mut answered) = (Vec::new(), 0_i64, None);
        for (at, step) in &way.steps {
            let at = clock.of(*at);
            match step {
                Step::Connected(took) => events.push(event(names::CONNECTED, at, lasted(*took))),
                Step::NotConnected(took) => events.push(event(names::NOT_CONNECTED, at, lasted(*took))),
                Step::Again(remedy) => {
                    resent += 1;
                    events.push(event(names::RETRIED, at, KeyValue::new(names::REMEDY, *remedy)));
                }
                Step::Answered(status) => answered = Some(*status),
                Step::Admitted | Step::Authorized | Step::Done => {}
            }
        }
        attributes.extend(answered.map(|status| KeyValue::new(names::HTTP_STATUS, i64::from(status))));
        if resent > 0 {
            attributes.push(KeyValue::new(names::RESENT, resent));
        }
        let mut status = Status::Unset;
        if let Some((_, why)) = ended.end.unanswered() {
            attributes.push(KeyValue::new(names::ERROR_TYPE, why));
            status = Status::error("");
        }
        Some(SpanData {
            parent_span_id: SpanId::from(spans.server),
            parent_span_is_remote: false,
            span_kind: SpanKind::Client,
            name: Cow::Borrowed(names::INVOKE),
            attributes,
            status,
            ..self.span(
                trace,
                spans.client,
                (clock.of(began), clock.of(way.at(Step::Done).unwrap_or(ended.at))),
                events,
            )
        })
    }

    /// What spans have in common.
    fn span(&self, trace: &Trace, id: u64, (from, to): (SystemTime, SystemTime), happened: Vec<Event>) -> SpanData {
        let context = trace.context();
        // Members that are malformed make the whole of it so (W3C, "Trace Context", 3.3).
        let state = context.and_then(|context| context.state.as_deref()?.parse::<TraceState>().ok());
        let mut events = SpanEvents::default();
        events.events = happened;
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(context.map_or(0, |context| context.id)),
                SpanId::from(id),
                TraceFlags::SAMPLED,
                false,
                state.unwrap_or_default(),
            ),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(""),
            start_time: from,
            end_time: to,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Name, attributes and status by the conventions of what the front speaks. Only the service's own failures are errors
/// of a server, and not those of who calls it.
fn served(ended: &Ended, way: &Way) -> (Cow<'static, str>, Vec<KeyValue>, Status) {
    let grpc = |method: &'static str, code: Option<&'static str>| {
        let mut attributes = vec![KeyValue::new(names::RPC_SYSTEM, "grpc"), KeyValue::new(names::RPC_METHOD, method)];
        attributes.extend(code.map(|code| KeyValue::new(names::RPC_STATUS, code)));
        (Cow::Borrowed(method), attributes)
    };
    let told = ended.status.filter(|_| !ended.begun);
    let ((name, mut attributes), error) = match names::server(ended.rpc) {
        Server::Grpc(method) => {
            let code = code(ended.end);
            (grpc(method, code), code.filter(|code| GRPC_ERRORS.contains(code)).map(str::to_owned))
        }
        Server::Gateway(method) => {
            // What breaks off has no other way to say so than the status, nor has what no service has read.
            let gone = matches!(ended.end, End::Cancelled | End::GivenUp);
            let code = if ended.begun || gone { code(ended.end) } else { Some("OK") };
            let status = match ended.end {
                End::Error(reason) => Some(told.unwrap_or(reason.http_status())),
                End::Ok | End::FunctionError(_) => ended.status,
                End::Cancelled | End::GivenUp => None,
            };
            (grpc(method, code), status.filter(|status| *status >= 500).map(|status| status.to_string()))
        }
        Server::Http(route) => {
            let status = match ended.end {
                End::Error(reason) if !ended.begun => Some(told.unwrap_or(reason.http_status())),
                End::Cancelled | End::GivenUp if !ended.begun => None,
                _ => Some(ended.status.unwrap_or(200)),
            };
            let mut attributes = vec![KeyValue::new(names::HTTP_ROUTE, route)];
            let mut method = None;
            if let Some(came) = &way.came {
                let told = metrics::http::method(came.method.as_str());
                attributes.push(KeyValue::new(names::HTTP_METHOD, told));
                if told == metrics::http::OTHER {
                    let original: String = came.method.as_str().chars().take(MOST_METHOD).collect();
                    attributes.push(KeyValue::new(names::METHOD_ORIGINAL, original));
                } else {
                    method = Some(told);
                }
                attributes.push(KeyValue::new(names::URL_SCHEME, came.scheme));
                attributes.push(KeyValue::new(names::PROTOCOL_VERSION, came.version));
            }
            attributes.extend(status.map(|status| KeyValue::new(names::HTTP_STATUS, i64::from(status))));
            let name = Cow::Owned(format!("{} {route}", method.unwrap_or("HTTP")));
            let error = match (status, ended.end) {
                (Some(status @ 500..), _) => Some(status.to_string()),
                (_, End::Error(reason)) if ended.begun => Some(reason.reason().to_owned()),
                _ => None,
            };
            ((name, attributes), error)
        }
    };
    let status = if error.is_some() { Status::error("") } else { Status::Unset };
    attributes.extend(error.map(|error| KeyValue::new(names::ERROR_TYPE, error)));
    (name, attributes, status)
}

/// gRPC's code of how a call ended.
fn code(end: End) -> Option<&'static str> {
    let number = match end {
        End::Ok | End::FunctionError(_) => 0,
        End::Cancelled | End::GivenUp => 1,
        End::Error(reason) => reason.grpc_code(),
    };
    GRPC_CODES.get(number).copied()
}

fn event(name: &'static str, at: SystemTime, attribute: KeyValue) -> Event {
    Event::new(name, at, vec![attribute], 0)
}

fn lasted(duration: Duration) -> KeyValue {
    KeyValue::new(names::DURATION, duration.as_secs_f64())
}

/// What the time was when something was noted.
struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    fn now() -> Self {
        Self { instant: Instant::now(), time: SystemTime::now() }
    }

    fn of(&self, instant: Instant) -> SystemTime {
        self.time.checked_sub(self.instant.duration_since(instant)).unwrap_or(self.time)
    }
}

#[cfg(test)]
impl Ended {
    /// A call that went well just now.
    pub(super) fn well() -> Self {
        let now = Instant::now();
        Self {
            rpc: "ExecutePolicy",
            policy: "a".into(),
            end: End::Ok,
            ran: None,
            started: now,
            received: None,
            queue: None,
            at: now,
            status: None,
            begun: false,
            verdict: None,
            invoked: None,
            aws_request_id: None,
            refused: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Method;

    use super::*;
    use crate::{error::Kind as Reason, trace::Came};

    /// Name, code or status, and what is the server's error.
    fn told(rpc: &'static str, end: End, status: Option<u16>, begun: bool) -> (String, String, String) {
        let (name, attributes, error) = span(rpc, end, status, begun, "PUT");
        (name, of(&attributes, &[names::RPC_STATUS, names::HTTP_STATUS]), error)
    }

    fn of(attributes: &[KeyValue], names: &[&str]) -> String {
        let found = attributes.iter().find(|attribute| names.contains(&attribute.key.as_str()));
        found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
    }

    fn span(
        rpc: &'static str,
        end: End,
        status: Option<u16>,
        begun: bool,
        method: &str,
    ) -> (String, Vec<KeyValue>, String) {
        let ended = Ended { rpc, end, status, begun, ..Ended::well() };
        let came = Came { method: Method::from_bytes(method.as_bytes()).unwrap(), scheme: "https", version: "1.1" };
        let (name, attributes, marked) = served(&ended, &Way { came: Some(came), ..Way::default() });
        let error = of(&attributes, &[names::ERROR_TYPE]);
        assert_eq!(marked, if error.is_empty() { Status::Unset } else { Status::error("") });
        (name.into_owned(), attributes, error)
    }

    #[test]
    fn only_what_is_the_services_own_fault_is_an_error_of_its_span() {
        let (throttled, down, broken) = (
            End::Error(Reason::FunctionThrottled),
            End::Error(Reason::LambdaUnreachable),
            End::Error(Reason::LambdaFailed),
        );
        let (function, invalid) = (End::FunctionError("handled"), End::Error(Reason::InvalidRequest));
        let http = "http";
        for (what, rpc, end, status, begun, code, error) in [
            ("well", "ExecutePolicy", End::Ok, None, false, "OK", ""),
            ("a function's error is an answer", "ExecutePolicy", function, None, false, "OK", ""),
            ("for the caller to act on", "ExecutePolicy", throttled, None, false, "RESOURCE_EXHAUSTED", ""),
            ("ours", "ExecutePolicy", down, None, false, "UNAVAILABLE", "UNAVAILABLE"),
            ("broken off", "ExecutePolicyStream", broken, None, true, "INTERNAL", "INTERNAL"),
            ("nobody waits", "ExecutePolicy", End::Cancelled, None, false, "CANCELLED", ""),
            ("nobody waits for Lambda", "ext_proc", End::GivenUp, None, false, "CANCELLED", ""),
            ("told in the gateway's protocol", "ext_proc", down, None, false, "OK", "503"),
            ("not for us to mend", "ext_proc", throttled, None, false, "OK", ""),
            ("begun and broken off", "ext_proc", broken, Some(200), true, "INTERNAL", "502"),
            ("a gateway that is set up wrongly", "ext_proc", invalid, Some(500), false, "OK", "500"),
            ("unread, for which there is no word", "ext_authz", invalid, None, true, "INVALID_ARGUMENT", ""),
            ("an authorizer that is down", "ext_authz", down, None, false, "OK", "503"),
            ("an authorizer that answers nonsense", "ext_authz", function, Some(500), false, "OK", "500"),
            ("an authorizer that says no", "ext_authz", End::Ok, Some(403), false, "OK", ""),
            ("HTTP", http, End::Ok, Some(201), false, "201", ""),
            ("a function's own 500", http, End::Ok, Some(500), false, "500", "500"),
            ("a path that is none", http, invalid, Some(404), false, "404", ""),
            ("HTTP's caller", http, throttled, None, false, "429", ""),
            ("ours by HTTP", http, down, None, false, "503", "503"),
            ("HTTP that broke off", http, broken, Some(200), true, "200", "LAMBDA_FAILED"),
            ("HTTP without its caller", http, End::Cancelled, None, false, "", ""),
        ] {
            let (_, found, marked) = told(rpc, end, status, begun);
            assert_eq!((found.as_str(), marked.as_str()), (code, error), "{what}");
        }
    }

    #[test]
    fn a_method_that_nobody_knows_is_told_as_it_was_sent_and_names_no_span() {
        let long = "X".repeat(100);
        for (sent, name, method, original) in
            [("GET", "GET", "GET", ""), ("Get", "HTTP", "_OTHER", "Get"), (&long, "HTTP", "_OTHER", &long[..32])]
        {
            let (span, attributes, _) = span("http", End::Ok, None, false, sent);
            assert_eq!(span, format!("{name} {}", metrics::http::FACADE));
            assert_eq!(of(&attributes, &[names::HTTP_METHOD]), method);
            assert_eq!(of(&attributes, &[names::METHOD_ORIGINAL]), original);
        }
    }

    #[test]
    fn spans_are_named_by_what_a_front_speaks() {
        for (rpc, name) in [
            ("ExecutePolicy", "lambdapolicy.v1.PolicyService/ExecutePolicy"),
            ("Dispatch", "coprocess.Dispatcher/Dispatch"),
            ("http", "PUT /v1/policies/{policy}/http/{*path}"),
            ("ExecutePolicy (JSON)", "PUT /v1/policies/{policy}"),
        ] {
            assert_eq!(told(rpc, End::Ok, None, false).0, name);
        }
    }
}
