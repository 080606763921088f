//! The certificates that are served with: from when until when they are valid.

use std::{
    sync::Arc,
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
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<ArcSwap<Vec<Certificate>>>);

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
}

impl Certificates {
    /// From now on it is these.
    pub fn replace(&self, certificates: Vec<Certificate>) {
        self.0.store(Arc::new(certificates));
    }

    /// Those in force.
    pub fn all(&self) -> Arc<Vec<Certificate>> {
        self.0.load_full()
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
    use super::*;

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
}
