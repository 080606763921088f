//! Values that a policy picks out of a function's output for the gateway, named by JSON pointers.

use std::{collections::BTreeMap, error, fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::envelope::Text;

/// A JSON pointer (RFC 6901): empty for the whole document, otherwise names and indices after slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// Names with the places of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picks(Vec<(String, Pointer)>);

/// Why a text is no JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It does not begin with a slash.
    Start(String),
    /// A tilde stands for nothing: only `~0` and `~1` do.
    Tilde(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(pointer) => write!(f, "JSON pointer `{pointer}` does not begin with `/`"),
            Self::Tilde(pointer) => write!(f, "JSON pointer `{pointer}` has a `~` that is neither `~0` nor `~1`"),
        }
    }
}

impl error::Error for Error {}

impl FromStr for Pointer {
    type Err = Error;

    fn from_str(pointer: &str) -> Result<Self, Error> {
        let mut tokens = pointer.split('/');
        if tokens.next() != Some("") {
            return Err(Error::Start(pointer.to_owned()));
        }
        tokens
            .map(|token| unescape(token).ok_or_else(|| Error::Tilde(pointer.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A pointer's token with `~1` as a slash and `~0` as a tilde, in one pass: `~01` is `~1`.
fn unescape(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some(rest) = part.strip_prefix('0') {
            text.push('~');
            text.push_str(rest);
        } else {
            let rest = part.strip_prefix('1')?;
            text.push('/');
            text.push_str(rest);
        }
    }
    Some(text)
}

impl Pointer {
    /// The JSON at that place, as it stands in the document. `None` if there is no such place.
    pub fn find<'a>(&self, document: &'a RawValue) -> Option<&'a RawValue> {
        self.0.iter().try_fold(document, |json, token| {
            let mut reader = serde_json::Deserializer::from_str(json.get());
            match json.get().as_bytes().first() {
                Some(b'{') => reader.deserialize_map(Step(token)).ok().flatten(),
                Some(b'[') => reader.deserialize_seq(Step(token)).ok().flatten(),
                _ => None,
            }
        })
    }
}

/// One step into an object or a list.
struct Step<'t>(&'t str);

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list")
    }

    /// The last of a repeated name counts, as for every reader of such objects on AWS.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = map.next_key()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let digits = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = self.0.len() > 1 && self.0.starts_with('0');
        let index = self.0.parse::<usize>().ok().filter(|_| digits && !leading_zero);
        let mut place = 0;
        let mut found = None;
        loop {
            let wanted = index == Some(place);
            match list.next_element_seed(Element { wanted })? {
                None => return Ok(found),
                Some(element) => found = element.or(found),
            }
            place += 1;
        }
    }
}

/// An element that is read only if it is wanted.
struct Element {
    wanted: bool,
}

impl<'de> DeserializeSeed<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.wanted {
            <&RawValue>::deserialize(deserializer).map(Some)
        } else {
            IgnoredAny::deserialize(deserializer).map(|_| None)
        }
    }
}

impl Picks {
    /// Reads names and JSON pointers. Of a repeated name the last one counts.
    pub fn new<N, P>(picks: impl IntoIterator<Item = (N, P)>) -> Result<Self, Error>
    where
        N: Into<String>,
        P: AsRef<str>,
    {
        picks
            .into_iter()
            .map(|(name, pointer)| Ok((name.into(), pointer.as_ref().parse()?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether nothing is picked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The picked values of a function's output, each as its JSON text, exactly as the function wrote it.
    /// What is not there is left out; an output that is not JSON has nothing.
    pub fn apply(&self, output: &[u8]) -> BTreeMap<String, String> {
        if self.is_empty() {
            return BTreeMap::new();
        }
        let Ok(document) = serde_json::from_slice::<&RawValue>(output) else {
            return BTreeMap::new();
        };
        self.0
            .iter()
            .filter_map(|(name, pointer)| {
                let json = pointer.find(document)?.get();
                Some((name.clone(), json.to_owned()))
            })
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// The document of RFC 6901, section 5.
    const RFC: &str = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}"#;

    fn pick(document: &str, pointer: &str) -> Option<String> {
        Picks::new([("it", pointer)]).unwrap().apply(document.as_bytes()).remove("it")
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (pointer, expected) in [
            ("", RFC),
            ("/foo", r#"["bar", "baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            assert_eq!(pick(RFC, pointer).as_deref(), Some(expected), "{pointer}");
        }
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        for pointer in ["/nope", "/foo/2", "/foo/-", "/foo/00", "/foo/+1", "/foo/0/x", "/foo/", "/a", "//"] {
            assert_eq!(pick(RFC, pointer), None, "{pointer}");
        }
        assert_eq!(pick("not JSON", ""), None);
        assert_eq!(pick("\"text\"", "/a"), None);
    }

    #[test]
    fn values_are_as_the_function_wrote_them() {
        let document = r#"{"n": 1.50, "big": 123456789012345678901234567890, "a": 1, "a": 2, "esc\u0061pe": null}"#;
        for (pointer, expected) in
            [("/n", "1.50"), ("/big", "123456789012345678901234567890"), ("/a", "2"), ("/escape", "null")]
        {
            assert_eq!(pick(document, pointer).as_deref(), Some(expected), "{pointer}");
        }
    }

    #[test]
    fn pointers_that_are_none() {
        for (pointer, error) in [
            ("a", Error::Start("a".into())),
            ("a/b", Error::Start("a/b".into())),
            ("#/a", Error::Start("#/a".into())),
            ("/a~", Error::Tilde("/a~".into())),
            ("/~2", Error::Tilde("/~2".into())),
        ] {
            assert_eq!(pointer.parse::<Pointer>(), Err(error));
        }
        assert_eq!("/~01".parse(), Ok(Pointer(vec!["~1".into()])));
    }

    proptest! {
        #[test]
        fn finds_what_serde_json_finds(keys in proptest::collection::vec("[a~/0-2]{0,2}", 1..4), pointer in "(/[a~0-2]{0,3}){0,3}") {
            let mut document = Value::from(7);
            for (index, key) in keys.iter().enumerate() {
                document = if index % 2 == 0 { serde_json::json!({ key: document }) } else { serde_json::json!([0, document]) };
            }
            if let Ok(parsed) = pointer.parse::<Pointer>() {
                let text = document.to_string();
                let found = parsed.find(serde_json::from_str(&text).unwrap()).map(|json| json.get().to_owned());
                prop_assert_eq!(found, document.pointer(&pointer).map(Value::to_string));
            }
        }
    }
}
