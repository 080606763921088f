//! AWS Signature Version 4 for one kind of request, with the signing key kept for its day.
//!
//! `aws-sigv4` derives the key anew for each call, which is four of five parts of what signing costs; so this is written
//! here. Source: IAM user guide, "Create a signed AWS API request". The tests hold it against the SDK's signer.

use std::{fmt, fmt::Write as _, sync::Arc};

use arc_swap::ArcSwapOption;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::refresh::Session;

type HmacSha256 = Hmac<Sha256>;

/// Signs for Lambda in one region.
pub(super) struct Signer {
    region: Box<str>,
    key: ArcSwapOption<Key>,
}

/// A session's signing key of a day, and what is written beside the signature.
struct Key {
    session: Arc<Session>,
    day: u64,
    /// Keyed, so that a call starts from its state.
    mac: HmacSha256,
    scope: String,
    credential: String,
}

/// What is signed.
pub(super) struct Canonical<'a> {
    pub path: &'a str,
    pub query: &'a str,
    /// In the order of their names.
    pub headers: &'a [(&'static str, &'a str)],
    pub payload: &'a [u8],
}

/// A moment as signatures have it.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    day: u64,
    text: [u8; 16],
}

impl Signer {
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.into(), key: ArcSwapOption::empty() }
    }

    /// The `Authorization` header of a POST.
    pub(super) fn authorization(&self, session: &Arc<Session>, stamp: &Stamp, what: &Canonical<'_>) -> HeaderValue {
        let current = self.key.load();
        let fresh;
        let key = match current.as_ref() {
            Some(key) if key.day == stamp.day && Arc::ptr_eq(&key.session, session) => key,
            _ => {
                fresh = Arc::new(self.derive(session, stamp));
                self.key.store(Some(Arc::clone(&fresh)));
                &fresh
            }
        };
        let hash = what.hash();
        let mut mac = key.mac.clone();
        mac.update(b"AWS4-HMAC-SHA256\n");
        mac.update(&stamp.text);
        mac.update(b"\n");
        mac.update(key.scope.as_bytes());
        mac.update(b"\n");
        mac.update(&hash);
        let mut signature = [0; 64];
        hex(&mac.finalize().into_bytes(), &mut signature);

        let mut text = Vec::with_capacity(key.credential.len() + 240);
        text.extend_from_slice(b"AWS4-HMAC-SHA256 Credential=");
        text.extend_from_slice(key.credential.as_bytes());
        text.extend_from_slice(b", SignedHeaders=");
        for (n, (name, _)) in what.headers.iter().enumerate() {
            if n > 0 {
                text.push(b';');
            }
            text.extend_from_slice(name.as_bytes());
        }
        text.extend_from_slice(b", Signature=");
        text.extend_from_slice(&signature);
        // An access key id has letters and digits only, if it was not AWS that gave it.
        HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    fn derive(&self, session: &Arc<Session>, stamp: &Stamp) -> Key {
        let day = stamp.as_str().get(..8).unwrap_or_default();
        let credentials = &session.credentials;
        let mut secret = zeroize::Zeroizing::new(String::with_capacity(64));
        secret.push_str("AWS4");
        secret.push_str(credentials.secret_access_key());
        let mut key = keyed(secret.as_bytes());
        for part in [day, &self.region, "lambda", "aws4_request"] {
            key.update(part.as_bytes());
            key = keyed(&key.finalize().into_bytes());
        }
        let scope = format!("{day}/{}/lambda/aws4_request", self.region);
        let credential = format!("{}/{scope}", credentials.access_key_id());
        Key { session: Arc::clone(session), day: stamp.day, mac: key, scope, credential }
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("any key will do")
}

impl Canonical<'_> {
    /// The hash of the canonical request, in hexadecimal.
    fn hash(&self) -> [u8; 64] {
        let mut hash = Sha256::new();
        for part in ["POST\n", self.path, "\n", self.query, "\n"] {
            hash.update(part);
        }
        for (name, value) in self.headers {
            hash.update(name);
            hash.update(":");
            if value.as_bytes().contains(&b' ') {
                // Without spaces around it, and with one where it has several.
                let mut words = value.split(' ').filter(|word| !word.is_empty());
                hash.update(words.next().unwrap_or_default());
                for word in words {
                    hash.update(" ");
                    hash.update(word);
                }
            } else {
                hash.update(value);
            }
            hash.update("\n");
        }
        hash.update("\n");
        for (n, (name, _)) in self.headers.iter().enumerate() {
            if n > 0 {
                hash.update(";");
            }
            hash.update(name);
        }
        hash.update("\n");
        let mut text = [0; 64];
        hex(&Sha256::digest(self.payload), &mut text);
        hash.update(text);
        hex(&hash.finalize(), &mut text);
        text
    }
}

impl Stamp {
    /// The moment so many seconds after 1970.
    pub(super) fn new(seconds: u64) -> Self {
        let (day, second) = (seconds / 86_400, seconds % 86_400);
        // The Gregorian calendar with years that begin in March, so that the leap day is the last of a year.
        let z = day + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
        let (month, january) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year_of_era + january;
        let mut text = *b"00000000T000000Z";
        for (at, width, mut number) in [
            (0, 4, year),
            (4, 2, month),
            (6, 2, day_of_month),
            (9, 2, second / 3600),
            (11, 2, second / 60 % 60),
            (13, 2, second % 60),
        ] {
            for digit in text.iter_mut().skip(at).take(width).rev() {
                *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
                number /= 10;
            }
        }
        Self { day, text }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// A path encoded once more, as every service but S3 signs it.
pub(super) fn canonical_path(path: &str) -> String {
    let mut canonical = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            canonical.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(canonical, "%{byte:02X}");
        }
    }
    canonical
}

/// A path without empty segments and dots, as it is signed.
pub(super) fn normalized(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

fn hex(bytes: &[u8], text: &mut [u8; 64]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("region", &self.region).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (1_709_251_199, "20240229T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(Stamp::new(seconds).as_str(), text);
        }
    }

    /// The SDK collapses all headers but the session token, though the server sees none with spaces around it.
    #[test]
    fn every_header_is_signed_without_surplus_spaces() {
        let hash =
            |value| Canonical { path: "/", query: "", headers: &[("a", "b"), ("c", value)], payload: b"" }.hash();
        for value in ["abc  def ", " abc def", "   abc    def   "] {
            assert_eq!(hash(value), hash("abc def"), "{value:?}");
        }
        assert_ne!(hash("abcdef"), hash("abc def"));
    }

    #[test]
    fn a_path_is_encoded_once_more_and_normalized() {
        for (path, canonical) in [
            ("/a/b/x", "/a/b/x"),
            ("/a//b/x", "/a/b/x"),
            ("/a/./b/../c/x", "/a/c/x"),
            ("//x", "/x"),
            ("/.a/b./x", "/.a/b./x"),
        ] {
            assert_eq!(normalized(path), canonical, "{path}");
        }
        assert_eq!(canonical_path("/functions/f%3Alive/x"), "/functions/f%253Alive/x");
    }
}
