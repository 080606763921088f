//! What a policy says to gateways: callouts and authorizers.

use std::time::Duration;

use super::{fault::Found, node::Node, section::Section};
use crate::event::{
    authorization::{Authorizer, Payload, Source},
    callout::{Callout, Phase},
    picks::Pointer,
};

/// How long an answer holds at the most, as at API Gateway.
const MOST_TTL: Duration = Duration::from_secs(3600);
/// How long it holds unless the file says otherwise, as at API Gateway.
const TTL: Duration = Duration::from_secs(300);

/// What the function's output changes, if the policy is a callout.
pub(super) fn callout(section: &Section<'_>, found: &mut Found) -> Option<Callout> {
    let setting = section.get("callout")?;
    let own = Section::new(Some(setting.node), None, &setting.key);
    let mut callout = Callout::new(own.choice("phase", &Phase::NAMES).unwrap_or_default());
    for (name, node, text) in texts(&own, "headers") {
        let key = format!("{}.{name}", own.key("headers"));
        match text.parse::<Pointer>() {
            Ok(pointer) => {
                if let Err(error) = callout.header(name, pointer) {
                    found.add(Some(node.place), key, error);
                }
            }
            Err(error) => found.add(Some(node.place), key, error),
        }
    }
    for name in own.list("remove_headers", found, |text| Ok::<_, String>(text.to_owned())) {
        if let Err(error) = callout.remove_header(&name) {
            found.add(own.get("remove_headers").map(|setting| setting.node.place), own.key("remove_headers"), error);
        }
    }
    callout.path = pointer(&own, "path", found);
    if callout.phase == Phase::Response && callout.path.is_some() {
        found.add(own.place(), own.key("path"), "has no meaning in the response phase: leave it out");
    }
    callout.body = pointer(&own, "body", found);
    for (name, node, text) in texts(&own, "metadata") {
        match text.parse::<Pointer>() {
            Ok(pointer) => callout.metadata(name, pointer),
            Err(error) => found.add(Some(node.place), format!("{}.{name}", own.key("metadata")), error),
        }
    }
    Some(callout)
}

/// How the function decides, if the policy is an authorizer.
pub(super) fn authorizer(section: &Section<'_>, found: &mut Found) -> Option<Authorizer> {
    let setting = section.get("authorizer")?;
    let own = Section::new(Some(setting.node), None, &setting.key);
    let ttl = own.bounded("ttl", found, |ttl| match ttl <= MOST_TTL {
        true => Ok(ttl),
        false => Err("is longer than an answer may hold: expected 0s to 1h"),
    });
    let mut headers = Vec::new();
    for (name, node, key) in texts(&own, "headers") {
        match crate::event::callout::changeable(name) {
            Ok(name) => headers.push((name, key.to_owned())),
            Err(error) => found.add(Some(node.place), format!("{}.{name}", own.key("headers")), error),
        }
    }
    Some(Authorizer {
        payload: own.choice("format", &Payload::NAMES).unwrap_or_default(),
        identity: own.list("identity", found, Source::parse),
        ttl: ttl.unwrap_or(TTL),
        headers,
    })
}

/// A pointer, of which the empty one is the whole output.
fn pointer(section: &Section<'_>, key: &str, found: &mut Found) -> Option<Pointer> {
    let setting = section.get(key)?;
    let text = setting.node.text()?;
    text.parse().map_err(|error| found.add(Some(setting.node.place), setting.key, error)).ok()
}

/// The names of a map with their texts.
fn texts<'a>(section: &Section<'a>, key: &str) -> Vec<(&'a str, &'a Node, &'a str)> {
    let entries = section.get(key).map(|setting| setting.node.entries()).unwrap_or_default();
    entries.iter().filter_map(|entry| Some((entry.key.as_str(), &entry.node, entry.node.text()?))).collect()
}
