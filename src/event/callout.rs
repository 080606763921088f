//! What a function's output changes of a call that goes on to its upstream, instead of being answered.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::{Malformed, envelope::text, fields::is_hop_by_hop, picks::Pointer};

/// When the function is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Before the upstream is: its result changes the request.
    #[default]
    Request,
    /// When the upstream has answered: its result changes the response.
    Response,
}

/// Where in the function's output stands what is to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callout {
    /// When the function is called.
    pub phase: Phase,
    headers: Vec<(String, Pointer)>,
    remove_headers: Vec<String>,
    /// The path and query of the request.
    pub path: Option<Pointer>,
    /// The body.
    pub body: Option<Pointer>,
    metadata: Vec<(String, Pointer)>,
}

/// What is to be changed. What the output does not say stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Headers that take the place of those of their names.
    pub headers: Vec<(String, String)>,
    /// Headers that go.
    pub remove_headers: Vec<String>,
    /// Another path and query.
    pub path: Option<String>,
    /// Another body.
    pub body: Option<Bytes>,
    /// Names with their JSON.
    pub metadata: Vec<(String, String)>,
}

/// A header that cannot be set or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderError(String);

impl Phase {
    /// The phases under their names in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("request", Self::Request), ("response", Self::Response)];
}

impl Callout {
    /// A callout that changes nothing yet.
    pub fn new(phase: Phase) -> Self {
        Self { phase, ..Self::default() }
    }

    /// Sets a header to what stands at a place.
    ///
    /// # Errors
    /// If HTTP or Envoy has no such header to be set: one that routes, frames, or belongs to the connection.
    pub fn header(&mut self, name: &str, pointer: Pointer) -> Result<(), HeaderError> {
        self.headers.push((changeable(name)?, pointer));
        Ok(())
    }

    /// Removes a header.
    ///
    /// # Errors
    /// As for [`Self::header`].
    pub fn remove_header(&mut self, name: &str) -> Result<(), HeaderError> {
        self.remove_headers.push(changeable(name)?);
        Ok(())
    }

    /// Gives what stands at a place to the gateway under a name.
    pub fn metadata(&mut self, name: &str, pointer: Pointer) {
        self.metadata.push((name.to_owned(), pointer));
    }

    /// The changes that an output asks for.
    ///
    /// # Errors
    /// If the output is not JSON, or what it gives for a header or the path is none.
    pub fn apply(&self, output: &[u8]) -> Result<Changes, Malformed> {
        let mut changes = Changes { remove_headers: self.remove_headers.clone(), ..Changes::default() };
        if self.headers.is_empty() && self.path.is_none() && self.body.is_none() && self.metadata.is_empty() {
            return Ok(changes);
        }
        let document: &RawValue = serde_json::from_slice(output).map_err(|_| Malformed::NotJson)?;
        // Null is as good as nothing.
        let find = |pointer: &Pointer| pointer.find(document).filter(|json| json.get() != "null");
        for (name, pointer) in &self.headers {
            if let Some(json) = find(pointer) {
                let value = plain(json);
                HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Malformed::HeaderValue)?;
                changes.headers.push((name.clone(), value));
            }
        }
        if let Some(json) = self.path.as_ref().and_then(find) {
            let path = text(json).ok_or(Malformed::Path)?;
            let parsed = path.parse::<http::uri::PathAndQuery>();
            if !path.starts_with('/') || path.contains('#') || parsed.is_err() {
                return Err(Malformed::Path);
            }
            changes.path = Some(path.into_owned());
        }
        changes.body = self.body.as_ref().and_then(find).map(|json| Bytes::from(plain(json)));
        for (name, pointer) in &self.metadata {
            changes.metadata.extend(find(pointer).map(|json| (name.clone(), json.get().to_owned())));
        }
        Ok(changes)
    }
}

/// Text as it is, anything else as its JSON.
fn plain(json: &RawValue) -> String {
    text(json).map_or_else(|| json.get().to_owned(), std::borrow::Cow::into_owned)
}

/// A header that a function may change, in lower case.
///
/// # Errors
/// If HTTP or Envoy has no such header to be set: one that routes, frames, or belongs to the connection.
pub fn changeable(name: &str) -> Result<String, HeaderError> {
    let lower = name.to_ascii_lowercase();
    let framing = matches!(lower.as_str(), "host" | "content-length") || lower.starts_with("x-envoy-");
    if HeaderName::from_bytes(name.as_bytes()).is_err() || framing || is_hop_by_hop(&lower) {
        return Err(HeaderError(name.to_owned()));
    }
    Ok(lower)
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no header that a function can change: it routes, frames, or belongs to the connection",
            self.0
        )
    }
}

impl std::error::Error for HeaderError {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn callout() -> Callout {
        let mut callout = Callout::new(Phase::Request);
        callout.header("X-Customer", "/customer/id".parse().unwrap()).unwrap();
        callout.remove_header("Authorization").unwrap();
        callout.path = Some("/path".parse().unwrap());
        callout.body = Some("/body".parse().unwrap());
        callout.metadata("tier", "/customer".parse().unwrap());
        callout
    }

    #[test]
    fn what_the_output_says_is_changed_and_the_rest_stays() {
        let changes =
            callout().apply(br#"{"customer": {"id": 7}, "path": "/v2/x?a=b", "body": {"a": "\u00e9"}}"#).unwrap();
        assert_eq!(changes.headers, [("x-customer".into(), "7".into())]);
        assert_eq!(changes.remove_headers, ["authorization"]);
        assert_eq!(changes.path.as_deref(), Some("/v2/x?a=b"));
        assert_eq!(changes.body.as_deref(), Some(&br#"{"a": "\u00e9"}"#[..]));
        assert_eq!(changes.metadata, [("tier".into(), r#"{"id": 7}"#.into())]);

        let changes = callout().apply(br#"{"body": "text", "path": null}"#).unwrap();
        assert_eq!(changes.body.as_deref(), Some(&b"text"[..]));
        assert_eq!((changes.path, changes.headers.len(), changes.metadata.len()), (None, 0, 0));
        assert_eq!(changes.remove_headers, ["authorization"]);
    }

    #[test]
    fn what_http_forbids_is_malformed() {
        for (output, why) in [
            (&br#"{"customer": {"id": "a\r\nb"}}"#[..], Malformed::HeaderValue),
            (br#"{"path": "v2"}"#, Malformed::Path),
            (br#"{"path": "/a b"}"#, Malformed::Path),
            (br#"{"path": "/a#b"}"#, Malformed::Path),
            (br#"{"path": 1}"#, Malformed::Path),
            (b"not json", Malformed::NotJson),
        ] {
            assert_eq!(callout().apply(output), Err(why), "{}", String::from_utf8_lossy(output));
        }
        assert!(Callout::default().apply(b"not json").is_ok(), "what asks for nothing reads nothing");
    }

    #[test]
    fn headers_that_route_or_frame_cannot_be_changed() {
        for name in ["host", "Content-Length", ":path", "transfer-encoding", "connection", "x-envoy-a", "a b", ""] {
            assert!(Callout::default().header(name, "".parse().unwrap()).is_err(), "{name}");
        }
    }
}
