//! What the endpoint offers: functions, keys and roles.

use std::time::Duration;

use secrecy::SecretString;

use super::{Builtin, Lambda, Role};

/// What the endpoint offers.
#[derive(Debug)]
pub struct Options {
    /// The account in ARNs, where calls name none. Their region is the one that they are signed for.
    pub account: String,
    /// The functions.
    pub functions: Vec<Function>,
    /// Access key ids and secrets that are accepted.
    pub keys: Vec<(String, SecretString)>,
    /// The roles that may be assumed; any may if none is listed.
    pub roles: Vec<Role>,
    /// How long assumed credentials live, whatever was asked for.
    pub lifetime: Option<Duration>,
    /// How long a process may take for an event.
    pub timeout: Duration,
}

/// A function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does.
    pub source: Source,
    /// The aliases and versions that it has; any if none is listed.
    pub qualifiers: Vec<String>,
}

/// What a function does.
#[derive(Debug)]
pub enum Source {
    /// One of the built-in ones.
    Builtin(Builtin),
    /// A program and its arguments, which speak the Runtime API.
    Process(Vec<String>),
}

impl Function {
    /// A built-in function under a name of its own.
    pub fn builtin(name: &str, builtin: Builtin) -> Self {
        Self { name: name.to_owned(), source: Source::Builtin(builtin), qualifiers: Vec::new() }
    }

    /// A function that is a process.
    pub fn process(name: &str, command: Vec<String>) -> Self {
        Self { name: name.to_owned(), source: Source::Process(command), qualifiers: Vec::new() }
    }
}

impl Default for Options {
    /// Every built-in function under its own name, one key, and nothing forbidden.
    fn default() -> Self {
        Self {
            account: "123456789012".to_owned(),
            functions: Builtin::ALL.iter().map(|(name, builtin)| Function::builtin(name, *builtin)).collect(),
            keys: vec![(Lambda::KEY_ID.to_owned(), SecretString::from(Lambda::SECRET))],
            roles: Vec::new(),
            lifetime: None,
            timeout: Duration::from_secs(30),
        }
    }
}
