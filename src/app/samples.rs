//! Has the figures of calls remembered as time passes, so that who opens the page sees what came before.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval_at};

use crate::telemetry::{INTERVAL, Metrics};

/// Takes a sample every [`INTERVAL`], without end.
pub(super) async fn take(metrics: Arc<Metrics>) {
    let mut ticks = interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    // Two at once would be an interval without calls.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.sample();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::{
        error::{Error, Kind},
        policy::Name,
        telemetry::access::Line,
    };

    #[tokio::test(start_paused = true)]
    async fn an_interval_ends_every_ten_seconds() {
        let metrics = Metrics::new(true, None, 0).unwrap();
        let sampling = tokio::spawn(take(Arc::clone(&metrics)));
        sleep(INTERVAL / 2).await;
        for calls in [1, 3, 0, 2] {
            for _ in 0..calls {
                Line::start(&metrics, "test", Name::INLINE).failed(&Error::new(Kind::Timeout, "x"));
            }
            sleep(INTERVAL).await;
        }
        let figures = metrics.figures(Name::INLINE).unwrap();
        assert_eq!(figures.calls(), [1.0, 3.0, 0.0, 2.0, 0.0]);
        assert_eq!(figures.errors(), figures.calls());
        sampling.abort();
    }
}
