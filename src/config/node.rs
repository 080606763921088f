//! A YAML document as a tree whose every node knows its place.
//!
//! Scalars keep the text of the file, so that `qualifier: 1` and `external_id: 007` are what they look like.

use saphyr::{MarkedYaml, ScalarStyle, YamlData, YamlLoader};
use saphyr_parser::{Parser, Span};
use zeroize::Zeroize;

use super::fault::{Found, Place};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub place: Place,
    pub value: Value,
    /// Whether it is a scalar in quotes or a block: then it is text, whatever it looks like.
    pub quoted: bool,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, or `null`.
    Null,
    /// A scalar's text.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// What stands in a file may be a secret.
impl Drop for Node {
    fn drop(&mut self) {
        if let Value::Text(text) = &mut self.value {
            text.zeroize();
        }
    }
}

/// A key and what it has.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

impl Node {
    /// Parses a file of one document; an empty one is an empty map.
    pub(super) fn parse(text: &str, found: &mut Found) -> Option<Self> {
        let mut documents = load(text, found)?.into_iter();
        let Some(first) = documents.next() else {
            return Some(Self { place: Place { line: 1, column: 1 }, value: Value::Map(Vec::new()), quoted: false });
        };
        if let Some(second) = documents.next() {
            found.add(Some(place(&second.span)), "", "is a second document: expected one");
        }
        convert(first, found)
    }

    /// Parses a file of any number of documents.
    pub(crate) fn parse_all(text: &str, found: &mut Found) -> Option<Vec<Self>> {
        let documents = load(text, found)?;
        Some(documents.into_iter().filter_map(|document| convert(document, found)).collect())
    }

    /// The entries, if the node is a map.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Text(_) | Value::List(_) => &[],
        }
    }

    /// What a key of the map has, unless it is null.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries()
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
            .filter(|node| !matches!(node.value, Value::Null))
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }
}

fn load<'a>(text: &'a str, found: &mut Found) -> Option<Vec<MarkedYaml<'a>>> {
    let mut loader = YamlLoader::<MarkedYaml<'_>>::default();
    loader.early_parse(false);
    let loaded = Parser::new_from_str(text).load(&mut loader, true);
    if let Some(error) = loaded.err().as_ref().or(loader.error()) {
        let marker = error.marker();
        let place = Place { line: marker.line(), column: marker.col() + 1 };
        found.add(Some(place), "", format_args!("is not YAML: {}", error.info()));
        return None;
    }
    Some(loader.into_documents())
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

fn convert(yaml: MarkedYaml<'_>, found: &mut Found) -> Option<Node> {
    let place = place(&yaml.span);
    let mut quoted = false;
    let value = match yaml.data {
        YamlData::Representation(text, style, None) => {
            quoted = style != ScalarStyle::Plain;
            if style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                Value::Null
            } else {
                Value::Text(text.into_owned())
            }
        }
        YamlData::Sequence(items) => Value::List(items.into_iter().filter_map(|item| convert(item, found)).collect()),
        YamlData::Mapping(pairs) => {
            let mut entries = Vec::with_capacity(pairs.len());
            for (key, node) in pairs {
                let mut key = convert(key, found)?;
                match &mut key.value {
                    Value::Text(text) => {
                        let text = std::mem::take(text);
                        if let Some(node) = convert(node, found) {
                            entries.push(Entry { key: text, place: key.place, node });
                        }
                    }
                    Value::Null | Value::List(_) | Value::Map(_) => {
                        found.add(Some(key.place), "", "is no key: expected text");
                    }
                }
            }
            Value::Map(entries)
        }
        YamlData::Representation(..) | YamlData::Tagged(..) => {
            found.add(Some(place), "", "has a tag: expected a plain value");
            return None;
        }
        YamlData::Value(_) | YamlData::Alias(_) | YamlData::BadValue => {
            found.add(Some(place), "", "is not a value that can be read");
            return None;
        }
    };
    Some(Node { place, value, quoted })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Files;

    #[test]
    fn scalars_keep_their_text_and_nodes_their_place() {
        let mut found = Found::default();
        let node = Node::parse("a: 007\nb:\n  - 'null'\n  - ~\n", &mut found).unwrap();
        assert!(found.is_empty());
        let a = node.get("a").unwrap();
        assert_eq!((a.text().unwrap(), a.place), ("007", Place { line: 1, column: 4 }));
        let Value::List(items) = &node.get("b").unwrap().value else { panic!("a list") };
        assert_eq!(items[0].text(), Some("null"), "a quoted null is text");
        assert!(matches!(items[1].value, Value::Null));
        assert!(items[0].quoted && !a.quoted);
    }

    #[test]
    fn what_is_not_one_yaml_document_has_a_fault_with_its_place() {
        for (text, line) in [
            ("a: [1, 2", 2),
            ("a: 1\na: 2\n", 2),
            ("a: 1\n---\nb: 2\n", 3),
            ("a: !!binary x\n", 1),
            ("? [1]\n: 2\n", 1),
            ("a: \"\\q\"\n", 1),
            ("a:\n\t- b\n", 2),
        ] {
            let mut found = Found::default();
            let _ = Node::parse(text, &mut found);
            let faults = found.into_faults(std::path::Path::new("f"), Files::default());
            assert_eq!(faults.faults.first().unwrap().place.unwrap().line, line, "{text:?}: {faults}");
        }
    }

    #[test]
    fn anchors_are_expanded_but_not_without_end() {
        let mut found = Found::default();
        let node = Node::parse("a: &x {k: v}\nb: *x\n", &mut found).unwrap();
        assert_eq!(node.get("b").unwrap().get("k").unwrap().text(), Some("v"));

        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..10 {
            let previous = format!("*a{}, ", n - 1).repeat(9);
            bomb.push_str(&format!("a{n}: &a{n} [{previous}*a{}]\n", n - 1));
        }
        let mut found = Found::default();
        let _ = Node::parse(&bomb, &mut found);
        assert!(!found.is_empty());
    }
}
