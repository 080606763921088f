//! What a probe says of a policy, and what there is to do about it.
//!
//! Of AWS's own words only names are shown: what it says of a wrong signature quotes the request, and with it a session
//! token.

use super::denial::Denial;
use crate::{
    error::{Error, Kind, Ran},
    policy::{Policy, credentials::Base},
};

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The function can be invoked.
    Works,
    /// It cannot, and this is what to do.
    Fails {
        /// In a word.
        what: &'static str,
        remedy: String,
    },
}

impl Finding {
    pub(super) fn fails(what: &'static str, remedy: impl Into<String>) -> Self {
        Self::Fails { what, remedy: remedy.into() }
    }

    /// What an error says of the policy that was probed.
    pub(super) fn of(policy: &Policy, error: &Error) -> Self {
        let said = Said::of(error.detail().unwrap_or_default());
        let region = &policy.target.region;
        match error.kind() {
            Kind::FunctionAccessDenied => Self::fails("denied", denied(policy, &said)),
            Kind::FunctionNotFound => Self::fails(
                "not found",
                format!(
                    "{region} has no such function, version or alias: check `function`, `qualifier` and `region`, and whose \
                     account the credentials are of"
                ),
            ),
            Kind::CredentialsRejected => match &said {
                Said { role: Some(role), message, .. } if Denial::parse(message).is_some() => {
                    Self::fails("denied", not_assumed(policy, role, message))
                }
                said => Self::fails("rejected", rejected(policy, said)),
            },
            Kind::CredentialsUnavailable => Self::fails("no credentials", unavailable(policy, &said)),
            Kind::LambdaUnreachable => {
                let why = said.untold.unwrap_or("no connection");
                Self::fails(
                    "unreachable",
                    format!("{why}: check the network, DNS, and the VPC endpoint and its security group"),
                )
            }
            // It is the probe's own time that was up.
            Kind::Timeout => match (error.ran(), error.spent().and_then(|spent| spent.lambda)) {
                (Ran::Maybe, _) => Self::fails("unclear", "lambda did not answer in time: try again"),
                (Ran::No, Some(_)) => Self::fails("unreachable", "there was no connection to lambda in time"),
                (Ran::No, None) => Self::fails("no credentials", "there were none in time"),
            },
            Kind::FunctionThrottled => Self::fails("unclear", "lambda throttles: try again"),
            Kind::FunctionNotReady => Self::fails("not ready", format!("{}: try again", or(said.code, "not ready"))),
            Kind::FunctionMisconfigured => {
                Self::fails("cannot run", or(said.code, said.untold.unwrap_or("misconfigured")))
            }
            kind => Self::fails("unclear", format!("{kind}: {}", error.message())),
        }
    }
}

/// The operator's message of an error, taken apart.
#[derive(Debug, Default)]
struct Said<'a> {
    /// The role that was to be assumed, if it was STS that said it.
    role: Option<&'a str>,
    /// AWS's name of the error.
    code: &'a str,
    /// AWS's words.
    message: &'a str,
    /// If it was not AWS that said it, all of it.
    untold: Option<&'a str>,
}

impl<'a> Said<'a> {
    fn of(detail: &'a str) -> Self {
        let sts = detail.strip_prefix("assuming ").and_then(|rest| rest.split_once(" failed: "));
        let (role, rest) = match (sts, detail.strip_prefix("lambda answered ").and_then(|rest| rest.split_once(' '))) {
            (Some((role, rest)), _) => (
                Some(role),
                rest.strip_prefix("STS answered ").and_then(|rest| rest.split_once(' ')).map_or(rest, |(_, rest)| rest),
            ),
            (None, Some((_status, rest))) => (None, rest),
            (None, None) => {
                return Self { untold: Some(detail).filter(|detail| !detail.is_empty()), ..Self::default() };
            }
        };
        match rest.split_once(':') {
            Some((code, message)) if code.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Self { role, code, message: message.trim(), untold: None }
            }
            _ => Self { role, untold: Some(rest), ..Self::default() },
        }
    }
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// Who signs before a role is assumed.
fn base(policy: &Policy) -> &'static str {
    match policy.access.credentials().base() {
        Base::Service => "the service's own identity",
        Base::Keys(_) => "the user of the access key",
    }
}

fn denied(policy: &Policy, said: &Said<'_>) -> String {
    let role = policy.access.credentials().role().map(|role| format!("role {}", role.role_arn.as_str()));
    let who = role.unwrap_or_else(|| base(policy).to_owned());
    let what = policy.target.function.as_str();
    match Denial::parse(said.message) {
        Some(denial) => denial.remedy(&who, what),
        None => format!("allow lambda:InvokeFunction on {what} to {who}"),
    }
}

fn not_assumed(policy: &Policy, role: &str, message: &str) -> String {
    let mut remedy = Denial::parse(message).map(|denial| denial.remedy(base(policy), role)).unwrap_or_default();
    let credentials = policy.access.credentials();
    remedy.push_str(match credentials.role().and_then(|role| role.external_id.as_ref()) {
        Some(_) => "; `external_id` must be the one that it asks for",
        None => "; if it asks for an external id, set `external_id`",
    });
    remedy
}

fn rejected(policy: &Policy, said: &Said<'_>) -> String {
    match (said.code, said.role) {
        ("InvalidClientTokenId" | "UnrecognizedClientException" | "NotAuthorized" | "OptInRequired", _) => {
            "aws does not know the access key: it is deleted, inactive, or of another partition".to_owned()
        }
        ("SignatureDoesNotMatch" | "InvalidSignatureException", _)
            if ["Signature expired", "Signature not yet current"]
                .iter()
                .any(|words| said.message.starts_with(words)) =>
        {
            "this machine's clock is wrong".to_owned()
        }
        (
            "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "IncompleteSignatureException",
            _,
        ) => "the secret access key is not the one of the access key id".to_owned(),
        ("ExpiredToken" | "ExpiredTokenException" | "RequestExpired", _) => {
            "the session token has expired, or this machine's clock is wrong".to_owned()
        }
        ("ValidationError", Some(role)) => {
            format!("sts refuses the call: `duration` must be within the maximum of {role}, and `role_arn` a role's")
        }
        ("RegionDisabledException", Some(_)) => {
            format!("sts is not active in {}: activate it there, or set `sts_endpoint`", policy.target.region)
        }
        ("", _) => or(said.untold.unwrap_or_default(), "aws refuses the credentials").to_owned(),
        (code, Some(role)) => format!("sts refuses {role} to {}: {code}", base(policy)),
        (code, None) => format!("lambda refuses the credentials: {code}"),
    }
}

fn unavailable(policy: &Policy, said: &Said<'_>) -> String {
    match (said.code, said.role, said.untold) {
        ("", Some(role), why) => {
            format!(
                "sts cannot be asked for {role}: {}: check the network and `sts_endpoint`",
                why.unwrap_or("no answer")
            )
        }
        ("", None, why) => format!("{}: {}", base(policy), why.unwrap_or("there are none")),
        (code, ..) => format!("sts fails at the moment: {code}: try again"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::Config, error::Spent};

    const ROLE: &str = "arn:aws:iam::123456789012:role/orders";

    fn policy(credentials: &str) -> Policy {
        let text = format!("policies: {{p: {{function: orders, region: us-east-1, credentials: {credentials}}}}}");
        let policies = Config::parse(&text, "f".as_ref()).unwrap().policies;
        Policy::clone(policies.named.values().next().unwrap())
    }

    fn found(credentials: &str, kind: Kind, detail: &str) -> String {
        match Finding::of(&policy(credentials), &Error::new(kind, "the message").with_detail(detail)) {
            Finding::Works => panic!("it does not"),
            Finding::Fails { what, remedy } => format!("{what}: {remedy}"),
        }
    }

    #[test]
    fn each_failure_says_what_to_do() {
        let keys = "{access_key_id: A, secret_access_key: s}";
        let role = &format!("{{assume_role: {{role_arn: '{ROLE}'}}}}");
        let known = &format!("{{assume_role: {{role_arn: '{ROLE}', external_id: acme}}}}");
        let assuming = |said: &str| format!("assuming {ROLE} failed: {said}");
        for (credentials, kind, detail, expected) in [
            (
                keys,
                Kind::FunctionAccessDenied,
                "lambda answered 403 AccessDeniedException: User is not authorized to perform: lambda:InvokeFunction on \
                 resource: arn:f because no identity-based policy allows the lambda:InvokeFunction action"
                    .to_owned(),
                "denied: allow lambda:InvokeFunction on arn:f to the user of the access key".to_owned(),
            ),
            (
                role,
                Kind::FunctionAccessDenied,
                "lambda answered 403 : Forbidden".to_owned(),
                format!("denied: allow lambda:InvokeFunction on orders to role {ROLE}"),
            ),
            (
                known,
                Kind::CredentialsRejected,
                assuming("AccessDenied: User is not authorized to perform: sts:AssumeRole on resource: arn:r"),
                "denied: allow sts:AssumeRole on arn:r to the service's own identity, and name the service's own identity in the \
                 trust policy of that role; `external_id` must be the one that it asks for"
                    .to_owned(),
            ),
            (
                keys,
                Kind::CredentialsRejected,
                "lambda answered 403 InvalidSignatureException: The Canonical String should have been x-amz-security-token:secret"
                    .to_owned(),
                "rejected: the secret access key is not the one of the access key id".to_owned(),
            ),
            (
                role,
                Kind::CredentialsRejected,
                assuming("SignatureDoesNotMatch: Signature expired: 20250101T000000Z is now earlier than 20250101T001000Z"),
                "rejected: this machine's clock is wrong".to_owned(),
            ),
            (
                role,
                Kind::CredentialsRejected,
                assuming("ValidationError: The requested DurationSeconds exceeds the MaxSessionDuration"),
                format!("rejected: sts refuses the call: `duration` must be within the maximum of {ROLE}, and `role_arn` a role's"),
            ),
            (
                role,
                Kind::CredentialsUnavailable,
                assuming("dispatch failure: io error: Connection refused"),
                format!(
                    "no credentials: sts cannot be asked for {ROLE}: dispatch failure: io error: Connection refused: check the \
                     network and `sts_endpoint`"
                ),
            ),
            (
                "default",
                Kind::CredentialsUnavailable,
                "the default credentials chain gave none: no providers".to_owned(),
                "no credentials: the service's own identity: the default credentials chain gave none: no providers".to_owned(),
            ),
        ] {
            assert_eq!(found(credentials, kind, &detail), expected, "{detail}");
        }
    }

    #[test]
    fn a_probe_whose_time_was_up_says_what_it_waited_for_and_nothing_of_callers() {
        for (ran, lambda, expected) in [
            (Ran::No, None, "no credentials"),
            (Ran::No, Some(Duration::ZERO), "unreachable"),
            (Ran::Maybe, Some(Duration::ZERO), "unclear"),
        ] {
            let spent = Spent { lambda, ..Spent::default() };
            let error = Error::new(Kind::Timeout, "the caller's deadline passed").with_ran(ran).with_spent(spent);
            let Finding::Fails { what, remedy } = Finding::of(&policy("default"), &error) else {
                panic!("it does not")
            };
            assert_eq!(what, expected);
            assert!(remedy.contains("in time") && !remedy.contains("caller"), "{remedy}");
        }
    }

    #[test]
    fn what_aws_quotes_of_a_request_is_not_shown() {
        for kind in Kind::ALL {
            for code in ["InvalidSignatureException", "SignatureDoesNotMatch", "Other", ""] {
                for detail in [
                    format!("lambda answered 403 {code}: x-amz-security-token:hunter2"),
                    format!("assuming {ROLE} failed: {code}: x-amz-security-token:hunter2"),
                ] {
                    let said = found("default", kind, &detail);
                    assert!(!said.contains("hunter2"), "{kind} {detail}: {said}");
                }
            }
        }
    }
}
