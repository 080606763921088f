//! Every name in a span: who serves it, its attributes, its events.

use super::http;

/// What a front speaks, by which its spans are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// gRPC, of which the status says how the call ended: `package.Service/Method`.
    Grpc(&'static str),
    /// gRPC, whose status is OK whenever the gateway is told in the words of its own protocol.
    Gateway(&'static str),
    /// HTTP: the route.
    Http(&'static str),
}

/// The fronts by their names in the access log.
pub const SERVERS: [(&str, Server); 8] = [
    ("ExecutePolicy", Server::Grpc("lambdapolicy.v1.PolicyService/ExecutePolicy")),
    ("ExecutePolicyStream", Server::Grpc("lambdapolicy.v1.PolicyService/ExecutePolicyStream")),
    ("ext_proc", Server::Gateway("envoy.service.ext_proc.v3.ExternalProcessor/Process")),
    ("ext_authz", Server::Gateway("envoy.service.auth.v3.Authorization/Check")),
    ("Dispatch", Server::Gateway("coprocess.Dispatcher/Dispatch")),
    ("ProcessMessage", Server::Gateway("apigee.ExternalCalloutService/ProcessMessage")),
    ("http", Server::Http(http::FACADE)),
    ("ExecutePolicy (JSON)", Server::Http(http::EXECUTE)),
];

/// The name of the span that invokes the function.
pub const INVOKE: &str = "Lambda.Invoke";

macro_rules! attributes {
    ($($id:ident = $name:literal, $of:literal, $text:literal;)*) => {
        $(#[doc = $text] pub const $id: &str = $name;)*

        /// Every attribute and event: its name, where it is, and what it says.
        pub const ALL: &[(&str, &str, &str)] = &[$(($name, $of, $text)),*];
    };
}

attributes! {
    RPC_SYSTEM = "rpc.system.name", "both", "`grpc`; `aws-api` of the invocation.";
    RPC_METHOD = "rpc.method", "both", "The method, `package.Service/Method`; `Lambda/Invoke` of the invocation.";
    RPC_STATUS = "rpc.response.status_code", "server", "gRPC's code of the answer.";
    HTTP_METHOD = "http.request.method", "server", "The method, of a call that came by plain HTTP.";
    METHOD_ORIGINAL = "http.request.method_original", "server", "The method as it was sent, where the one above is `_OTHER`; its first 32 characters.";
    URL_SCHEME = "url.scheme", "server", "How such a call's client came to the gateway, if `X-Forwarded-Proto` says so, else the gateway to the service: `http` or `https`.";
    PROTOCOL_VERSION = "network.protocol.version", "server", "HTTP's version, of such a call.";
    HTTP_ROUTE = "http.route", "server", "The route of such a call.";
    HTTP_STATUS = "http.response.status_code", "both", "The answer's status, of such a call; of the invocation Lambda's.";
    ERROR_TYPE = "error.type", "both", "The code or status that is the service's own error; the reason for which Lambda gave no answer, or `cancelled`.";
    POLICY = "lambda_policy.policy", "server", "The policy's name, `inline`, or `_unknown`.";
    OUTCOME = "lambda_policy.outcome", "server", "How the call ended: the label `outcome` of the metrics.";
    REASON = "lambda_policy.reason", "server", "Why: the label `reason` of the metrics.";
    RAN = "lambda_policy.ran", "server", "Whether the function ran: `yes`, `maybe` or `no`.";
    VERDICT = "lambda_policy.verdict", "server", "What an authorizer decided, `allowed` or `refused`; with `ran` = `no` it held from before.";
    PEER = "network.peer.address", "server", "Where a call came from that failed for its caller's fault: an address, or `unix`.";
    REQUEST_ID = "aws.request_id", "client", "AWS's id of the request.";
    SERVER_ADDRESS = "server.address", "client", "The endpoint's host, once the request is on its way.";
    SERVER_PORT = "server.port", "client", "The endpoint's port.";
    INVOKED_NAME = "faas.invoked_name", "client", "The function's name, without account and qualifier.";
    INVOKED_PROVIDER = "faas.invoked_provider", "client", "`aws`.";
    INVOKED_REGION = "faas.invoked_region", "client", "The function's region.";
    CLOUD_REGION = "cloud.region", "client", "The same.";
    RESENT = "http.request.resend_count", "client", "How often the request was sent again, if it was.";
    RECEIVED = "lambda_policy.received", "server, an event", "The call's body is here, for which the service waited; of ext_proc all that the function is to get.";
    ADMITTED = "lambda_policy.admitted", "server, an event", "The call has its place, for which it waited.";
    AUTHORIZED = "lambda_policy.authorized", "server, an event", "There are credentials, for which the call waited.";
    CONNECTED = "lambda_policy.connected", "client, an event", "A connection was made for the call.";
    NOT_CONNECTED = "lambda_policy.not_connected", "client, an event", "A connection could not be made.";
    RETRIED = "lambda_policy.retried", "client, an event", "The request is sent again.";
    DURATION = "lambda_policy.duration", "events", "How long it took, in seconds.";
    REMEDY = "lambda_policy.remedy", "`lambda_policy.retried`", "What has changed: `connection`, `credentials` or `clock`.";
}

/// What a front speaks.
pub fn server(rpc: &str) -> Server {
    SERVERS.iter().find(|(known, _)| *known == rpc).map_or(Server::Grpc("_OTHER"), |(_, server)| *server)
}

/// The front whose gRPC method this path is.
pub fn rpc(path: &str) -> Option<&'static str> {
    let path = path.strip_prefix('/')?;
    let is = |server: &Server| matches!(server, Server::Grpc(method) | Server::Gateway(method) if *method == path);
    SERVERS.iter().find(|(_, server)| is(server)).map(|(rpc, _)| *rpc)
}
