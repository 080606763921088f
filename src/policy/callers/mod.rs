//! Who may call what: callers under names, what proves that a call is theirs, and which policies they may call.
//!
//! Without a caller in the configuration everybody may call everything. With the first one, nobody may call what does not
//! name them.

pub mod jwt;
pub mod keys;
mod ring;
mod token;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

pub use self::token::{Digest, DigestError};
use self::{jwt::Issuer, keys::Remote, token::bearer};
use crate::error::{About, Error, Kind};
use futures::{FutureExt, future::join_all};

/// A caller's name in the configuration: 1 to 64 letters, digits, `-`, `_` and `.`, as policies have them.
pub type CallerName = super::Name;

/// Who makes a call, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    who: Who,
    from: Option<Origin>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    /// Nobody who is known, and why not.
    Unknown(&'static str),
    /// One of the configuration's.
    Known(CallerName),
}

/// The other end of a connection, which is the gateway's, or a load balancer's before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An address. Its port says nothing.
    Address(IpAddr),
    /// A Unix socket.
    Unix,
}

/// Who may call a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Everybody: the configuration knows no callers.
    #[default]
    Anyone,
    /// These.
    Only(Arc<[CallerName]>),
}

/// What a connection itself proves of who is at its other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The URIs and DNS names of the client certificate.
    pub names: Vec<String>,
    /// The user id of the process at the other end of a Unix socket.
    pub user: Option<u32>,
}

/// What a call presents as proof.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// The service's own header, which no function sees.
    pub own: Option<&'a [u8]>,
    /// The `authorization` header, which may be meant for somebody else.
    pub authorization: Option<&'a [u8]>,
    /// The connection.
    pub peer: Option<&'a Peer>,
}

/// Who makes a call, and how that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identified {
    /// Who.
    pub caller: Caller,
    /// Whether the `authorization` header proves it, so that it is not meant for somebody else.
    pub by_authorization: bool,
}

/// How one caller is known: any of these is enough.
#[derive(Debug, Default)]
pub struct Proofs {
    /// Digests of bearer tokens.
    pub tokens: Vec<Digest>,
    /// URIs and DNS names of client certificates.
    pub certificates: Vec<String>,
    /// User ids at the other end of a Unix socket.
    pub users: Vec<u32>,
    /// Tokens of an issuer.
    pub jwt: Option<Issuer>,
}

/// All callers of a configuration, at least one.
#[derive(Clone, Debug)]
pub struct Callers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tokens: Vec<(Digest, CallerName)>,
    certificates: HashMap<String, CallerName>,
    users: HashMap<u32, CallerName>,
    issuers: Vec<(Issuer, CallerName)>,
    verified: jwt::Verified,
}

/// The header that is for this service alone, in the place of `authorization` where that is the function's.
pub const HEADER: &str = "x-lambda-policy-authorization";

const NOTHING: &str =
    "says nothing of who it is: expected a bearer token or a certificate that a caller of the configuration has";
const TOKEN: &str = "presents a token that no caller of the configuration has";
const CERTIFICATE: &str = "presents a certificate whose names no caller of the configuration has";
const USER: &str = "is a user of this machine that no caller of the configuration has";

impl Default for Who {
    fn default() -> Self {
        Self::Unknown(NOTHING)
    }
}

impl From<Who> for Caller {
    fn from(who: Who) -> Self {
        Self { who, from: None }
    }
}

impl From<CallerName> for Caller {
    fn from(name: CallerName) -> Self {
        Who::Known(name).into()
    }
}

impl Caller {
    /// The same, at the other end of a connection.
    #[must_use]
    fn at(mut self, origin: Option<Origin>) -> Self {
        self.from = origin;
        self
    }

    /// Where it calls from, if that is known.
    pub fn origin(&self) -> Option<Origin> {
        self.from
    }

    /// The caller's name, if it is known.
    pub fn known(&self) -> Option<&CallerName> {
        match &self.who {
            Who::Known(name) => Some(name),
            Who::Unknown(_) => None,
        }
    }

    /// Who makes a request, and from where, as the front has found out when it came in.
    pub fn of(extensions: &http::Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default().at(extensions.get().copied())
    }

    /// The caller's name.
    ///
    /// # Errors
    /// [`Kind::CallerUnauthenticated`] if nobody is known.
    pub fn name(&self) -> Result<&CallerName, Error> {
        match &self.who {
            Who::Known(name) => Ok(name),
            Who::Unknown(why) => Err(Error::new(Kind::CallerUnauthenticated, format!("the caller {why}"))),
        }
    }
}

impl Allowed {
    /// Whether a caller is among them.
    pub fn permits(&self, caller: &Caller) -> bool {
        match self {
            Self::Anyone => true,
            Self::Only(names) => caller.known().is_some_and(|name| names.contains(name)),
        }
    }

    /// Lets a caller pass who is among them. What is said of the policy is its name: who may not call it may not know more.
    ///
    /// # Errors
    /// [`Kind::CallerUnauthenticated`] or [`Kind::CallerDenied`].
    pub fn check(&self, caller: &Caller, policy: &str) -> Result<(), Error> {
        if self.permits(caller) {
            return Ok(());
        }
        let about = || About { policy: policy.to_owned(), ..About::default() };
        let denied =
            |name| Error::new(Kind::CallerDenied, format!("the caller {name} is none of those that may call this"));
        Err(match caller.name() {
            Ok(name) => denied(name),
            Err(error) => error,
        }
        .with_about(about()))
    }
}

impl Callers {
    /// Puts callers together.
    pub fn new(callers: BTreeMap<CallerName, Proofs>) -> Self {
        let mut inner = Inner {
            tokens: Vec::new(),
            certificates: HashMap::new(),
            users: HashMap::new(),
            issuers: Vec::new(),
            verified: jwt::Verified::default(),
        };
        for (name, proofs) in callers {
            inner.tokens.extend(proofs.tokens.into_iter().map(|digest| (digest, name.clone())));
            inner.certificates.extend(proofs.certificates.into_iter().map(|text| (text, name.clone())));
            inner.users.extend(proofs.users.into_iter().map(|user| (user, name.clone())));
            inner.issuers.extend(proofs.jwt.map(|issuer| (issuer, name.clone())));
        }
        Self(Arc::new(inner))
    }

    /// Who makes a call. The service's own header decides where it is there. An `authorization` that proves nothing may be
    /// meant for the function, so that the connection is asked then.
    pub fn identify(&self, presented: &Presented<'_>) -> Identified {
        let other = |who: Who| Identified { caller: who.into(), by_authorization: false };
        if let Some(own) = presented.own {
            return other(self.by_token(own));
        }
        let by_authorization = presented.authorization.map(|value| self.by_token(value));
        match (by_authorization, presented.peer.and_then(|peer| self.by_peer(peer))) {
            (Some(known @ Who::Known(_)), _) => Identified { caller: known.into(), by_authorization: true },
            (_, Some(name)) => other(Who::Known(name)),
            (Some(unknown), None) => other(unknown),
            (None, None) => other(match presented.peer {
                Some(peer) if !peer.names.is_empty() => Who::Unknown(CERTIFICATE),
                Some(peer) if peer.user.is_some() => Who::Unknown(USER),
                _ => Who::default(),
            }),
        }
    }

    /// Where a caller may be known once keys have been fetched anew: resolves when they were, or could not be.
    pub fn renewal(&self, caller: &Caller) -> Option<impl Future<Output = ()> + Send + use<>> {
        match caller.who {
            Who::Unknown(why) if jwt::may_change(why) => {
                Some(join_all(self.remotes().map(|(_, remote)| remote.renewal())).map(drop))
            }
            Who::Unknown(_) | Who::Known(_) => None,
        }
    }

    /// The addresses that keys are fetched from, with the callers whose tokens they check.
    pub fn remotes(&self) -> impl Iterator<Item = (&CallerName, &Arc<Remote>)> {
        self.0.issuers.iter().filter_map(|(issuer, name)| Some((name, issuer.remote()?)))
    }

    /// Takes over the keys that others have fetched already.
    pub fn inherit(&self, others: &Self) {
        for (_, own) in self.remotes() {
            if let Some((_, other)) = others.remotes().find(|(_, other)| other.url() == own.url()) {
                own.inherit(other);
            }
        }
    }

    fn by_token(&self, value: &[u8]) -> Who {
        let Some(token) = bearer(value) else {
            return Who::Unknown("presents no bearer token: expected `Bearer TOKEN`");
        };
        let digest = Digest::of(token);
        let mut found = None;
        // To the end, so that the time tells nothing of which one it is.
        for (known, name) in &self.0.tokens {
            if known.matches(&digest) {
                found = Some(name);
            }
        }
        if let Some(name) = found {
            return Who::Known(name.clone());
        }
        if self.0.issuers.is_empty() {
            return Who::Unknown(TOKEN);
        }
        match self.0.verified.caller(token, &digest, &self.0.issuers) {
            Ok(name) => Who::Known(name),
            Err(why) => Who::Unknown(why),
        }
    }

    fn by_peer(&self, peer: &Peer) -> Option<CallerName> {
        let by_name = peer.names.iter().find_map(|name| self.0.certificates.get(name));
        by_name.or_else(|| self.0.users.get(&peer.user?)).cloned()
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(name) => write!(f, "{name}"),
            None => f.write_str("-"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Of a socket for both versions it is the one of version 4.
            Self::Address(ip) => write!(f, "{}", ip.to_canonical()),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(text: &str) -> CallerName {
        CallerName::parse(text).unwrap()
    }

    fn callers() -> Callers {
        let proofs = |token: &str, certificate: &str, user| Proofs {
            tokens: vec![Digest::of(token.as_bytes())],
            certificates: vec![certificate.to_owned()],
            users: vec![user],
            jwt: None,
        };
        let kong = proofs("secret-of-kong", "spiffe://example.org/kong", 7);
        let envoy = proofs("secret-of-envoy", "envoy.example.org", 8);
        Callers::new([(name("kong"), kong), (name("envoy"), envoy)].into())
    }

    #[test]
    fn a_caller_is_who_proves_it() {
        let names = |names: &[&str]| Peer { names: names.iter().map(|name| (*name).to_owned()).collect(), user: None };
        let (none, mesh, kong) =
            (Peer::default(), names(&["x.test", "envoy.example.org"]), names(&["spiffe://example.org/kong"]));
        let user = |user| Peer { user: Some(user), ..Peer::default() };
        let (user, nobody, stranger) = (user(7), user(9), names(&["spiffe://example.org/kong/x"]));
        for (own, authorization, peer, expected, why) in [
            (None, None, &none, None, "nothing"),
            (Some("Bearer secret-of-kong"), None, &none, Some("kong"), "a token"),
            (Some("bearer  secret-of-kong "), None, &none, Some("kong"), "the scheme in lower case, and spaces"),
            (None, Some("Bearer secret-of-envoy"), &none, Some("envoy"), "in the common header"),
            (
                Some("Bearer secret-of-kong"),
                Some("Bearer secret-of-envoy"),
                &none,
                Some("kong"),
                "the own one comes first",
            ),
            (
                Some("Bearer wrong"),
                Some("Bearer secret-of-envoy"),
                &mesh,
                None,
                "and if it is wrong nothing else counts",
            ),
            (Some(""), None, &mesh, None, "nor if it is empty"),
            (
                None,
                Some("Bearer of-the-function"),
                &mesh,
                Some("envoy"),
                "a certificate beside a token for the function",
            ),
            (None, Some("Bearer of-the-function"), &none, None, "which alone proves nothing"),
            (None, Some("secret-of-envoy"), &none, None, "a token without a scheme"),
            (None, Some("Basic secret-of-envoy"), &none, None, "another scheme"),
            (None, None, &kong, Some("kong"), "a URI"),
            (None, None, &stranger, None, "as a whole"),
            (None, None, &user, Some("kong"), "a user"),
            (None, None, &nobody, None, "another one"),
        ] {
            let presented = Presented {
                own: own.map(str::as_bytes),
                authorization: authorization.map(str::as_bytes),
                peer: Some(peer),
            };
            let caller = callers().identify(&presented).caller;
            assert_eq!(caller.name().ok().map(CallerName::as_str), expected, "{why}: {caller:?}");
        }
    }

    #[test]
    fn who_is_unknown_is_told_what_they_presented() {
        let names = Peer { names: vec!["x.test".to_owned()], user: None };
        let user = Peer { user: Some(9), ..Peer::default() };
        for (authorization, peer, told) in [
            (None, None, "nothing"),
            (Some("Bearer wrong"), Some(&names), "a token that no caller"),
            (Some("Basic wrong"), None, "no bearer token"),
            (None, Some(&names), "a certificate whose names no caller"),
            (None, Some(&user), "a user of this machine that no caller"),
        ] {
            let presented = Presented { own: None, authorization: authorization.map(str::as_bytes), peer };
            let error = callers().identify(&presented).caller.name().unwrap_err();
            assert!(error.message().contains(told), "{error}");
        }
    }

    #[test]
    fn only_those_who_are_named_pass() {
        let only = Allowed::Only([name("kong")].into());
        let (kong, envoy) = (Caller::from(name("kong")), Caller::from(name("envoy")));
        for (allowed, caller, expected) in [
            (&Allowed::Anyone, &Caller::default(), None),
            (&only, &kong, None),
            (&only, &envoy, Some(Kind::CallerDenied)),
            (&only, &Caller::default(), Some(Kind::CallerUnauthenticated)),
            (&Allowed::Only([].into()), &kong, Some(Kind::CallerDenied)),
        ] {
            let checked = allowed.check(caller, "orders");
            assert_eq!(checked.as_ref().err().map(Error::kind), expected);
            if let Err(error) = checked {
                let about = error.about().unwrap();
                assert_eq!((about.policy.as_str(), about.function.as_str()), ("orders", ""), "no more than its name");
            }
        }
    }
}
