//! What a policy says about its function's failures: the first rule that matches makes the reply.
//!
//! Kong's `unhandled_status: 418` is a rule for `unhandled` with status 418 and the payload; Gloo's 504 is
//! a rule for any failure with status 504.

use std::{collections::BTreeSet, error, fmt};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use regex_lite::Regex;
use serde_json::value::RawValue;

use super::{
    Reply,
    fault::{Fault, Kind},
    head::Head,
};

/// One rule: which failures it is for and what the caller gets.
#[derive(Clone, Debug)]
pub struct Rule {
    kinds: BTreeSet<Kind>,
    error_type: Option<Pattern>,
    message: Option<Regex>,
    status: u16,
    body: Body,
    headers: Vec<(String, String)>,
}

/// The body of a rule's reply.
#[derive(Clone, Debug)]
pub enum Body {
    /// This text, as `text/plain; charset=utf-8`.
    Text(String),
    /// This JSON, as `application/json`.
    Json(Box<RawValue>),
    /// The error as Lambda handed it on, as `application/json`. It may hold stack traces.
    Payload,
    /// What the format's front door says to a failed function, type included.
    Front,
}

/// A pattern for an error's whole type, in which `*` stands for any text: `Sandbox.*`.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Why a rule is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The status is not one of a final response.
    Status(u16),
    /// The header is none in HTTP, or is one that is computed.
    Header(String),
    /// The pattern is empty or too long.
    Pattern(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status} is not from 200 to 599"),
            Self::Header(name) => {
                write!(f, "header `{name}` is not valid, or is set from the body")
            }
            Self::Pattern(pattern) => write!(f, "error type `{pattern}` is empty or too long"),
        }
    }
}

impl error::Error for Error {}

impl Pattern {
    /// Reads a pattern of at most 256 characters.
    pub fn new(pattern: &str) -> Result<Self, Error> {
        let wrong = || Error::Pattern(pattern.chars().take(64).collect());
        if pattern.is_empty() || pattern.chars().count() > 256 {
            return Err(wrong());
        }
        let parts: Vec<_> = pattern.split('*').map(regex_lite::escape).collect();
        let regex = Regex::new(&format!("^(?s:{})$", parts.join(".*"))).map_err(|_| wrong())?;
        Ok(Self(regex))
    }

    /// Whether the pattern is one of this type.
    pub fn matches(&self, error_type: &str) -> bool {
        self.0.is_match(error_type)
    }
}

impl Rule {
    /// A rule for failures of these kinds, or of any kind if there are none, that answers with this
    /// status, from 200 to 599, and the front door's body.
    pub fn new(kinds: impl IntoIterator<Item = Kind>, status: u16) -> Result<Self, Error> {
        if !(200..600).contains(&status) {
            return Err(Error::Status(status));
        }
        Ok(Self {
            kinds: kinds.into_iter().collect(),
            error_type: None,
            message: None,
            status,
            body: Body::Front,
            headers: Vec::new(),
        })
    }

    /// Only for errors of such a type.
    #[must_use]
    pub fn error_type(mut self, pattern: Pattern) -> Self {
        self.error_type = Some(pattern);
        self
    }

    /// Only for errors in whose message the expression is found.
    #[must_use]
    pub fn message(mut self, expression: Regex) -> Self {
        self.message = Some(expression);
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// With one more header. `content-type` overrides the body's.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let valid =
            HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_bytes(value.as_bytes()).is_ok();
        if !valid || name.eq_ignore_ascii_case("content-length") || super::fields::is_hop_by_hop(name) {
            return Err(Error::Header(name.to_owned()));
        }
        self.headers.push((name.to_owned(), value.to_owned()));
        Ok(self)
    }

    fn matches(&self, fault: &Fault) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&fault.kind))
            && self.error_type.as_ref().is_none_or(|pattern| pattern.matches(&fault.error_type))
            && self.message.as_ref().is_none_or(|expression| expression.is_match(&fault.message))
    }

    fn reply(&self, payload: &Bytes, front: Reply) -> Reply {
        let head = Head { status: self.status, headers: self.headers.clone() };
        match &self.body {
            Body::Text(text) => head.reply(Bytes::from(text.clone()), "text/plain; charset=utf-8"),
            Body::Json(json) => head.reply(Bytes::from(json.get().to_owned()), "application/json"),
            Body::Payload => head.reply(payload.clone(), "application/json"),
            Body::Front => {
                let content_type = front.header("content-type").unwrap_or("application/json").to_owned();
                let mut head = head;
                // The front door's own headers stay, but for those that the rule sets and those of the body.
                head.headers.extend(front.headers.into_iter().filter(|(name, _)| {
                    let set = |(given, _): &(String, String)| given.eq_ignore_ascii_case(name);
                    !name.eq_ignore_ascii_case("content-type")
                        && !name.eq_ignore_ascii_case("content-length")
                        && !self.headers.iter().any(set)
                }));
                head.reply(front.body, &content_type)
            }
        }
    }
}

/// The reply of the first rule that matches. `payload` is the error as Lambda handed it on, `front` gives
/// what the format's front door would say. `None` if no rule matches: the front door speaks.
pub fn apply(rules: &[Rule], fault: &Fault, payload: &Bytes, front: impl FnOnce() -> Reply) -> Option<Reply> {
    let rule = rules.iter().find(|rule| rule.matches(fault))?;
    Some(rule.reply(payload, front()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{
        super::{Failure, Format},
        *,
    };

    const PAYLOAD: &str = r#"{"errorMessage":"boom at 12","errorType":"App.NotFound"}"#;

    fn run(rules: &[Rule], header: &str, payload: &'static str) -> Option<Reply> {
        let fault = Fault::new(header, payload.as_bytes());
        apply(rules, &fault, &Bytes::from_static(payload.as_bytes()), || {
            Format::RestApi.refusal(Failure::Function, "id-1")
        })
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = [
            Rule::new([Kind::Timeout, Kind::OutOfMemory], 503).unwrap(),
            Rule::new([], 404).unwrap().error_type(Pattern::new("App.*").unwrap()),
            Rule::new([], 409).unwrap().message(Regex::new(r"boom at \d+").unwrap()),
            Rule::new([Kind::Unhandled], 418).unwrap(),
        ];
        for (header, payload, status, why) in [
            ("Unhandled", r#"{"errorType":"Sandbox.Timedout"}"#, Some(503), "by kind"),
            ("Unhandled", PAYLOAD, Some(404), "by type, before the message"),
            ("Handled", r#"{"errorMessage":"a boom at 7 there","errorType":"X"}"#, Some(409), "by message"),
            ("Unhandled", r#"{"errorMessage":"other","errorType":"MyApp.X"}"#, Some(418), "the rest of the unhandled"),
            ("Handled", r#"{"errorMessage":"other"}"#, None, "nothing"),
        ] {
            assert_eq!(run(&rules, header, payload).map(|reply| reply.status), status, "{why}");
        }
        assert_eq!(run(&[], "Unhandled", PAYLOAD), None);
    }

    #[test]
    fn each_body() {
        let rule = || Rule::new([], 500).unwrap().header("X-Why", "fault").unwrap();
        let json = serde_json::from_str(r#"{"a": 1.0}"#).unwrap();
        for (rule, content_type, body, kind) in [
            (rule().body(Body::Text("sorry".into())), "text/plain; charset=utf-8", "sorry", None),
            (rule().body(Body::Json(json)), "application/json", r#"{"a": 1.0}"#, None),
            (rule().body(Body::Payload), "application/json", PAYLOAD, None),
            (
                rule(),
                "application/json",
                r#"{"message": "Internal server error"}"#,
                Some("InternalServerErrorException"),
            ),
        ] {
            let reply = run(&[rule], "Unhandled", PAYLOAD).unwrap();
            assert_eq!((reply.status, &reply.body[..]), (500, body.as_bytes()));
            assert_eq!(reply.header("content-type"), Some(content_type));
            assert_eq!(reply.header("content-length"), Some(&*body.len().to_string()));
            assert_eq!(reply.header("x-why"), Some("fault"));
            assert_eq!(reply.header("x-amzn-errortype"), kind);
        }
    }

    #[test]
    fn a_rule_s_headers_stand_before_the_front_door_s() {
        let rule = Rule::new([], 500).unwrap().header("content-type", "text/html").unwrap();
        let rule = rule.header("X-Amzn-ErrorType", "Mine").unwrap();
        let reply = run(&[rule], "Unhandled", PAYLOAD).unwrap();
        let named = |name: &str| reply.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
        assert_eq!((named("content-type"), named("x-amzn-errortype"), named("content-length")), (1, 1, 1));
        assert_eq!(reply.header("content-type"), Some("text/html"));
        assert_eq!(reply.header("x-amzn-errortype"), Some("Mine"));
    }

    #[test]
    fn patterns_are_for_the_whole_type() {
        for (pattern, error_type, matches) in [
            ("ValueError", "ValueError", true),
            ("ValueError", "MyValueError", false),
            ("Value*", "ValueError", true),
            ("*Error", "ValueError", true),
            ("*", "", true),
            ("a.b", "axb", false),
            ("a*c*e", "abcde", true),
            ("a*", "a\nb", true),
            ("[a]", "[a]", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(error_type), matches, "{pattern} {error_type:?}");
        }
    }

    #[test]
    fn rules_that_are_none() {
        for status in [0, 100, 199, 600, u16::MAX] {
            assert_eq!(Rule::new([], status).err(), Some(Error::Status(status)));
        }
        let rule = || Rule::new([], 500).unwrap();
        for (name, value) in [("a b", "c"), ("a", "b\r\nc"), ("Content-Length", "1"), ("Connection", "x")] {
            assert_eq!(rule().header(name, value).err(), Some(Error::Header(name.into())));
        }
        assert!(Pattern::new("").is_err());
        assert!(Pattern::new(&"a".repeat(257)).is_err());
    }
}
