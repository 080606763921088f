//! What is told of JSON that cannot be read: where, and what was expected, but nothing of what stands there.
//!
//! The errors of serde quote: a value of a wrong type, a name that is unknown. What a caller or a function wrote is not for
//! a log, nor for an answer that others may log.

use serde_json::{Error, error::Category};

/// How the errors begin that name last, and in the program's own words, what was expected.
const MISTAKEN: [&str; 3] = ["invalid type: ", "invalid value: ", "invalid length "];

/// Errors that quote, by how they begin, and what is told instead.
const QUOTING: [(&str, &str); 5] = [
    ("unknown field ", UNKNOWN_FIELD),
    ("unrecognized field name ", UNKNOWN_FIELD),
    ("unknown variant ", UNKNOWN_NAME),
    ("unrecognized enum value ", UNKNOWN_NAME),
    ("invalid base64: ", "expected base64"),
];
const UNKNOWN_FIELD: &str = "there is no such field";
const UNKNOWN_NAME: &str = "the name is none of those that there are";

/// Errors that name nothing but the program's own fields.
const OWN: [&str; 3] = ["missing field ", "duplicate field ", "multiple fields provided for oneof "];

/// What is wrong with JSON, and where.
pub fn unread(error: &Error) -> String {
    let said = error.to_string();
    // The parser's own words are a fixed few.
    if error.classify() != Category::Data {
        return said;
    }
    let place = match (error.line(), error.column()) {
        (0, _) => String::new(),
        (line, column) => format!(" at line {line} column {column}"),
    };
    let said = said.strip_suffix(&place).unwrap_or(&said);
    let begins = |start: &&str| said.starts_with(start);
    let quoting = QUOTING.iter().find(|(start, _)| begins(start)).map(|(_, told)| *told);
    match said.rsplit_once(", expected ") {
        Some((_, expected)) if MISTAKEN.iter().any(begins) => format!("expected {expected}{place}"),
        _ if OWN.iter().any(begins) => format!("{said}{place}"),
        _ => format!("{}{place}", quoting.unwrap_or("a value is none of what is expected there")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::{Deserialize, de::Error as _};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "snake_case")]
    #[expect(dead_code, reason = "only the errors of reading it are looked at")]
    enum Wire {
        Text(String),
        Few([u8; 2]),
        Named { one: u8 },
    }

    #[test]
    fn the_place_and_what_was_expected_are_told_and_never_what_stands_there() {
        for (json, told) in [
            (r#"{"text": 4111111111111111}"#, "expected a string"),
            (r#"{"text": "x", "SECRET": 1}"#, "expected value"),
            (r#"{"text": SECRET}"#, "expected value"),
            (r#"{"few": "SECRET, expected SECRET"}"#, "expected an array of length 2"),
            (r#"{"few": [1]}"#, "expected an array of length 2"),
            (r#"{"few": [1, 411]}"#, "expected u8"),
            (r#"{"SECRET": 1}"#, "the name is none of those that there are"),
            (r#"{"named": {"SECRET": 1}}"#, "there is no such field"),
            (r#"{"named": {}}"#, "missing field `one`"),
            (r#"{"text": "x"#, "EOF while parsing a string"),
        ] {
            let error = serde_json::from_str::<Wire>(json).unwrap_err();
            let told = format!("{told} at line {} column {}", error.line(), error.column());
            assert_eq!(unread(&error), told, "{json}: {error}");
        }
        for (said, told) in [
            ("unrecognized field name 'SECRET, expected SECRET'", UNKNOWN_FIELD),
            ("unrecognized enum value 'SECRET'", UNKNOWN_NAME),
            ("invalid base64: Invalid symbol 37, offset 0.", "expected base64"),
            ("SECRET", "a value is none of what is expected there"),
        ] {
            assert_eq!(unread(&Error::custom(said)), told);
        }
    }
}
