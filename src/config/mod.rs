//! The configuration file: from YAML to [`Config`], with all faults at once, each with line and column.

mod callers;
mod check;
mod content;
mod effective;
mod fault;
mod files;
mod fixed;
mod gateway;
mod node;
mod policy;
mod schema;
mod secrets;
mod section;
mod server;
mod shape;
mod telemetry;

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc};

pub(crate) use self::{
    fault::Found,
    node::{Entry, Node, Value},
};
pub use self::{
    fault::{Fault, Faults, Place},
    files::{Files, Stamp},
    fixed::Fixed,
    schema::{schema, table},
    server::{Listen, Server},
};
use self::{secrets::Secrets, section::Section};
use crate::{
    policy::{
        Allowed, Name, Policies, Routes, Unmatched,
        endpoint::Endpoint,
        routes::{self, Host, Route},
    },
    telemetry::Otlp,
};

/// A configuration without a fault.
#[derive(Debug)]
pub struct Config {
    /// How calls are served.
    pub server: Server,
    /// Where operators look.
    pub admin: SocketAddr,
    /// Whether there are metrics.
    pub metrics: bool,
    /// Where metrics and spans are pushed.
    pub otlp: Option<Otlp>,
    /// What is executed.
    pub policies: Policies,
    /// The file and all that it refers to: when one of them changes, the configuration does.
    pub files: Files,
    /// What is allowed but deserves a look.
    pub warnings: Vec<String>,
    /// Every setting as it is in force, without a secret, for operators.
    pub effective: serde_json::Value,
}

impl Config {
    /// Reads a file and every secret that it refers to, all as they are at one time: what changes meanwhile, such as
    /// Kubernetes' symlink, is read again, so that no key id is put together with the next key's secret.
    ///
    /// # Errors
    /// Everything that is wrong, in the file's order.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let mut loaded = Self::load_once(file);
        for _ in 1..MAX_READS {
            let files = match &loaded {
                Ok(config) => &config.files,
                Err(faults) => &faults.files,
            };
            if files.are_as_noted() {
                break;
            }
            loaded = Self::load_once(file);
        }
        loaded
    }

    fn load_once(file: &Path) -> Result<Self, Faults> {
        let files = noted(file);
        match content::read_text(file, content::Most::CONFIGURATION) {
            Ok(text) => Self::read(&text, file, files),
            Err(error) => {
                let mut found = Found::default();
                found.add(None, "", format_args!("cannot be read: {error}"));
                Err(found.into_faults(file, files))
            }
        }
    }

    /// Parses the text of a file; relative paths in it start from the file's directory.
    ///
    /// # Errors
    /// Everything that is wrong, in the file's order.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Faults> {
        Self::read(text, file, noted(file))
    }

    fn read(text: &str, file: &Path, files: Files) -> Result<Self, Faults> {
        let mut found = Found::default();
        let Some(root) = Node::parse(text, &mut found) else { return Err(found.into_faults(file, files)) };
        check::section(&root, shape::FILE, "", &mut found);

        let mut secrets = Secrets::new(file, files);
        let server_section = Section::new(root.get("server"), None, "server");
        let mut warnings = Vec::new();
        let server = server::server(&server_section, &mut secrets, &mut warnings, &mut found);
        let admin = admin(&Section::new(root.get("admin"), None, "admin"), &mut found);
        let metrics = telemetry::metrics(&root);
        let otlp = telemetry::otlp(&root, &mut warnings, &mut found);
        let callers = callers::callers(&root, &server_section, &mut secrets, &mut found);
        let policies = policies(&root, &server_section, callers, &mut secrets, &mut warnings, &mut found);
        match (server, admin) {
            (Some(server), Some(admin)) if found.is_empty() => {
                let effective = effective::effective(&root);
                Ok(Self { server, admin, metrics, otlp, policies, files: secrets.files, warnings, effective })
            }
            _ => Err(found.into_faults(file, secrets.files)),
        }
    }
}

fn noted(file: &Path) -> Files {
    let mut files = Files::default();
    files.note(file);
    files
}

/// How often files are read that change meanwhile; whoever watches them reads them once more when they have settled.
const MAX_READS: usize = 5;
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

fn admin(section: &Section<'_>, found: &mut Found) -> Option<SocketAddr> {
    if section.get("listen").is_none() {
        return Some(ADMIN);
    }
    section.parse("listen", found, |text| {
        text.parse().map_err(|_| format!("`{text}` is not an address and port: expected one such as `{ADMIN}`"))
    })
}

fn policies(
    root: &Node,
    server: &Section<'_>,
    callers: callers::Known,
    secrets: &mut Secrets,
    warnings: &mut Vec<String>,
    found: &mut Found,
) -> Policies {
    let defaults = root.get("defaults");
    let mut inline = policy::inline_defaults(defaults, secrets, found);
    inline.callers = callers.inline();
    let mut named = HashMap::new();
    for entry in root.get("policies").map(Node::entries).unwrap_or_default() {
        let path = check::join("policies", &entry.key);
        let name = Name::parse(&entry.key).map_err(|error| found.add(Some(entry.place), &path, error));
        let section = Section::new(Some(&entry.node), defaults, &path);
        // The check has told of what is no map; what is missing in it need not be told too.
        let (Ok(name), Value::Map(_)) = (name, &entry.node.value) else { continue };
        let allowed = callers.allowed(&section, found);
        if let Some(mut policy) = policy::policy(name.clone(), &section, inline.region.as_ref(), secrets, found) {
            if matches!(&allowed, Allowed::Only(names) if names.is_empty()) {
                warnings.push(format!("{path}: nobody may call it: name some of `callers` in its own"));
            }
            policy.callers = allowed;
            if let Endpoint::Url(url) = policy.access.endpoint()
                && url.is_exposed()
            {
                warnings.push(format!("{path}.endpoint.url: is plain http to another machine: use https"));
            }
            named.insert(name, Arc::new(policy));
        }
    }
    // Defaults that no policy takes are read too.
    callers.allowed(&Section::new(defaults, None, "defaults"), found);
    let allow = server.choice("inline_policies", &[("deny", false), ("allow", true)]).unwrap_or(false);
    Policies {
        callers: callers.callers,
        routes: routes(root, found),
        named,
        inline: allow.then_some(inline),
        unmatched: server.choice("unmatched", &Unmatched::NAMES).unwrap_or_default(),
    }
}

fn routes(root: &Node, found: &mut Found) -> Routes {
    let configured = root.get("policies").map(Node::entries).unwrap_or_default();
    let mut routes = Vec::new();
    for setting in Section::new(Some(root), None, "").sections("routes") {
        let own = Section::new(Some(setting.node), None, &setting.key);
        let host = own.parse("host", found, Host::parse);
        let path = own.parse("path", found, routes::Path::parse);
        let policy = own.parse("policy", found, |text| match configured.iter().any(|entry| entry.key == text) {
            true => Name::parse(text).map_err(|error| error.to_string()),
            false => Err(format!("`{text}` is no policy of this file")),
        });
        routes.extend(policy.map(|policy| Route { host, path, policy }));
    }
    Routes::new(routes)
}

#[cfg(test)]
mod tests;
