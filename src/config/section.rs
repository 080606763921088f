//! Typed values out of a checked map. What the check found wrong is passed over here, so each fault is told once.

use std::{fmt::Display, time::Duration};

use super::{
    check::join,
    fault::{Found, Place},
    node::{Node, Value},
};

/// A map of settings, and the map that says what it does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    node: Option<&'a Node>,
    fallback: Option<&'a Node>,
    path: &'a str,
}

/// A setting that is there.
#[derive(Clone, Debug)]
pub(super) struct Setting<'a> {
    pub node: &'a Node,
    pub key: String,
}

impl<'a> Section<'a> {
    pub(super) fn new(node: Option<&'a Node>, fallback: Option<&'a Node>, path: &'a str) -> Self {
        Self { node, fallback, path }
    }

    /// The setting, from this map or the one that it falls back to.
    pub(super) fn get(&self, key: &str) -> Option<Setting<'a>> {
        let own = self.node.and_then(|node| node.get(key)).map(|node| (node, self.path));
        let (node, path) = own.or_else(|| Some((self.fallback?.get(key)?, "defaults")))?;
        Some(Setting { node, key: join(path, key) })
    }

    /// Whether the map itself says it.
    pub(super) fn has_own(&self, key: &str) -> bool {
        self.node.and_then(|node| node.get(key)).is_some()
    }

    /// A text as the type that it means.
    pub(super) fn parse<T, E: Display>(
        &self,
        key: &str,
        found: &mut Found,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let setting = self.get(key)?;
        let text = setting.node.text().filter(|text| !text.is_empty())?;
        parse(text).map_err(|error| found.add(Some(setting.node.place), setting.key, error)).ok()
    }

    /// A text as it is.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key)?.node.text().map(str::to_owned)
    }

    /// One of the words that the table of settings lists.
    pub(super) fn choice<T: Copy>(&self, key: &str, names: &[(&str, T)]) -> Option<T> {
        let setting = self.get(key)?;
        let text = setting.node.text()?;
        names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    }

    pub(super) fn duration(&self, key: &str) -> Option<Duration> {
        humantime::parse_duration(self.get(key)?.node.text()?).ok()
    }

    /// A duration as the type that bounds it.
    pub(super) fn bounded<T, E: Display>(
        &self,
        key: &str,
        found: &mut Found,
        bound: impl FnOnce(Duration) -> Result<T, E>,
    ) -> Option<T> {
        let duration = self.duration(key)?;
        let setting = self.get(key)?;
        bound(duration).map_err(|error| found.add(Some(setting.node.place), setting.key, error)).ok()
    }

    pub(super) fn boolean(&self, key: &str) -> Option<bool> {
        self.get(key)?.node.text()?.parse().ok()
    }

    pub(super) fn integer(&self, key: &str) -> Option<usize> {
        self.get(key)?.node.text()?.parse().ok()
    }

    /// The texts of a list, each as the type that it means.
    pub(super) fn list<T, E: Display>(
        &self,
        key: &str,
        found: &mut Found,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let Some(setting) = self.get(key) else { return Vec::new() };
        let items = match &setting.node.value {
            Value::List(items) => items.as_slice(),
            // One may stand for itself.
            Value::Text(_) => std::slice::from_ref(setting.node),
            Value::Null | Value::Map(_) => &[],
        };
        let items = items.iter().filter_map(|item| item.text().map(|text| (text, item.place)));
        items
            .filter_map(|(text, place)| {
                parse(text).map_err(|error| found.add(Some(place), setting.key.clone(), error)).ok()
            })
            .collect()
    }

    /// The sections of a list, each with its full name.
    pub(super) fn sections(&self, key: &str) -> Vec<Setting<'a>> {
        let Some(setting) = self.get(key) else { return Vec::new() };
        let Value::List(items) = &setting.node.value else { return Vec::new() };
        let named = |(n, node)| Setting { node, key: format!("{}[{n}]", setting.key) };
        items.iter().enumerate().map(named).collect()
    }

    /// Where to say that something is missing here.
    pub(super) fn place(&self) -> Option<Place> {
        self.node.or(self.fallback).map(|node| node.place)
    }

    /// The full name of a key here.
    pub(super) fn key(&self, key: &str) -> String {
        join(self.path, key)
    }
}

/// A value as JSON text: what stands there without quotes and JSON takes for a number or boolean is one, and all other
/// text is text. As a whole, text that is a JSON object or array is that JSON.
pub(super) fn json(node: &Node) -> String {
    match &node.value {
        Value::Text(text) if text.trim_start().starts_with(['{', '[']) && is_json(text) => text.clone(),
        _ => to_json(node).to_string(),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A value as JSON.
pub(super) fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Text(text) if node.quoted => serde_json::Value::String(text.clone()),
        Value::Text(text) => match serde_json::from_str(text) {
            Ok(value @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_))) => value,
            _ => serde_json::Value::String(text.clone()),
        },
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), to_json(&entry.node))).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quotes_make_text_of_what_looks_like_a_number() {
        for (yaml, expected) in [
            (
                "{id: \"42\", n: 42, yes: 'true', on: true, x: 1.5, y: '1.5'}",
                r#"{"id":"42","n":42,"on":true,"x":1.5,"y":"1.5","yes":"true"}"#,
            ),
            ("[007, 'null', ~, text, \"\"]", r#"["007","null",null,"text",""]"#),
            ("\n  block: |-\n    42", r#"{"block":"42"}"#),
            ("42", "42"),
            ("'42'", r#""42""#),
            ("text", r#""text""#),
            (r#"'{"id": "42"}'"#, r#"{"id": "42"}"#),
            ("'[1]'", "[1]"),
            ("'[1'", r#""[1""#),
        ] {
            let yaml = format!("v: {yaml}\n");
            let mut found = Found::default();
            let root = Node::parse(&yaml, &mut found).unwrap();
            assert_eq!(json(root.get("v").unwrap()), expected, "{yaml}");
        }
    }
}
