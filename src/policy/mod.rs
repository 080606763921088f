//! The Lambda policy, parsed: what is in here is valid.

pub mod access;
pub mod callers;
pub mod credentials;
pub mod deadline;
pub mod endpoint;
pub mod function;
pub mod limits;
pub mod options;
pub mod proto;
pub mod region;
pub mod routes;
pub mod secret;
pub mod target;

use std::{collections::HashMap, fmt, sync::Arc};

pub use self::{
    access::Access,
    callers::{Allowed, Caller, Callers},
    deadline::Deadline,
    function::Qualifier,
    limits::Limits,
    options::{ClientContext, IdleTimeout, Invocation, Log, Tenant, Timeout},
    region::Region,
    routes::{Routes, Unmatched},
    target::Target,
};
use crate::{
    error::{About, Error, Kind},
    event::{Format, authorization::Authorizer, callout::Callout, picks::Picks, rules::Rule},
};

/// The name under which calls ask for a policy.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// The text is no name of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError;

/// Everything that a call of a policy needs to know.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The name in the configuration; `inline` if the call brought the policy.
    pub name: Name,
    /// For people.
    pub title: String,
    /// For people.
    pub description: String,
    /// Which function.
    pub target: Target,
    /// The qualifiers that a call may choose.
    pub qualifiers: Vec<Qualifier>,
    /// Who may call it.
    pub callers: Allowed,
    /// Who signs, and where.
    pub access: Access,
    /// How the function is invoked.
    pub invocation: Invocation,
    /// Whether the end of its log is returned.
    pub log: Log,
    /// Client context, unless the call brings its own.
    pub context: Option<ClientContext>,
    /// Tenant, unless the call names one.
    pub tenant: Option<Tenant>,
    /// What HTTP calls are made into.
    pub event: Format,
    /// What an HTTP client is told when the function fails; without a rule, what the format's front door says.
    pub on_function_error: Vec<Rule>,
    /// What is picked from the answer for the gateway.
    pub output: Picks,
    /// Instead of answering its client, a call through a gateway goes on, changed.
    pub callout: Option<Callout>,
    /// The function decides who may call.
    pub authorizer: Option<Authorizer>,
    /// How long a call may take.
    pub timeout: Timeout,
    /// Whether HTTP clients get the answer as the function writes it.
    pub stream: bool,
    /// How long a function may write nothing while its answer is streamed.
    pub idle_timeout: IdleTimeout,
    /// How much of it may be in flight, and when its function is left alone.
    pub limits: Limits,
}

/// What an inline policy takes from the configuration.
#[derive(Clone, Debug, Default)]
pub struct InlineDefaults {
    /// Who may bring a policy.
    pub callers: Allowed,
    /// The region, if neither the policy nor its function names one.
    pub region: Option<Region>,
    /// Where Lambda is called.
    pub endpoint: endpoint::Endpoint,
    /// Where STS is called.
    pub sts_endpoint: Option<endpoint::Url>,
    /// How long a call may take.
    pub timeout: Timeout,
    /// How long a function may write nothing while its answer is streamed.
    pub idle_timeout: IdleTimeout,
    /// Whether the end of the log is returned.
    pub log: Log,
    /// How the function is invoked.
    pub invocation: Invocation,
    /// What HTTP calls are made into.
    pub event: Format,
    /// How much of all of them together may be in flight, and when a function is left alone.
    pub limits: Limits,
}

/// Every configured policy, whether calls may bring their own, and who calls.
#[derive(Debug, Default)]
pub struct Policies {
    /// Who is known; without them everybody may call everything.
    pub callers: Option<Callers>,
    /// By name.
    pub named: HashMap<Name, Arc<Policy>>,
    /// What inline policies start from; without it they are denied.
    pub inline: Option<InlineDefaults>,
    /// For calls whose gateway does not name a policy.
    pub routes: Routes,
    /// What becomes of calls that no route fits.
    pub unmatched: Unmatched,
}

impl Name {
    /// The name of every policy that a call brings.
    pub const INLINE: &str = "inline";

    /// Reads a name: 1 to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit, so that it can
    /// stand in a URL's path and in a metric's label as it is.
    ///
    /// # Errors
    /// If it has another form, or is `inline`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().ok_or(NameError)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if text.len() > 64 || !first.is_ascii_alphanumeric() || !text.bytes().all(allowed) || text == Self::INLINE {
            return Err(NameError);
        }
        Ok(Self(text.into()))
    }

    /// The name of an inline policy.
    pub fn inline() -> Self {
        Self(Self::INLINE.into())
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Policies {
    /// The policy of a name, for a caller who may call it.
    ///
    /// # Errors
    /// [`Kind::CallerUnauthenticated`] before anything is told of the name, then [`Kind::PolicyNotFound`] and
    /// [`Kind::CallerDenied`].
    pub fn find(&self, caller: &Caller, name: &str) -> Result<&Arc<Policy>, Error> {
        self.known(caller)?;
        let policy = self.named.get(name).ok_or_else(|| {
            Error::new(Kind::PolicyNotFound, "no policy has this name")
                .with_about(About { policy: name.chars().take(64).collect(), ..About::default() })
        })?;
        policy.callers.check(caller, name)?;
        Ok(policy)
    }

    /// What the policies of a caller's own start from.
    ///
    /// # Errors
    /// [`Kind::CallerUnauthenticated`] or [`Kind::CallerDenied`].
    pub fn inline(&self, caller: &Caller) -> Result<&InlineDefaults, Error> {
        self.known(caller)?;
        let defaults = self.inline.as_ref().ok_or_else(|| {
            Error::new(
                Kind::CallerDenied,
                "policies in the request are denied: name a configured one in `policy`, \
                 or have `inline_policies: allow` configured",
            )
        })?;
        defaults.callers.check(caller, Name::INLINE)?;
        Ok(defaults)
    }

    /// Lets pass who is known, and everybody where nobody has to be.
    ///
    /// # Errors
    /// [`Kind::CallerUnauthenticated`].
    pub fn known(&self, caller: &Caller) -> Result<(), Error> {
        match self.callers {
            None => Ok(()),
            Some(_) => caller.name().map(|_| ()),
        }
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Policy {
    /// The title of a policy that has none (API Connect's default).
    pub const DEFAULT_TITLE: &str = "lambda";

    /// What errors say of the policy.
    pub fn about(&self) -> About {
        About {
            policy: self.name.0.to_string(),
            function: self.target.function.to_string(),
            region: self.target.region.to_string(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "is not a policy's name: expected 1 to 64 letters, digits, `-`, `_` or `.`, a letter or digit first, \
             and not `inline`",
        )
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_stand_in_a_path() {
        let long = "n".repeat(65);
        for (text, ok) in [
            ("orders", true),
            ("orders.v2", true),
            ("9-lives_", true),
            ("", false),
            ("-orders", false),
            ("a/b", false),
            ("a b", false),
            ("inline", false),
            (&long, false),
        ] {
            assert_eq!(Name::parse(text).is_ok(), ok, "{text}");
        }
    }
}
