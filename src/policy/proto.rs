//! The policy that a call brings itself: from the wire's strings to a [`Policy`], with every fault at once.

use std::{fmt::Display, time::Duration};

use super::{
    Access, InlineDefaults, Invocation, Log, Name, Policy, Qualifier, Region, Target, Timeout,
    credentials::{
        AccessKeyId, AccessKeys, AssumeRole, Base, Credentials, ExternalId, RoleArn, SessionDuration, SessionName,
    },
    function::Reference,
    secret::{Secret, SecretError},
};
use crate::{
    error::{Error, Violation},
    event::{Format, picks::Picks},
    pb,
};

/// Reads the wire's invocation type; `None` where the call leaves it to the policy.
///
/// # Errors
/// The sentence that says what would be right, for a number that is no type.
pub fn invocation(value: i32) -> Result<Option<Invocation>, &'static str> {
    match pb::InvocationType::try_from(value) {
        Ok(pb::InvocationType::Unspecified) => Ok(None),
        Ok(pb::InvocationType::RequestResponse) => Ok(Some(Invocation::RequestResponse)),
        Ok(pb::InvocationType::Event) => Ok(Some(Invocation::Event)),
        Ok(pb::InvocationType::DryRun) => Ok(Some(Invocation::DryRun)),
        Err(_) => Err("is not an invocation type: expected REQUEST_RESPONSE, EVENT or DRY_RUN"),
    }
}

/// Parses an inline policy, whose endpoints come from the configuration only.
///
/// # Errors
/// [`crate::error::Kind::InvalidRequest`] with every field that is wrong.
pub fn inline(wire: pb::LambdaPolicy, defaults: &InlineDefaults) -> Result<Policy, Error> {
    // Named one by one, so that a new property of the contract is a question for the compiler.
    let pb::LambdaPolicy {
        title,
        description,
        aws_access_key_id,
        aws_secret_access_key,
        aws_session_token,
        aws_assume_role_arn,
        function,
        region,
        qualifier,
        external_id,
        role_session_name,
        invocation: invocation_type,
        log,
        event,
        timeout_ms,
        role_duration_seconds,
    } = wire;
    let mut faults = Faults::default();

    let reference = faults.take("function", Reference::parse(&function));
    let region = faults.optional("region", &region, Region::parse);
    let qualifier = faults.optional("qualifier", &qualifier, Qualifier::parse);

    let id = faults.required("aws_access_key_id", &aws_access_key_id, AccessKeyId::parse);
    let secret = faults.required("aws_secret_access_key", &aws_secret_access_key, secret_of);
    let session_token = faults.optional("aws_session_token", &aws_session_token, secret_of);
    let arn = faults.optional("aws_assume_role_arn", &aws_assume_role_arn, RoleArn::parse);
    let external_id = faults.optional("external_id", &external_id, ExternalId::parse);
    let session_name = faults.optional("role_session_name", &role_session_name, SessionName::parse);
    let duration = match u64::try_from(role_duration_seconds) {
        Ok(0) => None,
        seconds => {
            faults.take("role_duration_seconds", SessionDuration::new(Duration::from_secs(seconds.unwrap_or(0))))
        }
    };
    if aws_assume_role_arn.is_empty() {
        for (field, given) in [
            ("external_id", external_id.is_some()),
            ("role_session_name", session_name.is_some()),
            ("role_duration_seconds", duration.is_some()),
        ] {
            if given {
                faults.add(field, "needs `aws_assume_role_arn`");
            }
        }
    }

    let invocation = faults.take("invocation", invocation(invocation_type)).flatten();
    let log = faults.optional("log", &log, |text| named(&Log::NAMES, text));
    let event = faults.optional("event", &event, str::parse::<Format>);
    let timeout = match u64::try_from(timeout_ms) {
        Ok(0) => None,
        ms => faults.take("timeout_ms", Timeout::new(Duration::from_millis(ms.unwrap_or(0)))),
    };
    let target = reference.and_then(|reference| {
        Target::new(reference, region, qualifier, defaults.region.as_ref())
            .map_err(|error| faults.add(error.property(), &error))
            .ok()
    });

    let (Some(target), Some(id), Some(secret), true) = (target, id, secret, faults.0.is_empty()) else {
        return Err(Error::invalid(faults.0));
    };
    let keys = AccessKeys { id, secret, session_token };
    let role = arn.map(|role_arn| AssumeRole {
        role_arn,
        external_id,
        session_name: session_name.unwrap_or_default(),
        duration: duration.unwrap_or_default(),
    });
    let access = Access::new(
        target.region.clone(),
        Credentials::new(Base::Keys(keys), role),
        defaults.endpoint.clone(),
        defaults.sts_endpoint.clone(),
    );
    Ok(Policy {
        name: Name::inline(),
        title: if title.is_empty() { Policy::DEFAULT_TITLE.to_owned() } else { title },
        description,
        target,
        qualifiers: Vec::new(),
        callers: defaults.callers.clone(),
        access,
        invocation: invocation.unwrap_or(defaults.invocation),
        log: log.unwrap_or(defaults.log),
        context: None,
        tenant: None,
        event: event.unwrap_or(defaults.event),
        on_function_error: Vec::new(),
        output: Picks::default(),
        callout: None,
        authorizer: None,
        timeout: timeout.unwrap_or(defaults.timeout),
        stream: false,
        idle_timeout: defaults.idle_timeout,
        limits: defaults.limits,
    })
}

const REQUIRED: &str =
    "is required: an inline policy brings its own access key pair, and never uses the service's identity";

/// The violations found so far.
#[derive(Default)]
struct Faults(Vec<Violation>);

impl Faults {
    fn add(&mut self, field: &str, description: impl Display) {
        self.0.push(Violation { field: format!("lambda.{field}"), description: description.to_string() });
    }

    fn take<T, E: Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    fn required<T, E: Display>(
        &mut self,
        field: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if text.is_empty() {
            self.add(field, REQUIRED);
            return None;
        }
        self.take(field, parse(text))
    }

    fn optional<T, E: Display>(
        &mut self,
        field: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if text.is_empty() { None } else { self.take(field, parse(text)) }
    }
}

fn secret_of(text: &str) -> Result<Secret, SecretError> {
    Secret::parse(text.into())
}

fn named<T: Copy>(names: &[(&'static str, T)], text: &str) -> Result<T, String> {
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = names.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("is none of {}", names.join(", "))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wire() -> pb::LambdaPolicy {
        pb::LambdaPolicy {
            aws_access_key_id: "AKIDEXAMPLE".into(),
            aws_secret_access_key: "hunter2".into(),
            function: "arn:aws:lambda:eu-west-1:123456789012:function:orders:live".into(),
            ..pb::LambdaPolicy::default()
        }
    }

    fn fields(wire: pb::LambdaPolicy) -> Vec<String> {
        inline(wire, &InlineDefaults::default()).unwrap_err().violations().iter().map(|v| v.field.clone()).collect()
    }

    #[test]
    fn a_key_pair_and_a_function_are_enough() {
        let policy = inline(wire(), &InlineDefaults::default()).unwrap();
        assert_eq!(policy.title, "lambda");
        assert_eq!(policy.target.region.as_str(), "eu-west-1");
        assert_eq!(policy.target.qualifier.unwrap().as_str(), "live");
        assert_eq!(policy.access.credentials().kind(), "keys");
    }

    #[test]
    fn a_role_alone_would_use_the_services_identity_and_is_refused() {
        let wire = pb::LambdaPolicy {
            aws_access_key_id: String::new(),
            aws_secret_access_key: String::new(),
            aws_assume_role_arn: "arn:aws:iam::123456789012:role/orders".into(),
            ..wire()
        };
        assert_eq!(fields(wire), ["lambda.aws_access_key_id", "lambda.aws_secret_access_key"]);
    }

    #[test]
    fn every_wrong_property_is_named() {
        let wrong = pb::LambdaPolicy {
            region: "mars".into(),
            qualifier: "v1.2".into(),
            aws_assume_role_arn: "orders".into(),
            external_id: "x".into(),
            role_session_name: "a b".into(),
            role_duration_seconds: 1,
            aws_session_token: "token\n".into(),
            invocation: 9,
            log: "all".into(),
            event: "grpc".into(),
            timeout_ms: -1,
            ..wire()
        };
        assert_eq!(
            fields(wrong),
            [
                "region",
                "qualifier",
                "aws_session_token",
                "aws_assume_role_arn",
                "external_id",
                "role_session_name",
                "role_duration_seconds",
                "invocation",
                "log",
                "event",
                "timeout_ms"
            ]
            .map(|f| format!("lambda.{f}"))
        );
    }

    #[test]
    fn what_belongs_to_a_role_needs_one() {
        let wire = pb::LambdaPolicy { external_id: "acme".into(), ..wire() };
        assert_eq!(fields(wire), ["lambda.external_id"]);
    }

    #[test]
    fn neither_message_prints_its_secret() {
        let request = pb::ExecutePolicyRequest { lambda: Some(wire()), ..Default::default() };
        let printed = format!("{request:?}");
        assert!(!printed.contains("hunter2") && !printed.contains("AKIDEXAMPLE"), "{printed}");
    }
}
