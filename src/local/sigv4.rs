//! AWS Signature Version 4, from the verifier's side.
//!
//! Written from the description in the IAM user guide ("Create a signed AWS API request") and nothing of the signer's,
//! so that a mistake there is found here.

use std::{fmt, time::SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Uri};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// How far the clocks may be apart (IAM user guide: five minutes).
const MAX_SKEW: i64 = 300;

/// What an access key id stands for.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub secret: SecretString,
    /// The session token that must come with it.
    pub token: Option<SecretString>,
    pub expires: Option<SystemTime>,
}

/// A request as it was sent.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub method: &'a str,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// Why a request is not let in, in AWS's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub code: &'static str,
    pub message: String,
}

/// Verifies a request for `service`, and says whose access key signed it.
pub(super) fn verify(
    request: &Request<'_>,
    service: &str,
    now: SystemTime,
    key: impl FnOnce(&str) -> Option<Key>,
) -> Result<String, Error> {
    let authorization = header(request.headers, "authorization")
        .ok_or_else(|| error("MissingAuthenticationTokenException", "Missing Authentication Token"))?;
    let given = Authorization::parse(&authorization)?;
    let date = header(request.headers, "x-amz-date")
        .ok_or_else(|| error("IncompleteSignatureException", "'X-Amz-Date' is missing"))?;
    let stamp = seconds(&date).ok_or_else(|| error("IncompleteSignatureException", "'X-Amz-Date' is not a date"))?;
    let [id, day, region, scope_service, "aws4_request"] = given.credential.split('/').collect::<Vec<_>>()[..] else {
        return Err(error("IncompleteSignatureException", "Credential should have 5 parts"));
    };
    if scope_service != service || !date.starts_with(day) || region.is_empty() {
        return Err(error("InvalidSignatureException", "Credential should be scoped to this service, region and day"));
    }
    must_be_signed(request.headers, &given.signed)?;

    let key = key(id).ok_or_else(|| {
        error("UnrecognizedClientException", "The security token included in the request is invalid.")
    })?;
    let unix = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if (i64::try_from(unix).unwrap_or(i64::MAX) - stamp).abs() > MAX_SKEW {
        return Err(error("InvalidSignatureException", "Signature expired or not yet current: check the clock"));
    }
    let token = header(request.headers, "x-amz-security-token");
    let token_agrees = match (&key.token, &token) {
        (None, None) => true,
        (Some(known), Some(sent)) => same(known.expose_secret().as_bytes(), sent.as_bytes()),
        (None, Some(_)) | (Some(_), None) => false,
    };
    if !token_agrees {
        return Err(error("UnrecognizedClientException", "The security token included in the request is invalid."));
    }

    let canonical = canonical_request(request, &given.signed)?;
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let signing_key = signing_key(key.secret.expose_secret(), day, region, service);
    let signature = hex(&hmac(&signing_key, to_sign.as_bytes()));
    if !same(signature.as_bytes(), given.signature.as_bytes()) {
        return Err(error(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        ));
    }
    if key.expires.is_some_and(|expires| expires <= now) {
        return Err(error("ExpiredTokenException", "The security token included in the request is expired"));
    }
    Ok(id.to_owned())
}

/// The region that a request is signed for.
pub(super) fn region(headers: &HeaderMap) -> Option<String> {
    let authorization = header(headers, "authorization")?;
    let given = Authorization::parse(&authorization).ok()?;
    given.credential.split('/').nth(2).map(str::to_owned)
}

/// The parts of an `Authorization` header.
struct Authorization<'a> {
    credential: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Result<Self, Error> {
        let wrong = || error("IncompleteSignatureException", "Authorization header is incomplete");
        let rest = text.strip_prefix("AWS4-HMAC-SHA256 ").ok_or_else(wrong)?;
        let part = |name: &str| {
            rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')).ok_or_else(wrong)
        };
        Ok(Self {
            credential: part("Credential")?,
            signed: part("SignedHeaders")?.split(';').collect(),
            signature: part("Signature")?,
        })
    }
}

/// `host` and every `x-amz-*` header that is there must be signed, or they could be changed on the way.
fn must_be_signed(headers: &HeaderMap, signed: &[&str]) -> Result<(), Error> {
    let needed = headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-"));
    match std::iter::once("host").chain(needed).find(|name| !signed.contains(name)) {
        None => Ok(()),
        Some(name) => Err(error("InvalidSignatureException", &format!("'{name}' must be a signed header"))),
    }
}

fn canonical_request(request: &Request<'_>, signed: &[&str]) -> Result<String, Error> {
    let mut query: Vec<(&str, &str)> = request
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    query.sort_unstable();
    let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();

    let mut canonical = format!("{}\n{}\n{}\n", request.method, canonical_path(request.uri.path()), query.join("&"));
    for name in signed {
        let values: Vec<_> = request.headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).collect();
        if values.is_empty() {
            return Err(error("InvalidSignatureException", &format!("signed header '{name}' is missing")));
        }
        let values: Vec<_> =
            values.iter().map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        canonical.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let actual = hex(&Sha256::digest(request.body));
    if let Some(claimed) = header(request.headers, "x-amz-content-sha256")
        && claimed != actual
    {
        return Err(error("InvalidSignatureException", "'X-Amz-Content-Sha256' is not the hash of the payload"));
    }
    canonical.push_str(&format!("\n{}\n{actual}", signed.join(";")));
    Ok(canonical)
}

/// The path without dots and double slashes, encoded once more, as every service but S3 wants it.
fn canonical_path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut canonical = String::from("/");
    for (n, segment) in segments.iter().enumerate() {
        if n > 0 {
            canonical.push('/');
        }
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                canonical.push(char::from(byte));
            } else {
                canonical.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if path.len() > 1 && path.ends_with('/') && !canonical.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> Vec<u8> {
    let key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    let key = hmac(&key, region.as_bytes());
    let key = hmac(&key, service.as_bytes());
    hmac(&key, b"aws4_request")
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key will do");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// Seconds since 1970 of a date such as `20150830T123600Z`.
fn seconds(date: &str) -> Option<i64> {
    if date.len() != 16 || date.get(8..9) != Some("T") || !date.ends_with('Z') {
        return None;
    }
    let part = |range: std::ops::Range<usize>| date.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    // Days since 1970 of a date in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Whether two texts are the same, in a time that depends on their length only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn error(code: &'static str, message: &str) -> Error {
    Error { code, message: message.to_owned() }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160)
    }

    fn key(id: &str) -> Option<Key> {
        (id == "AKIDEXAMPLE").then(|| Key { secret: SECRET.into(), token: None, expires: None })
    }

    /// A request of AWS's published test suite, whose service is called `service`.
    fn suite(method: &str, uri: &str, headers: &[(&str, &str)], body: &str, signature: &str) -> Result<String, Error> {
        let mut map = HeaderMap::new();
        map.insert("host", "example.amazonaws.com".parse().unwrap());
        map.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        let mut signed = vec!["host", "x-amz-date"];
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            if !signed.contains(name) {
                signed.push(name);
            }
        }
        signed.sort_unstable();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={}, Signature={signature}",
            signed.join(";")
        );
        map.insert("authorization", authorization.parse().unwrap());
        let request = Request { method, uri: &uri.parse().unwrap(), headers: &map, body: body.as_bytes() };
        verify(&request, "service", now(), key)
    }

    #[test]
    fn awss_published_examples_are_accepted_and_nothing_else_is() {
        for (what, method, uri, headers, body, signature) in [
            (
                "get-vanilla",
                "GET",
                "/",
                &[][..],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            ("post-vanilla", "POST", "/", &[], "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "/?Param2=value2&Param1=value1",
                &[],
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                "/",
                &[("content-type", "application/x-www-form-urlencoded")],
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            assert_eq!(suite(method, uri, headers, body, signature).as_deref(), Ok("AKIDEXAMPLE"), "{what}");
            let refused = suite(method, uri, headers, &format!("{body}x"), signature).unwrap_err();
            assert_eq!(refused.code, "InvalidSignatureException", "{what} with another body");
        }
    }

    #[test]
    fn the_signing_key_of_the_iam_user_guide_is_derived() {
        let key = signing_key(SECRET, "20150830", "us-east-1", "iam");
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
        let to_sign = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n\
                       f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
        assert_eq!(
            hex(&hmac(&key, to_sign.as_bytes())),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn paths_are_cleaned_and_encoded_once_more() {
        for (path, canonical) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/../b/./c", "/b/c"),
            ("/a/", "/a/"),
            ("/f%3Alive", "/f%253Alive"),
            ("/a b~c", "/a%20b~c"),
        ] {
            assert_eq!(canonical_path(path), canonical, "{path}");
        }
    }

    #[test]
    fn each_way_to_be_refused_has_awss_code() {
        const VANILLA: &str = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
        let sent = |authorization: &str, at: SystemTime, known: Option<Key>, extra: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            map.insert("host", "example.amazonaws.com".parse().unwrap());
            map.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
            for (name, value) in extra {
                map.insert(*name, value.parse().unwrap());
            }
            if !authorization.is_empty() {
                map.insert("authorization", authorization.parse().unwrap());
            }
            let uri = "/".parse().unwrap();
            let request = Request { method: "GET", uri: &uri, headers: &map, body: b"" };
            verify(&request, "service", at, |_| known).unwrap_err().code
        };
        let good = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature={VANILLA}");
        let late = now() + Duration::from_secs(301);
        let known = || key("AKIDEXAMPLE");
        let expired = || known().map(|key| Key { expires: Some(now()), ..key });
        let with_token = || known().map(|key| Key { token: Some("t".into()), ..key });
        for (what, code, found) in [
            ("nothing", "MissingAuthenticationTokenException", sent("", now(), known(), &[])),
            ("another scheme", "IncompleteSignatureException", sent("Bearer x", now(), known(), &[])),
            ("an unknown key", "UnrecognizedClientException", sent(&good, now(), None, &[])),
            ("a wrong clock", "InvalidSignatureException", sent(&good, late, known(), &[])),
            ("an expired token", "ExpiredTokenException", sent(&good, now(), expired(), &[])),
            ("a missing token", "UnrecognizedClientException", sent(&good, now(), with_token(), &[])),
            (
                "another service",
                "InvalidSignatureException",
                sent(&good.replace("/service/", "/s3/"), now(), known(), &[]),
            ),
            (
                "another day",
                "InvalidSignatureException",
                sent(&good.replace("20150830/", "20150831/"), now(), known(), &[]),
            ),
            (
                "an unsigned x-amz header",
                "InvalidSignatureException",
                sent(&good, now(), known(), &[("x-amz-log-type", "Tail")]),
            ),
            ("an unsigned host", "InvalidSignatureException", sent(&good.replace("host;", ""), now(), known(), &[])),
        ] {
            assert_eq!(found, code, "{what}");
        }
    }

    #[test]
    fn dates_are_counted_from_1970() {
        assert_eq!(seconds("19700101T000000Z"), Some(0));
        assert_eq!(seconds("20150830T123600Z"), Some(1_440_938_160));
        assert_eq!(seconds("20240229T235959Z"), Some(1_709_251_199));
        for wrong in ["", "2015-08-30", "20150830T123600", "20150830X123600Z", "2015083\u{e9}T12360Z"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
