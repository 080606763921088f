//! Secrets by reference: an environment variable, a file, or the text itself.

use std::{
    env,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use super::{
    content::{self, Most},
    fault::Found,
    files::Files,
    node::{Entry, Value},
    section::Setting,
};

/// Reads secrets, and remembers the files that they came from.
#[derive(Debug)]
pub(super) struct Secrets {
    directory: PathBuf,
    pub files: Files,
}

impl Secrets {
    /// Relative paths start from the directory of the configuration file.
    pub(super) fn new(config: &Path, files: Files) -> Self {
        Self { directory: config.parent().unwrap_or(Path::new("")).to_owned(), files }
    }

    /// The path that a file's name in the configuration means.
    pub(super) fn resolve(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The path of a file that is to be read now, and to be watched.
    pub(super) fn path(&mut self, name: &str) -> PathBuf {
        let path = self.resolve(name);
        self.files.note(&path);
        path
    }

    /// The secret's text. The last line break of a file or a variable is not a part of it.
    pub(super) fn read(&mut self, setting: &Setting<'_>, found: &mut Found) -> Option<SecretString> {
        let text = match &setting.node.value {
            Value::Text(text) if text.is_empty() => return None,
            Value::Text(text) if text.trim().is_empty() => Err("is blank: expected text".to_owned()),
            Value::Text(text) => Ok(SecretString::from(text.clone())),
            Value::Map(entries) => {
                let [Entry { key, node, .. }] = entries.as_slice() else { return None };
                let name = node.text().filter(|name| !name.is_empty())?;
                match key.as_str() {
                    "env" => variable(name),
                    "file" => file(&self.path(name)),
                    _ => return None,
                }
            }
            Value::Null | Value::List(_) => return None,
        };
        text.map_err(|message| found.add(Some(setting.node.place), setting.key.clone(), message)).ok()
    }
}

fn variable(name: &str) -> Result<SecretString, String> {
    match env::var(name) {
        Ok(text) => without_line_break(text).ok_or_else(|| format!("the environment variable {name} is empty")),
        Err(env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set")),
        Err(env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not text")),
    }
}

fn file(path: &Path) -> Result<SecretString, String> {
    match content::read_text(path, Most::NAMED) {
        Ok(mut text) => without_line_break(std::mem::take(&mut *text))
            .ok_or_else(|| format!("the file {} is empty", path.display())),
        Err(error) => Err(format!("the file {} cannot be read: {error}", path.display())),
    }
}

/// The text without the line break that editors leave at its end; nothing if that was all.
fn without_line_break(mut text: String) -> Option<SecretString> {
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    (!text.trim().is_empty()).then(|| SecretString::from(text))
}
