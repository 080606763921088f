//! What TLS is served with, parsed: who has a [`Tls`] can serve with it.

use std::fmt;

use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use secrecy::{ExposeSecret, SecretSlice};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// A certificate, its key, and whose certificates callers must have, if they must have any. In PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    certificate: Vec<u8>,
    key: SecretSlice<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Which part cannot be served with, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// `certificate`, `key` or `client_ca`.
    pub part: &'static str,
    message: String,
}

impl Tls {
    /// Reads a certificate with its intermediates, its private key, and the certificates of a callers' authority.
    ///
    /// # Errors
    /// Every part that is none, and a key that is not the certificate's.
    pub fn parse(
        certificate: Vec<u8>,
        key: SecretSlice<u8>,
        client_ca: Option<Vec<u8>>,
    ) -> Result<Self, Vec<TlsError>> {
        let mut wrong = Vec::new();
        let chain = certificates(&certificate).map_err(|message| wrong.push(TlsError::new("certificate", message)));
        let secret = PrivateKeyDer::from_pem_slice(key.expose_secret()).map_err(|error| {
            let message = format!("has no private key: expected PEM with `BEGIN PRIVATE KEY`, not encrypted: {error}");
            wrong.push(TlsError::new("key", message));
        });
        if let (Ok(chain), Ok(secret)) = (chain, secret)
            && let Err(error) = CertifiedKey::from_der(chain, secret, &ring::default_provider())
        {
            wrong.push(match error {
                rustls::Error::InconsistentKeys(_) => TlsError::new("key", "is not the certificate's key"),
                rustls::Error::InvalidCertificate(error) => {
                    TlsError::new("certificate", format!("is a certificate that cannot be read: {error:?}"))
                }
                error => TlsError::new("key", format!("cannot be used: {error}")),
            });
        }
        if let Some(Err(message)) = client_ca.as_deref().map(roots) {
            wrong.push(TlsError::new("client_ca", message));
        }
        if wrong.is_empty() { Ok(Self { certificate, key, client_ca }) } else { Err(wrong) }
    }

    /// The bytes of every part, to tell one from another.
    pub fn parts(&self) -> [Option<&[u8]>; 3] {
        [Some(&self.certificate), Some(self.key.expose_secret()), self.client_ca.as_deref()]
    }

    pub(super) fn config(&self) -> ServerTlsConfig {
        let identity = Identity::from_pem(&self.certificate, self.key.expose_secret());
        let config = ServerTlsConfig::new().identity(identity);
        match &self.client_ca {
            Some(ca) => config.client_ca_root(Certificate::from_pem(ca)),
            None => config,
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("is not PEM that can be read: {error}"))?;
    if found.is_empty() {
        return Err("has no certificate: expected PEM with `BEGIN CERTIFICATE`".to_owned());
    }
    Ok(found)
}

fn roots(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("is a certificate that cannot be read: {error}"))?;
    }
    Ok(())
}

impl TlsError {
    fn new(part: &'static str, message: impl Into<String>) -> Self {
        Self { part, message: message.into() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TlsError {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn every_part_that_is_none_is_named() {
        let ((certificate, key), (other, _)) = (pair(), pair());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (what, certificate, key, client_ca, expected) in [
            ("all is well", &*certificate, &*key, Some(&*other), &[][..]),
            ("another certificate's key", &other, &key, None, &[("key", "is not the certificate's key")]),
            ("a certificate for a key", &certificate, &other, None, &[("key", "has no private key")]),
            ("a key for a certificate", &key, &key, None, &[("certificate", "has no certificate")]),
            (
                "text",
                "no PEM",
                "no PEM",
                Some("no PEM"),
                &[
                    ("certificate", "has no certificate"),
                    ("key", "has no private key"),
                    ("client_ca", "has no certificate"),
                ],
            ),
            (
                "a certificate that is none",
                broken,
                &key,
                Some(broken),
                &[
                    ("certificate", "is a certificate that cannot be read"),
                    ("client_ca", "is a certificate that cannot be read"),
                ],
            ),
        ] {
            let secret = key.as_bytes().to_vec().into();
            let parsed = Tls::parse(certificate.into(), secret, client_ca.map(|ca: &str| ca.into()));
            let wrong = parsed.map(|_| ()).err().unwrap_or_default();
            assert_eq!(wrong.len(), expected.len(), "{what}: {wrong:?}");
            for (wrong, (part, message)) in wrong.iter().zip(expected) {
                assert_eq!(wrong.part, *part, "{what}");
                assert!(wrong.to_string().starts_with(message), "{what}: {wrong}");
            }
        }
    }
}
