//! The configuration file: from YAML to [`Config`], with all faults at once, each with line and column.

mod check;
mod fault;
mod files;
mod fixed;
mod gateway;
mod node;
mod policy;
mod schema;
mod secrets;
mod section;
mod shape;

use std::{collections::HashMap, fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

pub(crate) use self::{
    fault::Found,
    node::{Entry, Node, Value},
};
pub use self::{
    fault::{Fault, Faults, Place},
    files::{Files, Stamp},
    fixed::Fixed,
    schema::{schema, table},
};
use self::{
    secrets::Secrets,
    section::{Section, Setting},
};
use crate::{
    grpc::Tls,
    policy::{
        Name, Policies, Routes, Unmatched,
        endpoint::Endpoint,
        routes::{self, Host, Route},
    },
};

/// A configuration without a fault.
#[derive(Debug)]
pub struct Config {
    /// How calls are served.
    pub server: Server,
    /// Where probes are answered.
    pub admin: SocketAddr,
    /// What is executed.
    pub policies: Policies,
    /// The file and all that it refers to: when one of them changes, the configuration does.
    pub files: Files,
    /// What is allowed but deserves a look.
    pub warnings: Vec<String>,
}

/// How calls are served.
#[derive(Debug)]
pub struct Server {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Serve TLS.
    pub tls: Option<Tls>,
    /// When a connection is closed, up to a tenth later.
    pub max_connection_age: Duration,
    /// How many calls may be in flight.
    pub max_in_flight: usize,
    /// How many MiB the bodies of calls may hold.
    pub max_mib_in_flight: usize,
    /// How many threads serve connections.
    pub workers: usize,
    /// Between NOT_SERVING and closing connections.
    pub drain_delay: Duration,
    /// How long calls in flight may take to end.
    pub drain_timeout: Duration,
}

impl Config {
    /// Reads a file and every secret that it refers to.
    ///
    /// # Errors
    /// Everything that is wrong, in the file's order.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let files = noted(file);
        match fs::read_to_string(file) {
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
        let server = server(&server_section, &mut secrets, &mut found);
        let admin = listen(&Section::new(root.get("admin"), None, "admin"), ADMIN, &mut found);
        let (policies, warnings) = policies(&root, &server_section, &mut secrets, &mut found);
        match (server, admin) {
            (Some(server), Some(admin)) if found.is_empty() => {
                Ok(Self { server, admin, policies, files: secrets.files, warnings })
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

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 50051);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

/// As many as this process may use: its affinity and its cgroup's quota count.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn listen(section: &Section<'_>, default: SocketAddr, found: &mut Found) -> Option<SocketAddr> {
    if section.get("listen").is_none() {
        return Some(default);
    }
    section.parse("listen", found, |text| {
        text.parse().map_err(|_| format!("`{text}` is not an address and port: expected one such as `{default}`"))
    })
}

fn server(section: &Section<'_>, secrets: &mut Secrets, found: &mut Found) -> Option<Server> {
    let listen = listen(section, LISTEN, found);
    let tls = section.get("tls").map(|setting| tls(&setting, secrets, found));
    let mut duration = |key, default, bounds: Bounds| {
        section.bounded(key, found, |duration| bounds.check(duration)).unwrap_or(Duration::from_secs(default))
    };
    Some(Server {
        max_connection_age: duration("max_connection_age", 30 * 60, Bounds("1s", "24h")),
        drain_delay: duration("drain_delay", 5, Bounds("0s", "5m")),
        drain_timeout: duration("drain_timeout", 30, Bounds("0s", "15m")),
        max_in_flight: section.integer("max_in_flight").unwrap_or(1024),
        max_mib_in_flight: section.integer("max_mib_in_flight").unwrap_or(512),
        workers: section.integer("workers").unwrap_or_else(cores),
        listen: listen?,
        tls: match tls {
            None => None,
            Some(tls) => Some(tls?),
        },
    })
}

fn tls(setting: &Setting<'_>, secrets: &mut Secrets, found: &mut Found) -> Option<Tls> {
    let own = Section::new(Some(setting.node), None, &setting.key);
    let mut pem = |key: &str, found: &mut Found| {
        let setting = own.get(key)?;
        let path = secrets.path(setting.node.text()?);
        fs::read(&path)
            .map_err(|error| {
                let message = format!("the file {} cannot be read: {error}", path.display());
                found.add(Some(setting.node.place), setting.key, message);
            })
            .ok()
    };
    let (certificate, key, client_ca) = (pem("certificate", found), pem("key", found), pem("client_ca", found));
    let parsed = Tls::parse(certificate?, key?.into(), client_ca);
    parsed
        .map_err(|wrong| {
            for error in wrong {
                let place = own.get(error.part).map(|setting| setting.node.place);
                found.add(place, own.key(error.part), format_args!("the file {error}"));
            }
        })
        .ok()
}

/// The shortest and the longest that a duration may be.
#[derive(Clone, Copy)]
struct Bounds(&'static str, &'static str);

impl Bounds {
    fn check(self, duration: Duration) -> Result<Duration, String> {
        let Self(least, most) = self;
        let [shortest, longest] = [least, most].map(|bound| humantime::parse_duration(bound).unwrap_or_default());
        if (shortest..=longest).contains(&duration) {
            return Ok(duration);
        }
        Err(format!(
            "`{}` is outside of what is possible: expected {least} to {most}",
            humantime::format_duration(duration)
        ))
    }
}

fn policies(root: &Node, server: &Section<'_>, secrets: &mut Secrets, found: &mut Found) -> (Policies, Vec<String>) {
    let defaults = root.get("defaults");
    let inline = policy::inline_defaults(defaults, secrets, found);
    let mut named = HashMap::new();
    let mut warnings = Vec::new();
    for entry in root.get("policies").map(Node::entries).unwrap_or_default() {
        let path = check::join("policies", &entry.key);
        let name = Name::parse(&entry.key).map_err(|error| found.add(Some(entry.place), &path, error));
        let section = Section::new(Some(&entry.node), defaults, &path);
        // The check has told of what is no map; what is missing in it need not be told too.
        let (Ok(name), Value::Map(_)) = (name, &entry.node.value) else { continue };
        if let Some(policy) = policy::policy(name.clone(), &section, inline.region.as_ref(), secrets, found) {
            if let Endpoint::Url(url) = policy.access.endpoint()
                && url.is_exposed()
            {
                warnings.push(format!("{path}.endpoint.url: is plain http to another machine: use https"));
            }
            named.insert(name, Arc::new(policy));
        }
    }
    let allow = server.choice("inline_policies", &[("deny", false), ("allow", true)]).unwrap_or(false);
    let policies = Policies {
        routes: routes(root, found),
        named,
        inline: allow.then_some(inline),
        unmatched: server.choice("unmatched", &Unmatched::NAMES).unwrap_or_default(),
    };
    (policies, warnings)
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
