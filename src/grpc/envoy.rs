//! What Envoy's two services have in common: which policy a call is for, and how headers travel.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use tonic::metadata::MetadataMap;

use crate::{
    error::{Error, Kind},
    event::caller,
    pb::envoy::config::core::v3::{
        HeaderMap, HeaderValue, HeaderValueOption, Metadata, header_value_option::HeaderAppendAction,
    },
    policy::{Caller, Policies, Policy, Unmatched},
};

/// The metadata in which a gateway says which of its requests an RPC belongs to; Envoy does so by itself.
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The metadata of a stream or call that names the policy.
pub(super) static POLICY: HeaderName = HeaderName::from_static("x-lambda-policy");
/// The namespace of filter metadata that is ours.
pub(super) const NAMESPACE: &str = "lambda-policy";
/// Under which key a policy is named in filter metadata and context extensions.
const KEY: &str = "policy";
/// Google Cloud's load balancers have a namespace of their own for what an extension is configured with.
const GOOGLE: &str = "com.google.";

/// What a gateway says of a call's policy. The first that is there counts.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// By the route's gRPC metadata, else its filter metadata or context extensions.
    pub named: Option<String>,
    /// A route may be called as its policy, or otherwise.
    pub route: Option<String>,
    pub host: String,
    pub path: String,
}

/// The policy of a call; none if the gateway is to go on without.
///
/// # Errors
/// [`Kind::PolicyNotFound`] if a policy is named that does not exist, or nothing fits; [`Kind::CallerUnauthenticated`] and
/// [`Kind::CallerDenied`] for a gateway that may not call it.
pub(super) fn choose(policies: &Policies, caller: &Caller, hints: &Hints) -> Result<Option<Arc<Policy>>, Error> {
    policies.known(caller)?;
    if let Some(name) = &hints.named {
        return policies.find(caller, name).cloned().map(Some);
    }
    let by_route = hints.route.as_ref().and_then(|route| policies.named.get(route.as_str()));
    let by_place = || policies.routes.find(&hints.host, &hints.path).and_then(|name| policies.named.get(name.as_str()));
    match (by_route.or_else(by_place), policies.unmatched) {
        (Some(policy), _) => policies.find(caller, policy.name.as_str()).cloned().map(Some),
        (None, Unmatched::Pass) => Ok(None),
        (None, Unmatched::Deny) => Err(Error::new(Kind::PolicyNotFound, "no policy is named, and no route fits")),
    }
}

/// The gateway's id of an RPC.
pub(super) fn given(metadata: &MetadataMap) -> Option<&str> {
    metadata.as_ref().get(&REQUEST_ID)?.to_str().ok()
}

/// The policy that the route's gRPC metadata names.
pub(super) fn named(metadata: &MetadataMap) -> Option<String> {
    let name = metadata.as_ref().get(&POLICY)?.to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The policy that filter metadata names. Only namespaces that an operator writes are read: others hold what clients
/// say, such as a token's claims.
pub(super) fn named_in_metadata(metadata: Option<&Metadata>) -> Option<String> {
    let namespaces = &metadata?.filter_metadata;
    let google = namespaces.iter().filter(|(name, _)| name.starts_with(GOOGLE)).map(|(_, fields)| fields);
    namespaces.get(NAMESPACE).into_iter().chain(google).find_map(|fields| text(fields, KEY))
}

/// A text of a struct.
pub(super) fn text(fields: &prost_types::Struct, key: &str) -> Option<String> {
    match fields.fields.get(key)?.kind.as_ref()? {
        prost_types::value::Kind::StringValue(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

/// JSON as Envoy's metadata has it.
pub(super) fn value(json: &serde_json::Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(bool) => Kind::BoolValue(*bool),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => {
            Kind::ListValue(prost_types::ListValue { values: items.iter().map(value).collect() })
        }
        serde_json::Value::Object(map) => Kind::StructValue(prost_types::Struct {
            fields: map.iter().map(|(key, json)| (key.clone(), value(json))).collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Names with their JSON, as dynamic metadata of our namespace; nothing if there are none.
pub(super) fn dynamic_metadata<'a>(
    pairs: impl Iterator<Item = (&'a String, &'a String)>,
) -> Option<prost_types::Struct> {
    let json = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let fields: std::collections::BTreeMap<_, _> =
        pairs.map(|(name, text)| (name.clone(), value(&json(text)))).collect();
    if fields.is_empty() {
        return None;
    }
    let ours = prost_types::value::Kind::StructValue(prost_types::Struct { fields });
    let ours = prost_types::Value { kind: Some(ours) };
    Some(prost_types::Struct { fields: [(NAMESPACE.to_owned(), ours)].into() })
}

/// A header's value, in whichever of the two fields it stands.
pub(super) fn header_text(header: &HeaderValue) -> String {
    if header.raw_value.is_empty() { header.value.clone() } else { caller::opaque(&header.raw_value) }
}

/// Headers as names and values, pseudo-headers too.
pub(super) fn pairs(map: Option<HeaderMap>) -> Vec<(String, String)> {
    let headers = map.map(|map| map.headers).unwrap_or_default();
    headers.into_iter().map(|header| (header.key.to_ascii_lowercase(), header_text(&header))).collect()
}

/// The last value of a header, which is the one that the gateway itself has set or appended.
pub(super) fn last<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().rfind(|(given, _)| given == name).map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
}

/// In which field of a header Envoy looks for its value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// ext_authz.
    Text,
    /// ext_proc.
    Raw,
}

/// Headers to be set in the place of those of their names; each value of a repeated name is kept.
///
/// Which of the two fields says so depends on the version: every one takes `append` where it is there, and old ones
/// replace where nothing is said.
pub(super) fn set(headers: Vec<(String, String)>, place: Place) -> Vec<HeaderValueOption> {
    let mut seen: Vec<String> = Vec::with_capacity(headers.len());
    headers
        .into_iter()
        .map(|(name, value)| {
            let key = name.to_ascii_lowercase();
            let repeated = seen.contains(&key);
            if !repeated {
                seen.push(key.clone());
            }
            let header = match place {
                Place::Text => HeaderValue { key, value, raw_value: Bytes::new() },
                Place::Raw => HeaderValue { key, value: String::new(), raw_value: value.into() },
            };
            let (append, action) = match repeated {
                true => (Some(true), HeaderAppendAction::AppendIfExistsOrAdd),
                false => (None, HeaderAppendAction::OverwriteIfExistsOrAdd),
            };
            HeaderValueOption { header: Some(header), append, append_action: action.into() }
        })
        .collect()
}

/// The client's address: as the gateway attests it, else what it appended last to the forwarded ones.
pub(super) fn source_ip(attested: Option<&str>, headers: &[(String, String)]) -> String {
    let external = || last(headers, "x-envoy-external-address").and_then(caller::forwarded);
    let appended = || last(headers, "x-forwarded-for").and_then(caller::forwarded);
    attested.and_then(caller::forwarded).or_else(external).or_else(appended).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn hints(named: &str, route: &str, path: &str) -> Hints {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Hints { named: some(named), route: some(route), host: "api.test".into(), path: path.into() }
    }

    #[test]
    fn the_first_hint_counts() {
        let file = |unmatched: &str| {
            let text = format!(
                "server: {{unmatched: {unmatched}}}\ndefaults: {{region: us-east-1, credentials: default}}\npolicies: {{a: \
                 {{function: a}}, b: {{function: b}}, c: {{function: c}}}}\nroutes: [{{path: /c, policy: c}}]\n"
            );
            Config::parse(&text, Path::new("f")).unwrap().policies
        };
        let (deny, pass) = (file("deny"), file("pass"));
        for (hints, expected, why) in [
            (hints("a", "b", "/c"), Ok(Some("a")), "what is named"),
            (hints("", "b", "/c"), Ok(Some("b")), "then the route's name"),
            (hints("", "x", "/c"), Ok(Some("c")), "a route that is called otherwise says nothing"),
            (hints("", "", "/c"), Ok(Some("c")), "then host and path"),
            (hints("x", "b", "/c"), Err(()), "who names a policy gets no other"),
            (hints("", "", "/x"), Err(()), "nothing fits"),
        ] {
            let found = choose(&deny, &Caller::default(), &hints)
                .map_err(|error| assert_eq!(error.kind(), Kind::PolicyNotFound));
            assert_eq!(
                found.as_ref().map(|p| p.as_ref().map(|p| p.name.as_str())),
                expected.as_ref().copied(),
                "{why}"
            );
        }
        assert!(choose(&pass, &Caller::default(), &hints("", "", "/x")).unwrap().is_none());
        assert!(
            choose(&pass, &Caller::default(), &hints("x", "", "/x")).is_err(),
            "a name that is wrong is never passed over"
        );
    }

    #[test]
    fn only_an_operators_metadata_names_a_policy() {
        let metadata = |namespace: &str| {
            let fields =
                prost_types::Struct { fields: [("policy".to_owned(), value(&serde_json::json!("orders")))].into() };
            Metadata { filter_metadata: [(namespace.to_owned(), fields)].into() }
        };
        for (namespace, expected) in [
            ("lambda-policy", Some("orders")),
            ("com.google.lb_traffic_extension.orders", Some("orders")),
            ("envoy.filters.http.jwt_authn", None),
        ] {
            assert_eq!(named_in_metadata(Some(&metadata(namespace))).as_deref(), expected, "{namespace}");
        }
    }

    #[test]
    fn every_value_of_a_repeated_header_is_kept() {
        let headers = [("Set-Cookie", "a=1"), ("x", "1"), ("set-cookie", "b=2")];
        let set = set(headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), Place::Raw);
        let said: Vec<_> = set.iter().map(|option| (option.append, option.append_action)).collect();
        assert_eq!(said, [(None, 2), (None, 2), (Some(true), 0)]);
    }

    #[test]
    fn the_clients_address_is_what_the_gateway_attests() {
        let headers = |value: &str| vec![("x-forwarded-for".to_owned(), value.to_owned())];
        assert_eq!(source_ip(Some("192.0.2.7:1234"), &headers("6.6.6.6")), "192.0.2.7");
        assert_eq!(source_ip(Some("[2001:db8::1]:1"), &[]), "2001:db8::1");
        assert_eq!(source_ip(None, &headers("6.6.6.6, 192.0.2.7")), "192.0.2.7", "what a client sends comes first");
        assert_eq!(source_ip(None, &[]), "");
    }
}
