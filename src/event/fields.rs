//! A caller's headers on their way into an event.
//!
//! What concerns only the connection to the gateway stays behind (RFC 9110, 7.6.1). HTTP/2's two
//! peculiarities are undone, as every front door does: the host is a header again and a cookie that
//! came in crumbs is one (RFC 9113, 8.2.3 and 8.3.1).

use std::{borrow::Cow, collections::BTreeSet};

use super::{call::Call, multimap::Multimap};

/// How an event spells header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As the caller did; but these names, if they come in lower case, as here.
    AsSentBut(&'static [&'static str]),
    /// In lower case.
    Lower,
}

/// The headers that reach the function, in their order.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    entries: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    spelling: Spelling,
}

impl<'a> Fields<'a> {
    /// The caller's headers without those of the connection and without pseudo-headers.
    pub(super) fn of(call: &'a Call, spelling: Spelling) -> Self {
        let named = connection_options(&call.headers);
        let mut fields = Self { entries: Vec::with_capacity(call.headers.len() + 5), spelling };
        let mut cookie = None;
        for (name, value) in &call.headers {
            let hop = is_hop_by_hop(name) || (!named.is_empty() && named.contains(&name.to_ascii_lowercase()));
            if hop || name.starts_with(':') {
                continue;
            }
            if name.eq_ignore_ascii_case("cookie") {
                if let Some((_, crumbs)) = cookie.and_then(|at: usize| fields.entries.get_mut(at)) {
                    let crumbs: &mut String = crumbs.to_mut();
                    crumbs.push_str("; ");
                    crumbs.push_str(value);
                    continue;
                }
                cookie = Some(fields.entries.len());
            }
            fields.push(name, value);
        }
        fields
    }

    /// Adds the host from the authority if the caller sent none, as HTTP/2 callers do.
    pub(super) fn with_host(mut self, call: &'a Call) -> Self {
        if !call.authority.is_empty() && self.get("host").is_none() {
            self.push("Host", &*call.authority);
        }
        self
    }

    fn push(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        let upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
        let name = match self.spelling {
            Spelling::Lower if upper => Cow::Owned(name.to_ascii_lowercase()),
            Spelling::AsSentBut(titled) if !upper => {
                Cow::Borrowed(titled.iter().find(|titled| titled.eq_ignore_ascii_case(name)).copied().unwrap_or(name))
            }
            Spelling::Lower | Spelling::AsSentBut(_) => Cow::Borrowed(name),
        };
        self.entries.push((name, value.into()));
    }

    /// The last header of that name, which is what AWS goes by.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next_back()
    }

    /// The values of that name, in their order.
    pub(super) fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.entries.iter().filter(move |(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Takes the headers of that name out and gives the last one.
    pub(super) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        self.entries.extract_if(.., |(given, _)| given.eq_ignore_ascii_case(name)).last().map(|(_, value)| value)
    }

    /// Drops the headers of these names, which are in lower case.
    pub(super) fn remove(&mut self, names: &[&str]) {
        self.entries.retain(|(given, _)| !names.iter().any(|name| given.eq_ignore_ascii_case(name)));
    }

    /// Puts this header in the place of all of its name.
    pub(super) fn set(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.take(name);
        self.push(name, value);
    }

    /// The headers by name; names that differ only in case are one.
    pub(super) fn into_map(self) -> Multimap<'a> {
        match self.spelling {
            Spelling::AsSentBut(_) => Multimap::ignoring_case(self.entries),
            Spelling::Lower => Multimap::exact(self.entries),
        }
    }
}

/// Whether this header is meant for the next hop only, whatever `Connection` says. All of `Proxy-*`
/// is between the caller and its proxy.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 6] = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];
    NAMES.iter().any(|hop| name.eq_ignore_ascii_case(hop))
        || name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("proxy-"))
}

/// The headers that `Connection` names, in lower case.
pub(super) fn connection_options<N: AsRef<str>, V: AsRef<str>>(headers: &[(N, V)]) -> BTreeSet<String> {
    headers
        .iter()
        .filter(|(name, _)| name.as_ref().eq_ignore_ascii_case("connection"))
        .flat_map(|(_, value)| value.as_ref().split(','))
        .map(|option| option.trim().to_ascii_lowercase())
        .filter(|option| !option.is_empty())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{
        super::{call::sample, multimap::All},
        *,
    };
    use serde_json::{Value, json, to_value};

    fn spelled(headers: &[(&str, &str)], spelling: Spelling) -> Value {
        let mut call = sample::bare("GET", "/");
        call.headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        to_value(All(&Fields::of(&call, spelling).into_map())).unwrap()
    }

    #[test]
    fn what_is_for_the_next_hop_stays_behind() {
        for name in [
            "Connection",
            "keep-alive",
            "Proxy-Connection",
            "PROXY-AUTHORIZATION",
            "Proxy-Authenticate",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            ":authority",
            ":path",
        ] {
            assert_eq!(spelled(&[(name, "x"), ("a", "1")], Spelling::AsSentBut(&[])), json!({"a": ["1"]}), "{name}");
        }
    }

    #[test]
    fn so_does_what_connection_names() {
        let headers = [
            ("connection", "close, X-Secret ,"),
            ("Connection", "x-other"),
            ("x-secret", "1"),
            ("X-Other", "2"),
            ("x-kept", "3"),
        ];
        assert_eq!(spelled(&headers, Spelling::AsSentBut(&[])), json!({"x-kept": ["3"]}));
    }

    #[test]
    fn authorization_and_amazon_headers_go_along() {
        let headers = [("Authorization", "Bearer x"), ("X-Amz-Date", "now")];
        assert_eq!(spelled(&headers, Spelling::Lower), json!({"authorization": ["Bearer x"], "x-amz-date": ["now"]}));
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_one_cookie() {
        let headers = [("cookie", "a=1"), ("x", "y"), ("Cookie", "b=2"), ("cookie", "c=3")];
        assert_eq!(spelled(&headers, Spelling::Lower), json!({"cookie": ["a=1; b=2; c=3"], "x": ["y"]}));
    }

    #[test]
    fn names_are_spelled_as_sent_or_in_lower_case() {
        let headers = [("X-Probe", "first"), ("x-PROBE", "second")];
        assert_eq!(spelled(&headers, Spelling::AsSentBut(&[])), json!({"X-Probe": ["first", "second"]}));
        assert_eq!(spelled(&headers, Spelling::Lower), json!({"x-probe": ["first", "second"]}));
        let titled = Spelling::AsSentBut(&["Host", "User-Agent"]);
        let headers = [("user-agent", "1"), ("accept", "2"), ("HOST", "3")];
        assert_eq!(spelled(&headers, titled), json!({"User-Agent": ["1"], "accept": ["2"], "HOST": ["3"]}));
    }

    #[test]
    fn an_authority_becomes_the_host_unless_there_is_one() {
        let mut call = sample::bare("GET", "/");
        call.authority = "api.example.com".into();
        assert_eq!(Fields::of(&call, Spelling::Lower).with_host(&call).get("host"), Some("api.example.com"));
        call.headers.push(("Host".into(), "other.example.com".into()));
        assert_eq!(Fields::of(&call, Spelling::Lower).with_host(&call).get("host"), Some("other.example.com"));
    }

    #[test]
    fn setting_a_header_replaces_every_one_of_its_name() {
        let mut call = sample::bare("GET", "/");
        call.headers = vec![("A".into(), "1".into()), ("a".into(), "2".into())];
        let mut fields = Fields::of(&call, Spelling::Lower);
        fields.set("A", "3");
        assert_eq!(fields.all("a").collect::<Vec<_>>(), ["3"]);
        assert_eq!(fields.take("A").unwrap(), "3");
        assert_eq!(fields.get("a"), None);
    }
}
