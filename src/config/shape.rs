//! Every setting in one table: what may stand in the file, for the check, the schema and the documentation alike.

/// What a setting takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// Text; a number is taken as its digits.
    Text,
    /// Such as `10s`, `30m`, `1h 30m`.
    Duration,
    /// A number from 0 to 1.
    Share,
    /// A whole number.
    Integer { least: u64, most: u64 },
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text, `{env: NAME}` or `{file: PATH}`.
    Secret,
    /// Texts, or one.
    List,
    /// Names with a text each.
    Texts,
    /// Settings of their own, in a list.
    Sections(&'static [Key]),
    /// A JSON Pointer, of which the empty one is the whole document.
    Pointer,
    /// Any JSON.
    Json,
    /// A map, or the same as JSON text.
    Object,
    /// Settings of its own.
    Section(&'static [Key]),
    /// A word, or settings of its own.
    WordOr(&'static str, &'static [Key]),
    /// A name to settings of its own, many times.
    Named(&'static [Key]),
}

/// A setting.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// What it is without the file saying so; empty if it is nothing.
    pub default: &'static str,
    pub required: bool,
    /// Whether it is kept back where the configuration is shown, though it is no secret as the file has it.
    pub private: bool,
    /// Whether it is a section that is in force only where the file has it, though none of its settings is required.
    pub only_if_said: bool,
    pub doc: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, required: false, private: false, only_if_said: false, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, default: "", required: true, private: false, only_if_said: false, doc }
}

const fn private(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, default: "", required: false, private: true, only_if_said: false, doc }
}

const fn only_if_said(name: &'static str, keys: &'static [Key], doc: &'static str) -> Key {
    Key { only_if_said: true, ..key(name, Kind::Section(keys), "", doc) }
}

/// The file.
pub(super) const FILE: &[Key] = &[
    key("server", Kind::Section(SERVER), "", "How calls are served."),
    key("admin", Kind::Section(ADMIN), "", "The port for operators."),
    key("telemetry", Kind::Section(TELEMETRY), "", "What the service says of itself."),
    key("defaults", Kind::Section(DEFAULTS), "", "What policies have unless they say otherwise."),
    key("callers", Kind::Named(CALLER), "", "Who may call, by names that policies allow."),
    key("policies", Kind::Named(POLICY), "", "The policies by the name that calls use."),
    key(
        "routes",
        Kind::Sections(ROUTE),
        "",
        "Which policy a call is for, where the gateway does not name one: the first that fits.",
    ),
];

const SERVER: &[Key] = &[
    key("listen", Kind::Text, "127.0.0.1:50051", "Address and port for gRPC, or `unix:PATH` for a Unix socket."),
    key(
        "socket_mode",
        Kind::Text,
        "0660",
        "The mode of the Unix socket's file, in octal: who may write to it may connect.",
    ),
    key(
        "plaintext",
        Kind::Choice(&["deny", "allow"]),
        "deny",
        "Whether there may be no `tls` where other machines can connect: `allow` behind a mesh or a proxy that encrypts.",
    ),
    key("tls", Kind::Section(TLS), "", "Serve TLS instead of plaintext. Changed files hold for new connections."),
    key(
        "max_connection_age",
        Kind::Duration,
        "30m",
        "After this time, and up to a tenth more, a connection is closed once its calls have ended, so that load spreads again; 1s to 24h.",
    ),
    key(
        "max_connections",
        Kind::Integer { least: 1, most: 1_000_000 },
        "4096",
        "Connections at once, as far as the system allows so many open files. One more is closed at once.",
    ),
    key(
        "inline_policies",
        Kind::Choice(&["deny", "allow"]),
        "deny",
        "Whether calls may bring a policy of their own. Such a policy brings its own access key pair, and names no endpoint.",
    ),
    key(
        "unmatched",
        Kind::Choice(&["deny", "pass"]),
        "deny",
        "What becomes of a gateway's call that names no policy and fits no route: 404, or the gateway goes on without a function.",
    ),
    key(
        "max_in_flight",
        Kind::Integer { least: 1, most: 1_000_000 },
        "1024",
        "Calls in flight at once. As many more wait, for 250 ms at the most; the rest is OVERLOADED.",
    ),
    key(
        "max_mib_in_flight",
        Kind::Integer { least: 64, most: 1_048_576 },
        "512",
        "MiB that the bodies of calls may hold at once, one half for requests and one for answers. A request beyond it is OVERLOADED, an answer beyond it waits to be read. As much as one half again is for requests that are being received: 16 KiB each, or up to 64 KiB with their bodies.",
    ),
    key(
        "workers",
        Kind::Integer { least: 1, most: 1024 },
        "one for each core",
        "Threads that serve connections; each call stays on one.",
    ),
    key(
        "load_reports",
        Kind::Choice(&["none", "per-call"]),
        "none",
        "Whether `ExecutePolicy` and `ExecutePolicyStream` end with ORCA's load report in the trailer `endpoint-load-metrics-bin`, for callers that balance by it.",
    ),
    key(
        "drain_delay",
        Kind::Duration,
        "5s",
        "Between NOT_SERVING and closing connections, for load balancers to notice, 0s to 5m.",
    ),
    key(
        "drain_timeout",
        Kind::Duration,
        "30s",
        "How long calls in flight may take to end when the service stops, 0s to 15m. Then they are cut, each with the error that says whether its function may have run.",
    ),
];

const TLS: &[Key] = &[
    required("certificate", Kind::Text, "File with the certificate and its intermediates, in PEM."),
    required("key", Kind::Text, "File with the private key, in PEM."),
    key("client_ca", Kind::Text, "", "File with the certificates that callers' certificates must come from, in PEM."),
    key(
        "client_certificate",
        Kind::Choice(&["required", "optional"]),
        "required",
        "Whether, with `client_ca`, a caller may come without a certificate, to be known by a token.",
    ),
];

const CALLER: &[Key] = &[
    private("tokens", Kind::List, "SHA-256 of each bearer token, in hexadecimal."),
    key(
        "certificates",
        Kind::List,
        "",
        "Client certificates, each by one of its URIs, such as a SPIFFE id, or one of its DNS names.",
    ),
    key("users", Kind::List, "", "User ids of processes that call through the Unix socket."),
    key("jwt", Kind::Section(JWT), "", "Tokens that an issuer has signed."),
    key(
        "inline",
        Kind::Boolean,
        "false",
        "Whether it may bring policies of its own, if `server.inline_policies` allows them.",
    ),
];

const JWT: &[Key] = &[
    required("issuer", Kind::Text, "What `iss` must be."),
    required("audience", Kind::List, "What must be in `aud`: one of these."),
    key("subjects", Kind::List, "", "What `sub` must be: one of these; without them any."),
    key(
        "jwks_file",
        Kind::Text,
        "",
        "File with the issuer's public keys, a JWK set. It is read again when it changes.",
    ),
    key(
        "jwks_url",
        Kind::Text,
        "",
        "Address of the keys, fetched every five minutes, and for a key that is new. While it does not answer, keys hold for a day.",
    ),
    key(
        "algorithms",
        Kind::List,
        "RS256, PS256, ES256, ES384, EdDSA",
        "Algorithms that are taken; RS384, RS512, PS384 and PS512 may be, too.",
    ),
    key("leeway", Kind::Duration, "30s", "How much clocks may differ, 0s to 5m."),
];

const ADMIN: &[Key] = &[key(
    "listen",
    Kind::Text,
    "127.0.0.1:9464",
    "Address and port for the page `/`, `/livez`, `/readyz`, `/metrics`, `/policies`, `/status`, `/config` and `/log-level`. Nobody has to say who they are there.",
)];

const TELEMETRY: &[Key] = &[
    key(
        "metrics",
        Kind::Choice(&["on", "off"]),
        "on",
        "Whether `/metrics` and OTLP have metrics. `/policies` tells of calls without them too.",
    ),
    key("otlp", Kind::Section(OTLP), "", "Push metrics and spans by OTLP over gRPC, beside `/metrics`."),
    key(
        "traces",
        Kind::WordOr("off", TRACES),
        "",
        "Spans of calls, pushed where `otlp` says; `off` makes none. Without them too a caller's trace goes on in the function.",
    ),
];

const TRACES: &[Key] = &[key(
    "ratio",
    Kind::Share,
    "0.01",
    "Of which share of the calls there are spans, from 0 to 1, where its caller has not decided it. Unless it is 0, there are also of the first call of a second.",
)];

const OTLP: &[Key] = &[
    required("endpoint", Kind::Text, "Address of a collector, such as `http://localhost:4317`."),
    key("interval", Kind::Duration, "30s", "Between two pushes of metrics, 1s to 1h; spans wait 5s at the most."),
];

const ROUTE: &[Key] = &[
    key("host", Kind::Text, "", "Only this host; `*.` before it stands for every host below."),
    key("path", Kind::Text, "", "Only this path; `/*` at its end stands for it and everything below."),
    required("policy", Kind::Text, "The policy's name."),
];

macro_rules! shared_keys {
    () => {
        [
            key("callers", Kind::List, "", "Who may call, of `callers`; without any of these, and with `callers`, nobody."),
            key("region", Kind::Text, "", "AWS region. A policy's own comes first, then its ARN's, then the default."),
            key(
                "credentials",
                Kind::WordOr("default", CREDENTIALS),
                "",
                "Access keys, a role to assume, or both; `default` is the service's own identity. Required, here or under `defaults`.",
            ),
            key("event", Kind::Choice(EVENTS), "raw", "What an HTTP call is made into."),
            key(
                "invocation",
                Kind::Choice(&["request-response", "event", "dry-run"]),
                "request-response",
                "Wait for the answer, queue the event, or check access only.",
            ),
            key(
                "on_function_error",
                Kind::Sections(RULE),
                "",
                "What an HTTP client is told when the function fails: the first rule that fits; else what the front door says.",
            ),
            key(
                "output",
                Kind::Texts,
                "",
                "Names with JSON Pointers: what is picked from the answer into the response's `variables`.",
            ),
            key("log", Kind::Choice(&["none", "tail"]), "none", "Whether the last 4 KB of the function's log are returned."),
            private("context", Kind::Object, "Client context: at most 2,685 bytes of JSON."),
            key("tenant", Kind::Text, "", "Tenant id, for functions with tenant isolation."),
            key(
                "timeout",
                Kind::Duration,
                "10s",
                "How long a call may take, 1ms to 15m; of a streamed answer, until its end.",
            ),
            key(
                "stream",
                Kind::Boolean,
                "false",
                "Whether HTTP clients get the answer as the function writes it: over ext_proc and the HTTP façade.",
            ),
            key(
                "idle_timeout",
                Kind::Duration,
                "60s",
                "How long a function may write nothing while its answer is streamed, 1ms to 15m.",
            ),
            key(
                "max_in_flight",
                Kind::Integer { least: 1, most: 1_000_000 },
                "",
                "Calls of the policy in flight at once; of all inline policies together where it stands under `defaults`. Without it as many as `server.max_in_flight` leaves, a share of which is always kept for other policies.",
            ),
            key(
                "breaker",
                Kind::WordOr("none", BREAKER),
                "",
                "When the function is left alone for a while, because Lambda cannot be reached, fails, throttles, or does not answer within `timeout`; `none` is never. A function's own errors do not count.",
            ),
            key("endpoint", Kind::Section(ENDPOINT), "", "Where Lambda is called, if not at the region's own endpoint."),
            key("sts_endpoint", Kind::Text, "", "Where STS is called, if not at the region's own endpoint."),
        ]
    };
}

/// The settings that a policy and `defaults` share.
const SHARED: [Key; 17] = shared_keys!();

const DEFAULTS: &[Key] = &SHARED;

const POLICY: &[Key] = {
    const OWN: [Key; 7] = [
        key("title", Kind::Text, "lambda", "For people."),
        key("description", Kind::Text, "", "For people."),
        required("function", Kind::Text, "Name, partial ARN or ARN, with or without `:alias` or `:version`."),
        key("qualifier", Kind::Text, "", "Alias or version."),
        key("qualifiers", Kind::List, "", "Aliases and versions that a call may choose instead."),
        only_if_said(
            "callout",
            CALLOUT,
            "Through Envoy's ext_proc: the function's output changes the call, which goes on, instead of answering it.",
        ),
        only_if_said(
            "authorizer",
            AUTHORIZER,
            "Through Envoy's ext_authz: the function decides whether a call may pass.",
        ),
    ];
    const SHARED: [Key; 17] = shared_keys!();
    const ALL: [Key; 24] = {
        let [a, b, c, d, e, f, g] = OWN;
        let [h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x] = SHARED;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x]
    };
    &ALL
};

const EVENTS: &[&str] = &[
    "raw",
    "rest-api",
    "http-api-v1",
    "http-api",
    "function-url",
    "alb",
    "alb-multi-value",
    "envoy",
    "kong",
    "kong-gateway",
];

const RULE: &[Key] = &[
    key(
        "kind",
        Kind::List,
        "",
        "Which failures: `handled`, `unhandled`, `timeout`, `out-of-memory`; without it all of them.",
    ),
    key("type", Kind::Text, "", "Only errors of this type; `*` stands for any text."),
    key("message", Kind::Text, "", "Only errors in whose message this regular expression is found."),
    required("status", Kind::Integer { least: 200, most: 599 }, "The status of the answer."),
    key(
        "body",
        Kind::Choice(&["front", "payload"]),
        "front",
        "What the format's front door says, or the error's payload, which may hold stack traces.",
    ),
    key("text", Kind::Text, "", "This text instead."),
    key("json", Kind::Json, "", "This JSON instead."),
    key("headers", Kind::Texts, "", "Headers of the answer."),
];

const CALLOUT: &[Key] = &[
    key(
        "phase",
        Kind::Choice(&["request", "response"]),
        "request",
        "When the function is called: before the upstream, or when that has answered.",
    ),
    key("headers", Kind::Texts, "", "Headers to set, each with a JSON Pointer into the output."),
    key("remove_headers", Kind::List, "", "Headers to remove."),
    key("path", Kind::Pointer, "", "JSON Pointer to another path and query of the request."),
    key("body", Kind::Pointer, "", "JSON Pointer to another body: text as it is, anything else as JSON."),
    key("metadata", Kind::Texts, "", "Names with JSON Pointers: dynamic metadata in the namespace `lambda-policy`."),
];

const AUTHORIZER: &[Key] = &[
    key(
        "format",
        Kind::Choice(&["http-api", "rest-api"]),
        "http-api",
        "API Gateway's format of the event and the answer: 2.0, or 1.0.",
    ),
    key("identity", Kind::List, "", "What identifies a caller: `header.NAME` or `query.NAME`; who lacks one gets 401."),
    key(
        "ttl",
        Kind::Duration,
        "5m",
        "How long an answer holds for the same identity, 0s to 1h; without `identity` none is kept.",
    ),
    key(
        "headers",
        Kind::Texts,
        "",
        "Headers for the upstream, each with a key of the answer's context, or `principalId`.",
    ),
];

const CREDENTIALS: &[Key] = &[
    key("access_key_id", Kind::Secret, "", "Access key id."),
    key("secret_access_key", Kind::Secret, "", "Secret access key."),
    key("session_token", Kind::Secret, "", "Session token of temporary keys."),
    key(
        "assume_role",
        Kind::Section(ASSUME_ROLE),
        "",
        "A role to assume, with the keys or else the service's own identity.",
    ),
];

const ASSUME_ROLE: &[Key] = &[
    required("role_arn", Kind::Text, "The role's ARN."),
    private("external_id", Kind::Text, "What the role's trust policy asks for."),
    key("session_name", Kind::Text, "lambda-policy", "The session's name in CloudTrail."),
    key("duration", Kind::Duration, "1h", "How long the role's credentials are valid, 15m to 12h."),
];

const BREAKER: &[Key] = &[
    key("failures", Kind::Integer { least: 1, most: 1000 }, "5", "After how many failures in a row."),
    key(
        "open",
        Kind::Duration,
        "5s",
        "For how long calls are BREAKER_OPEN, 100ms to 5m; after throttling for as long as Lambda says, a minute at the most. Then one call tries.",
    ),
];

const ENDPOINT: &[Key] = &[
    key("url", Kind::Text, "", "An address, such as a VPC endpoint's."),
    key("fips", Kind::Boolean, "false", "The region's FIPS endpoint."),
    key("dual_stack", Kind::Boolean, "false", "The region's dual-stack endpoint."),
];
