//! A policy's section as a [`Policy`].

use std::{fmt::Display, num::NonZeroUsize};

use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;

use super::{
    fault::Found,
    gateway,
    node::{Node, Value},
    secrets::Secrets,
    section::{Section, Setting, json},
};
use crate::{
    event::{
        Format, fault,
        picks::{Picks, Pointer},
        rules::{Body, Pattern, Rule},
    },
    policy::{
        Access, ClientContext, IdleTimeout, InlineDefaults, Invocation, Log, Name, Policy, Qualifier, Region, Target,
        Tenant, Timeout,
        credentials::{
            AccessKeyId, AccessKeys, AssumeRole, Base, Credentials, ExternalId, RoleArn, SessionDuration, SessionName,
        },
        endpoint::{Endpoint, Url},
        function::Reference,
        limits::{Breaker, Limits, OpenTime},
        secret::Secret,
    },
};

/// The settings that a policy and `defaults` share.
struct Shared {
    region: Option<Region>,
    event: Format,
    on_function_error: Vec<Rule>,
    output: Picks,
    invocation: Invocation,
    log: Log,
    context: Option<ClientContext>,
    tenant: Option<Tenant>,
    timeout: Timeout,
    stream: bool,
    idle_timeout: IdleTimeout,
    limits: Limits,
    endpoint: Endpoint,
    sts_endpoint: Option<Url>,
}

/// What inline policies start from. It reads every default, so that a wrong one is found though no policy uses it.
pub(super) fn inline_defaults(defaults: Option<&Node>, secrets: &mut Secrets, found: &mut Found) -> InlineDefaults {
    let section = Section::new(defaults, None, "defaults");
    let shared = shared(&section, found);
    if section.get("credentials").is_some() {
        credentials(&section, secrets, found);
    }
    InlineDefaults {
        callers: Default::default(),
        region: shared.region,
        endpoint: shared.endpoint,
        sts_endpoint: shared.sts_endpoint,
        timeout: shared.timeout,
        idle_timeout: shared.idle_timeout,
        log: shared.log,
        invocation: shared.invocation,
        event: shared.event,
        limits: shared.limits,
    }
}

/// A policy, or nothing if something is wrong with it.
pub(super) fn policy(
    name: Name,
    section: &Section<'_>,
    default_region: Option<&Region>,
    secrets: &mut Secrets,
    found: &mut Found,
) -> Option<Policy> {
    let reference = section.parse("function", found, Reference::parse);
    let qualifier = section.parse("qualifier", found, Qualifier::parse);
    let shared = shared(section, found);
    let credentials = credentials(section, secrets, found);
    let qualifiers = section.list("qualifiers", found, Qualifier::parse);
    let callout = gateway::callout(section, found);
    let authorizer = gateway::authorizer(section, found);
    // The default region comes after the one of the function's ARN, so the policy's own is read without it.
    let own = shared.region.filter(|_| section.has_own("region"));
    if own.is_none() && section.get("region").is_some() && default_region.is_none() {
        // A region is named and is none: that it is missing need not be told too.
        return None;
    }
    let target = Target::new(reference?, own, qualifier, default_region)
        .map_err(|error| {
            let setting = section.get(error.property());
            let place = setting.map_or_else(|| section.place(), |setting| Some(setting.node.place));
            found.add(place, section.key(error.property()), &error);
        })
        .ok()?;
    let access = Access::new(target.region.clone(), credentials?, shared.endpoint, shared.sts_endpoint);
    Some(Policy {
        name,
        title: section.text("title").unwrap_or_else(|| Policy::DEFAULT_TITLE.to_owned()),
        description: section.text("description").unwrap_or_default(),
        target,
        qualifiers,
        callers: Default::default(),
        access,
        invocation: shared.invocation,
        log: shared.log,
        context: shared.context,
        tenant: shared.tenant,
        event: shared.event,
        on_function_error: shared.on_function_error,
        output: shared.output,
        callout,
        authorizer,
        timeout: shared.timeout,
        stream: shared.stream,
        idle_timeout: shared.idle_timeout,
        limits: shared.limits,
    })
}

fn shared(section: &Section<'_>, found: &mut Found) -> Shared {
    let context = section.get("context").and_then(|setting| {
        ClientContext::parse(&json(setting.node))
            .map_err(|error| found.add(Some(setting.node.place), setting.key, error))
            .ok()
    });
    Shared {
        region: section.parse("region", found, Region::parse),
        event: section.choice("event", &Format::ALL.map(|format| (format.as_str(), format))).unwrap_or_default(),
        on_function_error: rules(section, found),
        output: picks(section, found),
        invocation: section.choice("invocation", &Invocation::NAMES).unwrap_or_default(),
        log: section.choice("log", &Log::NAMES).unwrap_or_default(),
        context,
        tenant: section.parse("tenant", found, Tenant::parse),
        timeout: section.bounded("timeout", found, Timeout::new).unwrap_or_default(),
        stream: section.boolean("stream").unwrap_or(false),
        idle_timeout: section.bounded("idle_timeout", found, IdleTimeout::new).unwrap_or_default(),
        limits: Limits {
            max_in_flight: section.integer("max_in_flight").and_then(NonZeroUsize::new),
            breaker: breaker(section, found),
        },
        endpoint: endpoint(section, found),
        sts_endpoint: section.parse("sts_endpoint", found, Url::parse),
    }
}

fn breaker(section: &Section<'_>, found: &mut Found) -> Option<Breaker> {
    let default = Breaker::default();
    let Some(setting) = section.get("breaker") else { return Some(default) };
    // Of another word the check has told.
    let Value::Map(_) = setting.node.value else { return None };
    let own = Section::new(Some(setting.node), None, &setting.key);
    Some(Breaker {
        failures: own.integer("failures").and_then(|n| u32::try_from(n).ok()).unwrap_or(default.failures),
        open: own.bounded("open", found, OpenTime::new).unwrap_or(default.open),
    })
}

fn rules(section: &Section<'_>, found: &mut Found) -> Vec<Rule> {
    let settings = section.sections("on_function_error");
    settings.iter().filter_map(|setting| rule(setting, found)).collect()
}

fn rule(setting: &Setting<'_>, found: &mut Found) -> Option<Rule> {
    let own = Section::new(Some(setting.node), None, &setting.key);
    let kinds = own.list("kind", found, str::parse::<fault::Kind>);
    let error_type = own.parse("type", found, Pattern::new);
    let message = own.parse("message", found, |text| {
        regex_lite::Regex::new(text).map_err(|error| format!("is not a regular expression: {error}"))
    });
    let status = own.integer("status").and_then(|status| u16::try_from(status).ok())?;
    // The check has told of a status that is none.
    let mut rule = Rule::new(kinds, status).ok()?;
    if let Some(error_type) = error_type {
        rule = rule.error_type(error_type);
    }
    if let Some(message) = message {
        rule = rule.message(message);
    }
    let bodies = ["body", "text", "json"].map(|key| own.get(key));
    if bodies.iter().flatten().count() > 1 {
        found.add(own.place(), own.key("body"), "is said twice: set one of `body`, `text` and `json`");
    }
    rule = rule.body(match bodies {
        [_, Some(text), _] => Body::Text(text.node.text().unwrap_or_default().to_owned()),
        [_, _, Some(setting)] => Body::Json(RawValue::from_string(json(setting.node)).ok()?),
        [Some(word), ..] if word.node.text() == Some("payload") => Body::Payload,
        _ => Body::Front,
    });
    for entry in own.get("headers").map(|setting| setting.node.entries()).unwrap_or_default() {
        rule = rule
            .header(&entry.key, entry.node.text().unwrap_or_default())
            .map_err(|error| found.add(Some(entry.place), own.key("headers"), error))
            .ok()?;
    }
    Some(rule)
}

fn picks(section: &Section<'_>, found: &mut Found) -> Picks {
    let Some(setting) = section.get("output") else { return Picks::default() };
    let mut picks = Vec::new();
    for entry in setting.node.entries() {
        let Some(pointer) = entry.node.text() else { continue };
        match pointer.parse::<Pointer>() {
            Ok(_) => picks.push((entry.key.as_str(), pointer)),
            Err(error) => found.add(Some(entry.node.place), format!("{}.{}", setting.key, entry.key), error),
        }
    }
    Picks::new(picks).unwrap_or_default()
}

fn endpoint(section: &Section<'_>, found: &mut Found) -> Endpoint {
    let Some(setting) = section.get("endpoint") else { return Endpoint::Regional };
    let own = Section::new(Some(setting.node), None, &setting.key);
    let fips = own.boolean("fips").unwrap_or(false);
    let dual_stack = own.boolean("dual_stack").unwrap_or(false);
    let variant = fips || dual_stack;
    if own.get("url").is_some() && variant {
        let message = "names an address and a variant of AWS's own: set `url`, or `fips` and `dual_stack`";
        found.add(Some(setting.node.place), setting.key.clone(), message);
    }
    match own.parse("url", found, Url::parse) {
        Some(url) => Endpoint::Url(url),
        None if variant => Endpoint::Variant { fips, dual_stack },
        None => Endpoint::Regional,
    }
}

fn credentials(section: &Section<'_>, secrets: &mut Secrets, found: &mut Found) -> Option<Credentials> {
    let Some(setting) = section.get("credentials") else {
        let message = "is missing: give `access_key_id` and `secret_access_key`, `assume_role`, or both; \
                       or say `default` for the service's own identity";
        found.add(section.place(), section.key("credentials"), message);
        return None;
    };
    if setting.node.text().is_some() {
        return Some(Credentials::new(Base::Service, None));
    }
    // Of another form the check has told.
    let Value::Map(_) = setting.node.value else { return None };
    let own = Section::new(Some(setting.node), None, &setting.key);
    // Everything is read before anything is put together, so that no fault hides another.
    let id = key(&own, "access_key_id", secrets, found, |text| AccessKeyId::parse(text.expose_secret()));
    let secret = key(&own, "secret_access_key", secrets, found, Secret::parse);
    let session_token = key(&own, "session_token", secrets, found, Secret::parse);
    let role = match own.get("assume_role") {
        None => Given::No,
        Some(setting) => assume_role(&setting, found).map_or(Given::Wrong, Given::Yes),
    };

    let base = match (id, secret, session_token) {
        (Given::Yes(id), Given::Yes(secret), Given::Yes(token)) => {
            Base::Keys(AccessKeys { id, secret, session_token: Some(token) })
        }
        (Given::Yes(id), Given::Yes(secret), Given::No) => Base::Keys(AccessKeys { id, secret, session_token: None }),
        (Given::No, Given::No, Given::No) if matches!(role, Given::No) => {
            let message = "is empty: give `access_key_id` and `secret_access_key`, `assume_role`, or both";
            found.add(own.place(), setting.key, message);
            return None;
        }
        (Given::No, Given::No, Given::No) => Base::Service,
        (id, secret, _) => {
            for (name, missing) in
                [("access_key_id", matches!(id, Given::No)), ("secret_access_key", matches!(secret, Given::No))]
            {
                if missing {
                    found.add(own.place(), own.key(name), "is missing: keys come in pairs");
                }
            }
            return None;
        }
    };
    match role {
        Given::No => Some(Credentials::new(base, None)),
        Given::Yes(role) => Some(Credentials::new(base, Some(role))),
        Given::Wrong => None,
    }
}

/// What the file says of a setting.
enum Given<T> {
    No,
    Yes(T),
    /// It is there, and its fault has been told.
    Wrong,
}

/// A secret as the type that it means.
fn key<T, E: Display>(
    section: &Section<'_>,
    key: &str,
    secrets: &mut Secrets,
    found: &mut Found,
    parse: impl FnOnce(SecretString) -> Result<T, E>,
) -> Given<T> {
    let Some(setting) = section.get(key) else { return Given::No };
    let Some(text) = secrets.read(&setting, found) else { return Given::Wrong };
    match parse(text) {
        Ok(value) => Given::Yes(value),
        Err(error) => {
            found.add(Some(setting.node.place), setting.key, error);
            Given::Wrong
        }
    }
}

fn assume_role(setting: &Setting<'_>, found: &mut Found) -> Option<AssumeRole> {
    let own = Section::new(Some(setting.node), None, &setting.key);
    let arn = own.parse("role_arn", found, RoleArn::parse);
    let external_id = own.parse("external_id", found, ExternalId::parse);
    let session_name = own.parse("session_name", found, SessionName::parse).unwrap_or_default();
    let duration = own.bounded("duration", found, SessionDuration::new).unwrap_or_default();
    Some(AssumeRole { role_arn: arn?, external_id, session_name, duration })
}
