//! Names for what comes in: policies and environment variables, each once.

use std::collections::BTreeSet;

use crate::{config::Place, policy::Name};

/// The longest name that a policy may have.
const MAX_NAME: usize = 64;

/// The policies' names so far.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

/// The environment variables that the file refers to.
#[derive(Debug, Default)]
pub(super) struct Variables(Vec<Variable>);

/// An environment variable, and what has to be in it.
#[derive(Debug)]
pub(super) struct Variable {
    pub name: String,
    pub origin: Origin,
}

/// Where a secret stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Somewhere that the document names, and the name that a variable for it would have.
    Reference { said: String, variable: String },
    /// In the document itself, here.
    Text(Place),
    /// In a secret of the gateway with several values, which the document names here.
    Named(Place),
    /// Nowhere: the other half of a pair is there, here.
    Missing(Place),
}

impl Names {
    /// A name like the first of these texts that makes one.
    pub(super) fn policy(&mut self, wanted: &[&str]) -> String {
        let slug = wanted.iter().map(|text| slug(text)).find(|slug| !slug.is_empty());
        let slug = slug.unwrap_or_else(|| "lambda".to_owned());
        let mut name = slug.clone();
        let mut n = 1;
        // What differs in case only is hard to tell apart, and `inline` is taken.
        while Name::parse(&name).is_err() || !self.0.insert(name.to_ascii_lowercase()) {
            n += 1;
            let suffix = format!("-{n}");
            name = format!("{}{suffix}", slug.chars().take(MAX_NAME - suffix.len()).collect::<String>());
        }
        name
    }
}

impl Variables {
    /// The variable for a secret: that of its reference, or else one of the name that is wanted.
    pub(super) fn variable(&mut self, origin: Origin, wanted: &str) -> String {
        if let Origin::Reference { .. } = &origin
            && let Some(known) = self.0.iter().find(|variable| variable.origin == origin)
        {
            return known.name.clone();
        }
        let base = match &origin {
            Origin::Reference { variable, .. } => identifier(variable),
            Origin::Text(_) | Origin::Named(_) | Origin::Missing(_) => identifier(&wanted.to_ascii_uppercase()),
        };
        let mut name = base.clone();
        let mut n = 1;
        while self.0.iter().any(|variable| variable.name == name) {
            n += 1;
            name = format!("{base}_{n}");
        }
        self.0.push(Variable { name: name.clone(), origin });
        name
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter()
    }
}

/// What a text gives for a policy's name: letters, digits, `-`, `_` and `.`, and everything else becomes one `-`.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() || matches!(character, '_' | '.') {
            slug.push(character);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    slug.chars().take(MAX_NAME).collect::<String>().trim_end_matches(['-', '.', '_']).to_owned()
}

/// What a text gives for a variable's name.
fn identifier(text: &str) -> String {
    let name = text.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_get_names_that_are_valid_and_their_own() {
        let mut names = Names::default();
        let long = "n".repeat(80);
        for (wanted, name) in [
            (&["place an order"][..], "place-an-order"),
            (&["place  an/order"], "place-an-order-2"),
            (&["Place-An-Order"], "Place-An-Order-3"),
            (&["", "placeOrder"], "placeOrder"),
            (&["注文", "orders.v2_"], "orders.v2"),
            (&["- größe -"], "gr-e"),
            (&["inline"], "inline-2"),
            (&["?"], "lambda"),
            (&[], "lambda-2"),
            (&[&long], &"n".repeat(64)),
            (&[&long], &format!("{}-2", "n".repeat(62))),
        ] {
            assert_eq!(names.policy(wanted), name, "{wanted:?}");
        }
    }

    #[test]
    fn a_reference_has_one_variable_and_everything_else_its_own() {
        let mut variables = Variables::default();
        let place = |line| Place { line, column: 1 };
        let reference = |said: &str, variable: &str| Origin::Reference { said: said.into(), variable: variable.into() };
        for (origin, wanted, name) in [
            (reference("a-b", "A_B"), "x", "A_B"),
            (reference("a-b", "A_B"), "y", "A_B"),
            (reference("a.b", "A.B"), "y", "A_B_2"),
            (Origin::Text(place(1)), "a.b", "A_B_3"),
            (Origin::Text(place(2)), "9-lives_secret", "_9_LIVES_SECRET"),
            (Origin::Missing(place(2)), "9-lives_secret", "_9_LIVES_SECRET_2"),
        ] {
            assert_eq!(variables.variable(origin, wanted), name);
        }
    }
}
