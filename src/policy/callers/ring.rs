//! Signatures of JWTs, checked by ring: the one that TLS uses already.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};
use ring::signature::{self as algorithms, RsaPublicKeyComponents, UnparsedPublicKey};

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Makes ring the one that checks.
pub(super) fn install() {
    // An error means that it is installed already.
    let _: Result<(), _> = PROVIDER.install_default();
}

struct Ring {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Nothing is signed here.
fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // Or else a public key could be taken for the secret of an HMAC.
    let family = match algorithm {
        Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => AlgorithmFamily::Rsa,
        Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => AlgorithmFamily::Rsa,
        Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    if key.family() != family {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Ring { algorithm: *algorithm, key: key.clone() }))
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        let rsa = |parameters| match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signed)
            }
            DecodingKeyKind::SecretOrDer(_) => Err(ring::error::Unspecified),
        };
        let point = |algorithm: &'static dyn algorithms::VerificationAlgorithm| match self.key.kind() {
            DecodingKeyKind::SecretOrDer(key) => UnparsedPublicKey::new(algorithm, key).verify(message, signed),
            DecodingKeyKind::RsaModulusExponent { .. } => Err(ring::error::Unspecified),
        };
        match self.algorithm {
            Algorithm::RS256 => rsa(&algorithms::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&algorithms::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&algorithms::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&algorithms::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&algorithms::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&algorithms::RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => point(&algorithms::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => point(&algorithms::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => point(&algorithms::ED25519),
            _ => Err(ring::error::Unspecified),
        }
        .map_err(|ring::error::Unspecified| signature::Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
