//! A query string as names and values.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::multimap::Multimap;

/// The parameters as API Gateway has them: decoded, a plus being a space.
pub(super) fn decoded(query: &str) -> Multimap<'_> {
    Multimap::exact(
        split(query).map(|(name, value)| (form_decode(name), form_decode(value.unwrap_or_default()))).collect(),
    )
}

/// The parameters as ALB and Envoy have them: as they came.
pub(super) fn undecoded(query: &str) -> Multimap<'_> {
    Multimap::exact(
        split(query).map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value.unwrap_or_default()))).collect(),
    )
}

/// The last value of a parameter, decoded.
pub(super) fn value(query: &str, name: &str) -> Option<String> {
    let values = split(query).filter(|(given, _)| form_decode(given) == name);
    values.last().map(|(_, value)| form_decode(value.unwrap_or_default()).into_owned())
}

/// Each parameter with its value, as it came; a value is missing where there is no equals sign.
/// Empty parameters (`a=1&&b=2`) are none.
pub(super) fn split(query: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (pair, None),
    })
}

/// Decodes `application/x-www-form-urlencoded` text. Escapes that are none stay as they are, and
/// bytes that are not UTF-8 become U+FFFD: JSON has no other place for them.
pub(super) fn form_decode(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    } else {
        path_decode(text)
    }
}

/// Decodes a path or a part of one, where a plus is a plus.
pub(super) fn path_decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::multimap::All, *};
    use serde_json::{json, to_value};

    #[test]
    fn queries_are_split_and_decoded() {
        for (query, expected, why) in [
            ("", json!({}), "no query"),
            ("a=1&a=2", json!({"a": ["1", "2"]}), "repeats in their order"),
            ("a", json!({"a": [""]}), "no value"),
            ("a=", json!({"a": [""]}), "an empty value"),
            ("=a", json!({"": ["a"]}), "an empty name"),
            ("&&a=1&", json!({"a": ["1"]}), "empty parameters"),
            ("a=b=c", json!({"a": ["b=c"]}), "only the first equals sign counts"),
            ("a=x+y&b=x%2By", json!({"a": ["x y"], "b": ["x+y"]}), "a plus is a space"),
            ("a%20b=%C3%A4", json!({"a b": ["ä"]}), "names and UTF-8"),
            ("a=%zz%4", json!({"a": ["%zz%4"]}), "escapes that are none"),
            ("a=%ff", json!({"a": ["\u{fffd}"]}), "not UTF-8"),
        ] {
            assert_eq!(to_value(All(&decoded(query))).unwrap(), expected, "{why}");
        }
    }

    #[test]
    fn undecoded_queries_stay_as_they_came() {
        let query = "a%20b=x+y&c=%2F&c";
        let expected = json!({"a%20b": ["x+y"], "c": ["%2F", ""]});
        assert_eq!(to_value(All(&undecoded(query))).unwrap(), expected);
    }

    #[test]
    fn a_plus_in_a_path_is_a_plus() {
        assert_eq!(path_decode("/a%20b+c%2Fd"), "/a b+c/d");
    }
}
