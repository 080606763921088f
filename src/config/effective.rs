//! The configuration in force, for operators: what the file says, what it leaves to defaults, and no secret.

use serde_json::{Map, Value as Json, json};

use super::{
    node::{Node, Value},
    section,
    shape::{FILE, Key, Kind},
};

/// What stands for a secret that the file has, and for what is kept back.
const REDACTED: &str = "[redacted]";

/// Every setting of a checked file by its value; what nobody said and nobody needs is left out.
pub(super) fn effective(root: &Node) -> Json {
    settings(Some(root), root.get("defaults"), FILE)
}

fn settings(node: Option<&Node>, fallback: Option<&Node>, keys: &[Key]) -> Json {
    let mut shown = Map::new();
    for key in keys {
        let said = node.and_then(|node| node.get(key.name));
        // The defaults stand in the policies that they hold for, too.
        let below = match key.kind {
            Kind::Named(_) => fallback,
            _ => None,
        };
        let value = match said.or_else(|| fallback.filter(|_| !is_file(keys))?.get(key.name)) {
            Some(_) if key.private => Some(json!(REDACTED)),
            Some(said) => Some(value(said, below, &key.kind)),
            // Spans go where `otlp` says, and are made only if it does.
            None if key.name == "traces" && node.is_none_or(|node| node.get("otlp").is_none()) => Some(json!("off")),
            None => default(key),
        };
        if let Some(value) = value {
            shown.insert(key.name.to_owned(), value);
        }
    }
    Json::Object(shown)
}

fn is_file(keys: &[Key]) -> bool {
    std::ptr::eq(keys, FILE)
}

fn value(node: &Node, fallback: Option<&Node>, kind: &Kind) -> Json {
    match (kind, &node.value) {
        (Kind::Secret, Value::Text(_)) => json!(REDACTED),
        // Where a secret comes from is none.
        (Kind::Secret, _) => section::to_json(node),
        (Kind::Section(keys) | Kind::WordOr(_, keys), Value::Map(_)) => settings(Some(node), None, keys),
        (Kind::Sections(keys), Value::List(items)) => {
            items.iter().map(|item| settings(Some(item), None, keys)).collect()
        }
        (Kind::Named(keys), Value::Map(entries)) => {
            let entries = entries.iter();
            entries.map(|entry| (entry.key.clone(), settings(Some(&entry.node), fallback, keys))).collect()
        }
        (Kind::Integer { .. } | Kind::Boolean | Kind::Json | Kind::Object, _) => section::to_json(node),
        (_, Value::Text(text)) => json!(text),
        _ => section::to_json(node),
    }
}

/// What a setting is without the file saying so. A default that is told in words is told in them.
fn default(key: &Key) -> Option<Json> {
    match &key.kind {
        _ if key.only_if_said => None,
        Kind::Section(keys) | Kind::WordOr(_, keys) if keys.iter().all(|key| !key.required) => {
            Some(settings(None, None, keys)).filter(|shown| shown.as_object().is_some_and(|shown| !shown.is_empty()))
        }
        Kind::Integer { .. } | Kind::Boolean => {
            Some(serde_json::from_str(key.default).unwrap_or_else(|_| json!(key.default)))
        }
        _ => Some(json!(key.default)),
    }
    .filter(|default| *default != json!(""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn it_says_what_holds_and_no_secret() {
        let text = "server: {max_in_flight: 7}\ndefaults:\n  region: eu-west-1\n  timeout: 3s\n  credentials: \
                    {access_key_id: AKIDEXAMPLE, secret_access_key: hunter2}\npolicies:\n  one: {function: one}\n  two:\n    \
                    function: two\n    timeout: 9s\n    credentials: {access_key_id: AKIDOTHER, secret_access_key: {env: PATH}}\n";
        let shown = Config::parse(text, "f.yaml".as_ref()).unwrap().effective;
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
        for (pointer, expected) in [
            ("/server/max_in_flight", json!(7)),
            ("/server/drain_delay", json!("5s")),
            ("/server/inline_policies", json!("deny")),
            ("/admin/listen", json!("127.0.0.1:9464")),
            ("/defaults/credentials/secret_access_key", json!(REDACTED)),
            ("/policies/one/region", json!("eu-west-1")),
            ("/policies/one/timeout", json!("3s")),
            ("/policies/one/invocation", json!("request-response")),
            ("/policies/one/credentials/secret_access_key", json!(REDACTED)),
            ("/policies/two/timeout", json!("9s")),
            ("/policies/two/credentials/secret_access_key/env", json!("PATH")),
        ] {
            assert_eq!(shown.pointer(pointer), Some(&expected), "{pointer}: {shown:#}");
        }
        for absent in [
            "/server/tls",
            "/policies/one/callout",
            "/policies/one/authorizer",
            "/policies/one/credentials/assume_role",
        ] {
            assert_eq!(shown.pointer(absent), None, "{absent}: {shown:#}");
        }
    }

    #[test]
    fn sections_are_shown_where_they_are_in_force() {
        let keys = "credentials: {access_key_id: AKIDEXAMPLE, secret_access_key: x}";
        let text = format!(
            "telemetry: {{otlp: {{endpoint: 'http://c:4317'}}}}\ndefaults: {{region: eu-west-1, breaker: {{failures: 9}}, {keys}}}\n\
             policies:\n  one: {{function: one}}\n  two: {{function: two, breaker: none, authorizer: {{}}, callout: {{phase: response}}}}\n"
        );
        let shown = |text: &str| Config::parse(text, "f.yaml".as_ref()).unwrap().effective;
        let found = shown(&text);
        for (pointer, expected) in [
            ("/telemetry/traces", json!({"ratio": "0.01"})),
            ("/defaults/breaker", json!({"failures": 9, "open": "5s"})),
            ("/policies/one/breaker", json!({"failures": 9, "open": "5s"})),
            ("/policies/two/breaker", json!("none")),
            ("/policies/two/authorizer", json!({"format": "http-api", "ttl": "5m"})),
            ("/policies/two/callout", json!({"phase": "response"})),
        ] {
            assert_eq!(found.pointer(pointer), Some(&expected), "{pointer}: {found:#}");
        }
        let found = shown(&format!("defaults: {{region: eu-west-1, {keys}}}\npolicies: {{one: {{function: one}}}}\n"));
        assert_eq!(found.pointer("/policies/one/breaker"), Some(&json!({"failures": 5, "open": "5s"})), "{found:#}");
        assert_eq!(found.pointer("/telemetry/traces"), Some(&json!("off")), "as there is nowhere to push them");
    }

    #[test]
    fn what_would_help_to_guess_a_secret_or_may_hold_one_is_kept_back() {
        let digest = "7c4b89733cf3218677d6a8cf9111927aeae3ef6ddf70a1bdeee73e68cee59668";
        let text = format!(
            "callers: {{kong: {{tokens: [{digest}]}}}}\ndefaults: {{region: eu-west-1}}\npolicies:\n  one:\n    function: one\n    \
             callers: kong\n    context: {{custom: {{key: hunter2}}}}\n    credentials: {{assume_role: {{role_arn: \
             'arn:aws:iam::123456789012:role/r', external_id: hunter3}}}}\n"
        );
        let shown = Config::parse(&text, "f.yaml".as_ref()).unwrap().effective;
        for pointer in
            ["/callers/kong/tokens", "/policies/one/context", "/policies/one/credentials/assume_role/external_id"]
        {
            assert_eq!(shown.pointer(pointer), Some(&json!(REDACTED)), "{pointer}: {shown:#}");
        }
        for kept in [digest, "hunter"] {
            assert!(!shown.to_string().contains(kept), "{shown}");
        }
    }
}
