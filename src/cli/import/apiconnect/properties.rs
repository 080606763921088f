//! API properties: `$(name)` and what the document says that it is.

use std::collections::BTreeMap;

use super::super::{
    fields::{entries, get, text},
    names::Origin,
    reader::{Resolve, Resolved},
};
use crate::config::Node;

/// Properties may refer to properties, but not for ever.
const MAX_DEPTH: usize = 8;

/// The properties of the document's configurations.
pub(super) struct Properties<'a>(BTreeMap<&'a str, Property<'a>>);

#[derive(Default)]
struct Property<'a> {
    value: Option<&'a str>,
    is_encoded: bool,
    /// Catalogs and the values that they have instead.
    catalogs: Vec<(&'a str, &'a str)>,
}

impl<'a> Properties<'a> {
    pub(super) fn new(configurations: &[&'a Node]) -> Self {
        let mut all: BTreeMap<&str, Property<'_>> = BTreeMap::new();
        for configuration in configurations {
            for entry in get(configuration, "properties").map(entries).unwrap_or_default() {
                let property = all.entry(&entry.key).or_default();
                let value = text(&entry.node, "value").or(entry.node.text());
                property.value = property.value.or(value.filter(|value| !value.is_empty()));
                property.is_encoded |= text(&entry.node, "encoded") == Some("true");
            }
            for catalog in get(configuration, "catalogs").map(entries).unwrap_or_default() {
                for entry in get(&catalog.node, "properties").map(entries).unwrap_or_default() {
                    if let Some(value) = entry.node.text().filter(|value| !value.is_empty()) {
                        all.entry(&entry.key).or_default().catalogs.push((&catalog.key, value));
                    }
                }
            }
        }
        Self(all)
    }

    fn value(&self, name: &str) -> Resolved {
        let Some(property) = self.0.get(name) else {
            return Resolved::Open(format!("`$({name})` has no value in this document"));
        };
        if property.is_encoded {
            return Resolved::Open(format!("`$({name})` is encoded: write its value"));
        }
        let catalogs = |different: &dyn Fn(&str) -> bool| {
            let names = property.catalogs.iter().filter(|(_, value)| different(value)).map(|(name, _)| *name);
            names.collect::<Vec<_>>().join(", ")
        };
        match (property.value, property.catalogs.first()) {
            (Some(value), _) => match catalogs(&|other| other != value) {
                other if other.is_empty() => Resolved::Text(value.to_owned()),
                other => Resolved::Noted(
                    value.to_owned(),
                    format!(
                        "has the value of `$({name})` that holds unless a catalog says otherwise, and {other} does"
                    ),
                ),
            },
            (None, Some((_, value))) if catalogs(&|other| other != *value).is_empty() => {
                Resolved::Text((*value).to_owned())
            }
            (None, Some(_)) => {
                Resolved::Open(format!("`$({name})` has another value in each catalog: {}", catalogs(&|_| true)))
            }
            (None, None) => Resolved::Open(format!("`$({name})` has no value in this document")),
        }
    }

    fn resolve_to(&self, text: &str, depth: usize) -> Resolved {
        let mut resolved = String::new();
        let mut notes = Vec::new();
        let mut rest = text;
        while let Some((before, open)) = split(rest) {
            resolved.push_str(before);
            let Some((name, after)) = reference(open) else {
                return Resolved::Open("has a reference that does not end".to_owned());
            };
            let value = match self.value(own_name(name)) {
                _ if open.starts_with("${") => Resolved::Open(format!("`${{{name}}}` has no value in this document")),
                Resolved::Noted(value, note) => {
                    notes.push(note);
                    Resolved::Text(value)
                }
                other => other,
            };
            match value {
                Resolved::Text(value) if depth < MAX_DEPTH => match self.resolve_to(&value, depth + 1) {
                    Resolved::Text(value) => resolved.push_str(&value),
                    Resolved::Noted(value, note) => {
                        notes.push(note);
                        resolved.push_str(&value);
                    }
                    open @ Resolved::Open(_) => return open,
                },
                Resolved::Text(_) | Resolved::Noted(..) => {
                    return Resolved::Open(format!("`$({name})` refers to itself"));
                }
                open @ Resolved::Open(_) => return open,
            }
            rest = after;
        }
        resolved.push_str(rest);
        if notes.is_empty() { Resolved::Text(resolved) } else { Resolved::Noted(resolved, notes.join("; ")) }
    }
}

impl Resolve for Properties<'_> {
    fn resolve(&self, text: &str) -> Resolved {
        self.resolve_to(text, 0)
    }

    /// `$(name)` and nothing beside it; what else a text says is the secret itself.
    fn secret(&self, text: &str) -> Option<Origin> {
        let (name, after) = reference(text).filter(|_| text.starts_with('$'))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
        if !after.is_empty() || name.is_empty() || !name.chars().all(plain) {
            return None;
        }
        let variable = own_name(name).to_ascii_uppercase();
        Some(Origin::Reference { said: format!("the property `{name}`"), variable })
    }
}

/// What stands before the first reference, and the text from there on. `$LATEST` is none.
fn split(text: &str) -> Option<(&str, &str)> {
    let at = [text.find("$("), text.find("${")].into_iter().flatten().min()?;
    text.split_at_checked(at)
}

/// The name in the reference that a text begins with, and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix("$(") {
        rest.split_once(')')
    } else {
        text.strip_prefix("${")?.split_once('}')
    }
}

/// An API's property may be named in full.
fn own_name(name: &str) -> &str {
    name.trim().trim_start_matches("api.properties.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Found;

    const CONFIGURATION: &str = "
properties:
  region: {value: eu-west-1, description: Where, encoded: false}
  function: {value: ''}
  stage: live
  alias: {value: a-$(stage)}
  odd: {value: $(odd)}
  hidden: {value: IWJhc2U2NCE=, encoded: true}
  each: {value: ''}
catalogs:
  Sandbox: {properties: {region: eu-west-1, function: orders, each: a}}
  Production: {properties: {region: us-east-1, function: orders, each: b}}
";

    #[test]
    fn references_have_the_values_that_the_document_has() {
        let node = Node::parse_all(CONFIGURATION, &mut Found::default()).unwrap().remove(0);
        let properties = Properties::new(&[&node]);
        let text = |text: &str| Resolved::Text(text.to_owned());
        for (from, expected) in [
            ("orders", text("orders")),
            ("$LATEST", text("$LATEST")),
            ("$(function)", text("orders")),
            ("x-$(api.properties.stage)-$(alias)", text("x-live-a-live")),
            ("$(gone)", Resolved::Open("`$(gone)` has no value in this document".into())),
            ("${gone}", Resolved::Open("`${gone}` has no value in this document".into())),
            ("$(odd)", Resolved::Open("`$(odd)` refers to itself".into())),
            ("$(hidden)", Resolved::Open("`$(hidden)` is encoded: write its value".into())),
            ("$(each)", Resolved::Open("`$(each)` has another value in each catalog: Sandbox, Production".into())),
            ("$(gone", Resolved::Open("has a reference that does not end".into())),
        ] {
            assert_eq!(properties.resolve(from), expected, "{from}");
        }
        let Resolved::Noted(value, note) = properties.resolve("$(region)") else { panic!("a note") };
        assert_eq!(value, "eu-west-1");
        assert!(note.ends_with("and Production does"), "{note}");
    }

    #[test]
    fn a_secret_is_a_reference_only_if_it_is_nothing_else() {
        let properties = Properties::new(&[]);
        let variable = |text: &str| match properties.secret(text)? {
            Origin::Reference { variable, .. } => Some(variable),
            Origin::Text(_) | Origin::Named(_) | Origin::Missing(_) => None,
        };
        assert_eq!(variable("$(aws-secret)").as_deref(), Some("AWS-SECRET"));
        assert_eq!(variable("$(api.properties.aws_secret)").as_deref(), Some("AWS_SECRET"));
        assert_eq!(variable("${vault.key}").as_deref(), Some("VAULT.KEY"));
        for text in ["hunter2", "$(a)hunter2", "hunter2$(a)", "$()", "$(a/b)", "$hunter2", ""] {
            assert_eq!(variable(text), None, "{text}");
        }
    }
}
