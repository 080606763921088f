//! What the gateway's authorizer found out about the caller, in the form that each payload format has for it.
//!
//! A gateway says `{"jwt": {"claims": …, "scopes": …}}`, `{"iam": {…}}` or `{"lambda": {…}}`, as payload 2.0 spells them,
//! `{"claims": …}`, as payload 1.0 spells a token's, or anything else, which is a Lambda authorizer's context.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The findings by kind, as far as there are any.
#[derive(Clone, Copy, Debug)]
pub(super) enum Authorizer<'a> {
    /// A token's claims and scopes.
    Jwt(&'a RawValue),
    /// Who signed the request.
    Iam(&'a RawValue),
    /// The context that a Lambda authorizer made.
    Lambda(&'a RawValue),
    /// Several kinds in the form of payload 2.0.
    Kinds(&'a RawValue),
}

/// The findings in payload 2.0, where each kind has its own key.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Keyed<'a> {
    Jwt(&'a RawValue),
    Iam(&'a RawValue),
    Lambda(&'a RawValue),
    #[serde(untagged)]
    Kinds(&'a RawValue),
}

/// Who signed a request, with payload 2.0's keys.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Iam<'a> {
    #[serde(borrow)]
    pub(super) access_key: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) account_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) caller_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) cognito_identity: Option<Cognito<'a>>,
    #[serde(borrow)]
    pub(super) principal_org_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) user_arn: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) user_id: Option<&'a RawValue>,
}

/// The Cognito identity behind a signature.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Cognito<'a> {
    #[serde(borrow)]
    pub(super) amr: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) identity_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) identity_pool_id: Option<&'a RawValue>,
}

impl<'a> Authorizer<'a> {
    /// Reads what the gateway gave; null is nothing.
    pub(super) fn of(given: Option<&'a RawValue>) -> Option<Self> {
        let given = given.filter(|given| given.get() != "null")?;
        let Ok(keys) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &'a RawValue>>(given.get()) else {
            return Some(Self::Lambda(given));
        };
        let mut entries = keys.iter().map(|(key, value)| (&**key, *value));
        let found = match (entries.next(), entries.next(), entries.next()) {
            (Some(("jwt", jwt)), None, _) => Self::Jwt(jwt),
            (Some(("iam", iam)), None, _) => Self::Iam(iam),
            (Some(("lambda", context)), None, _) => Self::Lambda(context),
            (Some(("claims", _)), None, _) | (Some(("claims", _)), Some(("scopes", _)), None) => Self::Jwt(given),
            _ if keys.keys().all(|kind| ["jwt", "iam", "lambda"].contains(&&**kind)) => Self::Kinds(given),
            _ => Self::Lambda(given),
        };
        Some(found)
    }

    /// Under the kind's key.
    pub(super) fn keyed(self) -> Keyed<'a> {
        match self {
            Self::Jwt(jwt) => Keyed::Jwt(jwt),
            Self::Iam(iam) => Keyed::Iam(iam),
            Self::Lambda(context) => Keyed::Lambda(context),
            Self::Kinds(kinds) => Keyed::Kinds(kinds),
        }
    }

    /// Without a key. A signature has no place among the findings of payload 1.0: it makes the identity.
    pub(super) fn flat(self) -> Option<&'a RawValue> {
        match self {
            Self::Jwt(found) | Self::Lambda(found) | Self::Kinds(found) => Some(found),
            Self::Iam(_) => None,
        }
    }

    /// Who signed the request, if that is what was found.
    pub(super) fn iam(self) -> Option<Iam<'a>> {
        match self {
            Self::Iam(iam) => Some(serde_json::from_str(iam.get()).unwrap_or_default()),
            Self::Jwt(_) | Self::Lambda(_) | Self::Kinds(_) => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json, to_value};

    #[test]
    fn each_kind_in_each_payload_format() {
        let claims = json!({"claims": {"sub": "1"}, "scopes": ["a"]});
        for (given, keyed, flat, why) in [
            (json!({"jwt": claims}), json!({"jwt": claims}), claims.clone(), "a token"),
            (claims.clone(), json!({"jwt": claims}), claims.clone(), "a token as payload 1.0 spells it"),
            (json!({"claims": {}}), json!({"jwt": {"claims": {}}}), json!({"claims": {}}), "without scopes"),
            (json!({"lambda": {"a": 1}}), json!({"lambda": {"a": 1}}), json!({"a": 1}), "a context"),
            (json!({"a": 1}), json!({"lambda": {"a": 1}}), json!({"a": 1}), "a context without its key"),
            (json!({"jwt": {}, "a": 1}), json!({"lambda": {"jwt": {}, "a": 1}}), json!({"jwt": {}, "a": 1}), "another"),
            (
                json!({"claims": {}, "a": 1}),
                json!({"lambda": {"claims": {}, "a": 1}}),
                json!({"claims": {}, "a": 1}),
                "so",
            ),
            (json!("me"), json!({"lambda": "me"}), json!("me"), "no object"),
            (json!({"iam": {"userId": "u"}}), json!({"iam": {"userId": "u"}}), Value::Null, "a signature"),
            (
                json!({"iam": {}, "lambda": {}}),
                json!({"iam": {}, "lambda": {}}),
                json!({"iam": {}, "lambda": {}}),
                "two",
            ),
            (json!({}), json!({}), json!({}), "an empty object"),
        ] {
            let text = given.to_string();
            let found = Authorizer::of(Some(serde_json::from_str(&text).unwrap())).unwrap();
            assert_eq!(to_value(found.keyed()).unwrap(), keyed, "{why}");
            assert_eq!(to_value(found.flat()).unwrap(), flat, "{why}");
        }
        assert!(Authorizer::of(Some(serde_json::from_str("null").unwrap())).is_none());
        assert!(Authorizer::of(None).is_none());
    }
}
