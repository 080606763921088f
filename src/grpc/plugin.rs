//! What Tyk and Apigee have in common: a gateway that hands over a call, and takes the answer as text, with one value a
//! header.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::deadline::Deadline;
use crate::{
    error::{Error, Kind},
    event,
    execute::{self, Engine, FunctionError, FunctionErrorKind, NO_POLICY, Reply, Request, answer},
    policy::{Caller, Unmatched},
    trace::Context,
};

const NOT_TEXT: &str =
    "the body of the function's answer is not UTF-8, and the gateway's protocol carries nothing else";

/// A call as the gateway hands it over.
#[derive(Debug)]
pub(super) struct Asked {
    /// The policy that the gateway names.
    pub policy: Option<String>,
    /// The call.
    pub call: event::Call,
}

/// A function's answer, and what is to be said beside it.
#[derive(Debug)]
pub(super) struct Answer {
    /// What the client is told.
    pub text: Text,
    /// The rest.
    pub reply: Reply,
}

/// An HTTP answer as text, with one value a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// The status.
    pub status: u16,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// Executes a call of its policy and writes its line. There is no answer if no policy fits and the gateway goes on.
///
/// # Errors
/// As the contract's table has them: there is no answer of the function.
pub(super) async fn execute(
    engine: &Engine,
    rpc: &'static str,
    caller: Caller,
    id: &str,
    asked: Result<Asked, Error>,
    deadline: Option<Deadline>,
    told: Option<Context>,
) -> Result<Option<Answer>, Error> {
    let headers = asked.iter().flat_map(|asked| &asked.call.headers);
    let trace = engine.trace(told, headers.map(|(name, value)| (name.as_str(), value.as_str())));
    let known = engine.known(&caller);
    let chosen = known.and(asked).and_then(|asked| Ok((choose(engine, &asked)?, asked.call)));
    let (policy, call) = match chosen {
        Ok((Some(policy), call)) => (policy, call),
        Ok((None, _)) => return Ok(None),
        Err(error) => {
            engine.line(rpc, NO_POLICY).of(id).by(&caller).within(trace).failed(&error);
            return Err(error);
        }
    };
    let line = engine.line(rpc, &policy).of(id).by(&caller).within(trace);
    let request = Request::http(caller, policy, call, deadline.map(|deadline| deadline.0)).told_by(&line);
    match engine.execute(request).await {
        Ok(mut reply) => {
            let text = Text::of(&mut reply, id);
            line.told(text.status).answered(reply.answered());
            Ok(Some(Answer { text, reply }))
        }
        Err(error) => {
            line.failed(&error);
            Err(error)
        }
    }
}

/// The policy that is named, else that of the first route that fits; none if the gateway goes on without.
fn choose(engine: &Engine, asked: &Asked) -> Result<Option<String>, Error> {
    if let Some(named) = &asked.policy {
        return Ok(Some(named.clone()));
    }
    let policies = engine.policies();
    match (policies.routes.find(&asked.call.authority, &asked.call.path), policies.unmatched) {
        (Some(policy), _) => Ok(Some(policy.as_str().to_owned())),
        (None, Unmatched::Pass) => Ok(None),
        (None, Unmatched::Deny) => Err(Error::new(Kind::PolicyNotFound, "no policy is named, and no route fits")),
    }
}

impl Text {
    /// Takes the answer out of a reply. A body that is no text would arrive as another one, so it is a failure of the
    /// function, as any output is that the way back to the client does not allow.
    fn of(reply: &mut Reply, request_id: &str) -> Self {
        let answer = answer::take(reply);
        match std::str::from_utf8(&answer.body) {
            Ok(body) => {
                let body = body.to_owned();
                Self::new(answer, body)
            }
            Err(_) => {
                reply.error = Some(FunctionError {
                    kind: FunctionErrorKind::Malformed,
                    error_type: String::new(),
                    message: NOT_TEXT.to_owned(),
                    payload: Bytes::new(),
                });
                Self::own(event::problem(502, "MALFORMED_OUTPUT", NOT_TEXT, request_id, None))
            }
        }
    }

    /// Why there is no answer of the function.
    pub(super) fn problem(error: &Error, request_id: &str) -> Self {
        Self::own(answer::problem(error, request_id))
    }

    /// The service's own answers are JSON, which is text.
    fn own(answer: event::Reply) -> Self {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        Self::new(answer, body)
    }

    /// Repeated headers are joined, but for `set-cookie`, which cannot be: its last value stays.
    fn new(answer: event::Reply, body: String) -> Self {
        let mut headers = BTreeMap::<String, String>::new();
        for (name, value) in answer.headers {
            let name = name.to_ascii_lowercase();
            match headers.get_mut(&name) {
                None => {
                    headers.insert(name, value);
                }
                Some(last) if name == "set-cookie" => {
                    tracing::warn!("an answer sets several cookies, and the gateway's protocol carries the last only");
                    *last = value;
                }
                Some(list) => {
                    list.push_str(", ");
                    list.push_str(&value);
                }
            }
        }
        Self { status: answer.status, headers, body }
    }
}

/// The first value of a header.
pub(super) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let value = headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    value.filter(|value| !value.is_empty())
}

/// The gateway's id of a call, or a new one.
pub(super) fn request_id(headers: &[(String, String)]) -> String {
    header(headers, "x-request-id").map_or_else(execute::request_id, str::to_owned)
}

/// The client's address, as the proxy before the gateway wrote it last.
pub(super) fn forwarded_for(headers: &[(String, String)]) -> Option<String> {
    let (_, list) = headers.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-for"))?;
    event::caller::forwarded(list)
}

/// Path and query of a URI, with or without a scheme and a host.
pub(super) fn path_and_query(uri: &str) -> (&str, &str) {
    let uri = uri.split('#').next().unwrap_or_default();
    let below = match uri.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
        _ => uri,
    };
    let (path, query) = below.split_once('?').unwrap_or((below, ""));
    (if path.is_empty() { "/" } else { path }, query)
}

/// A query of parameters, where the gateway gives these and not the query itself. Their order is lost.
pub(super) fn query<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let mut pairs: Vec<_> = parameters.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.sort_unstable();
    pairs.join("&")
}

/// The pairs of a map in an order that is always the same.
pub(super) fn sorted<V>(map: &HashMap<String, V>) -> Vec<(&String, &V)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_unstable_by_key(|(name, _)| *name);
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::Output;

    fn reply(headers: &[(&str, &str)], body: &'static [u8]) -> Reply {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Reply {
            status: 200,
            output: Output::Http(event::Reply { status: 201, headers, body: Bytes::from_static(body) }),
            error: None,
            version: String::new(),
            request_id: "aws-1".to_owned(),
            log: String::new(),
            timing: Default::default(),
            sizes: Default::default(),
            variables: Default::default(),
            room: None,
        }
    }

    #[test]
    fn a_header_has_one_value() {
        let headers = [
            ("X-List", "a"),
            ("x-list", "b, c"),
            ("Set-Cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
            ("set-cookie", "b=2"),
            ("content-type", "text/plain"),
        ];
        let text = Text::of(&mut reply(&headers, b"caf\xc3\xa9"), "r-1");
        let expected = [("content-type", "text/plain"), ("set-cookie", "b=2"), ("x-list", "a, b, c")];
        let expected: BTreeMap<_, _> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(text, Text { status: 201, headers: expected, body: "caf\u{e9}".to_owned() });
    }

    #[test]
    fn a_body_that_is_no_text_is_refused_and_not_bent() {
        let mut reply = reply(&[("content-type", "image/png")], b"\x89PNG");
        let text = Text::of(&mut reply, "r-1");
        assert_eq!((text.status, text.headers["content-type"].as_str()), (502, "application/json"));
        assert!(text.body.contains(r#""reason":"MALFORMED_OUTPUT","requestId":"r-1""#), "{}", text.body);
        assert_eq!(reply.error.map(|error| error.kind), Some(FunctionErrorKind::Malformed));
    }

    #[test]
    fn a_uri_is_taken_apart() {
        for (uri, path, query) in [
            ("/orders/7?a=1&b=%20", "/orders/7", "a=1&b=%20"),
            ("/a%2Fb", "/a%2Fb", ""),
            ("https://api.example.com:8443/orders?x=1", "/orders", "x=1"),
            ("https://api.example.com?x=1", "/", "x=1"),
            ("https://api.example.com", "/", ""),
            ("/to?next=https://example.com/x", "/to", "next=https://example.com/x"),
            ("//evil/orders", "//evil/orders", ""),
            ("/a?b?c#d", "/a", "b?c"),
            ("?x=1", "/", "x=1"),
            ("", "/", ""),
        ] {
            assert_eq!(path_and_query(uri), (path, query), "{uri}");
        }
    }

    #[test]
    fn parameters_make_a_query() {
        let query = query([("b", "x y&z"), ("a", "\u{e4}=")].into_iter());
        assert_eq!(query, "a=%C3%A4%3D&b=x%20y%26z");
    }
}
