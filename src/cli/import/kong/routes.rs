//! From Kong's routes to this service's: which hosts and paths lead to which policy.

use std::cmp::Reverse;

use super::{
    super::fields::{get, join, list},
    Plugin, is_meant,
};
use crate::config::{Fault, Node};

/// A host and a path, either of them any, and the number of the policy that they lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Route {
    pub host: Option<String>,
    pub path: Option<String>,
    pub policy: usize,
}

/// A route of Kong's, and the service that it stands in.
pub(super) struct KongRoute<'a> {
    pub node: &'a Node,
    pub path: String,
    pub service: Option<String>,
}

/// What a plugin holds for. Kong runs the one that holds for the least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Route(String),
    Service(String),
    Everything,
    /// No route leads there.
    Nothing,
}

/// The file's services and routes, and the policies that were chosen for them.
#[derive(Default)]
pub(super) struct Ground<'a> {
    pub services: Vec<(String, &'a Node)>,
    pub routes: Vec<KongRoute<'a>>,
    chosen: Vec<(Reach, usize)>,
}

impl Ground<'_> {
    /// What a plugin holds for, by where it stands and by what it names.
    pub(super) fn reach(&self, plugin: &Plugin<'_>, faults: &mut Vec<Fault>) -> Reach {
        let mut say = |message: String| {
            let place = Some(plugin.node.place);
            faults.push(Fault { place, key: plugin.path.clone(), message });
        };
        let named = |key: &str| get(plugin.node, key);
        if plugin.scope.consumer || named("consumer").is_some() || named("consumer_group").is_some() {
            say("holds for some consumers only, which no route here can tell: name this policy at the gateway"
                .to_owned());
            return Reach::Nothing;
        }
        if let Some(route) = named("route") {
            return match self.routes.iter().find(|known| is_meant(known.node, route)) {
                Some(known) => Reach::Route(known.path.clone()),
                None => {
                    say("names a route that is not in this file: write one under `routes`".to_owned());
                    Reach::Nothing
                }
            };
        }
        if let Some(route) = &plugin.scope.route {
            return Reach::Route(route.clone());
        }
        if let Some(service) = named("service") {
            return match self.services.iter().find(|(_, known)| is_meant(known, service)) {
                Some((path, _)) => Reach::Service(path.clone()),
                None => {
                    say("names a service that is not in this file: write its routes under `routes`".to_owned());
                    Reach::Nothing
                }
            };
        }
        plugin.scope.service.clone().map_or(Reach::Everything, Reach::Service)
    }

    /// Has a policy run for what its plugin holds for.
    pub(super) fn choose(&mut self, policy: usize, reach: Reach) {
        self.chosen.push((reach, policy));
    }

    /// The routes in the order in which the first that fits is the one that Kong would take.
    pub(super) fn routes(&self, faults: &mut Vec<Fault>) -> Vec<Route> {
        let mut all = Vec::new();
        for route in &self.routes {
            let own = self.policy(|reach| *reach == Reach::Route(route.path.clone()));
            let service = self.service_of(route);
            let policy =
                own.or_else(|| self.policy(|reach| matches!(reach, Reach::Service(path) if Some(path) == service)));
            if let Some(policy) = policy {
                all.extend(convert(route, policy, faults));
            }
        }
        let everything = self.policy(|reach| *reach == Reach::Everything);
        all.extend(everything.map(|policy| Route { host: None, path: Some("/*".to_owned()), policy }));
        all.sort_by_key(|route| {
            let host = route.host.as_deref().map_or(2, |host| u8::from(host.starts_with("*.")));
            (host, Reverse(route.path.as_deref().map_or(0, |path| path.trim_end_matches("/*").len())))
        });
        all.dedup();
        all
    }

    fn policy(&self, is: impl Fn(&Reach) -> bool) -> Option<usize> {
        self.chosen.iter().find(|(reach, _)| is(reach)).map(|(_, policy)| *policy)
    }

    fn service_of<'s>(&'s self, route: &'s KongRoute<'_>) -> Option<&'s String> {
        let named = get(route.node, "service");
        let found = named.and_then(|service| self.services.iter().find(|(_, known)| is_meant(known, service)));
        found.map(|(path, _)| path).or(route.service.as_ref())
    }
}

fn convert(route: &KongRoute<'_>, policy: usize, faults: &mut Vec<Fault>) -> Vec<Route> {
    let mut say = |key: &str, node: &Node, message: &str| {
        faults.push(Fault { place: Some(node.place), key: join(&route.path, key), message: message.to_owned() });
    };
    if let Some(expression) = get(route.node, "expression") {
        say("expression", expression, "is not taken over: write its hosts and paths under `routes`");
        return Vec::new();
    }
    for key in ["methods", "headers", "snis", "sources", "destinations"] {
        if let Some(node) = get(route.node, key) {
            say(key, node, "is not taken over: a policy is chosen by host and path only");
        }
    }
    let mut kept = |key: &str, read: fn(&str) -> Result<String, &'static str>| {
        let items = list(route.node, key);
        let items = if items.is_empty() {
            get(route.node, key).filter(|node| node.text().is_some()).map_or(items, std::slice::from_ref)
        } else {
            items
        };
        let mut texts = Vec::new();
        for (n, item) in items.iter().enumerate() {
            match read(item.text().unwrap_or_default()) {
                Ok(text) => texts.push(Some(text)),
                Err(message) => say(&format!("{key}[{n}]"), item, message),
            }
        }
        // Whatever is not said fits; what could not be said here must not.
        if items.is_empty() { vec![None] } else { texts }
    };
    let hosts = kept("hosts", host);
    let paths = kept("paths", path);
    let every = |host: &Option<String>| {
        let host = host.clone();
        let path = |path: &Option<String>| {
            // A route of neither fits everything, and says so.
            let path = path.clone().or_else(|| host.is_none().then(|| "/*".to_owned()));
            Route { host: host.clone(), path, policy }
        };
        paths.iter().map(path).collect::<Vec<_>>()
    };
    hosts.iter().flat_map(every).collect()
}

fn host(text: &str) -> Result<String, &'static str> {
    let (below, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
    let (name, port) = name.split_once(':').map_or((name, None), |(name, port)| (name, Some(port)));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty()
        || !name.chars().all(allowed)
        || port.is_some_and(|port| !port.chars().all(|c| c.is_ascii_digit()))
    {
        return Err("is not taken over: a host here is one such as `api.example.com` or `*.example.com`");
    }
    Ok(format!("{below}{name}"))
}

/// Kong's path fits whatever begins with it, so it stands for all below here.
fn path(text: &str) -> Result<String, &'static str> {
    if text.starts_with('~') {
        return Err("is not taken over: a path here is no regular expression");
    }
    if !text.starts_with('/') || text.contains(['*', '?', '#', '%']) {
        return Err("is not taken over: a path here begins with `/` and has no `*`, `?`, `#` or `%`");
    }
    Ok(format!("{}/*", text.trim_end_matches('/')))
}
