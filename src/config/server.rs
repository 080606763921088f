//! The section `server`: where and how calls are served.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    content::{self, Most},
    fault::Found,
    secrets::Secrets,
    section::{Section, Setting},
};
use crate::grpc::{ClientCa, Tls};

/// How calls are served.
#[derive(Debug)]
pub struct Server {
    /// Where gRPC is served.
    pub listen: Listen,
    /// The mode of a Unix socket's file.
    pub socket_mode: u32,
    /// Serve TLS.
    pub tls: Option<Tls>,
    /// When a connection is closed, up to a tenth later.
    pub max_connection_age: Duration,
    /// How many connections there may be.
    pub max_connections: usize,
    /// How many calls may be in flight.
    pub max_in_flight: usize,
    /// How many MiB the bodies of calls may hold.
    pub max_mib_in_flight: usize,
    /// How many threads serve connections.
    pub workers: usize,
    /// Whether calls end with a report of the load.
    pub load_reports: bool,
    /// Between NOT_SERVING and closing connections.
    pub drain_delay: Duration,
    /// How long calls in flight may take to end.
    pub drain_timeout: Duration,
}

/// Where gRPC is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and port.
    Tcp(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);
const UNIX: &str = "unix:";
/// Its owner and its group may connect.
const SOCKET_MODE: u32 = 0o660;

/// As many as this process may use: its affinity and its cgroup's quota count.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(super) fn server(
    section: &Section<'_>,
    secrets: &mut Secrets,
    warnings: &mut Vec<String>,
    found: &mut Found,
) -> Option<Server> {
    let listen = listen(section, secrets, found);
    let tls = section.get("tls").map(|setting| tls(&setting, secrets, warnings, found));
    if let (Some(listen), None) = (&listen, &tls) {
        plaintext(listen, section, warnings, found);
    }
    let mut duration = |key, default, bounds: Bounds| {
        section.bounded(key, found, |duration| bounds.check(duration)).unwrap_or(Duration::from_secs(default))
    };
    Some(Server {
        max_connection_age: duration("max_connection_age", 30 * 60, Bounds("1s", "24h")),
        drain_delay: duration("drain_delay", 5, Bounds("0s", "5m")),
        drain_timeout: duration("drain_timeout", 30, Bounds("0s", "15m")),
        max_connections: section.integer("max_connections").unwrap_or(4096),
        max_in_flight: section.integer("max_in_flight").unwrap_or(1024),
        max_mib_in_flight: section.integer("max_mib_in_flight").unwrap_or(512),
        workers: section.integer("workers").unwrap_or_else(cores),
        load_reports: section.choice("load_reports", &[("none", false), ("per-call", true)]).unwrap_or(false),
        socket_mode: section.parse("socket_mode", found, mode).unwrap_or(SOCKET_MODE),
        listen: listen?,
        tls: match tls {
            None => None,
            Some(tls) => Some(tls?),
        },
    })
}

fn listen(section: &Section<'_>, secrets: &Secrets, found: &mut Found) -> Option<Listen> {
    if section.get("listen").is_none() {
        return Some(Listen::Tcp(LISTEN));
    }
    section.parse("listen", found, |text| match text.strip_prefix(UNIX) {
        Some("") => Err("names no file: expected one such as `unix:/run/lambda-policy.sock`".to_owned()),
        Some(path) => Ok(Listen::Unix(secrets.resolve(path))),
        None => text.parse().map(Listen::Tcp).map_err(|_| {
            format!("`{text}` is not an address and port: expected one such as `{LISTEN}`, or `unix:` and a file")
        }),
    })
}

/// Where other machines can connect, what goes over the wire is to be encrypted, or somebody has said that it need not be.
fn plaintext(listen: &Listen, section: &Section<'_>, warnings: &mut Vec<String>, found: &mut Found) {
    let Listen::Tcp(address) = listen else { return };
    if address.ip().to_canonical().is_loopback() {
        return;
    }
    let key = section.key("listen");
    if section.choice("plaintext", &[("deny", false), ("allow", true)]).unwrap_or(false) {
        warnings
            .push(format!("{key}: {address} is served without TLS, so that events and tokens can be read on the way"));
        return;
    }
    let place = section.get("listen").map(|setting| setting.node.place);
    let message = format!(
        "other machines can connect to {address}, and there is no TLS: set `tls`, or `plaintext: allow` where a mesh or a \
         proxy encrypts"
    );
    found.add(place, key, message);
}

/// An octal number of four digits at the most.
fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 1..=0o777) if !text.starts_with('+') => Ok(mode),
        _ => Err(format!("`{text}` is no mode of a file: expected one such as `0660` or `0666`")),
    }
}

fn tls(setting: &Setting<'_>, secrets: &mut Secrets, warnings: &mut Vec<String>, found: &mut Found) -> Option<Tls> {
    let own = Section::new(Some(setting.node), None, &setting.key);
    let mut pem = |key: &str, found: &mut Found| {
        let setting = own.get(key)?;
        let path = secrets.path(setting.node.text()?);
        content::read(&path, Most::NAMED)
            .map_err(|error| {
                let message = format!("the file {} cannot be read: {error}", path.display());
                found.add(Some(setting.node.place), setting.key, message);
            })
            .ok()
            .map(|mut content| std::mem::take(&mut *content))
    };
    let (certificate, key, client_ca) = (pem("certificate", found), pem("key", found), pem("client_ca", found));
    let optional = own.choice("client_certificate", &[("required", false), ("optional", true)]);
    if let (Some(_), None) = (optional, own.get("client_ca")) {
        found.add(own.place(), own.key("client_certificate"), "needs `client_ca`");
    }
    let client_ca = client_ca.map(|pem| ClientCa { pem, optional: optional.unwrap_or(false) });
    let parsed = Tls::parse(&certificate?, &key?.into(), client_ca.as_ref());
    parsed
        .map_err(|wrong| {
            for error in wrong {
                let place = own.get(error.part).map(|setting| setting.node.place);
                found.add(place, own.key(error.part), format_args!("the file {error}"));
            }
        })
        .ok()
        // No faults: what is in force is no better for refusing it, and a fault would keep a service from restarting.
        .inspect(|tls| {
            warnings.extend(tls.troubles().map(|(part, trouble)| format!("{}: {trouble}", own.key(part))));
        })
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// The shortest and the longest that a duration may be.
#[derive(Clone, Copy)]
pub(super) struct Bounds(pub &'static str, pub &'static str);

impl Bounds {
    pub(super) fn check(self, duration: Duration) -> Result<Duration, String> {
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
