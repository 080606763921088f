//! A request's body inside an event: text where the front door sends text, base64 elsewhere.

use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use serde::{Serialize, Serializer};

/// A body as an event holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// As it came.
    Text(&'a str),
    /// In base64, with padding.
    Base64(&'a [u8]),
}

impl<'a> Body<'a> {
    /// The body as text if the front door would send text and JSON can hold it; no byte is ever lost,
    /// so what is not UTF-8 is base64 whatever its type claims.
    pub(super) fn new(bytes: &'a [u8], text: bool) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(utf8) if text => Self::Text(utf8),
            _ => Self::Base64(bytes),
        }
    }

    pub(super) fn is_base64(&self) -> bool {
        matches!(self, Self::Base64(_))
    }

    /// About how many bytes it takes in JSON.
    pub(super) fn size(&self) -> usize {
        match self {
            // JSON inside JSON, the usual text, has its quotes escaped.
            Self::Text(text) => text.len() + text.len() / 4,
            Self::Base64(bytes) => bytes.len().div_ceil(3) * 4,
        }
    }
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Base64(bytes) => serializer.collect_str(&Base64Display::new(bytes, &STANDARD)),
        }
    }
}

/// Whether HTTP APIs, function URLs and ALB send a body of this content type as text. A body without
/// a type, and a form's, they do not.
///
/// ALB's documentation lists these types; HTTP APIs were reported to follow the same list.
pub(super) fn is_text(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    let text = essence.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"));
    text || ["application/json", "application/javascript", "application/xml"]
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn content_types_that_are_text() {
        for (content_type, text) in [
            (Some("text/plain"), true),
            (Some("TEXT/html; charset=utf-8"), true),
            (Some("application/json"), true),
            (Some("application/JSON;charset=utf-8"), true),
            (Some("application/javascript"), true),
            (Some("application/xml"), true),
            (Some("application/problem+json"), false),
            (Some("application/x-www-form-urlencoded"), false),
            (Some("multipart/form-data; boundary=x"), false),
            (Some("application/octet-stream"), false),
            (Some("image/png"), false),
            (Some("text"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(is_text(content_type), text, "{content_type:?}");
        }
    }

    #[test]
    fn no_byte_is_lost() {
        for (bytes, text, json, why) in [
            (&b"a\"\n\xc3\xa4"[..], true, "\"a\\\"\\nä\"", "text is escaped"),
            (b"abcd", false, "\"YWJjZA==\"", "base64 has its padding"),
            (b"\xff\xfe", true, "\"//4=\"", "not UTF-8 is base64 whatever its type"),
            (b"", true, "\"\"", "nothing"),
        ] {
            let body = Body::new(bytes, text);
            assert_eq!(serde_json::to_string(&body).unwrap(), json, "{why}");
            assert!(body.size() + 2 >= json.len().saturating_sub(4), "{why}");
        }
    }
}
