//! `import`: another gateway's configuration as a policies file, and what of it cannot be taken over.
//!
//! An importer is a function from a document's text to an `Imported`; nothing but `run` reads or prints. No secret
//! is ever copied, and no message has a value of the document in it: a secret may stand where nobody expects one.

mod apiconnect;
mod document;
mod draft;
mod fields;
mod file;
mod kong;
mod names;
mod reader;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use self::{draft::Policy, kong::routes::Route, names::Variables};
use super::{complain, print, wrong};
use crate::config::Fault;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Source {
    /// API Connect: the Lambda policies in an API's OpenAPI document
    Apiconnect {
        /// The document, in YAML or JSON
        file: PathBuf,
    },
    /// Kong: the aws-lambda plugins in a decK file
    Kong {
        /// The decK file, in YAML or JSON
        file: PathBuf,
    },
}

/// What came of a document.
#[derive(Debug, Default)]
struct Imported {
    policies: Vec<Policy>,
    routes: Vec<Route>,
    variables: Variables,
    /// What could not be taken over and belongs to no policy; a policy keeps its own.
    faults: Vec<Fault>,
}

/// Reads a text as the document of each gateway, and what comes of it as a policies file: for fuzzing.
pub fn probe(text: &str) {
    for imported in [apiconnect::import(text), kong::import(text, &|_| None)].into_iter().flatten() {
        let file = imported.file("probe", Path::new("f"));
        lines(&imported.listed(), Path::new("f"));
        // It may name variables that are not there, but it is YAML.
        drop(crate::config::Config::parse(&file, Path::new("f")));
    }
}

/// Something of the document is left to the reader.
const LISTED: u8 = 1;

pub(super) fn run(source: &Source) -> ExitCode {
    let (file, name) = match source {
        Source::Apiconnect { file } => (file, "apiconnect"),
        Source::Kong { file } => (file, "kong"),
    };
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return wrong(&format!("{}: cannot be read: {error}", file.display())),
    };
    let imported = match source {
        Source::Apiconnect { .. } => apiconnect::import(&text),
        Source::Kong { .. } => kong::import(&text, &|name| env::var(name).ok()),
    };
    let imported = match imported {
        Ok(imported) => imported,
        Err(faults) => return wrong(&lines(&faults, file).join("\n")),
    };
    print(imported.file(name, file).trim_end());
    let listed = lines(&imported.listed(), file);
    listed.iter().for_each(|line| complain(line));
    if listed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(LISTED) }
}

impl Imported {
    /// Everything that could not be taken over, in the document's order.
    fn listed(&self) -> Vec<Fault> {
        let own = self.policies.iter().flat_map(|policy| &policy.faults);
        let mut all: Vec<_> = own.chain(&self.faults).cloned().collect();
        all.sort_by_key(|fault| fault.place);
        all.dedup();
        all
    }
}

/// A line for each: `file:line:column: key: message`.
fn lines(faults: &[Fault], file: &Path) -> Vec<String> {
    let line = |fault: &Fault| {
        let mut line = file.display().to_string();
        if let Some(place) = fault.place {
            line.push_str(&format!(":{}:{}", place.line, place.column));
        }
        if !fault.key.is_empty() {
            line.push_str(&format!(": {}", fault.key));
        }
        one_line(&format!("{line}: {}", fault.message))
    };
    faults.iter().map(line).collect()
}

/// A text as a part of one line: a key of the document may have line breaks, or what a terminal obeys.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_one_line() {
        let fault = Fault { place: None, key: "a\n\u{1b}[31m".to_owned(), message: "is odd".to_owned() };
        assert_eq!(lines(&[fault], Path::new("f")), ["f: a  [31m: is odd"]);
    }
}
