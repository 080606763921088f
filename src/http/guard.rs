//! Who may not ask the admin port: pages of other sites in an operator's browser.
//!
//! Such a page can send requests to any address, and can have a name of its own point to the loopback interface, so
//! that its requests count as of the same site ("DNS rebinding"). Browsers say of a request that may change something
//! where it comes from, and of every request which name was asked for; programs of operators need neither.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, Uri, header, uri::Authority};

/// Names below these are nobody's to have on the internet (RFC 6761, RFC 6762, RFC 8375, and ICANN on `internal`).
const PRIVATE: [&str; 5] = [".localhost", ".local", ".internal", ".home.arpa", ".test"];

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It comes from a page, which may not change anything.
    Page,
    /// It asks for a name that anybody's page may have.
    Name,
}

/// Looks at a request. `local` says that only programs of this machine can connect, so that no name of a network stands for it.
pub(super) fn check(method: &Method, uri: &Uri, headers: &HeaderMap, local: bool) -> Result<(), Refusal> {
    let text = |name: &header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if !method.is_safe() {
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        if headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != b"none") {
            return Err(Refusal::Page);
        }
    }
    let asked = uri.authority().map(Authority::as_str).or_else(|| text(&header::HOST));
    match asked {
        Some(asked) if local && !is_of_no_page(asked) => Err(Refusal::Name),
        _ => Ok(()),
    }
}

/// Whether no page of the internet can have this name: an address, or a name that is found here only.
fn is_of_no_page(asked: &str) -> bool {
    let Ok(authority) = asked.parse::<Authority>() else { return false };
    let name = authority.host().to_ascii_lowercase();
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    let name = name.strip_suffix('.').unwrap_or(&name);
    bare.parse::<IpAddr>().is_ok() || !name.contains('.') || PRIVATE.iter().any(|private| name.ends_with(private))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn look(method: Method, headers: &[(&'static str, &str)], local: bool) -> Result<(), Refusal> {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_str(value).unwrap())
        });
        check(&method, &Uri::from_static("/log-level"), &headers.collect(), local)
    }

    #[test]
    fn pages_change_nothing() {
        let host = ("host", "127.0.0.1:9464");
        for (sentence, headers, expected) in [
            ("a program", &[host][..], Ok(())),
            ("a person who typed the address", &[host, ("sec-fetch-site", "none")], Ok(())),
            ("another site", &[host, ("origin", "https://evil.example")], Err(Refusal::Page)),
            ("a sandboxed page", &[host, ("origin", "null")], Err(Refusal::Page)),
            ("a form without a word of where it is", &[host, ("sec-fetch-site", "cross-site")], Err(Refusal::Page)),
            ("a neighbour at another port", &[host, ("sec-fetch-site", "same-site")], Err(Refusal::Page)),
            ("even a page of this port", &[host, ("origin", "http://127.0.0.1:9464")], Err(Refusal::Page)),
        ] {
            for method in [Method::PUT, Method::POST, Method::DELETE] {
                assert_eq!(look(method, headers, true), expected, "{sentence}");
            }
            assert_eq!(look(Method::GET, headers, true), Ok(()), "{sentence} may ask, and cannot read it");
        }
    }

    #[test]
    fn on_loopback_only_names_are_answered_that_no_page_can_have() {
        for host in [
            "127.0.0.1:9464",
            "[::1]:9464",
            "10.1.2.3",
            "localhost:9464",
            "LOCALHOST",
            "a.localhost",
            "x",
            "admin:80",
            "box.local",
            "box.internal.",
            "localhost.",
        ] {
            assert_eq!(look(Method::GET, &[("host", host)], true), Ok(()), "{host}");
        }
        for host in [
            "evil.example:9464",
            "127.0.0.1.nip.io",
            "evil.example.",
            "local.evil.example",
            "localhost.evil.example",
            "evil.example:9464@x.example",
            "a b",
            "\u{e9}.example",
            "::1",
        ] {
            assert_eq!(look(Method::GET, &[("host", host)], true), Err(Refusal::Name), "{host}");
            assert_eq!(look(Method::GET, &[("host", host)], false), Ok(()), "{host}: where a network is served");
        }
        assert_eq!(look(Method::GET, &[], true), Ok(()), "HTTP/1.0 asks for no name");
        let absolute = Uri::from_static("http://evil.example/config");
        assert_eq!(check(&Method::GET, &absolute, &HeaderMap::new(), true), Err(Refusal::Name));
    }
}
