//! How a function is invoked: the type, the log, client context, tenant and timeout.

use std::{fmt, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// How a function is invoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Invocation {
    /// Runs it and waits for the answer.
    #[default]
    RequestResponse,
    /// Queues the event.
    Event,
    /// Checks access and parameters only.
    DryRun,
}

/// Whether the end of the function's log is returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Log {
    /// It is not.
    #[default]
    None,
    /// The last 4 KB are.
    Tail,
}

/// Client context, as the header `X-Amz-Client-Context` has it: JSON in base64, at most 3,583 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientContext(String);

/// A tenant id: 1 to 256 characters (Lambda API reference, `Invoke`, `TenantId`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant(String);

/// How long a call may take, 1 ms to 15 minutes, the longest that a function can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(Duration);

/// How long a function may write nothing while its answer is streamed, 1 ms to 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTimeout(Timeout);

/// What is wrong with a value of this module, and what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(&'static str);

/// The most bytes that the client context may have in base64.
const MAX_CONTEXT: usize = 3583;

impl Invocation {
    /// The types under their names in the configuration.
    pub const NAMES: [(&'static str, Self); 3] =
        [("request-response", Self::RequestResponse), ("event", Self::Event), ("dry-run", Self::DryRun)];

    /// The largest event in bytes (Lambda quotas: 6 MB synchronous, 1 MB asynchronous).
    pub fn max_payload(self) -> usize {
        match self {
            Self::RequestResponse | Self::DryRun => 6 * 1024 * 1024,
            Self::Event => 1024 * 1024,
        }
    }

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestResponse => "request-response",
            Self::Event => "event",
            Self::DryRun => "dry-run",
        }
    }
}

impl Log {
    /// The choices under their names in the configuration.
    pub const NAMES: [(&'static str, Self); 2] = [("none", Self::None), ("tail", Self::Tail)];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tail => "tail",
        }
    }
}

impl ClientContext {
    /// Takes JSON text.
    ///
    /// # Errors
    /// If it is not a JSON object, or longer than 3,583 bytes in base64.
    pub fn parse(json: &str) -> Result<Self, Error> {
        if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json).is_err() {
            return Err(Error("is not a JSON object"));
        }
        let encoded = BASE64_STANDARD.encode(json);
        if encoded.len() > MAX_CONTEXT {
            return Err(Error("is longer than Lambda takes: expected at most 2685 bytes of JSON"));
        }
        Ok(Self(encoded))
    }

    /// The header's value.
    pub fn as_base64(&self) -> &str {
        &self.0
    }
}

impl Tenant {
    /// Reads a tenant id.
    ///
    /// # Errors
    /// If it is empty, longer than 256 characters, or has a character that Lambda refuses.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/=+-@ ".contains(c);
        // Spaces alone would be nothing once they are a header.
        if text.trim().is_empty() || text.len() > 256 || !text.chars().all(allowed) {
            return Err(Error(
                "is not a tenant id: expected 1 to 256 letters, digits, spaces or `._:/=+-@`, and not spaces alone",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Timeout {
    /// A timeout of 1 ms to 15 minutes.
    ///
    /// # Errors
    /// If it is shorter or longer.
    pub fn new(duration: Duration) -> Result<Self, Error> {
        if duration >= Duration::from_millis(1) && duration <= Duration::from_secs(900) {
            Ok(Self(duration))
        } else {
            Err(Error("is not a timeout: expected 1ms to 15m, the longest that a function can run"))
        }
    }

    /// The timeout.
    pub fn get(self) -> Duration {
        self.0
    }

    /// The timeout in milliseconds.
    pub fn as_millis(self) -> i32 {
        i32::try_from(self.0.as_millis()).unwrap_or(i32::MAX)
    }
}

impl Default for Timeout {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

impl IdleTimeout {
    /// An idle timeout of 1 ms to 15 minutes.
    ///
    /// # Errors
    /// If it is shorter or longer.
    pub fn new(duration: Duration) -> Result<Self, Error> {
        Timeout::new(duration).map(Self)
    }

    /// The timeout.
    pub fn get(self) -> Duration {
        self.0.get()
    }
}

impl Default for IdleTimeout {
    fn default() -> Self {
        Self(Timeout(Duration::from_secs(60)))
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
    fn names_and_types_agree() {
        for (name, invocation) in Invocation::NAMES {
            assert_eq!(invocation.as_str(), name);
        }
        for (name, log) in Log::NAMES {
            assert_eq!(log.as_str(), name);
        }
    }

    #[test]
    fn the_client_context_fits_into_its_header() {
        assert_eq!(ClientContext::parse(r#"{"a":1}"#).unwrap().as_base64(), "eyJhIjoxfQ==");
        let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat(2677));
        assert!(ClientContext::parse(&fits).is_ok(), "{} bytes", fits.len());
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(2678));
        assert!(ClientContext::parse(&large).is_err());
        assert!(ClientContext::parse("[1]").is_err(), "an array is no context");
        assert!(ClientContext::parse("{").is_err());
    }

    #[test]
    fn tenants_are_those_that_can_stand_in_their_header() {
        let long = "t".repeat(257);
        for (text, ok) in
            [("acme corp", true), (" a  b ", true), ("a._:/=+-@9", true), ("", false), ("  ", false), (&long, false)]
        {
            assert_eq!(Tenant::parse(text).is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn timeouts_end_with_lambdas_longest_run() {
        for (ms, ok) in [(0, false), (1, true), (900_000, true), (900_001, false)] {
            assert_eq!(Timeout::new(Duration::from_millis(ms)).is_ok(), ok, "{ms}");
        }
    }
}
