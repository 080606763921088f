//! What is wrong with a configuration file: where, which key, and what would be right.

use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use super::files::Files;

/// A place in the file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, unless the file itself is the fault.
    pub place: Option<Place>,
    /// The key, for example `policies.orders.region`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong with a file, in the file's order.
#[derive(Debug)]
pub struct Faults {
    /// The file.
    pub file: PathBuf,
    /// At least one.
    pub faults: Vec<Fault>,
    /// The file and all that it refers to: when one of them changes, it may be right.
    pub files: Files,
}

/// The faults found so far. A value under `defaults` is read for each policy, and its fault is kept once.
#[derive(Debug, Default)]
pub(crate) struct Found(Vec<Fault>);

impl Found {
    pub(super) fn add(&mut self, place: Option<Place>, key: impl Into<String>, message: impl fmt::Display) {
        let fault = Fault { place, key: key.into(), message: message.to_string() };
        if !self.0.iter().rev().take(64).any(|f| f.place == fault.place && f.message == fault.message) {
            self.0.push(fault);
        }
    }

    /// What was found, in the order in which it was.
    pub(crate) fn into_list(self) -> Vec<Fault> {
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_faults(mut self, file: &Path, files: Files) -> Faults {
        self.0.sort_by_key(|fault| fault.place);
        self.0.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        Faults { file: file.to_owned(), faults: self.0, files }
    }
}

impl fmt::Display for Faults {
    /// One line a fault: `file:line:column: key: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some(Place { line, column }) = fault.place {
                write!(f, ":{line}:{column}")?;
            }
            if !fault.key.is_empty() {
                f.write_str(": ")?;
                put(f, &fault.key)?;
            }
            f.write_str(": ")?;
            put(f, &fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// A name in the file may have breaks of lines, and a fault has none.
fn put(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
}
