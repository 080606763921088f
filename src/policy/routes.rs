//! Which policy a call is for, by its host and path, where the gateway does not name one.

use std::fmt;

use super::Name;

/// The routes in their order.
#[derive(Clone, Debug, Default)]
pub struct Routes(Vec<Route>);

/// What fits: the first route whose host and path both do.
#[derive(Clone, Debug)]
pub struct Route {
    /// Any host, unless it is said.
    pub host: Option<Host>,
    /// Any path, unless it is said.
    pub path: Option<Path>,
    /// Whose calls these are.
    pub policy: Name,
}

/// `api.example.com`, or `*.example.com` for every host below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    text: String,
    below: bool,
}

/// `/orders` and nothing else, or `/orders/*` for it and everything below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    text: String,
    below: bool,
}

/// What becomes of a call that no route fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// Its caller gets 404.
    #[default]
    Deny,
    /// The gateway goes on with it.
    Pass,
}

/// What is wrong with a host or a path, and what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(&'static str);

impl Unmatched {
    /// The choices under their names in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("deny", Self::Deny), ("pass", Self::Pass)];
}

impl Routes {
    /// Routes in the order in which they are tried.
    pub fn new(routes: Vec<Route>) -> Self {
        Self(routes)
    }

    /// The policy of the first route that fits. The host may have a port; the path is without the query.
    pub fn find(&self, host: &str, path: &str) -> Option<&Name> {
        if self.0.is_empty() {
            return None;
        }
        let host = without_port(host);
        let plain = !has_dots(path);
        self.0
            .iter()
            .find(|route| {
                route.host.as_ref().is_none_or(|pattern| pattern.fits(host))
                    && route.path.as_ref().is_none_or(
                        |pattern| {
                            if plain { pattern.fits(path) } else { pattern.fits_any() }
                        },
                    )
            })
            .map(|route| &route.policy)
    }
}

impl Host {
    /// Reads a host name or address without a port; `*.` before it stands for every host below.
    ///
    /// # Errors
    /// If it is empty, or has a port, a path or a `*` elsewhere.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let address = name.starts_with('[') && name.ends_with(']') && !below;
        if name.is_empty() || !(address || name.bytes().all(allowed)) {
            return Err(Error(
                "is not a host: expected one such as `api.example.com` or `*.example.com`, without a port",
            ));
        }
        Ok(Self { text: name.to_ascii_lowercase(), below })
    }

    fn fits(&self, host: &str) -> bool {
        if !self.below {
            return host.eq_ignore_ascii_case(&self.text);
        }
        let Some(at) = host.len().checked_sub(self.text.len()) else { return false };
        match (host.get(..at), host.get(at..)) {
            (Some(first), Some(rest)) => {
                first.len() > 1 && first.ends_with('.') && rest.eq_ignore_ascii_case(&self.text)
            }
            _ => false,
        }
    }
}

impl Path {
    /// Reads a path; `/*` at its end stands for it and everything below.
    ///
    /// # Errors
    /// If it does not begin with `/`, has a query, or a `*` elsewhere.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (below, path) = text.strip_suffix("/*").map_or((false, text), |path| (true, path));
        let begins = path.starts_with('/') || (below && path.is_empty());
        if !begins || path.contains(['*', '?', '#', '%']) {
            return Err(Error("is not a path: expected one such as `/orders` or `/orders/*`"));
        }
        Ok(Self { text: path.to_owned(), below })
    }

    fn fits(&self, path: &str) -> bool {
        match path.strip_prefix(self.text.as_str()) {
            Some("") => true,
            Some(rest) => self.below && rest.starts_with('/'),
            None => false,
        }
    }

    /// `/*`, which fits however a path is written.
    fn fits_any(&self) -> bool {
        self.below && self.text.is_empty()
    }
}

/// Whether a part of the path is `.` or `..`, encoded or not: what comes after it may lie elsewhere for another server.
fn has_dots(path: &str) -> bool {
    path.split(['/', '\\']).any(|part| {
        let dots = part.replace("%2e", ".").replace("%2E", ".");
        dots == "." || dots == ".."
    })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (name.ends_with(']') || !name.contains(':')) =>
        {
            name
        }
        _ => host,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_route_that_fits_counts() {
        let route = |host: &str, path: &str, policy: &str| Route {
            host: (!host.is_empty()).then(|| Host::parse(host).unwrap()),
            path: (!path.is_empty()).then(|| Path::parse(path).unwrap()),
            policy: Name::parse(policy).unwrap(),
        };
        let routes = Routes::new(vec![
            route("api.example.com", "/orders/*", "orders"),
            route("*.example.com", "/orders", "other-orders"),
            route("", "/greet", "greet"),
            route("all.test", "/*", "all"),
        ]);
        for (host, path, policy, why) in [
            ("api.example.com", "/orders", Some("orders"), "the path itself"),
            ("API.example.com:8443", "/orders/7", Some("orders"), "case and port of a host do not matter"),
            ("api.example.com", "/ordersx", None, "below means behind a slash"),
            ("api.example.com", "/Orders", None, "the case of a path matters"),
            ("a.b.example.com", "/orders", Some("other-orders"), "every host below"),
            ("example.com", "/orders", None, "the domain itself is not below itself"),
            (".example.com", "/orders", None, "nor is a host without a name"),
            ("evilexample.com", "/orders", None, "nor is one that ends alike"),
            ("a.example.com", "/orders/7", None, "an exact path is exact"),
            ("anything", "/greet", Some("greet"), "any host"),
            ("[::1]:80", "/greet", Some("greet"), "an address with a port"),
            ("api.example.com", "/x/../orders/7", None, "what a server might read as another path fits no path"),
            ("api.example.com", "/orders/%2e%2E/admin", None, "encoded or not"),
            ("api.example.com", "/orders/..\\admin", None, "and whatever parts it"),
            ("api.example.com", "/%6frders/7", None, "a path is compared as it came"),
            ("api.example.com", "//orders/7", None, "with its empty parts"),
            ("api.example.com", "/orders/a%20b", Some("orders"), "what is below may be encoded"),
            ("all.test", "/a/../b", Some("all"), "but it fits one that takes all"),
            ("api.example.com", "/nothing", None, "nothing"),
        ] {
            assert_eq!(routes.find(host, path).map(Name::as_str), policy, "{host}{path}: {why}");
        }
    }

    #[test]
    fn what_is_no_host_or_path_is_refused() {
        for host in ["", "*", "*.", "a:80", "https://a", "a/b", "a.*.b", "[::1]:80"] {
            assert!(Host::parse(host).is_err(), "{host}");
        }
        for path in ["", "orders", "/a?b", "/a*", "*", "/a/*/b", "/%6f"] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }
}
