//! Credentials that are renewed before they expire: one renewal at a time, with jitter, and backed off while it fails.
//!
//! The SDK's identity cache waits for a renewal in the calls' own time and fails them if it fails, though the
//! credentials at hand may be valid for minutes. Here a call takes what is valid at the cost of one atomic load; the
//! renewal runs beside it, and only calls without any valid credentials wait for it.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, error::CredentialsError},
};
use tokio::{sync::Mutex, time::Instant};

/// How long one attempt may take, with the retries of the SDK in it.
const LOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// When to look again for credentials that never expire: files of a profile may change.
const RECHECK: Duration = Duration::from_secs(15 * 60);
/// How long before its expiry a credential is renewed at the latest, if it lives long enough.
const EARLY: Duration = Duration::from_secs(10 * 60);
/// The first and the longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Credentials as they were loaded.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// What to sign with.
    pub credentials: Credentials,
    /// How long they are valid; `None` for ever.
    pub valid_for: Option<Duration>,
}

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    /// AWS said no; otherwise nothing could be learnt.
    pub rejected: bool,
    /// For the operator.
    pub detail: String,
}

pub(super) type Loading = Pin<Box<dyn Future<Output = Result<Loaded, Error>> + Send>>;
type Load = Box<dyn Fn() -> Loading + Send + Sync>;

/// One identity's credentials.
pub(super) struct Identity {
    /// `None` if the credentials are fixed.
    load: Option<Load>,
    current: ArcSwapOption<Session>,
    /// Held by whoever loads, so that one does.
    turn: Mutex<Turn>,
    renewing: AtomicBool,
    /// For operators, who do not wait for a turn.
    trouble: ArcSwapOption<Trouble>,
}

/// How an identity stands, for operators.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// How long the credentials at hand are still valid; `None` without any, and if they are valid for ever.
    pub expires_in: Option<Duration>,
    /// Why the last attempt to load some failed, if it did.
    pub trouble: Option<Arc<Trouble>>,
}

/// Credentials that cannot be loaded.
#[derive(Debug)]
pub struct Trouble {
    /// When it was tried last.
    pub at: SystemTime,
    /// How often it was tried in a row.
    pub failures: u32,
    /// AWS said no; otherwise nothing could be learnt.
    pub rejected: bool,
    /// As the log has it.
    pub detail: String,
}

/// Credentials for as long as they are used.
pub(super) struct Session {
    pub credentials: Credentials,
    /// When to renew; `None` never.
    renew_at: Option<Instant>,
    /// When they stop to be valid; `None` never.
    expires_at: Option<Instant>,
}

#[derive(Default)]
struct Turn {
    failures: u32,
    failed: Option<(Error, Instant)>,
}

impl Identity {
    /// Credentials that are what they are.
    pub(super) fn fixed(credentials: Credentials) -> Arc<Self> {
        let current = Session { credentials, renew_at: None, expires_at: None };
        Arc::new(Self {
            load: None,
            current: ArcSwapOption::from_pointee(current),
            turn: Mutex::default(),
            renewing: AtomicBool::new(false),
            trouble: ArcSwapOption::empty(),
        })
    }

    /// Credentials that `load` gets, the first time when they are asked for.
    pub(super) fn loaded(load: impl Fn() -> Loading + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            load: Some(Box::new(load)),
            current: ArcSwapOption::empty(),
            turn: Mutex::default(),
            renewing: AtomicBool::new(false),
            trouble: ArcSwapOption::empty(),
        })
    }

    /// Valid credentials: at once while there are any, else after loading them.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Arc<Session>, Error> {
        if let Some(current) = self.current.load().as_ref() {
            let now = Instant::now();
            if current.renew_at.is_none_or(|at| now < at) {
                return Ok(Arc::clone(current));
            }
            if current.expires_at.is_none_or(|at| now < at) {
                self.renew();
                return Ok(Arc::clone(current));
            }
        }
        let this = Arc::clone(self);
        // A task of its own: a caller that goes away must not end the load that others wait for.
        tokio::spawn(async move { this.take_turn().await }).await.unwrap_or_else(|error| {
            Err(Error { rejected: false, detail: format!("loading credentials ended early: {error}") })
        })
    }

    /// Gives up credentials that AWS refuses as expired, unless they were replaced already, if others `may` be loaded in
    /// their place. Fixed ones are all that there is. Says whether there are or will be other ones.
    pub(super) fn forget(&self, refused: &Arc<Session>, may: impl FnOnce() -> bool) -> bool {
        if self.load.is_none() {
            return false;
        }
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, refused)) {
            if !may() {
                return false;
            }
            self.current.compare_and_swap(&current, None);
        }
        true
    }

    /// How it stands now.
    pub(super) fn standing(&self) -> Standing {
        let expires_at = self.current.load().as_ref().and_then(|current| current.expires_at);
        Standing {
            expires_in: expires_at.map(|at| at.saturating_duration_since(Instant::now())),
            trouble: self.trouble.load_full(),
        }
    }

    /// Renews beside the calls, unless somebody does.
    fn renew(self: &Arc<Self>) {
        if self.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            // A failure is logged where it happens; the credentials at hand go on serving.
            let _ = this.take_turn().await;
            this.renewing.store(false, Ordering::Release);
        });
    }

    /// Waits for the turn to load, and loads unless that has become needless.
    async fn take_turn(&self) -> Result<Arc<Session>, Error> {
        let mut turn = self.turn.lock().await;
        if let Some(current) = self.current.load().as_ref()
            && current.renew_at.is_none_or(|at| Instant::now() < at)
        {
            return Ok(Arc::clone(current));
        }
        if let Some((error, until)) = &turn.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let Some(load) = &self.load else {
            return Err(Error { rejected: false, detail: "fixed credentials cannot be loaded".to_owned() });
        };
        let loaded = tokio::time::timeout(LOAD_TIMEOUT, load()).await.unwrap_or_else(|_| {
            Err(Error { rejected: false, detail: format!("no answer within {} s", LOAD_TIMEOUT.as_secs()) })
        });
        match loaded {
            Ok(loaded) => {
                *turn = Turn::default();
                self.trouble.store(None);
                let session = Arc::new(Session::new(loaded));
                self.current.store(Some(Arc::clone(&session)));
                Ok(session)
            }
            Err(error) => {
                let pause = BACKOFF.0.saturating_mul(1 << turn.failures.min(5)).min(BACKOFF.1);
                turn.failures += 1;
                turn.failed = Some((error.clone(), Instant::now() + jittered(pause)));
                tracing::warn!(
                    rejected = error.rejected,
                    failures = turn.failures,
                    detail = error.detail,
                    "credentials could not be loaded"
                );
                self.trouble.store(Some(Arc::new(Trouble {
                    at: SystemTime::now(),
                    failures: turn.failures,
                    rejected: error.rejected,
                    detail: error.detail.clone(),
                })));
                Err(error)
            }
        }
    }
}

impl Session {
    fn new(loaded: Loaded) -> Self {
        let now = Instant::now();
        let (renew_in, expires_at) = match loaded.valid_for {
            None => (jittered(RECHECK), None),
            Some(valid_for) => {
                // Between one and one and a half times as early as need be, so that a fleet does not renew as one.
                let early = EARLY.min(valid_for / 4).mul_f64(1.0 + fastrand::f64() / 2.0);
                (valid_for.saturating_sub(early), Some(now + valid_for))
            }
        };
        Self { credentials: loaded.credentials, renew_at: Some(now + renew_in), expires_at }
    }
}

/// Half to all of a pause.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// An [`Identity`] as the SDK takes it.
#[derive(Debug)]
pub(super) struct Provider(pub Arc<Identity>);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        provider::future::ProvideCredentials::new(async {
            let session = self.0.session().await.map_err(CredentialsError::provider_error)?;
            Ok(session.credentials.clone())
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fixed", &self.load.is_none()).finish_non_exhaustive()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::time::{advance, sleep};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// An identity that numbers its credentials, takes a second to load them, and can be told to fail.
    struct Double {
        identity: Arc<Identity>,
        loads: Arc<AtomicU32>,
        failing: Arc<AtomicBool>,
    }

    fn double(valid_for: Option<Duration>) -> Double {
        let loads = Arc::new(AtomicU32::new(0));
        let failing = Arc::new(AtomicBool::new(false));
        let (count, fails) = (Arc::clone(&loads), Arc::clone(&failing));
        let identity = Identity::loaded(move || {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let fails = fails.load(Ordering::SeqCst);
            Box::pin(async move {
                sleep(Duration::from_secs(1)).await;
                if fails {
                    return Err(Error { rejected: false, detail: "STS is down".into() });
                }
                let credentials = Credentials::new(format!("AKID{number}"), "secret", None, None, "test");
                Ok(Loaded { credentials, valid_for })
            })
        });
        Double { identity, loads, failing }
    }

    impl Double {
        async fn id(&self) -> Result<String, Error> {
            self.identity.session().await.map(|session| session.credentials.access_key_id().to_owned())
        }

        fn loads(&self) -> u32 {
            self.loads.load(Ordering::SeqCst)
        }
    }

    /// Lets tasks that are ready run.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_come_together_share_one_load() {
        let double = double(Some(HOUR));
        let calls = (0..50).map(|_| {
            let identity = Arc::clone(&double.identity);
            tokio::spawn(async move { identity.session().await })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap().unwrap().credentials.access_key_id(), "AKID1");
        }
        assert_eq!(double.loads(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_does_not_end_the_load_of_others() {
        let double = double(Some(HOUR));
        let identity = Arc::clone(&double.identity);
        let first = tokio::spawn(async move { identity.session().await });
        settle().await;
        first.abort();
        assert_eq!(double.id().await.unwrap(), "AKID1");
        assert_eq!(double.loads(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_renewed_before_they_expire_without_a_call_waiting() {
        let double = double(Some(HOUR));
        double.id().await.unwrap();
        advance(HOUR - EARLY - EARLY / 2 - Duration::from_secs(2)).await;
        assert_eq!(double.id().await.unwrap(), "AKID1");
        assert_eq!(double.loads(), 1, "too early to renew");

        advance(EARLY / 2 + Duration::from_secs(3)).await;
        let asked = Instant::now();
        assert_eq!(double.id().await.unwrap(), "AKID1", "the valid ones serve meanwhile");
        assert_eq!(asked.elapsed(), Duration::ZERO, "no call waits");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(double.id().await.unwrap(), "AKID2");
        assert_eq!(double.loads(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn while_loading_fails_valid_credentials_serve_and_expired_ones_do_not() {
        let double = double(Some(HOUR));
        double.id().await.unwrap();
        double.failing.store(true, Ordering::SeqCst);
        advance(HOUR - Duration::from_secs(60)).await;
        for _ in 0..10 {
            assert_eq!(double.id().await.unwrap(), "AKID1");
            sleep(Duration::from_millis(500)).await;
        }
        advance(Duration::from_secs(120)).await;
        assert_eq!(double.id().await.unwrap_err().detail, "STS is down");
        double.failing.store(false, Ordering::SeqCst);
        sleep(BACKOFF.1).await;
        assert!(double.id().await.is_ok(), "it recovers");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_source_is_asked_less_and_less_often() {
        let double = double(None);
        double.failing.store(true, Ordering::SeqCst);
        // Ten minutes of a call every 100 ms.
        for _ in 0..6000 {
            assert!(double.id().await.is_err());
            sleep(Duration::from_millis(100)).await;
        }
        let loads = double.loads();
        assert!((15..60).contains(&loads), "{loads} loads in ten minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_aws_calls_expired_are_given_up_once() {
        let double = double(Some(HOUR));
        let first = double.identity.session().await.unwrap();
        assert!(double.identity.forget(&first, || true));
        assert_eq!(double.id().await.unwrap(), "AKID2");
        assert!(double.identity.forget(&first, || false), "there are others, for which nothing is loaded");
        assert_eq!(double.id().await.unwrap(), "AKID2", "the new ones are not given up for the old");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_nobody_may_replace_stay() {
        let double = double(Some(HOUR));
        let first = double.identity.session().await.unwrap();
        assert!(!double.identity.forget(&first, || false));
        assert_eq!((double.id().await.unwrap().as_str(), double.loads()), ("AKID1", 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_calls_while_the_source_fails_ask_it_once() {
        let double = double(Some(HOUR));
        double.failing.store(true, Ordering::SeqCst);
        let calls: Vec<_> = (0..1000)
            .map(|_| {
                let identity = Arc::clone(&double.identity);
                tokio::spawn(async move { identity.session().await.is_err() })
            })
            .collect();
        for call in calls {
            assert!(call.await.unwrap());
        }
        assert_eq!(double.loads(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_renews_at_different_times() {
        let mut renewals = Vec::new();
        for _ in 0..50 {
            let double = double(Some(HOUR));
            let session = double.identity.session().await.unwrap();
            let (renew, expires) = (session.renew_at.unwrap(), session.expires_at.unwrap());
            renewals.push((expires - renew).as_secs());
        }
        let (first, last) = (*renewals.iter().min().unwrap(), *renewals.iter().max().unwrap());
        assert!(first >= 600 && last <= 900 && last - first > 60, "{first} to {last} seconds before the expiry");
    }

    #[tokio::test(start_paused = true)]
    async fn fixed_credentials_are_never_loaded_nor_forgotten() {
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        let identity = Identity::fixed(credentials);
        assert!(!identity.forget(&identity.session().await.unwrap(), || true), "there are no other ones");
        advance(HOUR * 24 * 365).await;
        assert_eq!(identity.session().await.unwrap().credentials.access_key_id(), "AKID");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_hangs_is_given_up() {
        let identity = Identity::loaded(|| Box::pin(std::future::pending()));
        let error = identity.session().await.unwrap_err();
        assert_eq!(error.detail, "no answer within 15 s");
    }
}
