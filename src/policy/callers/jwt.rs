//! JWTs (RFC 7519) as proof of who calls: an issuer's signature, meant for this service, at this time.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jsonwebtoken::{
    Algorithm, Validation, dangerous::insecure_decode_claims, decode, decode_header, errors::ErrorKind,
};
use moka::sync::Cache;
use serde::Deserialize;

use super::{
    CallerName,
    keys::{Keys, Remote},
    token::Digest,
};

/// The most tokens that are remembered, about 200 bytes each.
const MOST: u64 = 65_536;
/// How long a token is remembered at the most.
const REMEMBERED: Duration = Duration::from_secs(300);
const KEY_UNKNOWN: &str = "presents a token whose key its issuer does not have";
const KEY_NOT_IN_FILE: &str = "presents a token whose key is not in the file of its issuer's keys";
const KEYS_UNKNOWN: &str = "presents a token whose issuer's keys are not known yet";

/// Whose tokens prove a caller, and what they must say.
#[derive(Debug)]
pub struct Issuer {
    issuer: String,
    validation: Validation,
    algorithms: Vec<Algorithm>,
    subjects: Vec<String>,
    keys: Source,
}

/// Where an issuer's keys come from.
#[derive(Debug)]
pub enum Source {
    /// A file, which is read with the configuration.
    File(Arc<Keys>),
    /// An address.
    Remote(Arc<Remote>),
}

/// Tokens whose signature was checked, by their digests.
#[derive(Debug)]
pub(super) struct Verified(Cache<Digest, Held>);

#[derive(Clone, Debug)]
struct Held {
    /// Which of the issuers.
    issuer: usize,
    /// With what it was checked: with other keys it is checked again.
    keys: Arc<Keys>,
    /// In seconds since 1970.
    until: u64,
}

/// What a token says before it is known whether that is true.
#[derive(Deserialize)]
struct Claimed {
    iss: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: f64,
}

/// The algorithms that may be allowed: signatures by a private key. Who checks an HMAC could sign it as well.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The algorithm of a name.
///
/// # Errors
/// What would be right.
pub fn algorithm(text: &str) -> Result<Algorithm, String> {
    ALGORITHMS.iter().find(|(name, _)| *name == text).map(|(_, algorithm)| *algorithm).ok_or_else(|| {
        let names = ALGORITHMS.map(|(name, _)| format!("`{name}`")).join(", ");
        format!("`{text}` is no algorithm that is taken: expected some of {names}")
    })
}

impl Issuer {
    /// An issuer whose tokens are for one of these audiences, about one of these subjects unless there are none, and
    /// signed by one of these algorithms, the usual ones where there are none. Clocks may differ by the leeway.
    pub fn new(
        issuer: &str,
        audiences: &[String],
        subjects: Vec<String>,
        algorithms: Vec<Algorithm>,
        leeway: Duration,
        keys: Source,
    ) -> Self {
        let algorithms = if algorithms.is_empty() {
            vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]
        } else {
            algorithms
        };
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(audiences);
        validation.required_spec_claims = HashSet::from(["exp", "iss", "aud"].map(str::to_owned));
        Self { issuer: issuer.to_owned(), validation, algorithms, subjects, keys }
    }

    fn is(&self, issuer: &str) -> bool {
        self.issuer == issuer
    }

    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        match &self.keys {
            Source::Remote(remote) => Some(remote),
            Source::File(_) => None,
        }
    }

    fn keys(&self) -> Option<Arc<Keys>> {
        match &self.keys {
            Source::File(keys) => Some(Arc::clone(keys)),
            Source::Remote(remote) => remote.keys(),
        }
    }

    /// Until when a token proves this caller.
    fn check(&self, token: &[u8], keys: &Keys) -> Result<u64, &'static str> {
        let header = decode_header(token).map_err(|error| told(error.kind()))?;
        // By this a token says what must be understood, and none of it is here (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err("presents a token whose header asks for what is not known here (`crit`)");
        }
        if !self.algorithms.contains(&header.alg) {
            return Err(told(&ErrorKind::InvalidAlgorithm));
        }
        // The crate takes several algorithms for one key only if they are of one kind.
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let mut last = if self.remote().is_some() { KEY_UNKNOWN } else { KEY_NOT_IN_FILE };
        let mut known = false;
        for key in keys.find(header.kid.as_deref(), header.alg) {
            known = true;
            match decode::<Claims>(token, key, &validation) {
                Ok(data) => {
                    let subject = data.claims.sub.unwrap_or_default();
                    if !self.subjects.is_empty() && !self.subjects.contains(&subject) {
                        return Err("presents a token whose subject is none of a caller's");
                    }
                    // A float as a whole number is cut where it is none, and an end beyond all bounds is one all the same.
                    let expires = data.claims.exp as u64;
                    return Ok(expires.saturating_add(self.validation.leeway));
                }
                Err(error) => last = told(error.kind()),
            }
        }
        if !known && let Some(remote) = self.remote() {
            remote.want();
        }
        Err(last)
    }
}

impl Default for Verified {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_live(REMEMBERED).build())
    }
}

impl Verified {
    /// Whose token it is.
    pub(super) fn caller(
        &self,
        token: &[u8],
        digest: &Digest,
        issuers: &[(Issuer, CallerName)],
    ) -> Result<CallerName, &'static str> {
        if let Some(held) = self.0.get(digest)
            && let Some((issuer, name)) = issuers.get(held.issuer)
            && issuer.keys().is_some_and(|keys| Arc::ptr_eq(&keys, &held.keys))
            && now() < held.until
        {
            return Ok(name.clone());
        }
        // Only whose token it says to be is asked: another issuer would be asked for a key that is none of theirs.
        let claimed = insecure_decode_claims::<Claimed>(token).map_err(|error| told(error.kind()))?;
        let (mut pending, mut last) = (None, told(&ErrorKind::InvalidIssuer));
        for (number, (issuer, name)) in issuers.iter().enumerate().filter(|(_, (issuer, _))| issuer.is(&claimed.iss)) {
            let Some(keys) = issuer.keys() else {
                issuer.remote().inspect(|remote| remote.want());
                pending = Some(KEYS_UNKNOWN);
                continue;
            };
            match issuer.check(token, &keys) {
                Ok(until) => {
                    self.0.insert(*digest, Held { issuer: number, keys, until });
                    return Ok(name.clone());
                }
                Err(wrong) if may_change(wrong) => pending = Some(wrong),
                Err(wrong) => last = wrong,
            }
        }
        Err(pending.unwrap_or(last))
    }
}

/// Whether this is why nobody is known, which other keys may change.
pub(super) fn may_change(why: &str) -> bool {
    [KEY_UNKNOWN, KEYS_UNKNOWN].contains(&why)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What is wrong, without a word of the token.
fn told(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::ExpiredSignature => "presents a token that has expired",
        ErrorKind::ImmatureSignature => "presents a token that is not valid yet",
        ErrorKind::InvalidSignature => "presents a token whose signature is wrong",
        ErrorKind::InvalidIssuer => "presents a token of an issuer that no caller has",
        ErrorKind::InvalidAudience => "presents a token for another audience",
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            "presents a token by an algorithm that is not allowed"
        }
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            "presents a token without `exp`, `iss` and `aud` as they have to be"
        }
        _ => "presents a token that no caller of the configuration has",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::callers::token::Digest;

    fn key(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn keys(named: &[(&str, u8)]) -> Keys {
        let jwk = |(id, seed): &(&str, u8)| json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": BASE64.encode(key(*seed).public_key())});
        Keys::parse(json!({"keys": named.iter().map(jwk).collect::<Vec<_>>()}).to_string().as_bytes()).unwrap()
    }

    fn token(header: &Value, claims: &Value, seed: u8) -> Vec<u8> {
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = BASE64.encode(key(seed).sign(message.as_bytes()));
        format!("{message}.{signature}").into_bytes()
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "kid": "a"})
    }

    fn claims() -> Value {
        json!({"iss": "https://issuer.example", "aud": "lambda-policy", "sub": "kong", "exp": now() + 60})
    }

    fn with(mut value: Value, key: &str, other: impl Into<Value>) -> Value {
        value[key] = other.into();
        value
    }

    fn without(mut value: Value, key: &str) -> Value {
        value.as_object_mut().unwrap().remove(key);
        value
    }

    fn issuer(source: Source) -> Vec<(Issuer, CallerName)> {
        let (audiences, subjects) = (["lambda-policy".to_owned(), "other".to_owned()], vec!["kong".to_owned()]);
        let leeway = Duration::from_secs(30);
        let issuer = Issuer::new("https://issuer.example", &audiences, subjects, Vec::new(), leeway, source);
        vec![(issuer, CallerName::parse("kong").unwrap())]
    }

    #[test]
    fn a_token_is_believed_if_all_of_it_is_right() {
        let issuers = issuer(Source::File(Arc::new(keys(&[("a", 1), ("b", 2)]))));
        for (what, header, claims, seed, right) in [
            ("all is right", header(), claims(), 1, true),
            ("one of several audiences", header(), with(claims(), "aud", vec!["x", "other"]), 1, true),
            ("no key named, so that each is tried", without(header(), "kid"), claims(), 2, true),
            ("another key's name", with(header(), "kid", "b"), claims(), 1, false),
            ("a key that is not there", with(header(), "kid", "c"), claims(), 1, false),
            ("a stranger's key", header(), claims(), 3, false),
            ("another issuer", header(), with(claims(), "iss", "https://evil.example"), 1, false),
            ("no issuer", header(), without(claims(), "iss"), 1, false),
            ("another audience", header(), with(claims(), "aud", "x"), 1, false),
            ("no audience", header(), without(claims(), "aud"), 1, false),
            ("another subject", header(), with(claims(), "sub", "envoy"), 1, false),
            ("no subject", header(), without(claims(), "sub"), 1, false),
            ("no end", header(), without(claims(), "exp"), 1, false),
            ("an end that is none", header(), with(claims(), "exp", "soon"), 1, false),
            ("expired", header(), with(claims(), "exp", now() - 31), 1, false),
            ("expired, within the leeway", header(), with(claims(), "exp", now() - 20), 1, true),
            ("not yet", header(), with(claims(), "nbf", now() + 40), 1, false),
            ("not yet, within the leeway", header(), with(claims(), "nbf", now() + 20), 1, true),
            ("no signature", json!({"alg": "none"}), claims(), 1, false),
            ("an HMAC", with(header(), "alg", "HS256"), claims(), 1, false),
            ("the algorithm of another kind of key", with(header(), "alg", "ES256"), claims(), 1, false),
            ("what must be understood", with(header(), "crit", vec!["x"]), claims(), 1, false),
        ] {
            let token = token(&header, &claims, seed);
            let found = Verified::default().caller(&token, &Digest::of(&token), &issuers);
            assert_eq!(found.is_ok(), right, "{what}: {found:?}");
        }
        for wrong in [&b""[..], b"a.b.c", b"..", b"eyJhbGciOiJFZERTQSJ9..", b"\xff.\xff.\xff"] {
            assert!(Verified::default().caller(wrong, &Digest::of(wrong), &issuers).is_err());
        }
    }

    #[test]
    fn an_hmac_by_the_public_key_is_no_signature() {
        let hmac = {
            use hmac::{Hmac, KeyInit, Mac};
            let message = format!(
                "{}.{}",
                BASE64.encode(with(header(), "alg", "HS256").to_string()),
                BASE64.encode(claims().to_string())
            );
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key(1).public_key().as_ref()).unwrap();
            mac.update(message.as_bytes());
            format!("{message}.{}", BASE64.encode(mac.finalize().into_bytes()))
        };
        let issuers = issuer(Source::File(Arc::new(keys(&[("a", 1)]))));
        assert!(Verified::default().caller(hmac.as_bytes(), &Digest::of(hmac.as_bytes()), &issuers).is_err());
    }

    #[test]
    fn a_token_is_checked_again_with_other_keys_and_not_believed_without_any() {
        let remote = Arc::new(Remote::new(crate::policy::endpoint::Url::parse("https://issuer.example/keys").unwrap()));
        let (issuers, verified) = (issuer(Source::Remote(Arc::clone(&remote))), Verified::default());
        let token = token(&header(), &claims(), 1);
        let believed = || verified.caller(&token, &Digest::of(&token), &issuers).is_ok();
        assert!(!believed(), "nothing was fetched yet");
        remote.put(keys(&[("a", 1)]));
        assert!(believed() && believed(), "the second time from memory");
        remote.put(keys(&[("a", 2)]));
        assert!(!believed(), "the issuer has taken its key back");
    }
}
