//! Secrets by reference: an environment variable, a file, or the text itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

use super::{
    fault::Found,
    node::{Entry, Value},
    section::Setting,
};

/// Reads secrets, and remembers the files that they came from.
#[derive(Debug)]
pub(super) struct Secrets {
    directory: PathBuf,
    pub files: Vec<PathBuf>,
}

impl Secrets {
    /// Relative paths start from the directory of the configuration file.
    pub(super) fn new(config: &Path) -> Self {
        Self { directory: config.parent().unwrap_or(Path::new("")).to_owned(), files: Vec::new() }
    }

    /// The path that a file's name in the configuration means; it is watched from now on.
    pub(super) fn path(&mut self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        self.files.push(path.clone());
        path
    }

    /// The secret's text. A file's last line break is not a part of it.
    pub(super) fn read(&mut self, setting: &Setting<'_>, found: &mut Found) -> Option<SecretString> {
        let mut wrong = |message: String| {
            found.add(Some(setting.node.place), setting.key.clone(), message);
            None
        };
        match &setting.node.value {
            Value::Text(text) => Some(SecretString::from(text.clone())),
            Value::Map(entries) => {
                let [Entry { key, node, .. }] = entries.as_slice() else { return None };
                let name = node.text()?;
                if key == "env" {
                    return match env::var(name) {
                        Ok(text) if !text.trim().is_empty() => Some(SecretString::from(text)),
                        Ok(_) => wrong(format!("the environment variable {name} is empty")),
                        Err(env::VarError::NotPresent) => wrong(format!("the environment variable {name} is not set")),
                        Err(env::VarError::NotUnicode(_)) => {
                            wrong(format!("the environment variable {name} is not text"))
                        }
                    };
                }
                let path = self.path(name);
                match fs::read_to_string(&path) {
                    Ok(text) if !text.trim().is_empty() => {
                        Some(SecretString::from(text.trim_end_matches(['\r', '\n']).to_owned()))
                    }
                    Ok(_) => wrong(format!("the file {} is empty", path.display())),
                    Err(error) => wrong(format!("the file {} cannot be read: {error}", path.display())),
                }
            }
            Value::Null | Value::List(_) => None,
        }
    }
}
