//! How often calls are sent again: a few percent of them, and some in reserve, so that an outage is not amplified.
//!
//! Each call puts a twentieth of an attempt aside, and each further attempt takes a whole one (as Finagle's
//! `RetryBudget` and gRFC A6's `retryThrottling` do). An endpoint saves for itself, so that one that is down spends
//! nothing of the others'; all together save too, so that many of them, each with its reserve, are no flood.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// What an attempt costs, in what each call saves.
const ATTEMPT: u32 = 20;
/// The most attempts that an endpoint has in reserve, and all of them together.
const RESERVES: (u32, u32) = (10, 100);

/// What is saved.
#[derive(Debug)]
pub(super) struct Budget {
    saved: AtomicU32,
    most: u32,
    /// What this is a part of.
    whole: Option<Arc<Budget>>,
}

impl Budget {
    /// Of all endpoints.
    pub(super) fn of_all() -> Arc<Self> {
        Arc::new(Self::full(RESERVES.1, None))
    }

    /// Of one endpoint.
    pub(super) fn of_one(all: &Arc<Self>) -> Self {
        Self::full(RESERVES.0, Some(Arc::clone(all)))
    }

    fn full(attempts: u32, whole: Option<Arc<Self>>) -> Self {
        Self { saved: AtomicU32::new(attempts * ATTEMPT), most: attempts * ATTEMPT, whole }
    }

    /// Saves for a call.
    pub(super) fn save(&self) {
        // It is full as long as all is well, which costs a look.
        if self.saved.load(Ordering::Relaxed) < self.most {
            self.saved.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(whole) = &self.whole {
            whole.save();
        }
    }

    /// Spends what an attempt costs, if it is there.
    pub(super) fn spend(&self) -> bool {
        let spend = |saved: u32| saved.checked_sub(ATTEMPT);
        if self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_err() {
            return false;
        }
        let granted = self.whole.as_ref().is_none_or(|whole| whole.spend());
        if !granted {
            self.saved.fetch_add(ATTEMPT, Ordering::Relaxed);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many attempts are granted when each of so many calls asks twice.
    fn granted(budget: &Budget, calls: u32) -> u32 {
        let each = |_| {
            budget.save();
            u32::from(budget.spend()) + u32::from(budget.spend())
        };
        (0..calls).map(each).sum()
    }

    #[test]
    fn an_outage_costs_the_reserve_and_a_twentieth_of_the_calls() {
        let one = Budget::of_one(&Budget::of_all());
        let attempts = granted(&one, 10_000);
        assert!((505..=510).contains(&attempts), "{attempts}");
    }

    #[test]
    fn many_endpoints_have_one_reserve_together_and_one_that_is_down_leaves_the_others_theirs() {
        let all = Budget::of_all();
        let spent: u32 = (0..10_000).map(|_| granted(&Budget::of_one(&all), 1)).sum();
        assert!((595..=600).contains(&spent), "{spent}");
        let (all, calls) = (Budget::of_all(), 100_000);
        let (down, well) = (Budget::of_one(&all), Budget::of_one(&all));
        assert!(granted(&down, calls) <= 10 + calls / 20);
        for _ in 0..calls {
            well.save();
        }
        assert!(well.spend());
    }
}
