//! What a policy signs with: the service's own identity or an access key pair, and a role to assume with either.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use regex_lite::Regex;

use super::{
    function::pattern,
    secret::{Fingerprint, Secret},
};

/// A path may have every printable character, a role's name only some (IAM API reference, `CreateRole`).
static ROLE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^arn:aws[a-zA-Z-]*:iam::[0-9]{12}:role/(?:[!-~]+/)?[a-zA-Z0-9+=,.@_-]{1,64}$"));
static SESSION_NAME: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[a-zA-Z0-9_+=,.@-]{2,64}$"));
static EXTERNAL_ID: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[a-zA-Z0-9_+=,.@:/-]+$"));
static ACCESS_KEY_ID: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[a-zA-Z0-9_]{1,128}$"));

/// An access key pair, long-term or temporary.
#[derive(Clone, Debug)]
pub struct AccessKeys {
    /// The access key id.
    pub id: AccessKeyId,
    /// The secret access key.
    pub secret: Secret,
    /// The session token of temporary keys.
    pub session_token: Option<Secret>,
}

/// An access key id. No secret, but kept out of logs as it tells whose secret to look for.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKeyId(String);

/// The ARN of an IAM role.
#[derive(Clone, PartialEq, Eq)]
pub struct RoleArn(Arc<str>);

/// What the role's trust policy may ask for as `sts:ExternalId`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalId(String);

/// The session's name in CloudTrail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName(String);

/// How long a role's credentials are valid: 15 minutes to 12 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionDuration(Duration);

/// A role to assume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumeRole {
    /// Which role.
    pub role_arn: RoleArn,
    /// The external id, if the role's trust policy asks for one.
    pub external_id: Option<ExternalId>,
    /// The session's name.
    pub session_name: SessionName,
    /// How long its credentials shall be valid.
    pub duration: SessionDuration,
}

/// Whose identity is there before any role is assumed.
#[derive(Clone, Debug)]
pub enum Base {
    /// The service's own: the SDK's default chain.
    Service,
    /// An access key pair.
    Keys(AccessKeys),
}

/// A policy's credentials, with a fingerprint that tells two of them apart.
#[derive(Clone, Debug)]
pub struct Credentials {
    base: Base,
    role: Option<AssumeRole>,
    fingerprint: Fingerprint,
}

/// What is wrong with a value of this module, and what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(&'static str);

impl Credentials {
    /// Credentials from a base and, if the base assumes one, a role.
    pub fn new(base: Base, role: Option<AssumeRole>) -> Self {
        let keys = match &base {
            Base::Service => None,
            Base::Keys(keys) => Some(keys),
        };
        let seconds = role.as_ref().map(|r| r.duration.as_secs().to_le_bytes());
        let fingerprint = Fingerprint::of([
            keys.map(|k| k.id.0.as_bytes()),
            keys.map(|k| k.secret.expose().as_bytes()),
            keys.and_then(|k| k.session_token.as_ref()).map(|t| t.expose().as_bytes()),
            role.as_ref().map(|r| r.role_arn.0.as_bytes()),
            role.as_ref().and_then(|r| r.external_id.as_ref()).map(|e| e.0.as_bytes()),
            role.as_ref().map(|r| r.session_name.0.as_bytes()),
            seconds.as_ref().map(<[u8; 8]>::as_slice),
        ]);
        Self { base, role, fingerprint }
    }

    /// The identity before any role is assumed.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// The role to assume.
    pub fn role(&self) -> Option<&AssumeRole> {
        self.role.as_ref()
    }

    /// Equal for equal credentials.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The kind of credentials, for listings.
    pub fn kind(&self) -> &'static str {
        match (&self.base, &self.role) {
            (Base::Service, None) => "default",
            (Base::Keys(_), None) => "keys",
            (Base::Service, Some(_)) => "role",
            (Base::Keys(_), Some(_)) => "keys and role",
        }
    }
}

impl AccessKeyId {
    /// Reads an access key id.
    ///
    /// # Errors
    /// If it is empty or has a character that no access key id has.
    pub fn parse(text: &str) -> Result<Self, Error> {
        matching(&ACCESS_KEY_ID, text, "is not an access key id: expected letters and digits")?;
        Ok(Self(text.to_owned()))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RoleArn {
    /// Reads a role's ARN.
    ///
    /// # Errors
    /// If it is no ARN of an IAM role, or longer than 2,048 characters.
    pub fn parse(text: &str) -> Result<Self, Error> {
        const WRONG: &str = "is not a role's ARN: expected `arn:aws:iam::123456789012:role/name`";
        if text.len() > 2048 {
            return Err(Error(WRONG));
        }
        matching(&ROLE, text, WRONG)?;
        Ok(Self(text.into()))
    }

    /// The ARN's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ExternalId {
    /// Reads an external id: 2 to 1,224 characters (STS API reference, `AssumeRole`).
    ///
    /// # Errors
    /// If it has another length or a character that STS refuses.
    pub fn parse(text: &str) -> Result<Self, Error> {
        const WRONG: &str = "is not an external id: expected 2 to 1224 letters, digits or `_+=,.@:/-`";
        if !(2..=1224).contains(&text.len()) {
            return Err(Error(WRONG));
        }
        matching(&EXTERNAL_ID, text, WRONG)?;
        Ok(Self(text.to_owned()))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SessionName {
    /// Reads a session name: 2 to 64 characters (STS API reference, `AssumeRole`).
    ///
    /// # Errors
    /// If it has another length or a character that STS refuses.
    pub fn parse(text: &str) -> Result<Self, Error> {
        matching(&SESSION_NAME, text, "is not a session name: expected 2 to 64 letters, digits or `_+=,.@-`")?;
        Ok(Self(text.to_owned()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SessionName {
    fn default() -> Self {
        Self("lambda-policy".to_owned())
    }
}

impl SessionDuration {
    /// A duration of 15 minutes to 12 hours (STS API reference, `AssumeRole`).
    ///
    /// # Errors
    /// If it is shorter or longer.
    pub fn new(duration: Duration) -> Result<Self, Error> {
        if (900..=43_200).contains(&duration.as_secs()) {
            Ok(Self(duration))
        } else {
            Err(Error("is outside of what STS takes: expected 15m to 12h"))
        }
    }

    /// The duration in whole seconds, as STS takes it.
    pub fn as_secs(self) -> u64 {
        self.0.as_secs()
    }
}

impl Default for SessionDuration {
    fn default() -> Self {
        Self(Duration::from_secs(3600))
    }
}

fn matching(pattern: &Regex, text: &str, wrong: &'static str) -> Result<(), Error> {
    if pattern.is_match(text) { Ok(()) } else { Err(Error(wrong)) }
}

impl fmt::Debug for AccessKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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

    fn keys(secret: &str) -> Base {
        Base::Keys(AccessKeys {
            id: AccessKeyId::parse("AKIDEXAMPLE").unwrap(),
            secret: Secret::parse(secret.into()).unwrap(),
            session_token: None,
        })
    }

    fn role(external_id: Option<&str>) -> AssumeRole {
        AssumeRole {
            role_arn: RoleArn::parse("arn:aws:iam::123456789012:role/orders").unwrap(),
            external_id: external_id.map(|e| ExternalId::parse(e).unwrap()),
            session_name: SessionName::default(),
            duration: SessionDuration::default(),
        }
    }

    #[test]
    fn a_change_of_any_part_is_another_identity() {
        let first = Credentials::new(keys("one"), Some(role(None)));
        assert_eq!(first.fingerprint(), Credentials::new(keys("one"), Some(role(None))).fingerprint());
        for (what, other) in [
            ("the secret", Credentials::new(keys("two"), Some(role(None)))),
            ("no role", Credentials::new(keys("one"), None)),
            ("the external id", Credentials::new(keys("one"), Some(role(Some("acme"))))),
            ("the base", Credentials::new(Base::Service, Some(role(None)))),
        ] {
            assert_ne!(first.fingerprint(), other.fingerprint(), "{what}");
        }
    }

    #[test]
    fn debug_prints_no_secret_and_no_key_id() {
        let printed = format!("{:?}", Credentials::new(keys("hunter2"), Some(role(Some("acme")))));
        assert!(!printed.contains("hunter2"), "{printed}");
        assert!(!printed.contains("AKIDEXAMPLE"), "{printed}");
    }

    #[test]
    fn role_arns_are_those_of_iam_roles() {
        for (text, ok) in [
            ("arn:aws:iam::123456789012:role/orders", true),
            ("arn:aws:iam::123456789012:role/path/to/orders", true),
            ("arn:aws-us-gov:iam::123456789012:role/orders", true),
            ("arn:aws-cn:iam::123456789012:role/a+b=c,d.e@f_g-h", true),
            ("arn:aws:iam::123456789012:role/a:b!/~c*/orders", true),
            ("arn:aws:iam::123456789012:role/pa th/orders", false),
            ("arn:aws:iam::123456789012:role/path/or:ders", false),
            ("arn:aws:iam::123456789012:role/path/", false),
            ("arn:aws:iam::123456789012:user/orders", false),
            ("arn:aws:iam::12345:role/orders", false),
            ("arn:aws:iam::123456789012:role/", false),
            ("arn:aws:sts::123456789012:assumed-role/orders/s", false),
            ("orders", false),
            ("", false),
        ] {
            assert_eq!(RoleArn::parse(text).is_ok(), ok, "{text}");
        }
    }

    #[test]
    fn session_durations_are_those_that_sts_takes() {
        for (seconds, ok) in [(899, false), (900, true), (43_200, true), (43_201, false)] {
            assert_eq!(SessionDuration::new(Duration::from_secs(seconds)).is_ok(), ok, "{seconds}");
        }
    }
}
