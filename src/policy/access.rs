//! What a client is made of: a region, credentials and endpoints. Equal access, same client.

use super::{
    credentials::Credentials,
    endpoint::{Endpoint, Url},
    region::Region,
    secret::Fingerprint,
};

/// A region, the credentials to sign with there, and the endpoints to call.
#[derive(Clone, Debug)]
pub struct Access {
    region: Region,
    credentials: Credentials,
    endpoint: Endpoint,
    sts_endpoint: Option<Url>,
    key: Fingerprint,
    identity_key: Fingerprint,
}

impl Access {
    /// Puts the parts together and computes their keys, once for all calls of a policy.
    pub fn new(region: Region, credentials: Credentials, endpoint: Endpoint, sts_endpoint: Option<Url>) -> Self {
        let flags = match &endpoint {
            Endpoint::Variant { fips, dual_stack } => [u8::from(*fips), u8::from(*dual_stack)],
            Endpoint::Regional | Endpoint::Url(_) => [0, 0],
        };
        let url = match &endpoint {
            Endpoint::Url(url) => Some(url.as_str()),
            Endpoint::Regional | Endpoint::Variant { .. } => None,
        };
        // Where STS is called decides who answers, so it is a part of the identity.
        let identity_key = Fingerprint::of([
            Some(credentials.fingerprint().as_bytes()),
            Some(region.as_str().as_bytes()),
            Some(&flags[..]),
            sts_endpoint.as_ref().map(|u| u.as_str().as_bytes()),
        ]);
        let key = Fingerprint::of([Some(identity_key.as_bytes()), url.map(str::as_bytes)]);
        Self { region, credentials, endpoint, sts_endpoint, key, identity_key }
    }

    /// Where the function is invoked.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Who signs.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Where Lambda is called.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where STS is called, if not at the region's own endpoint.
    pub fn sts_endpoint(&self) -> Option<&Url> {
        self.sts_endpoint.as_ref()
    }

    /// Equal for accesses that can share a client.
    pub fn key(&self) -> Fingerprint {
        self.key
    }

    /// Equal for accesses that can share credentials.
    pub fn identity_key(&self) -> Fingerprint {
        self.identity_key
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::policy::credentials::Base;

    #[test]
    fn clients_are_shared_by_region_credentials_and_endpoint_and_by_nothing_less() {
        let make = |region: &str, endpoint: Endpoint, sts: Option<&str>| {
            Access::new(
                Region::parse(region).unwrap(),
                Credentials::new(Base::Service, None),
                endpoint,
                sts.map(|u| Url::parse(u).unwrap()),
            )
        };
        let url = |text: &str| Endpoint::Url(Url::parse(text).unwrap());
        let first = make("us-east-1", Endpoint::Regional, None);
        assert_eq!(first.key(), make("us-east-1", Endpoint::Regional, None).key());
        for (what, other) in [
            ("the region", make("us-east-2", Endpoint::Regional, None)),
            ("FIPS", make("us-east-1", Endpoint::Variant { fips: true, dual_stack: false }, None)),
            ("dual stack", make("us-east-1", Endpoint::Variant { fips: false, dual_stack: true }, None)),
            ("an address", make("us-east-1", url("https://a"), None)),
            ("STS's address", make("us-east-1", Endpoint::Regional, Some("https://a"))),
        ] {
            assert_ne!(first.key(), other.key(), "{what}");
        }
        let here = make("us-east-1", url("https://a"), None);
        let there = make("us-east-1", url("https://b"), None);
        assert_ne!(here.key(), there.key(), "two addresses");
        assert_eq!(here.identity_key(), there.identity_key(), "credentials do not depend on Lambda's address");
    }
}
