//! Fingerprints of secrets, so that caches can tell credentials apart without holding them.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use sha2::{Digest, Sha256};

/// Makes a fingerprint useless outside this process: two hashers seeded by the operating system.
static SALT: LazyLock<[u64; 2]> =
    LazyLock::new(|| [RandomState::new().hash_one(0_u8), RandomState::new().hash_one(1_u8)]);

/// A salted SHA-256 of everything that makes two things the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

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
    fn parts_are_kept_apart() {
        let of = |parts: &[Option<&str>]| Fingerprint::of(parts.iter().map(|p| p.map(str::as_bytes)));
        assert_eq!(of(&[Some("ab"), Some("c")]), of(&[Some("ab"), Some("c")]));
        assert_ne!(of(&[Some("ab"), Some("c")]), of(&[Some("a"), Some("bc")]));
        assert_ne!(of(&[Some("")]), of(&[None]));
        assert_ne!(of(&[Some("a"), None]), of(&[None, Some("a")]));
    }
}
