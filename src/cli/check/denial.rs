//! AWS's sentence about what is not allowed, taken apart: who, what, on what, and which policy lacks it.
//!
//! Source: IAM User Guide, "Troubleshoot access denied error messages".

use std::fmt;

/// What somebody is not allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial<'a> {
    /// An ARN, where AWS names one.
    principal: Option<&'a str>,
    action: &'a str,
    resource: Option<&'a str>,
    reason: Reason,
}

/// Why not, as far as AWS says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// No policy of this sort allows it.
    Missing(Sort),
    /// A policy of this sort denies it.
    Denied(Sort),
    Untold,
}

/// A sort of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Identity,
    Resource,
    Trust,
    Boundary,
    Session,
    ServiceControl,
    ResourceControl,
    VpcEndpoint,
}

const SORTS: [(&str, Sort); 8] = [
    ("identity-based policy", Sort::Identity),
    ("resource-based policy", Sort::Resource),
    ("role trust policy", Sort::Trust),
    ("permissions boundary", Sort::Boundary),
    ("session policy", Sort::Session),
    ("service control policy", Sort::ServiceControl),
    ("resource control policy", Sort::ResourceControl),
    ("VPC endpoint policy", Sort::VpcEndpoint),
];

impl<'a> Denial<'a> {
    /// Reads `User: ARN is not authorized to perform: ACTION on resource: ARN because no … allows the … action`, of which
    /// some say less.
    pub(super) fn parse(message: &'a str) -> Option<Self> {
        let (before, after) = message.split_once("is not authorized to perform: ")?;
        let principal = before.split_whitespace().find(|word| word.starts_with("arn:"));
        let (action, rest) = word(after)?;
        let (resource, rest) = match rest.strip_prefix("on resource: ").and_then(word) {
            Some((resource, rest)) => (Some(resource), rest),
            None => (None, rest),
        };
        let named = |text: &str| SORTS.iter().find(|(name, _)| text.contains(name)).map(|(_, sort)| *sort);
        let reason = if let Some((_, sort)) = rest.split_once("explicit deny in ") {
            named(sort).map(Reason::Denied)
        } else {
            rest.split_once("because no ").and_then(|(_, sort)| named(sort)).map(Reason::Missing)
        };
        Some(Self { principal, action, resource, reason: reason.unwrap_or(Reason::Untold) })
    }

    /// What to do about it. `who` is denied, if AWS does not say it better, and `what` is the resource.
    pub(super) fn remedy(&self, who: &str, what: &str) -> String {
        let Self { principal, action, resource, reason } = self;
        let who = principal.map_or_else(|| who.to_owned(), known);
        let what = resource.unwrap_or(what);
        match reason {
            Reason::Missing(Sort::Trust) => format!("name {who} in the trust policy of {what}, for {action}"),
            Reason::Missing(Sort::Resource) => {
                format!("allow {action} to {who} in the resource-based policy of {what}")
            }
            Reason::Missing(Sort::Identity) => format!("allow {action} on {what} to {who}"),
            Reason::Missing(sort) => format!("allow {action} on {what} to {who} in the {sort}"),
            Reason::Denied(sort) => format!("take {action} on {what} by {who} out of what the {sort} denies"),
            // Both sides have to agree, and AWS does not say which one does not.
            Reason::Untold if *action == "sts:AssumeRole" => {
                format!("allow {action} on {what} to {who}, and name {who} in the trust policy of that role")
            }
            Reason::Untold => format!("allow {action} on {what} to {who}"),
        }
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SORTS.iter().find(|(_, sort)| sort == self).map_or("policy", |(name, _)| name))
    }
}

/// The first word without the punctuation behind it, and what follows.
fn word(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let word = word.trim_end_matches([',', '.', ';']);
    (!word.is_empty()).then_some((word, rest))
}

/// A principal as its policies are found: a session has none of its own, but its role has.
fn known(arn: &str) -> String {
    let mut parts = arn.splitn(6, ':');
    let (account, rest) = (parts.nth(4).unwrap_or_default(), parts.next().unwrap_or_default());
    match rest.split('/').collect::<Vec<_>>().as_slice() {
        ["assumed-role", role, _session] => format!("role {role} of account {account}"),
        _ => arn.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const USER: &str = "arn:aws:iam::111122223333:user/gateway";
    const ROLE: &str = "arn:aws:iam::444455556666:role/orders";
    const FUNCTION: &str = "arn:aws:lambda:us-east-1:444455556666:function:orders";

    #[test]
    fn every_form_of_the_sentence_says_what_to_do() {
        let session = "arn:aws:sts::444455556666:assumed-role/orders/lambda-policy";
        for (message, expected) in [
            (
                format!(
                    "User: {USER} is not authorized to perform: lambda:InvokeFunction on resource: {FUNCTION} because no \
                         identity-based policy allows the lambda:InvokeFunction action"
                ),
                format!("allow lambda:InvokeFunction on {FUNCTION} to {USER}"),
            ),
            (
                format!(
                    "User: {session} is not authorized to perform: lambda:InvokeFunction on resource: {FUNCTION} because \
                         no resource-based policy allows the lambda:InvokeFunction action"
                ),
                format!(
                    "allow lambda:InvokeFunction to role orders of account 444455556666 in the resource-based policy of \
                         {FUNCTION}"
                ),
            ),
            (
                format!(
                    "User: {session} is not authorized to perform: lambda:InvokeFunction on resource: {FUNCTION} with an \
                         explicit deny in a service control policy: arn:aws:organizations::1:policy/o/p"
                ),
                format!(
                    "take lambda:InvokeFunction on {FUNCTION} by role orders of account 444455556666 out of what the \
                         service control policy denies"
                ),
            ),
            (
                format!(
                    "User: {USER} is not authorized to perform: lambda:InvokeFunction on resource: {FUNCTION} because no \
                         VPC endpoint policy allows the lambda:InvokeFunction action"
                ),
                format!("allow lambda:InvokeFunction on {FUNCTION} to {USER} in the VPC endpoint policy"),
            ),
            (
                format!(
                    "User: {USER} is not authorized to perform: sts:AssumeRole because no role trust policy allows the \
                         sts:AssumeRole action"
                ),
                format!("name {USER} in the trust policy of what it is about, for sts:AssumeRole"),
            ),
            (
                format!("User: {USER} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"),
                format!("allow sts:AssumeRole on {ROLE} to {USER}, and name {USER} in the trust policy of that role"),
            ),
            (
                "User is not authorized to perform: lambda:InvokeFunction.".to_owned(),
                "allow lambda:InvokeFunction on what it is about to whoever it is".to_owned(),
            ),
        ] {
            let denial = Denial::parse(&message).unwrap();
            assert_eq!(denial.remedy("whoever it is", "what it is about"), expected, "{message}");
        }
    }

    #[test]
    fn what_is_no_such_sentence_is_none() {
        for message in ["", "Forbidden", "is not authorized to perform: ", "User: x is authorized"] {
            assert_eq!(Denial::parse(message), None, "{message}");
        }
    }
}
