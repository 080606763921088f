//! Reads a foreign policy's properties as values that this service takes, and lists those that it does not.

use std::{fmt::Display, time::Duration};

use super::{
    fields::{Field, Fields, fold, join},
    names::Origin,
};
use crate::{
    config::{Fault, Place},
    policy::Timeout,
};

/// A document's own way to refer to values that stand elsewhere.
pub(super) trait Resolve {
    /// The text with its references resolved.
    fn resolve(&self, text: &str) -> Resolved;

    /// What a secret's text refers to, if it is a reference.
    fn secret(&self, text: &str) -> Option<Origin>;
}

/// What became of a text's references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// They have a value, or there are none.
    Text(String),
    /// They have a value, but something should be known of it.
    Noted(String, String),
    /// One has no value, and why.
    Open(String),
}

/// What a wrong value means for its policy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Without it, another function would be called, or in another way.
    Needed,
    /// The policy can do without it.
    Spare,
}

/// The properties of one policy, being read.
pub(super) struct Reader<'a> {
    fields: Fields<'a>,
    path: &'a str,
    place: Place,
    resolve: &'a dyn Resolve,
    pub faults: Vec<Fault>,
    /// Whether nothing that the policy needs is wrong.
    pub whole: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(fields: Fields<'a>, path: &'a str, place: Place, resolve: &'a dyn Resolve) -> Self {
        Self { fields, path, place, resolve, faults: Vec::new(), whole: true }
    }

    /// Where the policy begins.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Says something of a property, or of the policy as a whole.
    pub(super) fn say(&mut self, field: Option<&Field<'_>>, message: impl Display) {
        let (place, key) = field.map_or((self.place, self.path), |field| (field.place, &field.path));
        self.faults.push(Fault { place: Some(place), key: key.to_owned(), message: message.to_string() });
    }

    /// Says what keeps the service from taking the policy.
    pub(super) fn refuse(&mut self, key: &str, message: impl Display) {
        let key = join(self.path, key);
        self.faults.push(Fault { place: Some(self.place), key, message: message.to_string() });
        self.whole = false;
    }

    /// Text for people, as it is: in a description, a reference may be to a secret.
    pub(super) fn words(&mut self, names: &[&str]) -> Option<String> {
        let field = self.fields.take(names)?;
        self.single(&field, Weight::Spare).map(str::to_owned)
    }

    /// A value that the policy needs as it is said. A text with an open reference is kept, for the comment.
    pub(super) fn needed<T, E: Display>(
        &mut self,
        names: &[&str],
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<String> {
        self.checked(names, Weight::Needed, parse)
    }

    /// A value that the policy can do without.
    pub(super) fn spare<T, E: Display>(
        &mut self,
        names: &[&str],
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<String> {
        self.checked(names, Weight::Spare, parse)
    }

    fn checked<T, E: Display>(
        &mut self,
        names: &[&str],
        weight: Weight,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<String> {
        let field = self.fields.take(names)?;
        self.value(&field, weight, parse)
    }

    fn value<T, E: Display>(
        &mut self,
        field: &Field<'a>,
        weight: Weight,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<String> {
        let text = self.single(field, weight)?;
        let text = match self.resolve.resolve(text) {
            Resolved::Text(text) => text,
            Resolved::Noted(text, note) => {
                self.say(Some(field), note);
                text
            }
            Resolved::Open(why) => {
                self.wrong(field, weight, why);
                return (weight == Weight::Needed).then(|| text.to_owned());
            }
        };
        match parse(text.trim()) {
            Ok(_) => Some(text.trim().to_owned()),
            Err(error) => {
                self.wrong(field, weight, error);
                None
            }
        }
    }

    /// One of some words, in any spelling; without it the policy would do something else.
    pub(super) fn choice(&mut self, names: &[&str], words: &[(&str, &'static str)]) -> Option<&'static str> {
        let mut found = None;
        let text = self.needed(names, |text| {
            let (_, choice) = words.iter().find(|(word, _)| fold(word) == fold(text)).ok_or_else(|| {
                let words: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                format!("is none of {}", words.join(", "))
            })?;
            found = Some(*choice);
            Ok::<_, String>(())
        });
        text.and(found)
    }

    /// Whether it is on; `default` if it is not said.
    pub(super) fn flag(&mut self, names: &[&str], default: bool) -> bool {
        let text = self.spare(names, |text| match text {
            "true" | "false" => Ok(()),
            _ => Err("is neither `true` nor `false`"),
        });
        text.map_or(default, |text| text == "true")
    }

    /// A whole number.
    pub(super) fn number<T: std::str::FromStr>(&mut self, names: &[&str]) -> Option<T> {
        let field = self.fields.take(names)?;
        self.number_of(&field)
    }

    /// The same of a property that is taken already.
    pub(super) fn number_of<T: std::str::FromStr>(&mut self, field: &Field<'a>) -> Option<T> {
        let wrong = "is not a whole number that is possible here";
        let text = self.value(field, Weight::Spare, |text| text.parse::<T>().map_err(|_| wrong))?;
        text.parse().ok()
    }

    /// How long a call may take, from milliseconds.
    pub(super) fn timeout(&mut self, names: &[&str]) -> Option<Duration> {
        let field = self.fields.take(names)?;
        self.timeout_of(&field)
    }

    /// The same of a property that is taken already.
    pub(super) fn timeout_of(&mut self, field: &Field<'a>) -> Option<Duration> {
        let mut found = None;
        self.value(field, Weight::Spare, |text| {
            let millis: f64 = text.parse().map_err(|_| "is not a number of milliseconds".to_owned())?;
            if millis == 0.0 {
                return Err("is no limit: the service has one of 10s, unless `timeout` says otherwise".to_owned());
            }
            let duration = Duration::try_from_secs_f64((millis / 1000.0).max(0.0)).unwrap_or(Duration::MAX);
            let duration = Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
            Timeout::new(duration).map_err(|error| error.to_string())?;
            found = Some(duration);
            Ok(())
        });
        found
    }

    /// Where a secret stands. Its text goes no further than this.
    pub(super) fn secret(&mut self, names: &[&str]) -> Option<Origin> {
        let field = self.fields.take(names)?;
        let reference = field.node.text().and_then(|text| self.resolve.secret(text.trim()));
        Some(reference.unwrap_or(Origin::Text(field.node.place)))
    }

    /// A property as it is.
    pub(super) fn field(&mut self, names: &[&str]) -> Option<Field<'a>> {
        self.fields.take(names)
    }

    /// What nobody asked for.
    pub(super) fn rest(&mut self) -> Vec<Field<'a>> {
        self.fields.rest()
    }

    fn single(&mut self, field: &Field<'a>, weight: Weight) -> Option<&'a str> {
        let text = field.node.text();
        if text.is_none() {
            self.wrong(field, weight, "is not a single value");
        }
        text
    }

    fn wrong(&mut self, field: &Field<'_>, weight: Weight, message: impl Display) {
        self.say(Some(field), message);
        self.whole &= weight == Weight::Spare;
    }
}
