//! The names of requests by plain HTTP: their routes, and what else is told of them.

use super::{Label, Values, label};

/// The façade. Its routes without a path below are this one, too.
pub const FACADE: &str = "/v1/policies/{policy}/http/{*path}";
/// A call of the contract as JSON.
pub const EXECUTE: &str = "/v1/policies/{policy}";
/// The policies as JSON.
pub const LIST: &str = "/v1/policies";
/// The routes beside gRPC's; those that are asked for most come first.
pub const ROUTES: [&str; 3] = [FACADE, EXECUTE, LIST];
/// Stands for every method that is not known.
pub const OTHER: &str = "_OTHER";
/// The methods that are known by default (semantic conventions, HTTP), and the one for all others.
pub const METHODS: [&str; 11] =
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "QUERY", OTHER];
/// How a client's request came to the gateway, or the gateway's to the service.
pub const SCHEMES: [&str; 2] = ["http", "https"];
/// The versions of HTTP that are served.
pub const VERSIONS: [&str; 3] = ["1.0", "1.1", "2"];
/// The statuses of an answer that are registered. A client treats any other as the first of its class (RFC 9110, 15), and
/// so it is told of, as functions answer with whatever there is from 200 to 599.
pub const STATUSES: [u16; 58] = [
    200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 402, 403, 404,
    405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431,
    451, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];
/// The error of a request whose client went away before its answer was whole.
pub const CANCELLED: &str = "cancelled";
/// The error of a request whose answer ended before it was whole.
pub const BROKEN_OFF: &str = "broken_off";

/// What is asked for.
pub const METHOD: Label = label("http.request.method", Values::Words(&METHODS));
/// Whether the client came by TLS.
pub const SCHEME: Label = label("url.scheme", Values::Words(&SCHEMES));
/// Which route serves it.
pub const ROUTE: Label = label("http.route", Values::Words(&ROUTES));
/// How it is answered.
pub const STATUS: Label = label(
    "http.response.status_code",
    Values::From(
        "the answer's status, if it had begun; one that is not registered is the first of its class, 299 is `200`",
    ),
);
/// What is spoken.
pub const VERSION: Label = label("network.protocol.version", Values::Words(&VERSIONS));
/// Why it is no success.
pub const ERROR: Label = label(
    "error.type",
    Values::From(
        "a status of 500 and more; `cancelled` if the client went away before the end, `broken_off` if there was none",
    ),
);

/// A method as it is told of.
pub fn method(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER)
}

/// The place among [`ROUTES`] of the one that serves a path.
pub fn route(path: &str) -> Option<usize> {
    ROUTES.iter().position(|route| fits(route, path))
}

/// Whether a route's parts are those of a path. What `{*path}` stands for may be missing.
fn fits(route: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    for part in route.split('/') {
        if part.starts_with("{*") {
            return true;
        }
        let fits = |here: &str| if part.starts_with('{') { !here.is_empty() } else { here == part };
        if !parts.next().is_some_and(fits) {
            return false;
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn statuses_are_those_that_are_registered() {
        let registered = (200..600)
            .filter(|status| StatusCode::from_u16(*status).is_ok_and(|status| status.canonical_reason().is_some()));
        assert_eq!(registered.collect::<Vec<_>>(), STATUSES);
    }

    #[test]
    fn a_method_is_known_as_it_is_written_or_not_at_all() {
        for (given, told) in [("GET", "GET"), ("QUERY", "QUERY"), ("get", OTHER), ("PROPFIND", OTHER), ("", OTHER)] {
            assert_eq!(method(given), told);
        }
    }

    #[test]
    fn a_path_has_the_route_that_serves_it() {
        for (path, expected) in [
            ("/v1/policies", Some(LIST)),
            ("/v1/policies/orders:execute", Some(EXECUTE)),
            ("/v1/policies/-:execute", Some(EXECUTE)),
            ("/v1/policies/orders/http", Some(FACADE)),
            ("/v1/policies/orders/http/", Some(FACADE)),
            ("/v1/policies/orders/http/a//b/", Some(FACADE)),
            ("/v1/policies/orders/http//", Some(FACADE)),
            ("/v1/policies/orders/httpx", None),
            ("/v1/policies/orders/", None),
            ("/v1/policies/", None),
            ("/v1/policies//http/x", None),
            ("/v1/policy", None),
            ("/", None),
            ("", None),
            ("*", None),
            ("/lambdapolicy.v1.PolicyService/ExecutePolicy", None),
        ] {
            assert_eq!(route(path).map(|route| ROUTES[route]), expected, "{path}");
        }
    }
}
