//! How long the requests by plain HTTP of a server take, by what they ask for and how they end.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderMap, HeaderName, Request, StatusCode, Version};
use opentelemetry::{KeyValue, Value, metrics::BoundHistogram};

use super::{
    metrics::Metrics,
    names::{
        Label,
        http::{self as names, METHODS, ROUTES, SCHEMES, STATUSES, VERSIONS},
    },
};
use crate::trace::Came;

/// How a gateway says what its client's request came by, as the façade reads it.
static FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Each ending, with each status and without any.
const ENDS: usize = 3 * (1 + STATUSES.len());

/// The requests by plain HTTP of a server, and what was measured of them.
pub struct Requests {
    metrics: Arc<Metrics>,
    tls: bool,
    kinds: Vec<Kind>,
}

/// Requests that ask for the same.
struct Kind {
    route: Option<&'static str>,
    method: &'static str,
    scheme: &'static str,
    version: &'static str,
    /// There are many, and few of them ever occur.
    ends: OnceLock<Box<[OnceLock<BoundHistogram<f64>>; ENDS]>>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked(usize);

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it was given away.
    Whole,
    /// It ended in an error.
    BrokenOff,
    /// Nobody took the rest of it.
    Cancelled,
}

impl Requests {
    /// For a server that speaks TLS, or does not.
    pub fn new(metrics: Arc<Metrics>, tls: bool) -> Self {
        let mut kinds = Vec::new();
        for route in ROUTES.into_iter().map(Some).chain([None]) {
            for method in METHODS {
                for scheme in SCHEMES {
                    let kind = |version| Kind { route, method, scheme, version, ends: OnceLock::new() };
                    kinds.extend(VERSIONS.map(kind));
                }
            }
        }
        Self { metrics, tls, kinds }
    }

    /// What a request asks for.
    pub fn asked<B>(&self, request: &Request<B>) -> Asked {
        let route = names::route(request.uri().path()).unwrap_or(ROUTES.len());
        let method = request.method().as_str();
        let method = METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1);
        let at = (route * METHODS.len() + method) * SCHEMES.len() + scheme(request.headers(), self.tls);
        Asked(at * VERSIONS.len() + version(request.version()))
    }

    /// Whether a route serves what a request asks for.
    pub fn routes(&self, Asked(at): Asked) -> bool {
        self.kinds.get(at).is_some_and(|kind| kind.route.is_some())
    }

    /// Records a request that has ended, with the status of its answer if that had begun.
    pub fn ended(&self, Asked(at): Asked, status: Option<StatusCode>, ending: Ending, took: Duration) {
        let Some(kind) = self.kinds.get(at) else { return };
        let status = status.map(place);
        let ends = kind.ends.get_or_init(|| Box::new([const { OnceLock::new() }; ENDS]));
        let end = status.map_or(0, |place| 1 + place) * 3 + ending as usize;
        let Some(bound) = ends.get(end) else { return };
        let status = status.and_then(|place| STATUSES.get(place)).copied();
        let bind = || self.metrics.instruments.requests.bind(&kind.labels(status, ending));
        bound.get_or_init(bind).record(took.as_secs_f64());
    }
}

impl Kind {
    fn labels(&self, status: Option<u16>, ending: Ending) -> Vec<KeyValue> {
        let attribute = |label: &Label, value: Value| KeyValue::new(label.name, value);
        let mut labels = vec![
            attribute(&names::METHOD, self.method.into()),
            attribute(&names::SCHEME, self.scheme.into()),
            attribute(&names::VERSION, self.version.into()),
        ];
        labels.extend(self.route.map(|route| attribute(&names::ROUTE, route.into())));
        labels.extend(status.map(|status| attribute(&names::STATUS, i64::from(status).into())));
        let error = match (status, ending) {
            (Some(status @ 500..), _) => Some(status.to_string().into()),
            (_, Ending::Whole) => None,
            (_, Ending::BrokenOff) => Some(names::BROKEN_OFF.into()),
            (_, Ending::Cancelled) => Some(names::CANCELLED.into()),
        };
        labels.extend(error.map(|error| attribute(&names::ERROR, error)));
        labels
    }
}

/// What a request came as, to a server that speaks TLS or does not.
pub fn came<B>(request: &Request<B>, tls: bool) -> Came {
    let scheme = SCHEMES.get(scheme(request.headers(), tls)).copied().unwrap_or_default();
    let version = VERSIONS.get(version(request.version())).copied().unwrap_or_default();
    Came { method: request.method().clone(), scheme, version }
}

/// The place among [`SCHEMES`] of how a client's request came to the gateway, if that says so, else of the gateway's own.
fn scheme(headers: &HeaderMap, tls: bool) -> usize {
    let forwarded = headers.get(&FORWARDED).and_then(|told| told.to_str().ok()?.split(',').next());
    let known = forwarded.and_then(|told| SCHEMES.iter().position(|known| told.trim().eq_ignore_ascii_case(known)));
    known.unwrap_or(usize::from(tls))
}

/// The place among [`VERSIONS`] of this one.
fn version(version: Version) -> usize {
    match version {
        Version::HTTP_2 => 2,
        Version::HTTP_10 => 0,
        _ => 1,
    }
}

/// The place among [`STATUSES`] of this one, or of the first of its class.
fn place(status: StatusCode) -> usize {
    let status = status.as_u16();
    let class = || STATUSES.binary_search(&((status / 100).clamp(2, 5) * 100));
    STATUSES.binary_search(&status).or_else(|_| class()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{
        super::{metrics::MOST_SERIES, scrape::Form},
        *,
    };
    use crate::error::Kind as Reason;

    const TOOK: Duration = Duration::from_millis(1);

    fn requests() -> Requests {
        Requests::new(Metrics::new(true, None, 0).unwrap(), false)
    }

    impl Requests {
        fn count(&self, asked: usize, status: Option<u16>, ending: Ending) {
            let status = status.map(|status| StatusCode::from_u16(status).unwrap());
            self.ended(Asked(asked), status, ending, TOOK);
        }

        /// Each series with what it counts.
        fn shown(&self) -> Vec<(String, usize)> {
            let text = self.metrics.scrape(Form::Prometheus).unwrap();
            let counts = text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
            counts.map(|line| line.rsplit_once(' ').unwrap()).map(|(s, n)| (s.to_owned(), n.parse().unwrap())).collect()
        }
    }

    #[test]
    fn what_a_request_asks_for_is_one_of_what_is_known() {
        for (tls, method, path, version, forwarded, expected) in [
            (false, "GET", "/v1/policies", Version::HTTP_11, "", (Some(names::LIST), "GET", "http", "1.1")),
            (false, "POST", "/v1/policies/a:execute", Version::HTTP_2, "", (Some(names::EXECUTE), "POST", "http", "2")),
            (
                true,
                "QUERY",
                "/v1/policies/a/http/b",
                Version::HTTP_10,
                "",
                (Some(names::FACADE), "QUERY", "https", "1.0"),
            ),
            (true, "GET", "/", Version::HTTP_11, "http", (None, "GET", "http", "1.1")),
            (false, "get", "/a", Version::HTTP_11, "HTTPS, http", (None, "_OTHER", "https", "1.1")),
            (false, "PROPFIND", "/a", Version::HTTP_11, "wss", (None, "_OTHER", "http", "1.1")),
        ] {
            let requests = Requests::new(Metrics::new(true, None, 0).unwrap(), tls);
            let request = Request::builder().method(method).uri(path).version(version).header(&FORWARDED, forwarded);
            let Asked(at) = requests.asked(&request.body(()).unwrap());
            let kind = &requests.kinds[at];
            assert_eq!((kind.route, kind.method, kind.scheme, kind.version), expected, "{method} {path}");
        }
    }

    #[test]
    fn errors_are_the_servers_and_what_did_not_come_to_its_end() {
        for (status, ending, expected) in [
            (Some(200), Ending::Whole, ("200", "")),
            (Some(404), Ending::Whole, ("404", "")),
            (Some(503), Ending::Whole, ("503", "503")),
            (Some(503), Ending::Cancelled, ("503", "503")),
            (Some(200), Ending::Cancelled, ("200", "cancelled")),
            (Some(200), Ending::BrokenOff, ("200", "broken_off")),
            (None, Ending::Cancelled, ("", "cancelled")),
            (Some(299), Ending::Whole, ("200", "")),
            (Some(499), Ending::Whole, ("400", "")),
            (Some(599), Ending::Whole, ("500", "500")),
            (Some(999), Ending::Whole, ("500", "500")),
        ] {
            let requests = requests();
            requests.count(0, status, ending);
            let [(series, 1)] = &requests.shown()[..] else { panic!("one request is one series") };
            let of = |label: &str| {
                let value = series.split_once(&format!("{label}=\"")).map(|(_, rest)| rest.split('"').next().unwrap());
                value.unwrap_or_default()
            };
            assert_eq!((of("http_response_status_code"), of("error_type")), expected, "{status:?} {ending:?}");
        }
    }

    #[test]
    fn callers_alone_cannot_make_so_many_series_that_some_are_not_told_apart() {
        let requests = requests();
        let own: Vec<_> = Reason::ALL.iter().map(|reason| reason.http_status()).chain([200]).collect();
        let mut expected = 0;
        for (at, kind) in requests.kinds.iter().enumerate() {
            let (route, method) = (kind.route.unwrap_or_default(), kind.method);
            let statuses = match (route, method) {
                (names::FACADE, _) | (names::EXECUTE, "POST") | (names::LIST, "GET" | "HEAD") => &own[..],
                (names::EXECUTE | names::LIST, _) => &[405],
                _ => &[200, 404, 415],
            };
            for ending in [Ending::Whole, Ending::BrokenOff, Ending::Cancelled] {
                statuses.iter().for_each(|status| requests.count(at, Some(*status), ending));
                expected += statuses.len();
            }
            requests.count(at, None, Ending::Cancelled);
            expected += 1;
        }
        let shown = requests.shown();
        assert!(shown.len() < MOST_SERIES && shown.iter().all(|(series, _)| !series.contains("overflow")));
        assert_eq!(shown.iter().map(|(_, count)| count).sum::<usize>(), expected);
    }

    #[test]
    fn whatever_functions_answer_there_is_an_end_of_series_and_nothing_is_lost() {
        let requests = requests();
        let mut expected = 0;
        for at in 0..requests.kinds.len() {
            for status in 200..600 {
                for ending in [Ending::Whole, Ending::BrokenOff, Ending::Cancelled] {
                    requests.count(at, Some(status), ending);
                    expected += 1;
                }
            }
        }
        let shown = requests.shown();
        assert_eq!(shown.len(), MOST_SERIES + 1);
        assert_eq!(shown.iter().filter(|(series, _)| series.contains("otel_metric_overflow")).count(), 1);
        assert_eq!(shown.iter().map(|(_, count)| count).sum::<usize>(), expected);
    }
}
