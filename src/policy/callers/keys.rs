//! An issuer's public keys: a JWK set (RFC 7517) from a file, or from an address that is asked again and again.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse},
};
use tokio::sync::watch;

use crate::{error::unread, policy::endpoint::Url};

/// How long keys are believed while their address does not answer: a key that its issuer took back is believed no longer.
const HOLD: Duration = Duration::from_secs(24 * 3600);

/// Public keys, at least one.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
    content: u64,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// Why a text has no keys.
#[derive(Debug)]
pub enum KeysError {
    /// It is no JWK set.
    Form(serde_json::Error),
    /// None of its keys can check a signature here.
    None,
}

/// The keys of an address, once they were fetched.
#[derive(Debug)]
pub struct Remote {
    url: Url,
    keys: ArcSwapOption<Keys>,
    fetched: ArcSwap<Option<Instant>>,
    failing: ArcSwapOption<Failing>,
    asking: watch::Sender<Asking>,
}

/// How the last attempts to fetch keys have failed, one after the other.
#[derive(Clone, Debug)]
pub struct Failing {
    /// When the first of them did.
    pub since: SystemTime,
    /// How many there were.
    pub failures: u32,
    /// Why the last one did.
    pub error: String,
}

/// Whether somebody wants keys that are not there, and whether their address is left alone for a while all the same.
#[derive(Clone, Copy, Debug, Default)]
struct Asking {
    wanted: bool,
    rests: bool,
}

impl Keys {
    /// Reads a JWK set. Keys for something else, or of a kind that is not known here, are passed over.
    ///
    /// # Errors
    /// If it is none, or no key is left.
    pub fn parse(text: &[u8]) -> Result<Self, KeysError> {
        super::ring::install();
        let set: JwkSet = serde_json::from_slice(text).map_err(KeysError::Form)?;
        let keys: Vec<_> = set.keys.iter().filter_map(Key::of).collect();
        if keys.is_empty() {
            return Err(KeysError::None);
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Ok(Self { keys, content: hasher.finish() })
    }

    /// The keys that a token's header may mean: the one that it names, or each where it names none.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let named = move |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let fits = move |key: &&Key| key.algorithm.is_none_or(|own| own == algorithm);
        self.keys.iter().filter(named).filter(fits).map(|key| &key.key)
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        // A secret has no place among public keys, and would let whoever reads them sign.
        if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_))
            || matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption))
        {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok().filter(|key| key.family() != AlgorithmFamily::Hmac)?;
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            Some(named) => Some(named.to_string().parse().ok()?),
        };
        Some(Self { id: jwk.common.key_id.clone(), algorithm, key })
    }
}

impl Remote {
    /// An address that was not asked yet.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            keys: ArcSwapOption::empty(),
            fetched: ArcSwap::default(),
            failing: ArcSwapOption::empty(),
            asking: watch::Sender::default(),
        }
    }

    /// The address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Puts keys in the place of those before.
    pub fn put(&self, keys: Keys) {
        let same = self.keys.load().as_ref().is_some_and(|old| old.content == keys.content);
        if !same {
            self.keys.store(Some(Arc::new(keys)));
        }
        self.fetched.store(Arc::new(Some(Instant::now())));
        self.failing.store(None);
    }

    /// Takes note of an attempt that failed, and says of how many.
    pub fn failed(&self, error: String) -> u32 {
        let before = self.failing();
        let since = before.as_ref().map_or_else(SystemTime::now, |before| before.since);
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        self.failing.store(Some(Arc::new(Failing { since, failures, error })));
        failures
    }

    /// How the last attempts have failed, if the last one did.
    pub fn failing(&self) -> Option<Arc<Failing>> {
        self.failing.load_full()
    }

    /// Whether there are keys that are believed.
    pub fn is_known(&self) -> bool {
        self.keys().is_some()
    }

    /// Resolves when somebody wants keys that are not there.
    pub async fn wanted(&self) {
        // The sender is here.
        let _ = self.asking.subscribe().wait_for(|asking| asking.wanted).await;
    }

    /// Tells those who want keys that the address was asked, and whether it is left alone from now on.
    pub fn asked(&self, rests: bool) {
        self.asking.send_replace(Asking { wanted: false, rests });
    }

    /// The address may be asked again.
    pub fn rested(&self) {
        self.asking.send_modify(|asking| asking.rests = false);
    }

    pub(super) fn want(&self) {
        self.asking.send_if_modified(|asking| !std::mem::replace(&mut asking.wanted, true));
    }

    /// Resolves when the address was asked for what is wanted, and at once if nothing is, or while it is left alone.
    pub(super) fn renewal(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let mut asking = self.asking.subscribe();
        async move {
            // The sender goes with a configuration that was replaced.
            let _ = asking.wait_for(|asking| asking.rests || !asking.wanted).await;
        }
    }

    pub(super) fn inherit(&self, other: &Self) {
        self.keys.store(other.keys.load_full());
        self.fetched.store(other.fetched.load_full());
        self.failing.store(other.failing.load_full());
    }

    /// The keys, if they are still believed.
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        let believed = self.fetched.load().is_some_and(|fetched| fetched.elapsed() < HOLD);
        self.keys.load_full().filter(|_| believed)
    }
}

impl std::fmt::Display for KeysError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(error) => write!(f, "is no JWK set: expected `{{\"keys\": [...]}}`: {}", unread(error)),
            Self::None => f.write_str("has no public key for signatures: expected RSA, EC (P-256, P-384) or Ed25519"),
        }
    }
}

impl std::error::Error for KeysError {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const ED: &str =
        r#"{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[test]
    fn keys_that_check_no_signature_are_passed_over() {
        for (keys, left, why) in [
            (vec![ED], Some(1), "a public key"),
            (vec![r#"{"kty":"oct","kid":"a","k":"c2VjcmV0"}"#], None, "a secret"),
            (vec![r#"{"kty":"oct","k":"c2VjcmV0"}"#, ED], Some(1), "a secret beside it"),
            (vec![&ED.replace(r#""alg""#, r#""use":"enc","alg""#)], None, "a key for encryption"),
            (vec![r#"{"kty":"new","kid":"a"}"#, ED], Some(1), "a kind that is not known"),
            (vec![&ED.replace("EdDSA", "HS256")], Some(1), "whose algorithm no token may have"),
            (vec![], None, "nothing"),
        ] {
            let text = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
            assert_eq!(Keys::parse(text.as_bytes()).ok().map(|keys| keys.keys.len()), left, "{why}");
        }
        for wrong in ["", "[]", "{}", r#"{"keys":1}"#] {
            assert!(matches!(Keys::parse(wrong.as_bytes()), Err(KeysError::Form(_))), "{wrong}");
        }
    }

    #[test]
    fn what_was_fetched_is_kept_while_it_is_the_same() {
        let remote = Remote::new(Url::parse("https://issuer.example/keys").unwrap());
        assert!(remote.keys().is_none());
        let keys = |keys: &str| Keys::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes()).unwrap();
        remote.put(keys(ED));
        let first = remote.keys().unwrap();
        remote.put(keys(ED));
        assert!(Arc::ptr_eq(&first, &remote.keys().unwrap()));
        remote.put(keys(&ED.replace(r#""a""#, r#""b""#)));
        assert!(!Arc::ptr_eq(&first, &remote.keys().unwrap()));
    }

    #[test]
    fn failures_are_told_from_the_first_one_on_until_keys_come() {
        let remote = Remote::new(Url::parse("https://issuer.example/keys").unwrap());
        assert!(remote.failing().is_none());
        remote.failed("refused".to_owned());
        let first = remote.failing().unwrap();
        remote.failed("too late".to_owned());
        let next = Remote::new(remote.url().clone());
        next.inherit(&remote);
        let last = next.failing().unwrap();
        assert_eq!((last.since, last.failures, last.error.as_str()), (first.since, 2, "too late"));
        next.put(Keys::parse(format!(r#"{{"keys":[{ED}]}}"#).as_bytes()).unwrap());
        assert!(next.failing().is_none() && next.is_known());
    }

    #[test]
    fn what_waits_for_keys_waits_while_they_are_wanted_and_may_come() {
        let remote = Arc::new(Remote::new(Url::parse("https://issuer.example/keys").unwrap()));
        let waits = || remote.renewal().now_or_never().is_none();
        assert!(!waits(), "nothing is wanted");
        remote.want();
        let waiting = remote.renewal();
        assert!(waits() && remote.wanted().now_or_never().is_some());
        remote.asked(true);
        assert!(!waits() && waiting.now_or_never().is_some(), "the address was asked");
        remote.want();
        assert!(!waits(), "it is left alone");
        remote.rested();
        assert!(waits(), "it is asked again");
        let waiting = remote.renewal();
        drop(remote);
        assert!(waiting.now_or_never().is_some(), "nobody asks any more");
    }
}
