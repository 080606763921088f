//! An HTTP reply, and those that the service gives in a front door's or in its own name.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde::Serialize;

use super::Head;

/// An HTTP reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, from 200 to 599.
    pub status: u16,
    /// The headers in their order. Names and values are valid in HTTP, none is hop-by-hop, and
    /// `content-length`, computed from the body, is there unless the status allows no body.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Bytes,
}

impl Reply {
    /// The first header of this name; the name's case does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A reply that no function gave.
    pub(super) fn own(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: vec![
                ("content-type".to_owned(), content_type.to_owned()),
                ("content-length".to_owned(), body.len().to_string()),
            ],
            body,
        }
    }

    /// With the front door's marks, except where the function has set such a header itself.
    #[must_use]
    pub fn marked(mut self, marks: Marks) -> Self {
        for (name, value) in marks.0 {
            if self.header(name).is_none() {
                self = self.with(name, &value);
            }
        }
        self
    }

    /// A reply of a head and the body that belongs to it, which may be of any length.
    pub fn from_head(head: Head, body: Bytes) -> Self {
        Self { status: head.status, headers: head.headers, body }
    }

    /// The head alone: what is left when the body comes by itself.
    pub fn into_head(self) -> (Head, Bytes) {
        (Head { status: self.status, headers: self.headers }, self.body)
    }

    /// Adds a header unless its value is empty or none in HTTP: ids come from the gateway.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() && HeaderValue::from_bytes(value.as_bytes()).is_ok() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

/// What a front door writes into each answer so that the call can be found again: names, and ids of the call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(pub(super) Vec<(&'static str, String)>);

/// The answer where there is none of the function: a status that keeps its meaning for HTTP, and JSON
/// with the contract's reason, a message for the caller, and the call's id.
///
/// AWS's front doors hide Lambda's refusals behind 500 (API Gateway) or 502 (ALB); here a throttled
/// function is 429. `retry_after` is told in whole seconds, rounded up, at least one.
pub fn problem(status: u16, reason: &str, message: &str, request_id: &str, retry_after: Option<Duration>) -> Reply {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Problem<'a> {
        message: &'a str,
        reason: &'a str,
        request_id: &'a str,
    }
    let problem = Problem { message, reason, request_id };
    let body = serde_json::to_vec(&problem).expect("three strings are always JSON");
    let reply = Reply::own(status, "application/json", body);
    match retry_after {
        Some(wait) => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            reply.with("retry-after", &seconds.max(1).to_string())
        }
        None => reply,
    }
}

/// The answer where the function has not run, or not yet: Lambda's own status (202 for an event that is queued, 204 for
/// a dry run) and its id of the request, and no body.
pub fn accepted(status: u16, aws_request_id: &str) -> Reply {
    let headers = match status {
        204 => Vec::new(),
        _ => vec![("content-length".to_owned(), "0".to_owned())],
    };
    Reply { status, headers, body: Bytes::new() }.with("x-amzn-requestid", aws_request_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_has_an_id_and_no_body() {
        for (status, length) in [(202, Some("0")), (204, None)] {
            let reply = accepted(status, "aws-1");
            assert_eq!((reply.status, reply.body.len()), (status, 0));
            assert_eq!(reply.header("x-amzn-requestid"), Some("aws-1"));
            assert_eq!(reply.header("content-length"), length);
        }
    }

    #[test]
    fn problems_say_why_and_when_to_come_back() {
        for (wait, expected) in [
            (None, None),
            (Some(Duration::ZERO), Some("1")),
            (Some(Duration::from_millis(10)), Some("1")),
            (Some(Duration::from_millis(2001)), Some("3")),
            (Some(Duration::from_secs(30)), Some("30")),
        ] {
            let reply = problem(429, "FUNCTION_THROTTLED", "say \"please\"", "id-1", wait);
            assert_eq!(reply.header("Retry-After"), expected);
            assert_eq!(reply.header("content-type"), Some("application/json"));
            assert_eq!(reply.body, r#"{"message":"say \"please\"","reason":"FUNCTION_THROTTLED","requestId":"id-1"}"#);
            assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()));
        }
    }

    #[test]
    fn marks_stand_behind_what_the_function_says() {
        let marks = Marks(vec![("x-amzn-RequestId", "id-1".to_owned()), ("x-amz-apigw-id", "a\nb".to_owned())]);
        let reply = Reply::own(200, "text/plain", "x");
        assert_eq!(reply.clone().marked(marks.clone()).header("x-amzn-requestid"), Some("id-1"));
        assert_eq!(reply.clone().marked(marks.clone()).header("x-amz-apigw-id"), None, "none in HTTP");
        let own = reply.with("X-Amzn-RequestID", "mine").marked(marks);
        assert_eq!((own.header("x-amzn-requestid"), own.headers.len()), (Some("mine"), 3));
    }

    #[test]
    fn an_id_that_is_no_header_is_left_out() {
        let reply = Reply::own(502, "text/plain", "x").with("id", "a\r\nb: c").with("id", "");
        assert_eq!(reply.header("id"), None);
    }
}
