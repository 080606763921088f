//! What TLS is served with, parsed: who has a [`Tls`] can serve with it. It can be changed while it serves.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use secrecy::{ExposeSecret, SecretSlice};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::telemetry::{Certificate, Metrics};

const SERVER: &str = "server";
const CLIENT_CA: &str = "client_ca";

/// A certificate with its key, and whose certificates callers must have, if they must have any.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    certificates: Vec<Certificate>,
}

/// What connections are served with from now on. Its clones are one; a connection keeps what it began with.
#[derive(Clone, Debug)]
pub struct Current {
    tls: Arc<ArcSwap<Tls>>,
    metrics: Arc<Metrics>,
}

/// Whose certificates callers have, in PEM, and whether each must have one.
#[derive(Debug)]
pub struct ClientCa {
    /// The certificates of their authorities.
    pub pem: Vec<u8>,
    /// Whether a caller may come without one.
    pub optional: bool,
}

/// Which part cannot be served with, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError {
    /// `certificate`, `key` or `client_ca`.
    pub part: &'static str,
    message: String,
}

impl Tls {
    /// Reads a certificate with its intermediates and its private key, in PEM, and the certificates of a callers' authority.
    ///
    /// # Errors
    /// Every part that is none, and a key that is not the certificate's.
    pub fn parse(
        certificate: &[u8],
        key: &SecretSlice<u8>,
        client_ca: Option<&ClientCa>,
    ) -> Result<Self, Vec<TlsError>> {
        let provider = Arc::new(ring::default_provider());
        let mut wrong = Vec::new();
        let chain = certificates(certificate).map_err(|message| wrong.push(TlsError::new("certificate", message)));
        let secret = PrivateKeyDer::from_pem_slice(key.expose_secret()).map_err(|error| {
            let message = format!("has no private key: expected PEM with `BEGIN PRIVATE KEY`, not encrypted: {error}");
            wrong.push(TlsError::new("key", message));
        });
        let mut certificates: Vec<_> = chain.iter().filter_map(|chain| valid(SERVER, chain)).collect();
        let mut certified = None;
        if let (Ok(chain), Ok(secret)) = (chain, secret) {
            match CertifiedKey::from_der(chain, secret, &provider) {
                Ok(key) => certified = Some(key),
                Err(error) => wrong.push(match error {
                    rustls::Error::InconsistentKeys(_) => TlsError::new("key", "is not the certificate's key"),
                    rustls::Error::InvalidCertificate(error) => {
                        TlsError::new("certificate", format!("is a certificate that cannot be read: {error:?}"))
                    }
                    error => TlsError::new("key", format!("cannot be used: {error}")),
                }),
            }
        }
        let verifier = match client_ca.map(|ca| verifier(ca, &provider)) {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(Ok((verifier, valid))) => {
                certificates.extend(valid);
                verifier
            }
            Some(Err(message)) => {
                wrong.push(TlsError::new("client_ca", message));
                return Err(wrong);
            }
        };
        let Some(certified) = certified.filter(|_| wrong.is_empty()) else { return Err(wrong) };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| vec![TlsError::new("certificate", format!("cannot be served with: {error}"))])?;
        let mut config =
            config.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), certificates })
    }

    /// What there is to see to of certificates that are not valid, or not for long, each with its part.
    pub fn troubles(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.certificates.iter().filter_map(|certificate| {
            let trouble = certificate.trouble()?;
            Some(match certificate.role {
                SERVER => ("certificate", format!("the file's certificate {trouble}: callers do not trust it then")),
                role => (role, format!("an authority's certificate in the file {trouble}: take it out, or renew it")),
            })
        })
    }
}

impl Current {
    /// Begins with this, whose certificates these metrics tell of.
    pub fn new(tls: Tls, metrics: Arc<Metrics>) -> Self {
        metrics.certificates().replace(tls.certificates.clone());
        Self { tls: Arc::new(ArcSwap::from_pointee(tls)), metrics }
    }

    /// Serves with another from the next connection on. No session of before can be resumed.
    pub fn replace(&self, tls: Tls) {
        self.metrics.certificates().replace(tls.certificates.clone());
        self.tls.store(Arc::new(tls));
    }

    /// What a handshake that begins now is made with.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.tls.load().config)
    }
}

/// The names by which callers are known: the URIs and DNS names of a certificate that was verified.
///
/// A URI has a scheme, and a DNS name no colon. What is otherwise is left out, so that an authority that may issue the one
/// kind cannot make a name that passes for the other.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    let uris = certificate.valid_uri_names().filter(|name| name.contains(':'));
    let dns_names = certificate.valid_dns_names().filter(|name| !name.contains(':'));
    uris.chain(dns_names).map(str::to_owned).collect()
}

/// Who checks callers' certificates, and when those of their authorities are valid.
type Verifier = (Arc<dyn ClientCertVerifier>, Option<Certificate>);

fn verifier(ca: &ClientCa, provider: &Arc<rustls::crypto::CryptoProvider>) -> Result<Verifier, String> {
    let authorities = certificates(&ca.pem)?;
    let valid = valid(CLIENT_CA, &authorities);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), Arc::clone(provider));
    let builder = if ca.optional { builder.allow_unauthenticated() } else { builder };
    Ok((builder.build().map_err(|error| format!("cannot be used: {error}"))?, valid))
}

/// When all of a file's certificates are valid.
fn valid(role: &'static str, all: &[CertificateDer<'_>]) -> Option<Certificate> {
    let each = all.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Certificate { role, from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    });
    each.reduce(|one, other| Certificate { role, from: one.from.max(other.from), until: one.until.min(other.until) })
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

fn roots(authorities: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate).map_err(|error| format!("is a certificate that cannot be read: {error}"))?;
    }
    Ok(roots)
}

impl TlsError {
    fn new(part: &'static str, message: impl Into<String>) -> Self {
        Self { part, message: message.into() }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
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
    fn a_uri_is_none_without_a_scheme_and_passes_for_no_dns_name() {
        use rcgen::SanType::{DnsName, URI};
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let text = |text: &str| text.to_owned().try_into().unwrap();
        params.subject_alt_names = vec![
            DnsName(text("dns.example.org")),
            DnsName(text("spiffe://dns.example.org/a")),
            URI(text("spiffe://example.org/a")),
            URI(text("urn:uuid:1")),
            URI(text("uri.example.org")),
        ];
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(names(certificate.der()), ["spiffe://example.org/a", "urn:uuid:1", "dns.example.org"]);
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
            let ca = client_ca.map(|ca: &str| ClientCa { pem: ca.into(), optional: false });
            let parsed = Tls::parse(certificate.as_bytes(), &secret, ca.as_ref());
            let wrong = parsed.map(|_| ()).err().unwrap_or_default();
            assert_eq!(wrong.len(), expected.len(), "{what}: {wrong:?}");
            for (wrong, (part, message)) in wrong.iter().zip(expected) {
                assert_eq!(wrong.part, *part, "{what}");
                assert!(wrong.to_string().starts_with(message), "{what}: {wrong}");
            }
        }
    }
}
