//! Where Lambda and STS are called: AWS's own endpoints, their variants, or an address of the operator's.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use http::Uri;

/// Lambda's endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The region's own.
    #[default]
    Regional,
    /// A variant of the region's own.
    Variant {
        /// FIPS 140 validated.
        fips: bool,
        /// Reachable by IPv6 too.
        dual_stack: bool,
    },
    /// An address, such as a VPC endpoint's.
    Url(Url),
}

/// An absolute `http` or `https` address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url(String);

/// Why an address is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No absolute `http` or `https` address.
    Form,
    /// User and password in it would be sent nowhere, and be shown in listings.
    UserInfo,
    /// A query, which an endpoint cannot have.
    Query,
    /// A link-local address: what listens there gives credentials to whoever asks.
    LinkLocal,
}

impl Url {
    /// Reads an absolute `http` or `https` address.
    ///
    /// # Errors
    /// If it is none, or has a user or a query.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let uri: Uri = text.parse().map_err(|_| Error::Form)?;
        let scheme = uri.scheme_str().ok_or(Error::Form)?;
        let authority = uri.authority().ok_or(Error::Form)?;
        if !matches!(scheme, "http" | "https") || authority.host().is_empty() {
            return Err(Error::Form);
        }
        if authority.as_str().contains('@') {
            return Err(Error::UserInfo);
        }
        if uri.query().is_some() {
            return Err(Error::Query);
        }
        if host_address(authority.host()).is_some_and(is_link_local) {
            return Err(Error::LinkLocal);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    /// The address without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether what is sent there can be read on the way: no TLS, and not this machine.
    pub fn is_exposed(&self) -> bool {
        let Some(rest) = self.0.strip_prefix("http://") else { return false };
        let host = rest.split('/').next().unwrap_or(rest);
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let loopback = host == "localhost" || host_address(host).is_some_and(|ip| ip.is_loopback());
        !loopback
    }
}

fn host_address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// Whether an address is only of this machine's link, where clouds give metadata and credentials: 169.254.0.0/16, fe80::/10,
/// AWS's fd00:ec2::/32 (EC2 user guide, instance metadata; EKS user guide, Pod Identity), and what leads to one of them
/// by a gateway between IPv6 and IPv4.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || matches!(address.segments(), [0xfd00, 0x0ec2, ..])
                || embedded(address).is_some_and(|inner| inner.is_link_local())
        }
    }
}

/// The IPv4 address that an IPv6 address carries, and may be delivered to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        // Compatible and mapped (RFC 4291, 2.5.5), and translated (RFC 2765, 2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        // NAT64: the well-known prefix (RFC 6052, 2.1), and the one for a network's own (RFC 8215), as long as it may be.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => v4(high, low),
        // 6to4 (RFC 3056, 2).
        [0x2002, high, low, ..] => v4(high, low),
        // ISATAP (RFC 5214, 6.1).
        [.., 0 | 0x200, 0x5efe, high, low] => v4(high, low),
        _ => None,
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "is not an address: expected `https://host` or `http://host:port`",
            Self::UserInfo => "has a user in it: expected `https://host`",
            Self::Query => "has a query in it: expected `https://host`",
            Self::LinkLocal => {
                "is a link-local address, where credentials are given to whoever asks: expected AWS or an endpoint of it"
            }
        })
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_addresses_are_taken() {
        for (text, result) in [
            ("https://vpce-1.lambda.us-east-1.vpce.amazonaws.com", Ok(())),
            ("http://127.0.0.1:9000/", Ok(())),
            ("http://[::1]:9000", Ok(())),
            ("127.0.0.1:9000", Err(Error::Form)),
            ("ftp://host", Err(Error::Form)),
            ("https://", Err(Error::Form)),
            ("", Err(Error::Form)),
            ("https://user:secret@host", Err(Error::UserInfo)),
            ("https://host?x=1", Err(Error::Query)),
            ("http://169.254.169.254", Err(Error::LinkLocal)),
            ("http://169.254.170.2:80/creds", Err(Error::LinkLocal)),
            ("http://[fe80::1]:80", Err(Error::LinkLocal)),
            ("http://[fd00:ec2::254]", Err(Error::LinkLocal)),
            ("http://[fd00:ec2:0:0::23]", Err(Error::LinkLocal)),
            ("http://[::ffff:169.254.169.254]", Err(Error::LinkLocal)),
            ("http://[::169.254.169.254]", Err(Error::LinkLocal)),
            ("http://[::ffff:0:169.254.169.254]", Err(Error::LinkLocal)),
            ("http://[64:ff9b::a9fe:a9fe]", Err(Error::LinkLocal)),
            ("http://[64:ff9b:1:2::169.254.170.2]", Err(Error::LinkLocal)),
            ("http://[2002:a9fe:a9fe::]", Err(Error::LinkLocal)),
            ("http://[2002:a9fe:a9fe:1::1]:80", Err(Error::LinkLocal)),
            ("http://[2001:db8::5efe:169.254.169.254]", Err(Error::LinkLocal)),
            ("http://[64:ff9b::192.0.2.1]", Ok(())),
            ("http://[2002:c000:201::1]", Ok(())),
            ("http://[::]", Ok(())),
            ("http://[2001:db8::a9fe:a9fe]", Ok(())),
            ("http://[fd00:ec3::1]", Ok(())),
            ("http://169.253.1.1", Ok(())),
        ] {
            assert_eq!(Url::parse(text).map(|_| ()), result, "{text}");
        }
    }

    #[test]
    fn plain_http_to_another_machine_is_exposed() {
        for (text, exposed) in [
            ("https://host", false),
            ("http://localhost:1", false),
            ("http://127.0.0.1:1", false),
            ("http://[::1]:1", false),
            ("http://10.0.0.1:1", true),
            ("http://host/path", true),
        ] {
            assert_eq!(Url::parse(text).unwrap().is_exposed(), exposed, "{text}");
        }
    }
}
