//! An HTTP call as the gateway received it, and what every format reads from it.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr, time::SystemTime};

use bytes::Bytes;
use serde_json::value::RawValue;

/// What an account is called where the gateway does not say which one it is: twelve digits, as AWS's own, that no account has.
const NO_ACCOUNT: &str = "000000000000";

/// An HTTP call as the gateway received it. Nothing in it is decoded yet: each format has its own rules.
///
/// An empty string means that the gateway did not say. Only `request_id` must be given: it is what
/// the function logs and what the caller is told.
#[derive(Clone)]
pub struct Call {
    /// The method, such as `GET`.
    pub method: String,
    /// The path as received, percent-encoded, without the query. Empty is `/`.
    pub path: String,
    /// The query as received, without the question mark.
    pub query: String,
    /// The headers in their order, repeats kept, in the caller's spelling.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Bytes,
    /// The caller's address, without a port.
    pub source_ip: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and perhaps port, as in `Host` or `:authority`.
    pub authority: String,
    /// The protocol, such as `HTTP/1.1`, which is also what an empty one stands for.
    pub protocol: String,
    /// The route that matched: `GET /pets/{id}`, `/pets/{id}` or `$default`.
    pub route: String,
    /// The deployment stage.
    pub stage: String,
    /// The path's parameters, cut out of the path as received: still percent-encoded.
    pub path_parameters: BTreeMap<String, String>,
    /// The stage's variables.
    pub stage_variables: BTreeMap<String, String>,
    /// The id of this call. Never empty.
    pub request_id: String,
    /// What the gateway's authorizer found out about the caller, as JSON.
    pub authorizer: Option<Box<RawValue>>,
    /// The AWS account of the API, twelve digits.
    pub account_id: String,
    /// The id of the API.
    pub api_id: String,
    /// When the gateway received the call.
    pub received: SystemTime,
}

/// What a front door knows that a call does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Front<'a> {
    /// The function's region, such as `eu-central-1`. Empty is `us-east-1`.
    pub region: &'a str,
    /// The target group that ALB events name; without it one is made from region, account and API.
    pub target_group_arn: Option<&'a str>,
}

/// Says what was called, not what was sent: headers and bodies hold the callers' secrets.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &self.headers.len())
            .field("body", &self.body.len())
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// `value`, or `instead` where there is none.
pub(super) fn or<'a>(value: &'a str, instead: &'a str) -> &'a str {
    if value.is_empty() { instead } else { value }
}

impl Call {
    /// Leaves out every header of this name; the name's case does not matter.
    pub fn hide(&mut self, name: &str) {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
    }

    /// The first header of this name; the name's case does not matter.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn path(&self) -> &str {
        or(&self.path, "/")
    }

    /// The path with a named stage in front, where HTTP APIs have it: `/dev/pets/1`. `$default` has no name
    /// in a URL, and a gateway may have passed the stage on with the path.
    pub(super) fn staged_path(&self) -> Cow<'_, str> {
        let (path, stage) = (self.path(), self.stage.as_str());
        let below = path.strip_prefix('/').and_then(|path| path.strip_prefix(stage));
        if stage.is_empty() || stage == "$default" || below.is_some_and(|b| b.is_empty() || b.starts_with('/')) {
            return Cow::Borrowed(path);
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Cow::Owned(format!("/{stage}{slash}{path}"))
    }

    /// Path and query as they stood in the request line.
    pub(super) fn target(&self) -> Cow<'_, str> {
        if self.query.is_empty() {
            Cow::Borrowed(self.path())
        } else {
            Cow::Owned(format!("{}?{}", self.path(), self.query))
        }
    }

    pub(super) fn protocol(&self) -> &str {
        or(&self.protocol, "HTTP/1.1")
    }

    pub(super) fn account(&self) -> &str {
        or(&self.account_id, NO_ACCOUNT)
    }

    /// Host and perhaps port.
    pub(super) fn authority(&self) -> &str {
        or(&self.authority, self.header("host").unwrap_or_default())
    }

    /// The host and the port of the authority, the latter only where it is spelled out.
    pub(super) fn host_and_port(&self) -> (&str, Option<&str>) {
        let authority = self.authority();
        match authority.rsplit_once(':') {
            // The colons of an IPv6 address are no port's unless the address is in brackets.
            Some((host, port))
                if !port.is_empty()
                    && port.bytes().all(|byte| byte.is_ascii_digit())
                    && (host.ends_with(']') || !host.contains(':')) =>
            {
                (host, Some(port))
            }
            _ => (authority, None),
        }
    }

    /// `domainName`: the host without its port.
    pub(super) fn domain(&self) -> &str {
        self.host_and_port().0
    }

    /// `domainPrefix`: the domain's first label, which on AWS's own domains is the API's id.
    pub(super) fn domain_prefix(&self) -> &str {
        let domain = self.domain();
        if domain.starts_with('[') || domain.parse::<IpAddr>().is_ok() {
            return domain;
        }
        domain.split('.').next().unwrap_or(domain)
    }

    pub(super) fn api(&self) -> &str {
        or(&self.api_id, self.domain_prefix())
    }

    /// `https` unless the gateway says otherwise: AWS's front doors but ALB know nothing else.
    pub(super) fn scheme(&self) -> &str {
        or(&self.scheme, "https")
    }

    /// The route without a method: `/pets/{id}` of `GET /pets/{id}`. Empty if there is none.
    pub(super) fn route_path(&self) -> &str {
        match self.route.split_once(' ') {
            Some((_, path)) => path,
            None => &self.route,
        }
    }

    /// The route as HTTP APIs spell it: method and path, or `$default`.
    pub(super) fn route_key(&self) -> Cow<'_, str> {
        if self.route.is_empty() {
            Cow::Borrowed("$default")
        } else if self.route.starts_with('/') {
            Cow::Owned(format!("{} {}", self.method, self.route))
        } else {
            Cow::Borrowed(&self.route)
        }
    }
}

#[cfg(test)]
pub(super) mod sample {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    /// A call of which nothing but method, path and request id is known.
    pub(in crate::event) fn bare(method: &str, path: &str) -> Call {
        Call {
            method: method.into(),
            path: path.into(),
            query: String::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            source_ip: String::new(),
            scheme: String::new(),
            authority: String::new(),
            protocol: String::new(),
            route: String::new(),
            stage: String::new(),
            path_parameters: BTreeMap::new(),
            stage_variables: BTreeMap::new(),
            request_id: "0c9b1bb1-7d3a-4a4e-9c56-0f3f8a3fd1ab".into(),
            authorizer: None,
            account_id: String::new(),
            api_id: String::new(),
            received: UNIX_EPOCH + Duration::from_millis(1_583_348_638_390),
        }
    }

    /// The request that the facts were captured with, as each front door got it.
    pub(in crate::event) fn captured() -> Call {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Call {
            query: "repeat=one&repeat=two&redirect=https%3A%2F%2Fexample.com%2Fa%2Fb\
                    &literalPlus=a+b&encodedPlus=a%2Bb&empty="
                .into(),
            headers: vec![
                header("Host", "abc123.execute-api.eu-central-1.amazonaws.com"),
                header("X-Probe", "first"),
                header("X-Probe", "second"),
                header("Cookie", "session=abc123; theme=dark"),
                header("Content-Type", "application/json"),
                header("Content-Length", "12"),
                header("User-Agent", "probe/1.0"),
                header("Connection", "keep-alive, X-Hop"),
                header("Keep-Alive", "timeout=5"),
                header("X-Hop", "for the gateway only"),
                header("TE", "trailers"),
            ],
            body: Bytes::from_static(b"{\"a\": \"\xc3\xa4\"}"),
            source_ip: "192.0.2.7".into(),
            scheme: "https".into(),
            authority: "abc123.execute-api.eu-central-1.amazonaws.com".into(),
            protocol: "HTTP/1.1".into(),
            route: "POST /capture/{item}".into(),
            stage: "live".into(),
            path_parameters: [("item".to_owned(), "space%20value".to_owned())].into(),
            account_id: "123456789012".into(),
            api_id: "abc123".into(),
            ..bare("POST", "/capture/space%20value")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_the_authority_without_its_port() {
        for (authority, domain, port, prefix) in [
            ("abc.example.com:8443", "abc.example.com", Some("8443"), "abc"),
            ("abc.example.com", "abc.example.com", None, "abc"),
            ("localhost:80", "localhost", Some("80"), "localhost"),
            ("192.0.2.1:80", "192.0.2.1", Some("80"), "192.0.2.1"),
            ("[2001:db8::1]:80", "[2001:db8::1]", Some("80"), "[2001:db8::1]"),
            ("2001:db8::1", "2001:db8::1", None, "2001:db8::1"),
            ("", "", None, ""),
            ("odd:port", "odd:port", None, "odd:port"),
        ] {
            let mut call = sample::bare("GET", "/");
            call.authority = authority.into();
            assert_eq!(call.host_and_port(), (domain, port), "{authority}");
            assert_eq!(call.domain_prefix(), prefix, "{authority}");
        }
    }

    #[test]
    fn without_an_authority_the_host_header_speaks() {
        let mut call = sample::bare("GET", "/");
        call.headers.push(("HOST".into(), "api.example.com".into()));
        assert_eq!(call.domain(), "api.example.com");
        assert_eq!(call.api(), "api");
    }

    #[test]
    fn a_route_is_known_by_method_and_path() {
        for (route, key, path) in [
            ("", "$default", ""),
            ("$default", "$default", "$default"),
            ("GET /pets/{id}", "GET /pets/{id}", "/pets/{id}"),
            ("ANY /pets/{id}", "ANY /pets/{id}", "/pets/{id}"),
            ("/pets/{id}", "DELETE /pets/{id}", "/pets/{id}"),
        ] {
            let mut call = sample::bare("DELETE", "/pets/1");
            call.route = route.into();
            assert_eq!(call.route_key(), key);
            assert_eq!(call.route_path(), path);
        }
    }

    #[test]
    fn a_named_stage_stands_before_the_path() {
        for (stage, path, expected, why) in [
            ("dev", "/pets/1", "/dev/pets/1", "a name"),
            ("dev", "/", "/dev/", "the root"),
            ("dev", "", "/dev/", "no path is the root"),
            ("dev", "pets", "/dev/pets", "a path without its slash"),
            ("dev", "/devices", "/dev/devices", "a path that only begins like the stage"),
            ("dev", "/dev/pets/1", "/dev/pets/1", "the gateway has put it there"),
            ("dev", "/dev", "/dev", "nothing behind it"),
            ("$default", "/pets/1", "/pets/1", "the stage without a name"),
            ("", "/pets/1", "/pets/1", "no stage"),
        ] {
            let mut call = sample::bare("GET", path);
            call.stage = stage.into();
            assert_eq!(call.staged_path(), expected, "{why}");
        }
    }

    #[test]
    fn what_a_call_prints_holds_no_secret() {
        let mut call = sample::captured();
        call.headers.push(("Authorization".into(), "Bearer hush".into()));
        let printed = format!("{call:?}");
        assert!(printed.contains("/capture"));
        assert!(!printed.contains("hush") && !printed.contains("abc123"), "{printed}");
    }
}
