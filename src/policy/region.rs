//! An AWS region.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use regex_lite::Regex;

use super::function::pattern;

/// The form that every region of every partition has; which ones exist changes too often to be checked.
static REGION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-[0-9]{1,2}$"));

/// A region such as `us-east-1`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Region(Arc<str>);

/// The text is not of the form of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error;

impl Region {
    /// Reads a region of any partition.
    ///
    /// # Errors
    /// If the text has another form.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if REGION.is_match(text) { Ok(Self(text.into())) } else { Err(Error) }
    }

    /// The region's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not a region: expected one such as `us-east-1`")
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_every_partition_are_known_by_their_form() {
        for (text, ok) in [
            ("us-east-1", true),
            ("ap-southeast-7", true),
            ("mx-central-1", true),
            ("cn-northwest-1", true),
            ("us-gov-east-1", true),
            ("us-iso-west-1", true),
            ("us-isof-south-1", true),
            ("eusc-de-east-1", true),
            ("", false),
            ("us-east", false),
            ("US-EAST-1", false),
            ("us-east-1a", false),
            ("us-east-1.evil.example", false),
        ] {
            assert_eq!(Region::parse(text).is_ok(), ok, "{text}");
        }
    }
}
