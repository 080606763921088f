//! What a decK file refers to: `${{ env "NAME" }}`, and Kong's vaults as in `{vault://env/name}`.

use super::super::{
    fields::{get, list, text},
    names::Origin,
    reader::{Resolve, Resolved},
};
use crate::config::Node;

/// The environment that decK would see, and the file's own vaults.
pub(super) struct References<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// Vaults of environment variables: the prefix in references, and that of the variables.
    vaults: Vec<(&'a str, &'a str)>,
}

impl<'a> References<'a> {
    pub(super) fn new(nodes: &'a [Node], environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let vaults =
            nodes.iter().flat_map(|node| list(node, "vaults")).filter(|vault| text(vault, "name") == Some("env"));
        let vaults = vaults.filter_map(|vault| {
            let prefix = get(vault, "config").and_then(|config| text(config, "prefix")).unwrap_or_default();
            Some((text(vault, "prefix")?, prefix))
        });
        Self { environment, vaults: vaults.collect() }
    }

    /// The variable that Kong reads for a secret in a vault, or the name that one could have.
    fn variable(&self, vault: &str, secret: &str) -> String {
        let prefix = self.vaults.iter().find(|(name, _)| *name == vault).map_or("", |(_, prefix)| prefix);
        // A part of a secret is a variable of its own, as the whole of it is JSON.
        format!("{prefix}{secret}").replace(['-', '/'], "_").to_ascii_uppercase()
    }
}

impl Resolve for References<'_> {
    fn resolve(&self, text: &str) -> Resolved {
        if let Some(name) = deck(text) {
            return match (self.environment)(name).filter(|value| !value.is_empty()) {
                Some(value) => Resolved::Text(value),
                None => Resolved::Open(format!("is in the environment variable {name}, which is not set here")),
            };
        }
        if vault(text).is_some() {
            return Resolved::Open("is in a vault of kong: write its value".to_owned());
        }
        if text.contains("${{") {
            return Resolved::Open("is a template of decK: write its value".to_owned());
        }
        Resolved::Text(text.to_owned())
    }

    fn secret(&self, text: &str) -> Option<Origin> {
        if let Some(name) = deck(text) {
            let said = format!("decK's environment variable {name}");
            return Some(Origin::Reference { said, variable: name.to_owned() });
        }
        let (vault, secret) = vault(text)?;
        let said = format!("what kong has in {{vault://{vault}/{secret}}}");
        Some(Origin::Reference { said, variable: self.variable(vault, secret) })
    }
}

/// The variable in `${{ env "NAME" }}`, if the text is nothing else.
fn deck(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("${{")?.strip_suffix("}}")?.trim().strip_prefix("env")?.trim_start();
    let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let (name, rest) = inner.get(1..)?.split_once(quote)?;
    // Whatever type decK makes of it, here it is text.
    let rest = rest.trim();
    (is_name(name, "_") && (rest.is_empty() || rest.starts_with('|'))).then_some(name)
}

/// Vault and secret in `{vault://vault/secret}`, without the settings behind `?` and the version behind `#`.
fn vault(text: &str) -> Option<(&str, &str)> {
    let inner = text.trim().strip_prefix("{vault://")?.strip_suffix('}')?;
    let inner = inner.split(['?', '#']).next()?;
    let (vault, secret) = inner.split_once('/')?;
    (is_name(vault, "-_") && is_name(secret, "-_/.")).then_some((vault, secret))
}

fn is_name(text: &str, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Found;

    const VAULTS: &str = "vaults: [{name: env, prefix: mine, config: {prefix: SECURE_}}, {name: hcv, prefix: theirs}]";

    #[test]
    fn secrets_keep_the_variables_that_they_are_in() {
        let nodes = Node::parse_all(VAULTS, &mut Found::default()).unwrap();
        let references = References::new(&nodes, &|_| None);
        for (text, variable) in [
            ("{vault://env/my-secret}", Some("MY_SECRET")),
            ("{vault://env/my-secret/key}", Some("MY_SECRET_KEY")),
            ("{vault://mine/aws-key?ttl=60}", Some("SECURE_AWS_KEY")),
            ("{vault://theirs/aws/secret#2}", Some("AWS_SECRET")),
            (r#"${{ env "DECK_AWS_KEY" }}"#, Some("DECK_AWS_KEY")),
            ("${{env 'DECK_aws' | toString}}", Some("DECK_aws")),
            ("hunter2", None),
            ("{vault://hunter2}", None),
            ("{vault://env/a b}", None),
            (r#"x${{ env "DECK_AWS_KEY" }}"#, None),
            ("", None),
        ] {
            let found = references.secret(text).map(|origin| match origin {
                Origin::Reference { variable, .. } => variable,
                other => panic!("{other:?}"),
            });
            assert_eq!(found.as_deref(), variable, "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_is_taken_from_the_environment_as_deck_does() {
        let environment = |name: &str| (name == "DECK_REGION").then(|| "eu-west-1".to_owned());
        let references = References::new(&[], &environment);
        assert_eq!(references.resolve(r#"${{ env "DECK_REGION" }}"#), Resolved::Text("eu-west-1".into()));
        assert_eq!(references.resolve("us-east-1"), Resolved::Text("us-east-1".into()));
        for text in [r#"${{ env "DECK_GONE" }}"#, "{vault://env/region}", "a-${{ env \"DECK_REGION\" }}"] {
            assert!(matches!(references.resolve(text), Resolved::Open(_)), "{text}");
        }
    }
}
