//! The entries of a foreign map: each is taken once, under any spelling of its name, and what nobody took is known.

use crate::config::{Entry, Node, Place, Value};

/// A map, or several on top of each other.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    left: Vec<Field<'a>>,
}

/// An entry and its full name.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub node: &'a Node,
    pub path: String,
    pub place: Place,
    name: String,
}

impl<'a> Fields<'a> {
    /// The entries of a map; anything else has none.
    pub(super) fn new(node: &'a Node, path: &str) -> Self {
        let left = entries(node).into_iter().map(|entry| Field {
            node: &entry.node,
            path: join(path, &entry.key),
            place: entry.place,
            name: fold(&entry.key),
        });
        Self { left: left.collect() }
    }

    /// Puts another map below: only what is not here already counts.
    pub(super) fn over(mut self, below: Self) -> Self {
        let new: Vec<_> =
            below.left.into_iter().filter(|field| self.left.iter().all(|own| own.name != field.name)).collect();
        self.left.extend(new);
        self
    }

    /// Takes the first of these names that is there and not empty. Names are in lower case, without `_` and `-`.
    pub(super) fn take(&mut self, names: &[&str]) -> Option<Field<'a>> {
        for name in names {
            while let Some(at) = self.left.iter().position(|field| field.name == *name) {
                let field = self.left.remove(at);
                if !is_empty(field.node) {
                    return Some(field);
                }
            }
        }
        None
    }

    /// Makes the entries of a map in this map entries of this map.
    pub(super) fn flatten(&mut self, names: &[&str]) {
        let is_map = |field: &Field<'_>| matches!(field.node.value, Value::Map(_)) && names.contains(&&*field.name);
        while let Some(at) = self.left.iter().position(is_map) {
            let field = self.left.remove(at);
            self.left.extend(Self::new(field.node, &field.path).left);
        }
    }

    /// What was not taken and is not empty.
    pub(super) fn rest(&mut self) -> Vec<Field<'a>> {
        self.left.drain(..).filter(|field| !is_empty(field.node)).collect()
    }
}

impl Field<'_> {
    /// The name in lower case, without `_` and `-`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The entries of a map, with those that `<<` merges into it.
pub(super) fn entries(node: &Node) -> Vec<&Entry> {
    let mut all: Vec<_> = node.entries().iter().filter(|entry| entry.key != "<<").collect();
    for merged in node.entries().iter().filter(|entry| entry.key == "<<") {
        let maps = match &merged.node.value {
            Value::List(items) => items.as_slice(),
            Value::Map(_) => std::slice::from_ref(&merged.node),
            Value::Null | Value::Text(_) => &[],
        };
        for entry in maps.iter().flat_map(entries) {
            if all.iter().all(|own| own.key != entry.key) {
                all.push(entry);
            }
        }
    }
    all
}

/// What a key of a map has, unless it is empty.
pub(super) fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    entries(node).into_iter().find(|entry| entry.key == key).map(|entry| &entry.node).filter(|node| !is_empty(node))
}

/// The text of a key of a map.
pub(super) fn text<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    get(node, key)?.text()
}

/// The items of a list in a map.
pub(super) fn list<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    match get(node, key).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

/// A key below another.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A name without what its spellings differ in: `function_name`, `functionName` and `Function-Name` are one.
pub(super) fn fold(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Exports have an empty text or list for what is not set.
fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Text(text) => text.trim().is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Found;

    fn node(text: &str) -> Node {
        Node::parse_all(text, &mut Found::default()).unwrap().remove(0)
    }

    #[test]
    fn a_field_is_taken_once_under_any_spelling() {
        let node = node("functionName: a\naws_region: ''\nregion: b\nextra: 1\nnone:\n");
        let mut fields = Fields::new(&node, "p");
        assert_eq!(fields.take(&["functionname"]).unwrap().path, "p.functionName");
        assert!(fields.take(&["functionname"]).is_none());
        assert_eq!(
            fields.take(&["awsregion", "region"]).unwrap().node.text(),
            Some("b"),
            "an empty one does not count"
        );
        let rest: Vec<_> = fields.rest().into_iter().map(|field| field.path).collect();
        assert_eq!(rest, ["p.extra"]);
    }

    #[test]
    fn merged_maps_and_maps_below_count_where_nothing_else_does() {
        let node = node("base: &base {a: 1, b: 2}\nmore: &more {c: 3, a: 9}\nown: {b: 4, <<: [*base, *more]}\n");
        let own = get(&node, "own").unwrap();
        assert_eq!(["a", "b", "c"].map(|key| text(own, key).unwrap()), ["1", "4", "3"]);
        let mut fields = Fields::new(own, "own").over(Fields::new(get(&node, "more").unwrap(), "more"));
        assert_eq!(fields.take(&["a"]).unwrap().path, "own.a");
        assert!(fields.take(&["a"]).is_none());
    }
}
