//! A function's output, taken apart without being copied.
//!
//! Only the outermost object is read; its values stay slices of the output's text until a format asks
//! for them. Repeated keys count once, the last one; nesting costs no stack.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::Malformed;

/// An output that is JSON.
#[derive(Debug)]
pub(super) enum Output<'a> {
    /// An object, perhaps a response.
    Object(Envelope<'a>),
    /// A string, without its quotes.
    Text(Cow<'a, str>),
    /// Anything else.
    Other,
}

/// The values of a response, each as its JSON.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) status: Option<&'a RawValue>,
    pub(super) headers: Option<&'a RawValue>,
    pub(super) multi_value_headers: Option<&'a RawValue>,
    pub(super) cookies: Option<&'a RawValue>,
    pub(super) body: Option<&'a RawValue>,
    pub(super) is_base64_encoded: Option<&'a RawValue>,
    /// Whether there is `errorMessage`, as in what Lambda says when a function fails.
    pub(super) error_message: bool,
    /// Whether there are other keys.
    pub(super) unknown: bool,
}

/// A string that stays a slice of its JSON where it has no escapes.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'a> Output<'a> {
    /// Reads an output whose keys are in camel case, as everywhere on AWS.
    pub(super) fn read(output: &'a [u8]) -> Result<Self, Malformed> {
        Self::parse(output, Reader { snake_case: false })
    }

    /// Reads an output that is proto3 JSON, whose keys may be in snake case as well.
    pub(super) fn read_proto(output: &'a [u8]) -> Result<Self, Malformed> {
        Self::parse(output, Reader { snake_case: true })
    }

    fn parse(output: &'a [u8], reader: Reader) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(output).map_err(|_| Malformed::NotUtf8)?;
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed = json.deserialize_any(reader).map_err(|_| Malformed::NotJson)?;
        json.end().map_err(|_| Malformed::NotJson)?;
        Ok(parsed)
    }

    pub(super) fn object(self) -> Result<Envelope<'a>, Malformed> {
        match self {
            Self::Object(envelope) => Ok(envelope),
            Self::Text(_) | Self::Other => Err(Malformed::NotObject),
        }
    }
}

impl Envelope<'_> {
    /// The status, which must be there: a whole number from 200 to 599, perhaps in quotes (REST APIs
    /// and Kong take those). An interim status is no answer, and nonsense never becomes 200.
    pub(super) fn status(&self) -> Result<u16, Malformed> {
        let json = self.status.ok_or(Malformed::StatusMissing)?.get();
        let number = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(json);
        if !number.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(Malformed::StatusInvalid);
        }
        let status = match number.parse::<u16>() {
            Ok(status) => status,
            // Some languages know only floating-point numbers: 200.0 is 200, 200.5 is nothing.
            Err(_) => match number.parse::<f64>() {
                Ok(float) if float.fract() == 0.0 && (200.0..600.0).contains(&float) => float as u16,
                _ => return Err(Malformed::StatusInvalid),
            },
        };
        if (200..600).contains(&status) { Ok(status) } else { Err(Malformed::StatusInvalid) }
    }

    /// Whether the body is base64; null is no.
    pub(super) fn is_base64(&self) -> Result<bool, Malformed> {
        match self.is_base64_encoded.map(RawValue::get) {
            None | Some("null" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Malformed::Base64Flag),
        }
    }
}

/// Whether the value is there and null.
pub(super) fn is_null(json: Option<&RawValue>) -> bool {
    json.is_some_and(|json| json.get() == "null")
}

/// A JSON string's text: a slice of it if it has no escapes. `None` if it is no string, or none that
/// UTF-8 can hold (half of a surrogate pair).
pub(super) fn text(json: &RawValue) -> Option<Cow<'_, str>> {
    let inner = json.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { unescape(inner).map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Resolves the escapes of a JSON string that has been read before, so that they are known to be well
/// formed. A body that is JSON itself has one at every quote: this takes about half the time of parsing
/// it again, and copies once.
fn unescape(escaped: &str) -> Option<String> {
    let mut text = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        text.extend_from_slice(plain);
        let kind = *escape.get(1)?;
        let byte = match kind {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'u' => {
                let (character, length) = unicode(escape)?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = escape.get(length..)?;
                continue;
            }
            quoted => quoted,
        };
        text.push(byte);
        rest = escape.get(2..)?;
    }
    text.extend_from_slice(rest);
    String::from_utf8(text).ok()
}

/// The character of `\uXXXX` or of the surrogate pair `\uXXXX\uXXXX`, and how long its escape is.
fn unicode(escape: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(escape.get(at..at + 4)?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(2)?;
    if let Some(character) = char::from_u32(first.into()) {
        return Some((character, 6));
    }
    let second = (escape.get(6..8)? == b"\\u").then(|| unit(8))??;
    let pair = char::decode_utf16([first, second]).next()?.ok()?;
    Some((pair, 12))
}

/// The top level of an output.
struct Reader {
    snake_case: bool,
}

impl<'de> Visitor<'de> for Reader {
    type Value = Output<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(Text(key)) = map.next_key()? {
            let field = match &*key {
                "statusCode" => &mut envelope.status,
                "headers" => &mut envelope.headers,
                "multiValueHeaders" => &mut envelope.multi_value_headers,
                "cookies" => &mut envelope.cookies,
                "body" => &mut envelope.body,
                "isBase64Encoded" => &mut envelope.is_base64_encoded,
                "status_code" if self.snake_case => &mut envelope.status,
                "is_base64_encoded" if self.snake_case => &mut envelope.is_base64_encoded,
                _ => {
                    envelope.unknown = true;
                    envelope.error_message |= key == "errorMessage";
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(Output::Object(envelope))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Output::Other)
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Output::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Output::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Output::Other)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Output::Other)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Output::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Output::Other)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Output::Other)
    }
}

/// A slice of `output` that shares its memory if `text` is a part of it.
pub(super) fn share(output: &Bytes, text: Cow<'_, str>) -> Bytes {
    match text {
        Cow::Borrowed("") => Bytes::new(),
        Cow::Borrowed(part) => output.slice_ref(part.as_bytes()),
        Cow::Owned(text) => Bytes::from(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    fn status(json: &str) -> Result<u16, Malformed> {
        let output = format!(r#"{{"statusCode":{json}}}"#);
        Output::read(output.as_bytes()).and_then(Output::object)?.status()
    }

    #[test]
    fn a_status_is_a_whole_number() {
        for json in ["200", "\"200\"", "200.0", "2e2", "\"200.0\""] {
            assert_eq!(status(json), Ok(200), "{json}");
        }
        assert_eq!(status("599"), Ok(599));
        for json in [
            "0",
            "100",
            "101",
            "199",
            "600",
            "99999999999",
            "-200",
            "200.5",
            "\"\"",
            "\" 200\"",
            "\"+200\"",
            "\"2 00\"",
            "null",
            "true",
            "[200]",
            "{}",
            "1e400",
            "\"NaN\"",
            "\"inf\"",
            "\"\\u0032\"",
        ] {
            assert_eq!(status(json), Err(Malformed::StatusInvalid), "{json}");
        }
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        let output = br#"{"body":"1","statusCode":200,"body":"2"}"#;
        let envelope = Output::read(output).unwrap().object().unwrap();
        assert_eq!(text(envelope.body.unwrap()).unwrap(), "2");
    }

    #[test]
    fn keys_may_be_escaped_and_snake_case_is_proto_s() {
        let escaped = br#"{"status\u0043ode":200}"#;
        assert_eq!(Output::read(escaped).unwrap().object().unwrap().status(), Ok(200));
        let snake = br#"{"status_code":200}"#;
        assert!(Output::read(snake).unwrap().object().unwrap().unknown);
        assert_eq!(Output::read_proto(snake).unwrap().object().unwrap().status(), Ok(200));
    }

    proptest! {
        #[test]
        fn escapes_are_read_as_serde_json_reads_them(
            parts in vec(prop_oneof![
                "\\PC{0,3}".prop_map(|text| serde_json::to_string(&text).unwrap().trim_matches('"').to_owned()),
                select(vec!["\\n", "\\t", "\\r", "\\b", "\\f", "\\/", "\\\\", "\\\"", "\\u0041", "\\u00e4", "\\ud83d\\ude00",
                    "\\ud83d", "\\ude00", "\\uD83D\\n", "\\u0000"]).prop_map(str::to_owned),
            ], 0..6),
        ) {
            let json = format!("\"{}\"", parts.concat());
            if let Ok(raw) = serde_json::from_str::<&RawValue>(&json) {
                prop_assert_eq!(text(raw).map(Cow::into_owned), serde_json::from_str::<String>(&json).ok());
            }
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let depth = 1_000_000;
        for output in [
            format!(r#"{{"x":{}{},"statusCode":200}}"#, "[".repeat(depth), "]".repeat(depth)),
            format!(r#"{{"body":{}1{},"statusCode":200}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth)),
        ] {
            assert_eq!(Output::read(output.as_bytes()).unwrap().object().unwrap().status(), Ok(200));
        }
        let list = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(matches!(Output::read(list.as_bytes()), Ok(Output::Other)));
    }

    #[test]
    fn text_without_escapes_is_not_copied() {
        let output = Bytes::from(r#"{"body":"plain"}"#.to_owned());
        let envelope = Output::read(&output).unwrap().object().unwrap();
        let body = share(&output, text(envelope.body.unwrap()).unwrap());
        assert_eq!(body.as_ptr(), output[9..].as_ptr());
        assert_eq!(body, "plain");
    }
}
