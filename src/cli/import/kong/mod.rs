//! Kong's `aws-lambda` plugins in a decK file, wherever a list of plugins may stand.

mod plugin;
mod reference;
pub(super) mod routes;

use self::{
    reference::References,
    routes::{Ground, KongRoute},
};
use super::{
    Imported, document,
    fields::{entries, get, join, text},
    names::Names,
};
use crate::config::{Fault, Node, Value};

/// A plugin, and what it holds for.
struct Plugin<'a> {
    node: &'a Node,
    path: String,
    scope: Scope,
}

/// What an entity stands in, by its path in the file.
#[derive(Clone, Debug, Default)]
struct Scope {
    service: Option<String>,
    route: Option<String>,
    /// A consumer or a group of them.
    consumer: bool,
}

/// Everything of the file that matters here.
#[derive(Default)]
struct Entities<'a> {
    plugins: Vec<Plugin<'a>>,
    ground: Ground<'a>,
}

/// Reads a decK file. Like decK, it takes from the environment what the file leaves to it, except secrets.
pub(super) fn import(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Imported, Vec<Fault>> {
    let (nodes, faults) = document::read(text)?;
    let mut entities = Entities::default();
    for node in &nodes {
        collect(node, "", &Scope::default(), &mut entities);
    }
    if entities.plugins.is_empty() {
        let message = "has no Lambda policy in it: expected a plugin `aws-lambda`";
        return Err(vec![Fault { place: None, key: String::new(), message: message.to_owned() }]);
    }
    let references = References::new(&nodes, environment);
    let mut imported = Imported { faults, ..Imported::default() };
    let mut names = Names::default();
    for (n, plugin) in entities.plugins.iter().enumerate() {
        let base = base(&nodes, plugin.node);
        let mut policy = plugin::read(plugin, base, &references, &mut names, &mut imported.variables);
        // What Kong does not run hides nothing else.
        if !plugin::is_off(plugin) {
            let reach = entities.ground.reach(plugin, &mut policy.faults);
            entities.ground.choose(n, reach);
        }
        imported.policies.push(policy);
    }
    imported.routes = entities.ground.routes(&mut imported.faults);
    Ok(imported)
}

/// The configuration in `_plugin_configs` that a plugin builds on.
fn base<'a>(nodes: &'a [Node], plugin: &Node) -> Option<(&'a Node, String)> {
    let name = text(plugin, "_config")?;
    let base = nodes.iter().find_map(|node| get(get(node, "_plugin_configs")?, name))?;
    Some((base, format!("_plugin_configs.{name}")))
}

fn collect<'a>(node: &'a Node, path: &str, scope: &Scope, entities: &mut Entities<'a>) {
    let Value::Map(_) = &node.value else { return };
    for entry in entries(node) {
        let path = join(path, &entry.key);
        let Value::List(items) = &entry.node.value else {
            collect(&entry.node, &path, scope, entities);
            continue;
        };
        for (n, item) in items.iter().enumerate() {
            let path = format!("{path}[{n}]");
            let mut scope = scope.clone();
            match entry.key.as_str() {
                "plugins" => {
                    if text(item, "name") == Some("aws-lambda") {
                        entities.plugins.push(Plugin { node: item, path, scope });
                    }
                    continue;
                }
                "services" => {
                    entities.ground.services.push((path.clone(), item));
                    scope.service = Some(path.clone());
                }
                "routes" => {
                    let service = scope.service.clone();
                    entities.ground.routes.push(KongRoute { node: item, path: path.clone(), service });
                    scope.route = Some(path.clone());
                }
                "consumers" | "consumer_groups" => scope.consumer = true,
                _ => {}
            }
            collect(item, &path, &scope, entities);
        }
    }
}

/// Whether an entity is the one that a reference means: `name`, or `{name: …}` or `{id: …}`.
fn is_meant(entity: &Node, reference: &Node) -> bool {
    let own = [text(entity, "name"), text(entity, "id")];
    let meant = [reference.text(), text(reference, "name"), text(reference, "id")];
    meant.iter().flatten().any(|name| own.contains(&Some(*name)))
}

#[cfg(test)]
mod tests;
