//! A function's name in every form that Lambda takes, and its qualifier.
//!
//! Source of the patterns: AWS Lambda API reference, `Invoke`, `FunctionName` and `Qualifier`.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use regex_lite::Regex;

/// `FunctionName` as the API model has it, taken apart: 1 partition prefix, 2 region, 3 account, 4 `function:`,
/// 5 name, 6 version or alias.
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"^(arn:(?:aws[a-zA-Z-]*)?:lambda:)?((?:eusc-)?[a-z]{2}(?:(?:-gov)|(?:-iso(?:[a-z]?)))?-[a-z]+-[0-9]:)?([0-9]{12}:)?(function:)?([a-zA-Z0-9\-_.]+)(?::(\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9\-_]+))?$",
    )
});

static QUALIFIER: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(?:\$(?:LATEST(?:\.PUBLISHED)?)|[a-zA-Z0-9\-_$]+)$"));

/// The longest reference that Lambda takes.
const MAX_REFERENCE: usize = 256;
/// The longest bare name.
const MAX_NAME: usize = 64;
/// The longest qualifier.
const MAX_QUALIFIER: usize = 128;

#[expect(clippy::expect_used, reason = "the patterns are literals, and a test compiles each")]
pub(super) fn pattern(text: &'static str) -> Regex {
    Regex::new(text).expect("a literal pattern compiles")
}

/// A function: a name, partial ARN or ARN, without the version or alias, which [`Reference`] keeps apart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Function(Arc<str>);

/// A version (`3`, `$LATEST`) or an alias (`live`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Qualifier(Arc<str>);

/// What a policy's `function` says: the function, and the region and qualifier that its text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The function without the suffix.
    pub function: Function,
    /// The region of a full or partial ARN.
    pub region: Option<String>,
    /// The suffix: a version or an alias.
    pub qualifier: Option<Qualifier>,
}

/// Why a function or a qualifier is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing is there.
    Empty,
    /// More characters than Lambda takes.
    TooLong {
        /// How many there may be.
        most: usize,
    },
    /// Not of the form of a function.
    Function,
    /// Not of the form of a qualifier.
    Qualifier,
}

impl Reference {
    /// Reads `name`, `name:alias`, a partial ARN or an ARN, exactly as AWS's pattern has it.
    ///
    /// # Errors
    /// If the text is empty, longer than 256 characters (a bare name: 64), or of another form.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_REFERENCE {
            return Err(Error::TooLong { most: MAX_REFERENCE });
        }
        let groups = NAME.captures(text).ok_or(Error::Function)?;
        let name = groups.get(5).ok_or(Error::Function)?;
        if name.len() > MAX_NAME && name.start() == 0 {
            return Err(Error::TooLong { most: MAX_NAME });
        }
        let qualifier = groups.get(6).map(|suffix| Qualifier::parse(suffix.as_str())).transpose()?;
        Ok(Self {
            function: Function(text.get(..name.end()).unwrap_or(text).into()),
            region: groups.get(2).map(|region| region.as_str().trim_end_matches(':').to_owned()),
            qualifier,
        })
    }
}

impl Function {
    /// The function as the Invoke API takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bare name, without account, region and partition.
    pub fn name(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or(&self.0)
    }
}

impl Qualifier {
    /// Reads a version or alias.
    ///
    /// # Errors
    /// If the text is empty, longer than 128 characters, or has a character that AWS refuses.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_QUALIFIER {
            return Err(Error::TooLong { most: MAX_QUALIFIER });
        }
        if !QUALIFIER.is_match(text) {
            return Err(Error::Qualifier);
        }
        Ok(Self(text.into()))
    }

    /// The qualifier's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong { most } => write!(f, "is longer than {most} characters"),
            Self::Function => f.write_str(
                "is not a function: expected a name (`orders`), `name:alias`, \
                 `123456789012:function:orders` or an ARN (`arn:aws:lambda:us-east-1:123456789012:function:orders`)",
            ),
            Self::Qualifier => {
                f.write_str("is not a version or alias: expected `$LATEST`, a number, or letters, digits, `-` and `_`")
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_function_is_taken_apart() {
        // text, function, region, qualifier
        let rows = [
            ("a bare name", "orders", "orders", None, None),
            ("a name with an alias", "orders:live", "orders", None, Some("live")),
            ("a name with a version", "orders:42", "orders", None, Some("42")),
            ("a name with $LATEST", "orders:$LATEST", "orders", None, Some("$LATEST")),
            ("a name with $LATEST.PUBLISHED", "orders:$LATEST.PUBLISHED", "orders", None, Some("$LATEST.PUBLISHED")),
            ("a name with dots", "my.orders", "my.orders", None, None),
            ("a partial ARN", "123456789012:function:orders", "123456789012:function:orders", None, None),
            (
                "a partial ARN with an alias",
                "123456789012:function:orders:live",
                "123456789012:function:orders",
                None,
                Some("live"),
            ),
            (
                "an ARN",
                "arn:aws:lambda:us-west-2:123456789012:function:orders",
                "arn:aws:lambda:us-west-2:123456789012:function:orders",
                Some("us-west-2"),
                None,
            ),
            (
                "an ARN with a version",
                "arn:aws:lambda:us-west-2:123456789012:function:orders:7",
                "arn:aws:lambda:us-west-2:123456789012:function:orders",
                Some("us-west-2"),
                Some("7"),
            ),
            (
                "China",
                "arn:aws-cn:lambda:cn-north-1:123456789012:function:f",
                "arn:aws-cn:lambda:cn-north-1:123456789012:function:f",
                Some("cn-north-1"),
                None,
            ),
            (
                "GovCloud",
                "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f",
                "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f",
                Some("us-gov-west-1"),
                None,
            ),
            (
                "an isolated partition",
                "arn:aws-iso-b:lambda:us-isob-east-1:123456789012:function:f",
                "arn:aws-iso-b:lambda:us-isob-east-1:123456789012:function:f",
                Some("us-isob-east-1"),
                None,
            ),
            (
                "the European sovereign cloud",
                "arn:aws-eusc:lambda:eusc-de-east-1:123456789012:function:f",
                "arn:aws-eusc:lambda:eusc-de-east-1:123456789012:function:f",
                Some("eusc-de-east-1"),
                None,
            ),
            (
                "AWS's pattern lets a region stand alone",
                "us-east-1:orders",
                "us-east-1:orders",
                Some("us-east-1"),
                None,
            ),
            (
                "a name of twelve digits is a name, as the pattern is greedy only where more follows",
                "123456789012",
                "123456789012",
                None,
                None,
            ),
        ];
        for (what, text, function, region, qualifier) in rows {
            let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(reference.function.as_str(), function, "{what}");
            assert_eq!(reference.region.as_deref(), region, "{what}");
            assert_eq!(reference.qualifier.as_ref().map(Qualifier::as_str), qualifier, "{what}");
        }
    }

    #[test]
    fn what_aws_would_refuse_is_refused() {
        let long = "f".repeat(65);
        let longer = format!("arn:aws:lambda:us-east-1:123456789012:function:{}", "f".repeat(220));
        let rows = [
            ("nothing", "", Error::Empty),
            ("a space", "my orders", Error::Function),
            ("a slash", "orders/1", Error::Function),
            ("an empty suffix", "orders:", Error::Function),
            ("two suffixes", "orders:a:b", Error::Function),
            ("a name of 65 characters", &long, Error::TooLong { most: 64 }),
            ("a reference above 256 characters", &longer, Error::TooLong { most: 256 }),
            ("another service's ARN", "arn:aws:s3:::bucket", Error::Function),
            ("an account of 11 digits", "arn:aws:lambda:us-east-1:12345678901:function:f", Error::Function),
            ("a dollar that is not $LATEST", "orders:$NEWEST", Error::Function),
            ("a line break at the end", "orders\n", Error::Function),
            ("a letter outside ASCII", "ördérs", Error::Function),
        ];
        for (what, text, error) in rows {
            assert_eq!(Reference::parse(text), Err(error), "{what}");
        }
    }

    #[test]
    fn qualifiers_are_those_that_aws_takes() {
        let long = "q".repeat(129);
        for (what, text, ok) in [
            ("an alias", "live", true),
            ("a version", "12", true),
            ("the latest", "$LATEST", true),
            ("the latest published", "$LATEST.PUBLISHED", true),
            ("a dollar anywhere, as the pattern has it", "a$b", true),
            ("nothing", "", false),
            ("a dot", "v1.2", false),
            ("a colon", "a:b", false),
            ("a space", "a b", false),
            ("129 characters", &long, false),
        ] {
            assert_eq!(Qualifier::parse(text).is_ok(), ok, "{what}");
        }
    }

    #[test]
    fn the_bare_name_is_the_last_part() {
        let arn = "arn:aws:lambda:us-west-2:123456789012:function:orders:7";
        assert_eq!(Reference::parse(arn).unwrap().function.name(), "orders");
    }
}
