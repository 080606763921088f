//! For the importers' tests: what came of a document, read by the service itself.

use std::{env, path::Path};

use super::{Imported, lines};
use crate::{config::Config, policy::Policies};

/// The file and the lines beside it.
pub(super) struct Outcome {
    pub file: String,
    pub listed: Vec<String>,
}

impl Outcome {
    pub(super) fn new(imported: Imported, importer: &str) -> Self {
        let file = imported.file(importer, Path::new("f"));
        Self { file, listed: lines(&imported.listed(), Path::new("f")) }
    }

    /// What the service makes of the file, where each variable has its name as its value.
    pub(super) fn policies(&self) -> Policies {
        let mut text = self.file.clone();
        // A test cannot set variables: others read them at the same time.
        while let Some((before, rest)) = text.split_once("{env: ") {
            let (name, after) = rest.split_once('}').unwrap();
            assert!(
                env::var_os(name).is_none() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
                "{name}"
            );
            text = format!("{before}{name}{after}");
        }
        Config::parse(&text, Path::new("f")).unwrap_or_else(|faults| panic!("{faults}\n{}", self.file)).policies
    }

    /// None of these words stands in what would be printed.
    pub(super) fn is_silent_about(&self, words: &[&str]) {
        for word in words {
            assert!(!self.file.contains(word), "{word}: {}", self.file);
            assert!(!self.listed.iter().any(|line| line.contains(word)), "{word}: {:?}", self.listed);
        }
    }
}
