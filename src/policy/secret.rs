//! Secrets that AWS gave, and fingerprints by which caches tell them apart without holding them.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Makes a fingerprint useless outside this process: two hashers seeded by the operating system.
static SALT: LazyLock<[u64; 2]> =
    LazyLock::new(|| [RandomState::new().hash_one(0_u8), RandomState::new().hash_one(1_u8)]);

/// A secret access key or a session token: text that can stand in a header, as a token does.
#[derive(Clone, Debug)]
pub struct Secret(SecretString);

/// The text is no secret that AWS gives. It names no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// Spaces, or nothing.
    Blank,
    /// A line break, another control character, or a letter outside ASCII.
    Character,
}

/// A salted SHA-256 of everything that makes two things the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Secret {
    /// Takes a secret as it is.
    ///
    /// # Errors
    /// If it is blank, or has a character that no header has.
    pub fn parse(text: SecretString) -> Result<Self, SecretError> {
        let exposed = text.expose_secret();
        if exposed.trim().is_empty() {
            return Err(SecretError::Blank);
        }
        if !exposed.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(SecretError::Character);
        }
        Ok(Self(text))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blank => "is blank: expected the text that AWS gave",
            Self::Character => {
                "has a line break or another character that AWS gives in no secret: expected printable ASCII"
            }
        })
    }
}

impl std::error::Error for SecretError {}

impl Fingerprint {
    /// The fingerprint of these parts; an absent part differs from an empty one.
    pub fn of<'a>(parts: impl IntoIterator<Item = Option<&'a [u8]>>) -> Self {
        let mut hash = Sha256::new();
        for word in SALT.iter() {
            hash.update(word.to_le_bytes());
        }
        for part in parts {
            match part {
                // The length keeps ("ab", "c") and ("a", "bc") apart.
                Some(part) => {
                    hash.update([1]);
                    hash.update((part.len() as u64).to_le_bytes());
                    hash.update(part);
                }
                None => hash.update([0]),
            }
        }
        Self(hash.finalize().into())
    }

    /// The fingerprint's bytes, to build another one on it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(4) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_can_stand_in_a_header() {
        use SecretError::{Blank, Character};
        for (text, result) in [
            ("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", Ok(())),
            ("a b", Ok(())),
            ("", Err(Blank)),
            ("  \t", Err(Blank)),
            ("secret\n", Err(Character)),
            ("sec\0ret", Err(Character)),
            ("s\u{e9}cret", Err(Character)),
        ] {
            assert_eq!(Secret::parse(SecretString::from(text)).map(|_| ()), result, "{text:?}");
        }
    }

    #[test]
    fn parts_are_kept_apart() {
        let of = |parts: &[Option<&str>]| Fingerprint::of(parts.iter().map(|p| p.map(str::as_bytes)));
        assert_eq!(of(&[Some("ab"), Some("c")]), of(&[Some("ab"), Some("c")]));
        assert_ne!(of(&[Some("ab"), Some("c")]), of(&[Some("a"), Some("bc")]));
        assert_ne!(of(&[Some("")]), of(&[None]));
        assert_ne!(of(&[Some("a"), None]), of(&[None, Some("a")]));
    }
}
