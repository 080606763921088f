//! API Connect's Lambda policies: `lambda` and `aws-lambda` in an assembly, and API Studio's `InvokeAWSLambda`.
//!
//! Where a policy stands decides nothing: a list of policies may be under `execute`, `otherwise`, `catch`, `finally`,
//! or a name of tomorrow, so everything below an API's configuration is looked through.

mod policy;
mod properties;

use self::properties::Properties;
use super::{
    Imported, document,
    fields::{entries, fold, get, join, text},
};
use crate::config::{Fault, Node, Place, Value};

/// What a Lambda policy is called in an assembly.
const POLICIES: [&str; 3] = ["lambda", "awslambda", "invokeawslambda"];
/// What only a Lambda policy has.
const FUNCTION: [&str; 3] = ["function", "functionname", "functionarn"];

/// A Lambda policy in the document.
struct Item<'a> {
    node: &'a Node,
    path: String,
    place: Place,
}

pub(super) fn import(text: &str) -> Result<Imported, Vec<Fault>> {
    let (nodes, faults) = document::read(text)?;
    let mut items = Vec::new();
    let mut configurations = Vec::new();
    for node in &nodes {
        let is_api = ["openapi", "swagger"].iter().any(|key| get(node, key).is_some());
        find(node, "", !is_api, &mut items, &mut configurations);
    }
    if items.is_empty() {
        let message = "has no Lambda policy in it: expected `lambda`, `aws-lambda` or `InvokeAWSLambda` in an assembly";
        return Err(vec![Fault { place: None, key: String::new(), message: message.to_owned() }]);
    }
    let properties = Properties::new(&configurations);
    let mut imported = Imported { faults, ..Imported::default() };
    let mut names = super::names::Names::default();
    for item in &items {
        let policy = policy::read(item, &properties, &mut names, &mut imported.variables);
        imported.policies.push(policy);
    }
    Ok(imported)
}

/// Looks for policies in what belongs to an assembly, and for the configurations that have the properties.
fn find<'a>(node: &'a Node, path: &str, inside: bool, items: &mut Vec<Item<'a>>, configurations: &mut Vec<&'a Node>) {
    if let Value::List(list) = &node.value {
        for (n, item) in list.iter().enumerate() {
            let path = format!("{path}[{n}]");
            let own = if inside { policies(item, true) } else { Vec::new() };
            if own.is_empty() {
                find(item, &path, inside, items, configurations);
            }
            items.extend(own.into_iter().map(|(key, node, place)| Item { node, path: join(&path, key), place }));
        }
        return;
    }
    if inside && text(node, "kind").is_some_and(is_policy) {
        items.push(Item { node, path: path.to_owned(), place: node.place });
        return;
    }
    let own = if inside { policies(node, false) } else { Vec::new() };
    for entry in entries(node) {
        let path = join(path, &entry.key);
        if entry.key == "x-ibm-configuration" {
            configurations.push(&entry.node);
            for part in entries(&entry.node) {
                // The values of properties are no policies, whatever they are called.
                if !matches!(part.key.as_str(), "properties" | "catalogs") {
                    find(&part.node, &join(&path, &part.key), true, items, configurations);
                }
            }
        } else if own.iter().any(|(key, ..)| *key == entry.key) {
            items.push(Item { node: &entry.node, path, place: entry.place });
        } else {
            find(&entry.node, &path, inside, items, configurations);
        }
    }
}

/// The entries of a map that are Lambda policies. As an item of a list, the name is enough.
fn policies(node: &Node, is_item: bool) -> Vec<(&str, &Node, Place)> {
    let is = |node: &Node| match &node.value {
        Value::Null => is_item,
        Value::Map(_) if is_item => true,
        Value::Map(_) => entries(node).iter().any(|entry| FUNCTION.contains(&fold(&entry.key).as_str())),
        Value::Text(_) | Value::List(_) => false,
    };
    let own = entries(node).into_iter().filter(|entry| is_policy(&entry.key) && is(&entry.node));
    own.map(|entry| (entry.key.as_str(), &entry.node, entry.place)).collect()
}

fn is_policy(name: &str) -> bool {
    POLICIES.contains(&fold(name).as_str())
}

#[cfg(test)]
mod tests;
