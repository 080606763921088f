//! The policy document of a Lambda authorizer: whether it lets a call pass.
//!
//! Source: "Output from an API Gateway Lambda authorizer" and "Policy evaluation logic" (API Gateway and IAM guides): no
//! statement allows by itself, and one that denies outweighs all that allow.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The only action of an API's call.
const ACTION: &str = "execute-api:Invoke";

/// A policy document's statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document(Vec<Statement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    denies: bool,
    actions: Pattern,
    resources: Pattern,
    /// A condition is not evaluated: what denies on one denies, and what allows on one does not.
    conditional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any(Vec<String>),
    Not(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    statement: OneOrMore<WireStatement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireStatement {
    effect: String,
    action: Option<OneOrMore<String>>,
    not_action: Option<OneOrMore<String>>,
    resource: Option<OneOrMore<String>>,
    not_resource: Option<OneOrMore<String>>,
    condition: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    More(Vec<T>),
    One(T),
}

impl Document {
    /// Reads a document; nothing if it is none.
    pub(super) fn read(json: &RawValue) -> Option<Self> {
        let wire: Wire = serde_json::from_str(json.get()).ok()?;
        wire.statement.into_vec().into_iter().map(Statement::read).collect::<Option<_>>().map(Self)
    }

    /// Whether it lets the call of this method ARN pass.
    pub(super) fn allows(&self, arn: &str) -> bool {
        let fits = |statement: &&Statement| {
            statement.actions.fits(ACTION, str::eq_ignore_ascii_case) && statement.resources.fits(arn, |a, b| a == b)
        };
        let mut allowed = false;
        for statement in self.0.iter().filter(fits) {
            if statement.denies {
                return false;
            }
            allowed |= !statement.conditional;
        }
        allowed
    }
}

impl Statement {
    fn read(wire: WireStatement) -> Option<Self> {
        let pattern = |any: Option<OneOrMore<String>>, not: Option<OneOrMore<String>>| match (any, not) {
            (Some(any), None) => Some(Pattern::Any(any.into_vec())),
            (None, Some(not)) => Some(Pattern::Not(not.into_vec())),
            _ => None,
        };
        Some(Self {
            denies: match wire.effect.as_str() {
                "Allow" => false,
                "Deny" => true,
                _ => return None,
            },
            actions: pattern(wire.action, wire.not_action)?,
            resources: pattern(wire.resource, wire.not_resource)?,
            conditional: wire.condition.is_some_and(|json| !json.is_null() && json != serde_json::json!({})),
        })
    }
}

impl Pattern {
    fn fits(&self, text: &str, same: fn(&str, &str) -> bool) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, text, same));
        match self {
            Self::Any(patterns) => any(patterns),
            Self::Not(patterns) => !any(patterns),
        }
    }
}

impl<T> OneOrMore<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

/// Whether a text fits a pattern: `*` is any text, `?` any character. Linear but for the stars, of which only the last
/// is ever gone back to.
fn fits(pattern: &str, text: &str, same: fn(&str, &str) -> bool) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let equal = |a: char, b: char| same(a.encode_utf8(&mut [0; 4]), b.encode_utf8(&mut [0; 4]));
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&character) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&wanted) if wanted == '?' || equal(wanted, character) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((after, from)) => {
                    *from += 1;
                    (p, t) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|character| *character == '*'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:execute-api:us-east-1:123456789012:api/prod/GET/orders/7";

    fn allows(statements: &str) -> Option<bool> {
        let json = format!(r#"{{"Version": "2012-10-17", "Statement": {statements}}}"#);
        Document::read(serde_json::from_str(&json).unwrap()).map(|document| document.allows(ARN))
    }

    #[test]
    fn documents_are_evaluated_as_iam_does() {
        let arn = |rest: &str| format!("arn:aws:execute-api:us-east-1:123456789012:api/{rest}");
        for (statements, expected, why) in [
            (format!(r#"[{{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": "{ARN}"}}]"#), Some(true), "the call itself"),
            (format!(r#"{{"Action": ["execute-api:*"], "Effect": "Allow", "Resource": ["{}"]}}"#, arn("*/GET/*")), Some(true), "stars, and one statement"),
            (format!(r#"[{{"Action": "*", "Effect": "Allow", "Resource": "{}"}}]"#, arn("prod/GET/orders/?")), Some(true), "a question mark"),
            (r#"[{"Action": "EXECUTE-API:invoke", "Effect": "Allow", "Resource": "*"}]"#.into(), Some(true), "an action's case does not matter"),
            (format!(r#"[{{"Action": "*", "Effect": "Allow", "Resource": "{}"}}]"#, arn("prod/POST/*")), Some(false), "another method"),
            (format!(r#"[{{"Action": "*", "Effect": "Allow", "Resource": "{}"}}]"#, arn("prod/get/*")), Some(false), "a resource's case does"),
            (r#"[{"Action": "s3:*", "Effect": "Allow", "Resource": "*"}]"#.into(), Some(false), "another action"),
            (r#"[{"Action": "*", "Effect": "Allow", "Resource": "*"}, {"Action": "*", "Effect": "Deny", "Resource": "*/orders/*"}]"#.into(), Some(false), "a denial outweighs"),
            (r#"[{"NotAction": "execute-api:Invoke", "Effect": "Deny", "Resource": "*"}, {"Action": "*", "Effect": "Allow", "NotResource": "*/admin"}]"#.into(), Some(true), "negations"),
            (r#"[{"Action": "*", "Effect": "Allow", "Resource": "*", "Condition": {"IpAddress": {}}}]"#.into(), Some(false), "what allows on a condition does not"),
            (r#"[{"Action": "*", "Effect": "Deny", "Resource": "*", "Condition": {"IpAddress": {}}}, {"Action": "*", "Effect": "Allow", "Resource": "*"}]"#.into(), Some(false), "what denies on one does"),
            ("[]".into(), Some(false), "nothing said"),
            (r#"[{"Action": "*", "Effect": "allow", "Resource": "*"}]"#.into(), None, "an effect that is none"),
            (r#"[{"Effect": "Allow", "Resource": "*"}]"#.into(), None, "no action"),
            (r#"[{"Action": "*", "Effect": "Allow"}]"#.into(), None, "no resource"),
            (r#""x""#.into(), None, "no statement"),
        ] {
            assert_eq!(allows(&statements), expected, "{why}");
        }
    }

    #[test]
    fn many_stars_take_no_more_than_a_square() {
        let text = "a".repeat(2000);
        assert!(!fits(&format!("{}b", "*a".repeat(200)), &text, |a, b| a == b));
    }
}
