//! The options by which a command trusts a service, and is known to it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::grpc::client::Trust;

#[derive(Debug, clap::Args)]
pub(super) struct Certificates {
    /// The authorities to trust the service by, in PEM; the system's without
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to be known by, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// The option whose file cannot be read.
    pub(super) fn read(&self) -> Result<Trust, String> {
        let read = |option: &str, file: &Path| {
            fs::read(file).map_err(|error| format!("--{option}: the file {} cannot be read: {error}", file.display()))
        };
        let ca = self.ca.as_deref().map(|file| read("ca", file)).transpose()?;
        let identity = match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => Some((read("cert", certificate)?, read("key", key)?.into())),
            _ => None,
        };
        Ok(Trust { ca, identity, token: None })
    }
}
