//! Where credentials come from: the SDK's default chain, and STS for roles.

use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::{
    default_provider::credentials::DefaultCredentialsChain,
    meta::{ProviderAttempt, ProviderChainError},
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError},
};
use aws_sdk_sts::{
    config::{BehaviorVersion, IdentityCache, SharedHttpClient, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::assume_role::AssumeRoleError,
};
use tokio::sync::OnceCell;

use super::{
    figures::{Figures, Loads},
    refresh::{Error, Identity, Loaded, Loading, Provider},
    said,
};
use crate::policy::{
    Access, Region,
    credentials::{AccessKeys, AssumeRole},
    endpoint::{Endpoint, Url},
};

/// The name that the SDK gives to where credentials came from.
const SOURCE: &str = "lambda-policy";
/// What says to the SDK's chain where credentials are, by paths and addresses: none of it is a secret.
const PLACES: [&str; 4] = [
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
];
/// The most bytes of why one provider of several gave none, so that there is room for the others.
const MOST_ATTEMPT: usize = 80;
/// How long credentials are used at least, whatever their expiry and this machine's clock say.
const LEAST_VALID: Duration = Duration::from_secs(60);

/// The service's own identity: environment, profile, web identity, EKS Pod Identity, ECS, IMDSv2, in the SDK's order.
pub(super) fn service(http: SharedHttpClient, figures: &Arc<Figures>) -> Arc<Identity> {
    let chain = Arc::new(OnceCell::new());
    counted(
        figures,
        |figures| &figures.service,
        move || {
            let (chain, http) = (Arc::clone(&chain), http.clone());
            Box::pin(async move {
                let chain = chain.get_or_init(|| default_chain(http)).await;
                let credentials = chain.provide_credentials().await.map_err(chain_error)?;
                Ok(loaded(credentials))
            })
        },
    )
}

/// A key pair as it is.
pub(super) fn keys(keys: &AccessKeys) -> Arc<Identity> {
    Identity::fixed(Credentials::new(
        keys.id.as_str(),
        keys.secret.expose(),
        keys.session_token.as_ref().map(|token| token.expose().to_owned()),
        None,
        SOURCE,
    ))
}

/// A role that `base` assumes.
pub(super) fn role(
    role: &AssumeRole,
    base: Arc<Identity>,
    access: &Access,
    http: SharedHttpClient,
    figures: &Arc<Figures>,
) -> Arc<Identity> {
    let role = role.clone();
    let (region, endpoint, address) =
        (access.region().clone(), access.endpoint().clone(), access.sts_endpoint().cloned());
    counted(
        figures,
        |figures| &figures.roles,
        move || {
            // A client is 16 KB and a fraction of a millisecond, and wanted every hour: it does not outlive its call.
            let sts = sts(&region, &endpoint, address.as_ref(), Arc::clone(&base), http.clone());
            let role = role.clone();
            Box::pin(async move {
                let answer = sts
                    .assume_role()
                    .role_arn(role.role_arn.as_str())
                    .role_session_name(role.session_name.as_str())
                    .set_external_id(role.external_id.as_ref().map(|id| id.as_str().to_owned()))
                    .duration_seconds(i32::try_from(role.duration.as_secs()).unwrap_or(i32::MAX))
                    .send()
                    .await
                    .map_err(|error| sts_error(&role, &error))?;
                let given = answer
                    .credentials
                    .ok_or_else(|| Error { rejected: false, detail: "STS answered without credentials".to_owned() })?;
                let expiry = SystemTime::try_from(given.expiration).map_err(|error| Error {
                    rejected: false,
                    detail: format!("STS answered with an expiry that is none: {error}"),
                })?;
                Ok(loaded(Credentials::new(
                    given.access_key_id,
                    given.secret_access_key,
                    Some(given.session_token),
                    Some(expiry),
                    SOURCE,
                )))
            })
        },
    )
}

/// Credentials whose loads are counted.
fn counted(
    figures: &Arc<Figures>,
    of: fn(&Figures) -> &Loads,
    load: impl Fn() -> Loading + Send + Sync + 'static,
) -> Arc<Identity> {
    let figures = Arc::clone(figures);
    Identity::loaded(move || {
        let (loading, figures) = (load(), Arc::clone(&figures));
        Box::pin(async move {
            let loaded = loading.await;
            let loads = of(&figures);
            let count = match &loaded {
                Ok(_) => &loads.ok,
                Err(error) if error.rejected => &loads.rejected,
                Err(_) => &loads.unavailable,
            };
            count.add();
            loaded
        })
    })
}

/// A client for one call of STS.
fn sts(
    region: &Region,
    endpoint: &Endpoint,
    address: Option<&Url>,
    base: Arc<Identity>,
    http: SharedHttpClient,
) -> aws_sdk_sts::Client {
    let mut config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(aws_sdk_sts::config::Region::new(region.as_str().to_owned()))
        .http_client(http)
        .credentials_provider(Provider(base))
        .identity_cache(IdentityCache::no_cache())
        // Assuming a role twice does no harm.
        .retry_config(RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(100)))
        .timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(Duration::from_secs(4))
                .operation_timeout(Duration::from_secs(12))
                .build(),
        );
    if let Endpoint::Variant { fips, dual_stack } = endpoint {
        config = config.use_fips(*fips).use_dual_stack(*dual_stack);
    }
    if let Some(url) = address {
        config = config.endpoint_url(url.as_str());
    }
    aws_sdk_sts::Client::from_conf(config.build())
}

async fn default_chain(http: SharedHttpClient) -> DefaultCredentialsChain {
    let config = ProviderConfig::without_region()
        .with_behavior_version(Some(aws_config::BehaviorVersion::latest()))
        .with_http_client(http)
        .load_default_region()
        .await;
    DefaultCredentialsChain::builder().configure(config).build().await
}

fn loaded(credentials: Credentials) -> Loaded {
    let valid_for = credentials
        .expiry()
        // A clock that is ahead makes them look expired. They are used for a while all the same, as AWS has the last
        // word; without this, each call would load its own.
        .map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or_default().max(LEAST_VALID));
    Loaded { credentials, valid_for }
}

/// Why the SDK's chain gave none: of each provider that was not set up, or of the one that was and failed, with where it looked.
fn chain_error(error: CredentialsError) -> Error {
    let rejected = matches!(error, CredentialsError::InvalidConfiguration(_));
    let attempted = error.source().and_then(|source| source.downcast_ref::<ProviderChainError<CredentialsError>>());
    let why = match attempted {
        Some(chain) => chain.attempts().iter().map(attempt).collect::<Vec<_>>().join("; "),
        None => said::words(&chain_of(&error)).to_owned(),
    };
    let set = PLACES.iter().filter_map(|name| Some(format!(", by {name}={}", std::env::var(name).ok()?)));
    let places: String = set.collect();
    Error { rejected, detail: format!("the default credentials chain gave none: {why}{places}") }
}

fn attempt(attempt: &ProviderAttempt<CredentialsError>) -> String {
    // That it was not enabled is what all of them say first.
    let error = attempt.error();
    let words = error.source().map_or_else(|| error.to_string(), chain_of);
    let words = said::words(&words);
    format!("{}: {}", attempt.name(), words.get(..words.floor_char_boundary(MOST_ATTEMPT)).unwrap_or_default())
}

fn sts_error(role: &AssumeRole, error: &SdkError<AssumeRoleError>) -> Error {
    // If the base has no credentials, that is the reason.
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(base) = current.downcast_ref::<Error>() {
            return base.clone();
        }
        source = current.source();
    }
    let status = error.raw_response().map(|r| r.status().as_u16());
    let throttled = matches!(error.code(), Some("Throttling" | "ThrottlingException" | "RequestLimitExceeded"));
    let rejected = status.is_some_and(|s| (400..500).contains(&s) && s != 429) && !throttled;
    let said = match status {
        Some(status) => {
            let [code, message] = [error.code(), error.message()].map(Option::unwrap_or_default);
            format!("STS answered {status} {}", said::refusal(status, code, message))
        }
        None => chain_of(error),
    };
    Error { rejected, detail: format!("assuming {} failed: {said}", role.role_arn.as_str()) }
}

/// An error and its causes in one line.
pub fn chain_of(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
