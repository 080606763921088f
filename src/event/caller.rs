//! What gateways say of a caller in headers, read alike by every front.

use std::net::{IpAddr, SocketAddr};

/// The caller's address out of a list of forwarded ones: the last, which the gateway itself has appended. Those before it
/// are what the caller says. A port is cut off; what is no address is none.
pub fn forwarded(list: &str) -> Option<String> {
    let entry = list.rsplit(',').next()?.trim();
    match entry.parse::<SocketAddr>() {
        Ok(address) => Some(address.ip().to_string()),
        Err(_) => entry.parse::<IpAddr>().is_ok().then(|| entry.to_owned()),
    }
}

/// A header's value without the loss of a byte: what is not UTF-8 is read as ISO 8859-1, which HTTP once said that
/// values are in, and in which each byte is a character.
pub fn opaque(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_cannot_choose_its_address() {
        for (list, expected, why) in [
            ("203.0.113.7", Some("203.0.113.7"), "one"),
            ("6.6.6.6, 203.0.113.7", Some("203.0.113.7"), "the gateway's own is the last"),
            ("203.0.113.7:4711", Some("203.0.113.7"), "a port"),
            ("[2001:db8::1]:80", Some("2001:db8::1"), "brackets"),
            ("2001:db8::1", Some("2001:db8::1"), "none"),
            ("unknown", None, "no address"),
            ("", None, "nothing"),
        ] {
            assert_eq!(forwarded(list).as_deref(), expected, "{why}");
        }
    }

    #[test]
    fn no_byte_is_lost() {
        assert_eq!(opaque("caf\u{e9}".as_bytes()), "caf\u{e9}");
        assert_eq!(opaque(b"caf\xe9"), "caf\u{e9}");
    }
}
