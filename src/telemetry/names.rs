//! Every metric by its name, unit, labels and their values: what `/metrics` shows, what OTLP sends, and what `deploy/METRICS.md`
//! says are this table.
//!
//! Names follow OpenTelemetry's semantic conventions where there are any (RPC, HTTP, FaaS, process); the others begin with
//! `lambda_policy.`. No label's values grow with what callers send.

#[cfg(test)]
mod document;
pub mod http;
pub mod spans;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// The same where that of several processes adds up: OpenTelemetry's UpDownCounter, a gauge of Prometheus.
    Sum,
    /// How values spread, by these upper bounds.
    Histogram(&'static [f64]),
}

/// The values that a label has.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// One of these.
    Words(&'static [&'static str]),
    /// A reason of the contract, or [`http::CANCELLED`].
    Reasons,
    /// A reason of the contract, who reported the function's error, or [`GIVEN_UP`].
    Whys,
    /// In words: where they come from, and what bounds them.
    From(&'static str),
}

/// A label.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// OpenTelemetry's attribute; Prometheus has `_` for its dots.
    pub name: &'static str,
    /// What it may be.
    pub values: Values,
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// As OpenTelemetry has it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// In UCUM, as OpenTelemetry writes it.
    pub unit: &'static str,
    /// What it counts or measures.
    pub doc: &'static str,
    /// What its series are told apart by.
    pub labels: &'static [Label],
}

const fn label(name: &'static str, values: Values) -> Label {
    Label { name, values }
}

/// The label values of how calls end.
pub const OUTCOMES: [&str; 4] = ["ok", "function_error", "error", "cancelled"];
/// Who reports a function's error.
pub const FUNCTION_ERRORS: [&str; 3] = ["handled", "unhandled", "malformed"];
/// Why a call is `cancelled` whose caller went away while Lambda was asked, before an answer had begun.
pub const GIVEN_UP: &str = "given_up";
/// The policy of calls that bring their own is `inline`; this one stands for every name that no policy has, and for none.
pub const UNKNOWN_POLICY: &str = "_unknown";
/// Stands for the endpoints beyond the most that have a label of their own.
pub const OTHER: &str = "_other";
/// The codes of gRPC by their numbers.
pub const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// The codes that are an error of the server (semantic conventions, gRPC).
pub const GRPC_ERRORS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
/// The statuses of Lambda that have a label of their own.
pub const LAMBDA_STATUSES: [&str; 18] = [
    "200", "202", "204", "400", "401", "403", "404", "408", "409", "410", "413", "415", "429", "500", "502", "503",
    "504", OTHER,
];

/// A policy's name.
pub const POLICY: Label = label(
    "policy",
    Values::From(
        "a configured policy's name, `inline`, or `_unknown` for a name that no policy has, for none, and for what is not received",
    ),
);
/// How a call ended.
pub const OUTCOME: Label = label("outcome", Values::Words(&OUTCOMES));
/// Why a call has no answer of its function, or one that is an error; nothing of other calls that nobody waited for.
pub const REASON: Label = label("reason", Values::Whys);
/// Which protocol.
pub const RPC_SYSTEM: Label = label("rpc.system.name", Values::Words(&["grpc", "aws-api"]));
/// Which method.
pub const RPC_METHOD: Label = label(
    "rpc.method",
    Values::From("a method of the services on the port, `_OTHER` for an unknown one; `Lambda/Invoke`"),
);
/// The code of gRPC.
pub const RPC_STATUS: Label = label("rpc.response.status_code", Values::Words(&GRPC_CODES));
/// The code, where it is the server's error.
pub const RPC_ERROR: Label = label("error.type", Values::Words(&GRPC_ERRORS));
/// Why Lambda gave no answer, or that its caller did not wait for one.
pub const ERROR_TYPE: Label = label("error.type", Values::Reasons);
/// The policy's function, without its qualifier; inline policies have no such label.
pub const INVOKED_NAME: Label = label("faas.invoked_name", Values::From("the name of a configured policy's function"));
/// Whose function.
pub const INVOKED_PROVIDER: Label = label("faas.invoked_provider", Values::Words(&["aws"]));
/// Where it is.
pub const INVOKED_REGION: Label = label("faas.invoked_region", Values::From("a configured policy's region"));
/// Where its calls go. Callers choose the regions of inline policies, so that these have no such label.
pub const SERVER_ADDRESS: Label = label("server.address", Values::From("the host of a configured policy's endpoint"));
/// At which port.
pub const SERVER_PORT: Label = label("server.port", Values::From("its port"));
/// Which version.
pub const QUALIFIER: Label =
    label("qualifier", Values::From("an alias or version that a configured policy may invoke; empty without one"));
/// Lambda's answer.
pub const HTTP_STATUS: Label = label("http.response.status_code", Values::Words(&LAMBDA_STATUSES));
/// An endpoint's host.
pub const SERVER: Label =
    label("server.address", Values::From("the host of an endpoint; `_other` beyond the first 64 of them"));
/// Whose credentials.
pub const SOURCE: Label = label("source", Values::Words(&["service", "role"]));
/// How loading them ended.
pub const LOADED: Label = label("outcome", Values::Words(&["ok", "rejected", "unavailable"]));
/// Where CPU time went.
pub const CPU_MODE: Label = label("cpu.mode", Values::Words(&["user", "system"]));
/// A runtime's thread.
pub const WORKER: Label = label("worker", Values::From("a worker's number, or `main` for the thread beside them"));
/// Why a caller's connection was refused.
pub const REFUSED: Label = label(
    "reason",
    Values::Words(&[
        "full",
        "no_certificate",
        "certificate_expired",
        "unknown_authority",
        "certificate",
        "distrusted",
        "protocol",
        "closed",
        "timeout",
    ]),
);
/// What a certificate is for.
pub const CERTIFICATE: Label = label("certificate", Values::Words(&["server", "client_ca"]));
/// What is pushed.
pub const SIGNAL: Label = label("signal", Values::Words(&["metrics", "traces"]));
/// Why a span was not pushed.
pub const LOST: Label = label("reason", Values::Words(&["queue_full", "not_taken"]));
/// This build.
pub const VERSION: Label = label("version", Values::From("the version of the program"));

/// As the semantic conventions advise for RPC and HTTP.
const SERVER_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// A function may run for 15 minutes.
const CALL_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];
/// What is mostly nothing, and at most the 15 s that loading credentials may take. Who waits for a place in vain gives up a
/// little after 0.25 s, which lies within a narrow bucket: at a bound, the next one would be told.
const WAIT_SECONDS: &[f64] = &[0.0001, 0.001, 0.005, 0.025, 0.1, 0.2, 0.3, 1.0, 5.0, 15.0];

macro_rules! metrics {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $kind:expr, $unit:literal, $text:literal, [$($label:expr),*];)*) => {
        $($(#[$doc])* pub static $id: Metric =
            Metric { name: $name, kind: $kind, unit: $unit, doc: $text, labels: &[$($label),*] };)*

        /// Every metric, in the order of the documentation.
        pub static ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    /// Calls.
    CALLS = "lambda_policy.calls", Kind::Counter, "{call}",
        "Calls that have ended, whichever front they came through; also those that a held verdict answers.", [POLICY, OUTCOME, REASON];
    /// Calls in flight.
    CALLS_IN_FLIGHT = "lambda_policy.calls.in_flight", Kind::Gauge, "{call}",
        "Calls that are admitted and not answered yet.", [];
    /// Calls that wait.
    CALLS_WAITING = "lambda_policy.calls.waiting", Kind::Gauge, "{call}",
        "Calls that wait for admission.", [];
    /// Calls not admitted.
    CALLS_REJECTED = "lambda_policy.calls.rejected", Kind::Counter, "{call}",
        "Calls that were not admitted, because of too many calls in flight or too large bodies.", [POLICY];
    /// The most at once.
    CALLS_LIMIT = "lambda_policy.calls.limit", Kind::Gauge, "{call}",
        "How many calls may be in flight: `server.max_in_flight`.", [];
    /// A policy's calls in flight.
    POLICY_IN_FLIGHT = "lambda_policy.policy.calls.in_flight", Kind::Gauge, "{call}",
        "Calls of a policy that are admitted and not answered yet.", [POLICY];
    /// A policy's calls that wait.
    POLICY_WAITING = "lambda_policy.policy.calls.waiting", Kind::Gauge, "{call}",
        "Calls of a policy that wait for admission.", [POLICY];
    /// What bodies hold.
    BODIES_HELD = "lambda_policy.bodies.held", Kind::Gauge, "By",
        "What the bodies of requests hold that count.", [];
    /// What bodies may hold.
    BODIES_LIMIT = "lambda_policy.bodies.limit", Kind::Gauge, "By",
        "What the bodies of requests may hold.", [];
    /// A function's breaker.
    BREAKER_STATE = "lambda_policy.breaker.state", Kind::Gauge, "{state}",
        "The breaker of a configured policy's function: 0 closed, 1 half-open, 2 open.",
        [INVOKED_NAME, INVOKED_REGION, QUALIFIER];
    /// All of a call.
    CALL_DURATION = "lambda_policy.call.duration", Kind::Histogram(CALL_SECONDS), "s",
        "How long a call took as a whole.", [POLICY, OUTCOME];
    /// Waiting for admission.
    QUEUE_DURATION = "lambda_policy.call.queue.duration", Kind::Histogram(WAIT_SECONDS), "s",
        "How long a call waited for admission.", [POLICY];
    /// Waiting for credentials.
    CREDENTIALS_DURATION = "lambda_policy.call.credentials.duration", Kind::Histogram(WAIT_SECONDS), "s",
        "How long an admitted call waited for credentials.", [POLICY];
    /// Lambda's share.
    CLIENT_DURATION = "rpc.client.call.duration", Kind::Histogram(CALL_SECONDS), "s",
        "How long Lambda's Invoke took for a call, its attempts together, or until its caller gave it up. Streamed answers that were left are not in it.",
        [RPC_SYSTEM, RPC_METHOD, POLICY, ERROR_TYPE, INVOKED_NAME, INVOKED_PROVIDER, INVOKED_REGION, SERVER_ADDRESS, SERVER_PORT];
    /// RPCs served.
    SERVER_DURATION = "rpc.server.call.duration", Kind::Histogram(SERVER_SECONDS), "s",
        "How long an RPC took on the server, from its headers to its status.",
        [RPC_SYSTEM, RPC_METHOD, RPC_STATUS, RPC_ERROR];
    /// Requests served.
    REQUEST_DURATION = "http.server.request.duration", Kind::Histogram(SERVER_SECONDS), "s",
        "How long a request by plain HTTP took on the server, from its headers to its answer's end; RPCs are none of these.",
        [http::METHOD, http::SCHEME, http::ROUTE, http::STATUS, http::VERSION, http::ERROR];
    /// What Lambda says.
    LAMBDA_RESPONSES = "lambda_policy.lambda.responses", Kind::Counter, "{response}",
        "Answers of Lambda's Invoke, each attempt's.", [HTTP_STATUS];
    /// Clients in the pool.
    CLIENTS_LIVE = "lambda_policy.clients.live", Kind::Gauge, "{client}",
        "Clients in the pool: one for each region, credentials and endpoint in use.", [];
    /// Cold clients.
    CLIENTS_BUILT = "lambda_policy.clients.built", Kind::Counter, "{client}",
        "Clients that were built because the pool had none.", [];
    /// Pool hits.
    CLIENTS_HITS = "lambda_policy.clients.hits", Kind::Counter, "{call}",
        "Calls that found their client in the pool.", [];
    /// Evictions.
    CLIENTS_EVICTED = "lambda_policy.clients.evicted", Kind::Counter, "{client}",
        "Clients that were dropped because they were idle or the pool was full.", [];
    /// Connections made.
    CONNECTIONS_OPENED = "lambda_policy.connections.opened", Kind::Counter, "{connection}",
        "Connections to Lambda and STS that were made.", [SERVER];
    /// Connections not made.
    CONNECTIONS_FAILED = "lambda_policy.connections.failed", Kind::Counter, "{connection}",
        "Connections to Lambda and STS that could not be made.", [SERVER];
    /// Connections used again.
    CONNECTIONS_REUSED = "lambda_policy.connections.reused", Kind::Counter, "{request}",
        "Requests that went over a connection that was there.", [SERVER];
    /// Callers' connections.
    SERVER_CONNECTIONS = "lambda_policy.server.connections.open", Kind::Gauge, "{connection}",
        "Connections of callers, those whose handshake is not done included.", [];
    /// The most of them.
    SERVER_LIMIT = "lambda_policy.server.connections.limit", Kind::Gauge, "{connection}",
        "How many connections of callers there may be: `server.max_connections`, or as many as the system allows.", [];
    /// Callers' connections refused.
    SERVER_REFUSED = "lambda_policy.server.connections.refused", Kind::Counter, "{connection}",
        "Connections of callers that were refused: there were as many as there may be, or the handshake of TLS failed.", [REFUSED];
    /// Until certificates expire.
    CERTIFICATE_EXPIRY = "lambda_policy.tls.certificate.expiry", Kind::Gauge, "s",
        "How long the certificates that are served with are still valid, less than 0 once they are not; of several in a file the one that ends first.", [CERTIFICATE];
    /// Loading credentials.
    CREDENTIALS_LOADS = "lambda_policy.credentials.loads", Kind::Counter, "{load}",
        "How often credentials were loaded or renewed.", [SOURCE, LOADED];
    /// Until credentials expire.
    CREDENTIALS_EXPIRY = "lambda_policy.credentials.expiry", Kind::Gauge, "s",
        "How long the credentials at hand are still valid; absent while there are none, or if they never expire.", [POLICY];
    /// Issuers whose keys are not to be had.
    CALLERS_KEYS_FAILING = "lambda_policy.callers.keys.failing", Kind::Gauge, "{issuer}",
        "Issuers of callers' tokens whose `jwks_url` gave no keys when it was asked last.", [];
    /// Configurations that took effect.
    CONFIG_GENERATION = "lambda_policy.config.generation", Kind::Gauge, "{generation}",
        "How many configurations have taken effect since the start, the first included.", [];
    /// Configurations that did not.
    CONFIG_FAILURES = "lambda_policy.config.reload.failures", Kind::Counter, "{reload}",
        "Changed configurations that were wrong or could not be read, so that the old one stayed in force.", [];
    /// Whether the last one did not.
    CONFIG_REFUSED = "lambda_policy.config.refused", Kind::Gauge, "{configuration}",
        "1 while the changed configuration is wrong or cannot be read, so that an older one is in force, else 0.", [];
    /// Policies in force.
    CONFIG_POLICIES = "lambda_policy.config.policies", Kind::Gauge, "{policy}",
        "Policies in force.", [];
    /// Failed pushes.
    EXPORT_FAILURES = "lambda_policy.telemetry.export.failures", Kind::Counter, "{export}",
        "Pushes that the OTLP endpoint did not take, or not all of.", [SIGNAL];
    /// Spans that were not pushed.
    SPANS_DROPPED = "lambda_policy.telemetry.spans.dropped", Kind::Counter, "{span}",
        "Spans that are lost, because too many waited to be pushed or the OTLP endpoint did not take them.", [LOST];
    /// Lines that were not written.
    LINES_DROPPED = "lambda_policy.telemetry.lines.dropped", Kind::Counter, "{line}",
        "Lines of the log that are lost, because standard error was not read in time or could not be written.", [];
    /// The build.
    BUILD_INFO = "lambda_policy.build.info", Kind::Gauge, "{build}",
        "1, with what was built.", [VERSION];
    /// CPU time.
    PROCESS_CPU = "process.cpu.time", Kind::Counter, "s",
        "CPU time of the process.", [CPU_MODE];
    /// Resident memory.
    PROCESS_MEMORY = "process.memory.usage", Kind::Sum, "By",
        "Memory of the process that is resident.", [];
    /// Virtual memory.
    PROCESS_VIRTUAL = "process.memory.virtual", Kind::Sum, "By",
        "Address space of the process.", [];
    /// Open files.
    PROCESS_FILES = "process.unix.file_descriptor.count", Kind::Sum, "{file_descriptor}",
        "File descriptors that are open.", [];
    /// The most open files.
    PROCESS_FILES_LIMIT = "lambda_policy.process.file_descriptor.limit", Kind::Gauge, "{file_descriptor}",
        "File descriptors that may be open.", [];
    /// Threads.
    PROCESS_THREADS = "process.thread.count", Kind::Sum, "{thread}",
        "Threads of the process.", [];
    /// Time since the start.
    PROCESS_UPTIME = "process.uptime", Kind::Gauge, "s",
        "How long the service has been running.", [];
    /// A worker's load.
    RUNTIME_BUSY = "lambda_policy.runtime.busy", Kind::Counter, "s",
        "How long a worker's thread had something to do.", [WORKER];
    /// Times that a worker went idle.
    RUNTIME_PARKS = "lambda_policy.runtime.parks", Kind::Counter, "{park}",
        "How often a worker's thread went idle.", [WORKER];
    /// A worker's tasks.
    RUNTIME_TASKS = "lambda_policy.runtime.tasks", Kind::Gauge, "{task}",
        "Tasks of a worker that have not ended.", [WORKER];
    /// A worker's queue.
    RUNTIME_QUEUE = "lambda_policy.runtime.queue", Kind::Gauge, "{task}",
        "Tasks that were given to a worker from outside and have not begun.", [WORKER];
}

/// The bare name of a function that a policy may name by an ARN: what `faas.name` of the function's own telemetry is (semantic
/// conventions, FaaS).
pub fn function(text: &str) -> &str {
    text.rsplit(':').next().unwrap_or(text)
}

impl Metric {
    /// The upper bounds of a histogram's buckets; none of what is no histogram.
    pub fn bounds(&self) -> &'static [f64] {
        match self.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge | Kind::Sum => &[],
        }
    }

    /// The name in Prometheus' text format (OpenTelemetry specification, Prometheus compatibility).
    pub fn prometheus(&self) -> String {
        let mut name = self.name.replace('.', "_");
        match self.unit {
            "s" => name.push_str("_seconds"),
            "By" => name.push_str("_bytes"),
            _ => {}
        }
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_told_once_and_is_what_prometheus_takes() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.prometheus()).collect();
        for name in &names {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        }
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for metric in ALL {
            assert!(metric.doc.ends_with('.'), "{}: {}", metric.name, metric.doc);
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.is_sorted(), "{}", metric.name);
            }
        }
    }

    #[test]
    fn what_a_call_waits_that_gives_up_is_told_nearly_right() {
        let above = WAIT_SECONDS.iter().position(|bound| *bound > 0.25).unwrap_or_default();
        assert!(WAIT_SECONDS[above] <= 0.3 && (0.2..0.25).contains(&WAIT_SECONDS[above - 1]), "{WAIT_SECONDS:?}");
    }
}
