//! Names of endpoints as addresses, without those where clouds give credentials to whoever asks.
//!
//! An address that stands in the configuration is refused there. A name is looked at here, whenever a connection is made:
//! whoever owns it can make it mean another address at any time.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::{BoxError, Service};

use crate::policy::endpoint::is_link_local;

/// Where connections may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Everywhere.
    Everything,
    /// Nowhere that is link-local.
    Routed,
}

/// The system's resolver.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    system: GaiResolver,
    reach: Reach,
}

impl Resolver {
    pub(super) fn new(reach: Reach) -> Self {
        Self { system: GaiResolver::new(), reach }
    }
}

impl Reach {
    fn filter(self, name: &str, found: Vec<SocketAddr>) -> Result<vec::IntoIter<SocketAddr>, BoxError> {
        if self == Self::Everything {
            return Ok(found.into_iter());
        }
        let count = found.len();
        let left: Vec<_> = found.into_iter().filter(|address| !is_link_local(address.ip())).collect();
        if left.is_empty() && count > 0 {
            return Err(format!("{name} means a link-local address, where no endpoint may be").into());
        }
        Ok(left.into_iter())
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.system.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.reach;
        let resolving = self.system.call(name.clone());
        Box::pin(async move { reach.filter(name.as_str(), resolving.await?.collect()) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_no_link_local_address() {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        for (found, left) in [
            (&["192.0.2.1:443"][..], Some(1)),
            (&["192.0.2.1:443", "169.254.169.254:443"], Some(1)),
            (&["169.254.169.254:80"], None),
            (&["[fd00:ec2::254]:80", "[fe80::1]:80"], None),
            (&["[64:ff9b::a9fe:a9fe]:80", "[::169.254.169.254]:80", "[2002:a9fe:a9fe::]:80"], None),
            (&["[64:ff9b::192.0.2.1]:443", "[64:ff9b::a9fe:a9fe]:443"], Some(1)),
            (&["127.0.0.1:80"], Some(1)),
            (&[], Some(0)),
        ] {
            assert_eq!(Reach::Routed.filter("host", all(found)).ok().map(|left| left.len()), left, "{found:?}");
            assert_eq!(Reach::Everything.filter("host", all(found)).unwrap().len(), found.len(), "the own identity");
        }
    }

    #[tokio::test]
    async fn what_the_systems_resolver_takes_for_one_is_one() {
        // 169.254.169.254 as a whole number, which is no address for a parser and one for the system.
        let found = Resolver::new(Reach::Routed).call("2852039166".parse().unwrap()).await;
        assert!(found.is_err_and(|error| error.to_string().contains("link-local")));
    }
}
