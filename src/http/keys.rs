//! Fetches the keys that callers' tokens are checked with, in the background, for as long as a configuration wants them.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    execute::Engine,
    lambda,
    policy::callers::keys::{Keys, Remote},
};

/// How often keys are fetched again.
const EVERY: Duration = Duration::from_secs(300);
/// How many fetches there are within [`WINDOW`] at the most, however many keys are asked for that are not there: whoever
/// sends tokens with made-up keys asks the issuer no more often.
const MOST_FETCHES: usize = 3;
const WINDOW: Duration = Duration::from_secs(30);
/// How long to wait after a failure, twice as long after each further one.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes that are read.
const MOST: usize = 1024 * 1024;

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Fetches the keys of the configuration in force, until it is replaced.
pub fn follow(engine: &Engine) {
    let policies = engine.policies();
    let remotes: Vec<_> = policies.callers.iter().flat_map(|callers| callers.remotes()).collect();
    if remotes.is_empty() {
        return;
    }
    let https = HttpsConnectorBuilder::new().with_tls_config(lambda::trust()).https_or_http().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build(https);
    for (_, remote) in remotes {
        tokio::spawn(fetch(client.clone(), Arc::downgrade(remote)));
    }
}

async fn fetch(client: Https, keys: Weak<Remote>) {
    let mut fetches = VecDeque::with_capacity(MOST_FETCHES);
    loop {
        let Some(remote) = keys.upgrade() else { return };
        fetches.push_back(Instant::now());
        let fetched = timeout(TIMEOUT, get(&client, remote.url().as_str())).await;
        let failures = match fetched.unwrap_or_else(|_| Err("no answer within five seconds".to_owned())) {
            Ok(fetched) => {
                remote.put(fetched);
                0
            }
            Err(error) => {
                let failures = remote.failed(error.clone());
                tracing::warn!(url = ?remote.url(), error, failures, "the keys of callers' tokens were not fetched");
                failures
            }
        };
        let rest = if failures > 0 {
            // Replicas do not come together.
            RETRY.0.saturating_mul(1 << failures.min(6)).min(RETRY.1).mul_f64(0.5 + fastrand::f64() / 2.0)
        } else if fetches.len() < MOST_FETCHES {
            Duration::ZERO
        } else {
            let first = fetches.pop_front();
            first.map(|first| (first + WINDOW).saturating_duration_since(Instant::now())).unwrap_or_default()
        };
        remote.asked(!rest.is_zero());
        drop(remote);
        sleep(rest).await;
        let Some(remote) = keys.upgrade() else { return };
        remote.rested();
        if failures == 0 {
            let _ = timeout(EVERY.mul_f64(0.9 + fastrand::f64() / 10.0), remote.wanted()).await;
        }
    }
}

async fn get(client: &Https, url: &str) -> Result<Keys, String> {
    let url = url.parse().map_err(|error| format!("the address is none: {error}"))?;
    let response = client.get(url).await.map_err(|error| lambda::chain_of(&error))?;
    if response.status() != 200 {
        return Err(format!("the answer is {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MOST).collect().await.map_err(|error| lambda::chain_of(&*error))?;
    Keys::parse(&body.to_bytes()).map_err(|error| format!("the answer {error}"))
}
