//! Names with one or more values, and the ways in which events spell them.

use std::{borrow::Cow, cmp::Ordering, fmt};

use serde::{Serialize, Serializer};

/// A name with one of its values.
type Entry<'a, V> = (Cow<'a, str>, V);

/// Names with their values. Sorted by name, as API Gateway sends them, so that any number of repeats
/// is grouped in `n log n`; the values of one name keep their order.
#[derive(Debug)]
pub(super) struct Multimap<'a, V = Cow<'a, str>> {
    entries: Vec<Entry<'a, V>>,
    order: fn(&str, &str) -> Ordering,
}

/// Each name with its last value: what AWS puts into single-valued maps.
pub(super) struct Last<'m, 'a, V = Cow<'a, str>>(pub(super) &'m Multimap<'a, V>);

/// Each name with its first value: what Kong and Envoy do.
pub(super) struct First<'m, 'a, V = Cow<'a, str>>(pub(super) &'m Multimap<'a, V>);

/// Each name with the list of its values.
pub(super) struct All<'m, 'a, V = Cow<'a, str>>(pub(super) &'m Multimap<'a, V>);

/// Each name with its values joined by commas, without spaces.
pub(super) struct Joined<'m, 'a>(pub(super) &'m Multimap<'a>);

/// Each name with its value, or with the list of them if there are several: Kong's tables.
pub(super) struct OneOrAll<'m, 'a, V = Cow<'a, str>>(pub(super) &'m Multimap<'a, V>);

impl<'a, V> Multimap<'a, V> {
    /// Names that differ in case are different names.
    pub(super) fn exact(entries: Vec<Entry<'a, V>>) -> Self {
        Self::ordered(entries, |a, b| a.cmp(b))
    }

    /// Names that differ only in case are one, spelled as it came first.
    pub(super) fn ignoring_case(entries: Vec<Entry<'a, V>>) -> Self {
        fn lower(text: &str) -> impl Iterator<Item = u8> {
            text.bytes().map(|byte| byte.to_ascii_lowercase())
        }
        Self::ordered(entries, |a, b| lower(a).cmp(lower(b)))
    }

    fn ordered(mut entries: Vec<Entry<'a, V>>, order: fn(&str, &str) -> Ordering) -> Self {
        entries.sort_by(|(a, _), (b, _)| order(a, b));
        Self { entries, order }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_, 'a, V>> {
        self.entries.chunk_by(|(a, _), (b, _)| (self.order)(a, b) == Ordering::Equal).map(Group)
    }
}

/// One name's entries; never empty.
struct Group<'m, 'a, V>(&'m [Entry<'a, V>]);

impl<'m, 'a, V> Group<'m, 'a, V> {
    fn name(&self) -> &'m str {
        self.0.first().map_or("", |(name, _)| name)
    }

    fn first(&self) -> Option<&'m V> {
        self.0.first().map(|(_, value)| value)
    }

    fn last(&self) -> Option<&'m V> {
        self.0.last().map(|(_, value)| value)
    }
}

impl<V: Serialize> Serialize for Last<'_, '_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.groups().map(|group| (group.name(), group.last())))
    }
}

impl<V: Serialize> Serialize for First<'_, '_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.groups().map(|group| (group.name(), group.first())))
    }
}

impl<V: Serialize> Serialize for All<'_, '_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.groups().map(|group| (group.name(), Listed(group.0))))
    }
}

impl Serialize for Joined<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.groups().map(|group| (group.name(), Commas(group.0))))
    }
}

impl<V: Serialize> Serialize for OneOrAll<'_, '_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.groups().map(|group| (group.name(), Several(group.0))))
    }
}

struct Listed<'m, 'a, V>(&'m [Entry<'a, V>]);

impl<V: Serialize> Serialize for Listed<'_, '_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(_, value)| value))
    }
}

struct Several<'m, 'a, V>(&'m [Entry<'a, V>]);

impl<V: Serialize> Serialize for Several<'_, '_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [(_, value)] => value.serialize(serializer),
            several => Listed(several).serialize(serializer),
        }
    }
}

struct Commas<'m, 'a>(&'m [Entry<'a, Cow<'a, str>>]);

impl fmt::Display for Commas<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (_, value)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(value)?;
        }
        Ok(())
    }
}

impl Serialize for Commas<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [(_, value)] => serializer.serialize_str(value),
            _ => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entries<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        pairs.iter().map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(*value))).collect()
    }

    #[test]
    fn each_spelling_of_repeated_names() {
        let map = Multimap::exact(entries(&[("b", "1"), ("a", "2"), ("b", "3"), ("B", "4")]));
        for (spelled, expected, why) in [
            (serde_json::to_value(Last(&map)), json!({"B": "4", "a": "2", "b": "3"}), "last"),
            (serde_json::to_value(First(&map)), json!({"B": "4", "a": "2", "b": "1"}), "first"),
            (serde_json::to_value(All(&map)), json!({"B": ["4"], "a": ["2"], "b": ["1", "3"]}), "all in their order"),
            (serde_json::to_value(Joined(&map)), json!({"B": "4", "a": "2", "b": "1,3"}), "joined"),
            (
                serde_json::to_value(OneOrAll(&map)),
                json!({"B": "4", "a": "2", "b": ["1", "3"]}),
                "a list only where there are several",
            ),
        ] {
            assert_eq!(spelled.unwrap(), expected, "{why}");
        }
    }

    #[test]
    fn names_that_differ_in_case_are_one_header() {
        let map = Multimap::ignoring_case(entries(&[("X-Probe", "1"), ("accept", "*"), ("x-probe", "2")]));
        assert_eq!(serde_json::to_string(&All(&map)).unwrap(), r#"{"accept":["*"],"X-Probe":["1","2"]}"#);
    }
}
