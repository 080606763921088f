//! The certificates that are served with: from when until when they are valid.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;

use super::{
    metrics::Metrics,
    names::{self, CERTIFICATE},
};

/// So long before its end an operator is told of a certificate.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 24 * 60 * 60;

/// What a file's certificates are for, and when all of them are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// `server` or `client_ca`.
    pub role: &'static str,
    /// In seconds since 1970.
    pub from: i64,
    /// The same.
    pub until: i64,
}

/// Those in force.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    all: ArcSwap<Vec<Certificate>>,
    /// When somebody looked last who tells of them, in seconds since 1970.
    looked: AtomicI64,
}

impl Certificate {
    /// How many seconds are left; less than none of one that has expired.
    pub fn left(&self) -> i64 {
        self.until.saturating_sub(now())
    }

    /// What there is to see to, if it is not valid, or not for long.
    pub fn trouble(&self) -> Option<String> {
        let (now, left) = (now(), self.left());
        match left {
            ..0 => Some(format!("has expired, at {}", time(self.until))),
            _ if self.from > now => Some(format!("is not valid before {}", time(self.from))),
            0..SOON => Some(format!("expires in {} days, at {}", left / DAY, time(self.until))),
            _ => None,
        }
    }

    /// Whether its trouble has become another since a time.
    fn turned(&self, since: i64, now: i64) -> bool {
        [self.until.saturating_sub(SOON), self.until].iter().any(|last| (since..now).contains(last))
    }
}

impl Default for Certificates {
    /// None. Whoever loads some tells of those that are not valid then, or not for long.
    fn default() -> Self {
        Self(Arc::new(Kept { all: ArcSwap::default(), looked: AtomicI64::new(now()) }))
    }
}

impl Certificates {
    /// From now on it is these.
    pub fn replace(&self, certificates: Vec<Certificate>) {
        self.0.all.store(Arc::new(certificates));
    }

    /// Logs those that have come near their end, or to it, since the last time.
    pub(super) fn look(&self) {
        let now = now();
        let since = self.0.looked.swap(now, Ordering::Relaxed);
        for certificate in self.all().iter().filter(|certificate| certificate.turned(since, now)) {
            let trouble = certificate.trouble();
            tracing::warn!(certificate = certificate.role, trouble, "a certificate has to be renewed");
        }
    }

    /// Those in force.
    pub fn all(&self) -> Arc<Vec<Certificate>> {
        self.0.all.load_full()
    }

    pub(super) fn observe(&self, metrics: &Metrics) {
        let certificates = self.clone();
        metrics.observe(&names::CERTIFICATE_EXPIRY, move |readings| {
            for certificate in certificates.all().iter() {
                readings.put(certificate.left() as f64, &[(&CERTIFICATE, certificate.role)]);
            }
        });
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn time(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::{self, Read},
        sync::Mutex,
    };

    use super::*;

    const MINUTE: i64 = 60;

    #[test]
    fn an_operator_is_told_of_a_certificate_that_is_not_valid_or_not_for_long() {
        for (from, until, told) in [
            (-30, 90, None),
            (-30, 15, None),
            (-30, 13, Some("expires in 12 days, at 20")),
            (-30, -1, Some("has expired, at 20")),
            (1, 90, Some("is not valid before 20")),
        ] {
            let at = |days: i64| now() + days * DAY - 1;
            let certificate = Certificate { role: "server", from: at(from), until: at(until) };
            let trouble = certificate.trouble();
            assert_eq!(trouble.is_some(), told.is_some(), "{from} {until}: {trouble:?}");
            assert!(trouble.unwrap_or_default().starts_with(told.unwrap_or_default()), "{from} {until}");
        }
    }

    #[test]
    fn a_running_service_tells_once_of_each_end_that_comes_near_or_comes() {
        let metrics = Metrics::new(true, None, 0).unwrap();
        let (mut said, log) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt().with_writer(Mutex::new(log)).with_ansi(false).finish();
        let ends = [-MINUTE, -30, 30, SOON - 30, SOON + 30, 90 * DAY];
        tracing::subscriber::with_default(subscriber, || {
            let certificates = ends.map(|end| Certificate { role: "server", from: 0, until: now() + end });
            metrics.certificates().replace(certificates.to_vec());
            metrics.sample();
            // As if the last time were a minute ago.
            metrics.certificates().0.looked.fetch_sub(MINUTE - 1, Ordering::Relaxed);
            metrics.sample();
            metrics.sample();
        });
        let mut lines = String::new();
        said.read_to_string(&mut lines).unwrap();
        let told: Vec<_> = lines
            .lines()
            .map(|line| line.split_once("trouble=").unwrap().1.trim_start_matches('"').split(' ').nth(1))
            .collect();
        assert_eq!(told, [Some("expired,"), Some("in")], "{lines}");
    }
}
