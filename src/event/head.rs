//! Status and headers of a function's response, which a streamed response has as well.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Malformed, Marks, Reply,
    envelope::{Text, text},
    fields::{connection_options, is_hop_by_hop},
};

/// Status and headers of a response whose body is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status, from 200 to 599.
    pub status: u16,
    /// The headers: valid in HTTP, none hop-by-hop, no `content-length`, no default added.
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }

    /// Whether this status allows no body (RFC 9110, 6.4.1).
    pub fn is_bodiless(&self) -> bool {
        matches!(self.status, 204 | 304)
    }

    /// With the front door's marks, except where the function has set such a header itself.
    #[must_use]
    pub fn marked(self, marks: Marks) -> Self {
        let Self { status, headers } = self;
        Reply { status, headers, body: Bytes::new() }.marked(marks).into_head().0
    }

    /// The whole reply: with the front door's type if the function named none, and the body's length.
    pub(super) fn reply(mut self, body: Bytes, content_type: &str) -> Reply {
        if self.is_bodiless() {
            return Reply { status: self.status, headers: self.headers, body: Bytes::new() };
        }
        let typed = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !typed {
            self.headers.push(("content-type".to_owned(), content_type.to_owned()));
        }
        self.headers.push(("content-length".to_owned(), body.len().to_string()));
        Reply { status: self.status, headers: self.headers, body }
    }
}

/// What a map of headers may have as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Text, or a number or bool as its JSON; null is no header.
    ScalarOrNull,
    /// Text, or a number or bool as its JSON.
    Scalar,
    /// Text only.
    Text,
}

/// Names with their values, in their order.
type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The headers of a response while its maps are merged in the format's order.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    pairs: Pairs<'a>,
    values: Values,
    remapped: &'static [&'static str],
}

impl<'a> Merge<'a> {
    pub(super) fn new(values: Values) -> Self {
        Self { pairs: Vec::new(), values, remapped: &[] }
    }

    /// Has headers of these names pass under another: the front door says them itself, or not at all.
    pub(super) fn remapping(mut self, names: &'static [&'static str]) -> Self {
        self.remapped = names;
        self
    }

    /// Adds `headers`: an object of scalars.
    pub(super) fn single_values(&mut self, json: Option<&'a RawValue>) -> Result<(), Malformed> {
        let wrong = Malformed::HeadersType("headers");
        let mut pairs = Vec::new();
        for (name, value) in entries(json, wrong)? {
            pairs.extend(self.scalar(value, wrong)?.map(|value| (name, value)));
        }
        self.extend(pairs);
        Ok(())
    }

    /// Adds `multiValueHeaders`: an object of lists of scalars.
    pub(super) fn multi_values(&mut self, json: Option<&'a RawValue>) -> Result<(), Malformed> {
        let pairs = self.listed(json, false)?;
        self.extend(pairs);
        Ok(())
    }

    /// Adds `multiValueHeaders` in the place of headers of the same names. As in Kong, a value may
    /// stand without a list.
    pub(super) fn replacing_values(&mut self, json: Option<&'a RawValue>) -> Result<(), Malformed> {
        let pairs = self.listed(json, true)?;
        let replaced: BTreeSet<String> = pairs.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        self.pairs.retain(|(name, _)| !replaced.contains(&name.to_ascii_lowercase()));
        self.pairs.extend(pairs);
        Ok(())
    }

    /// Adds a `set-cookie` for each of `cookies`, a list of strings.
    pub(super) fn cookies(&mut self, json: Option<&'a RawValue>) -> Result<(), Malformed> {
        for cookie in elements(json, Malformed::CookiesType)? {
            let cookie = text(cookie).ok_or(Malformed::CookiesType)?;
            self.pairs.push((Cow::Borrowed("set-cookie"), cookie));
        }
        Ok(())
    }

    /// Drops what would be a pseudo-header in HTTP/2.
    pub(super) fn without_pseudo_headers(&mut self) {
        self.pairs.retain(|(name, _)| !name.starts_with(':'));
    }

    fn listed(&self, json: Option<&'a RawValue>, bare: bool) -> Result<Pairs<'a>, Malformed> {
        let wrong = Malformed::HeadersType("multiValueHeaders");
        let mut pairs = Vec::new();
        for (name, values) in entries(json, wrong)? {
            let values =
                if bare && !values.get().starts_with('[') { vec![values] } else { elements(Some(values), wrong)? };
            for value in values {
                pairs.extend(self.scalar(value, wrong)?.map(|value| (name.clone(), value)));
            }
        }
        Ok(pairs)
    }

    /// A header's value: text, or a number or bool as its JSON, which is how API Gateway sends them.
    fn scalar(&self, json: &'a RawValue, wrong: Malformed) -> Result<Option<Cow<'a, str>>, Malformed> {
        match json.get().as_bytes().first() {
            Some(b'"') => text(json).map(Some).ok_or(wrong),
            Some(b'n') if self.values == Values::ScalarOrNull => Ok(None),
            Some(b't' | b'f' | b'-' | b'0'..=b'9') if self.values != Values::Text => {
                Ok(Some(Cow::Borrowed(json.get())))
            }
            _ => Err(wrong),
        }
    }

    /// Adds a second map's headers; what both maps say is said once.
    fn extend(&mut self, pairs: Pairs<'a>) {
        if self.pairs.is_empty() {
            self.pairs = pairs;
            return;
        }
        let key = |(name, value): &(Cow<'a, str>, Cow<'a, str>)| (name.to_ascii_lowercase(), value.clone());
        let said: BTreeSet<_> = self.pairs.iter().map(key).collect();
        self.pairs.extend(pairs.into_iter().filter(|pair| !said.contains(&key(pair))));
    }

    /// Checks every name and value and drops what concerns only the connection to the function, and the
    /// length, which is computed from the body.
    pub(super) fn into_head(self, status: u16) -> Result<Head, Malformed> {
        let named = connection_options(&self.pairs);
        let mut headers = Vec::with_capacity(self.pairs.len() + 2);
        for (name, value) in self.pairs {
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| Malformed::HeaderName)?;
            HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Malformed::HeaderValue)?;
            if self.remapped.iter().any(|remapped| name.eq_ignore_ascii_case(remapped)) {
                headers.push((format!("x-amzn-Remapped-{name}"), value.into_owned()));
                continue;
            }
            let dropped = is_hop_by_hop(&name)
                || name.eq_ignore_ascii_case("content-length")
                || (!named.is_empty() && named.contains(&name.to_ascii_lowercase()));
            if !dropped {
                headers.push((name.into_owned(), value.into_owned()));
            }
        }
        Ok(Head { status, headers })
    }
}

/// The entries of an object in their order, the last of a repeated key in the place of the first.
/// A missing or null object has none.
fn entries<'a>(json: Option<&'a RawValue>, wrong: Malformed) -> Result<Vec<(Cow<'a, str>, &'a RawValue)>, Malformed> {
    match json {
        None => Ok(Vec::new()),
        Some(json) if json.get() == "null" => Ok(Vec::new()),
        Some(json) => serde_json::from_str(json.get()).map(|Entries(entries)| entries).map_err(|_| wrong),
    }
}

/// The elements of a list; a missing or null one has none.
fn elements(json: Option<&RawValue>, wrong: Malformed) -> Result<Vec<&RawValue>, Malformed> {
    match json {
        None => Ok(Vec::new()),
        Some(json) if json.get() == "null" => Ok(Vec::new()),
        Some(json) => serde_json::from_str(json.get()).map_err(|_| wrong),
    }
}

struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        let mut places = BTreeMap::new();
        while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            let place = *places.entry(name.clone()).or_insert(entries.len());
            match entries.get_mut(place) {
                Some((_, before)) => *before = value,
                None => entries.push((name, value)),
            }
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_last_of_a_repeated_name_counts_and_names_in_another_case_are_others() {
        let mut merge = Merge::new(Values::ScalarOrNull);
        merge.single_values(Some(raw(r#"{"a":"1","b":"2","a":"3","A":"4"}"#))).unwrap();
        let head = merge.into_head(200).unwrap();
        let pairs: Vec<_> = head.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a", "3"), ("b", "2"), ("A", "4")]);
    }

    #[test]
    fn many_headers_take_no_square_of_their_number() {
        let many: String = (0..50_000).map(|n| format!(r#""x-{n}":"{n}","#)).collect();
        let json = format!("{{{many}\"last\":\"1\"}}");
        let lists = json.replace(":\"", ":[\"").replace("\",", "\"],").replace("\"}", "\"]}");
        let mut merge = Merge::new(Values::ScalarOrNull);
        merge.single_values(Some(raw(&json))).unwrap();
        merge.multi_values(Some(raw(&lists))).unwrap();
        assert_eq!(merge.into_head(200).unwrap().headers.len(), 50_001);
    }

    #[test]
    fn only_what_http_allows_is_a_header() {
        for (json, expected, why) in [
            (r#"{"a":"ü"}"#, Ok(1), "UTF-8 is opaque bytes to HTTP"),
            (r#"{"a":"\t"}"#, Ok(1), "a tab"),
            (r#"{"a":""}"#, Ok(1), "an empty value"),
            (r#"{"a":"b\r\nc"}"#, Err(Malformed::HeaderValue), "CR LF"),
            (r#"{"a":"b\nc"}"#, Err(Malformed::HeaderValue), "LF"),
            (r#"{"a":"\u0000"}"#, Err(Malformed::HeaderValue), "NUL"),
            (r#"{"a":"\u007f"}"#, Err(Malformed::HeaderValue), "DEL"),
            (r#"{"a b":"c"}"#, Err(Malformed::HeaderName), "a space in a name"),
            (r#"{"a:":"c"}"#, Err(Malformed::HeaderName), "a colon in a name"),
            (r#"{":status":"200"}"#, Err(Malformed::HeaderName), "a pseudo-header"),
            (r#"{"ä":"c"}"#, Err(Malformed::HeaderName), "a name that is not ASCII"),
            (r#"{"connection":"x\n"}"#, Err(Malformed::HeaderValue), "what is dropped is checked too"),
        ] {
            let mut merge = Merge::new(Values::ScalarOrNull);
            merge.single_values(Some(raw(json))).unwrap();
            assert_eq!(merge.into_head(200).map(|head| head.headers.len()), expected, "{why}");
        }
    }
}
