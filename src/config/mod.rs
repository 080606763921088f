//! The configuration file: from YAML to [`Config`], with all faults at once, each with line and column.

mod check;
mod fault;
mod node;
mod policy;
mod schema;
mod secrets;
mod section;
mod shape;

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretSlice;

use self::{fault::Found, node::Node, secrets::Secrets, section::Section};
pub use self::{
    fault::{Fault, Faults, Place},
    schema::{schema, table},
};
use crate::policy::{Name, Policies, endpoint::Endpoint};

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
    pub files: Vec<PathBuf>,
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
    /// How many threads serve connections.
    pub workers: usize,
    /// Between NOT_SERVING and closing connections.
    pub drain_delay: Duration,
    /// How long calls in flight may take to end.
    pub drain_timeout: Duration,
}

/// What TLS needs, in PEM.
#[derive(Debug)]
pub struct Tls {
    /// The server's certificate and its intermediates.
    pub certificate: Vec<u8>,
    /// The certificate's private key.
    pub key: SecretSlice<u8>,
    /// Whose certificates callers must have.
    pub client_ca: Option<Vec<u8>>,
}

impl Config {
    /// Reads a file and every secret that it refers to.
    ///
    /// # Errors
    /// Everything that is wrong, in the file's order.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let mut found = Found::default();
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(error) => {
                found.add(None, "", format_args!("cannot be read: {error}"));
                Err(found.into_faults(file))
            }
        }
    }

    /// Parses the text of a file; relative paths in it start from the file's directory.
    ///
    /// # Errors
    /// Everything that is wrong, in the file's order.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Faults> {
        let mut found = Found::default();
        let Some(root) = Node::parse(text, &mut found) else { return Err(found.into_faults(file)) };
        check::section(&root, shape::FILE, "", &mut found);

        let mut secrets = Secrets::new(file);
        let server_section = Section::new(root.get("server"), None, "server");
        let server = server(&server_section, &mut secrets, &mut found);
        let admin = listen(&Section::new(root.get("admin"), None, "admin"), ADMIN, &mut found);
        let (policies, warnings) = policies(&root, &server_section, &mut secrets, &mut found);
        match (server, admin) {
            (Some(server), Some(admin)) if found.is_empty() => {
                let mut files = secrets.files;
                files.push(file.to_owned());
                files.sort_unstable();
                files.dedup();
                Ok(Self { server, admin, policies, files, warnings })
            }
            _ => Err(found.into_faults(file)),
        }
    }
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
    let tls = section.get("tls").map(|setting| {
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
        Some(Tls { certificate: certificate?, key: key?.into(), client_ca })
    });
    let duration = |key, default| section.duration(key).unwrap_or(Duration::from_secs(default));
    let tls = match tls {
        None => None,
        Some(tls) => Some(tls?),
    };
    Some(Server {
        listen: listen(section, LISTEN, found)?,
        tls,
        max_connection_age: duration("max_connection_age", 30 * 60),
        max_in_flight: section.integer("max_in_flight").unwrap_or(1024),
        workers: section.integer("workers").unwrap_or_else(cores),
        drain_delay: duration("drain_delay", 5),
        drain_timeout: duration("drain_timeout", 30),
    })
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
        let Ok(name) = name else { continue };
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
    (Policies { named, inline: allow.then_some(inline) }, warnings)
}

#[cfg(test)]
mod tests;
