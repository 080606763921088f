//! The last failures of a policy's calls, and of all.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

/// How many are kept, of a policy or of all.
const MOST: usize = 8;
/// How many of them may be the callers' own doing: what they do wrong, however variously, must not hide what fails here.
const MOST_OWN: usize = MOST / 2;
/// What has not happened for so long, while calls were answered, has passed: if it happens again, it is counted anew.
const PASSED: Duration = Duration::from_secs(120);

/// A failure, for whoever looks for the last ones.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When the call ended, the latest of several.
    pub at: SystemTime,
    /// When the first of them ended.
    pub since: SystemTime,
    /// How many calls ended so, with nothing else to tell of them than other ids.
    pub count: u64,
    /// As the access line has it.
    pub outcome: &'static str,
    /// As the access line has it.
    pub reason: &'static str,
    /// Whether it is the caller's own doing.
    pub own: bool,
    /// The fields of the call that are wrong. What is wrong with them may differ from call to call, and is one failure.
    pub fields: String,
    /// What the caller was told, or what is wrong with the function's output; empty for an error that the function
    /// reported, whose words are its own.
    pub error: String,
    /// The type of an error that the function reported, made printable.
    pub error_type: Option<String>,
    /// What the operator is told beyond that.
    pub detail: Option<String>,
    /// The gateway's id of the call, if it has one.
    pub request_id: Option<String>,
    /// AWS's id of the request, if there was one.
    pub aws_request_id: Option<String>,
    /// The call's trace, if it has one.
    pub trace_id: Option<String>,
}

/// A policy's last ones, the latest first, each with how many calls had gone well by then.
#[derive(Debug, Default)]
pub(super) struct Failures(VecDeque<(Failure, u64)>);

impl Failure {
    /// Whether there is nothing to tell of the other one that is not told of this one, but ids.
    fn is_like(&self, other: &Self) -> bool {
        let told = |failure: &Self| (failure.outcome, failure.reason);
        let same_fields = !self.fields.is_empty() && self.fields == other.fields;
        let same_words =
            || self.error == other.error && self.error_type == other.error_type && self.detail == other.detail;
        told(self) == told(other) && (same_fields || same_words())
    }
}

impl Failures {
    /// Keeps one: as one more of its like, or else in the place of the oldest one. So a thousand refusals by a breaker
    /// leave what opened it. `well` calls have gone well until now.
    pub(super) fn keep(&mut self, mut failure: Failure, well: u64) {
        if let Some(at) = self.0.iter().position(|(known, _)| known.is_like(&failure))
            && let Some((known, before)) = self.0.remove(at)
        {
            let quiet = failure.at.duration_since(known.at).unwrap_or_default();
            if well == before || quiet < PASSED {
                (failure.since, failure.count) = (known.since, known.count + failure.count);
            }
        }
        self.0.push_front((failure, well));
        if let Some(last) = superfluous(self.0.iter().map(|(failure, _)| failure)) {
            self.0.remove(last);
        }
    }

    /// The latest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Failure> {
        self.0.iter().map(|(failure, _)| failure)
    }

    /// Puts them among those of other policies, of which as many are kept as of one.
    pub(super) fn add_to(&self, policy: &str, all: &mut Vec<(String, Failure)>) {
        for failure in self.iter() {
            let place = all.partition_point(|(_, other)| other.at >= failure.at);
            if place < MOST {
                all.insert(place, (policy.to_owned(), failure.clone()));
                if let Some(last) = superfluous(all.iter().map(|(_, failure)| failure)) {
                    all.remove(last);
                }
            }
        }
    }
}

/// Which one has to go, after one was added to those that may be kept.
fn superfluous<'a>(failures: impl Iterator<Item = &'a Failure> + Clone) -> Option<usize> {
    let beyond = failures.clone().enumerate().filter(|(_, failure)| failure.own).nth(MOST_OWN);
    // The callers' oldest one: the list had no more than it may have before.
    beyond.map(|(at, _)| at).or_else(|| failures.enumerate().nth(MOST).map(|(at, _)| at))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn failure(seconds: u64, reason: &'static str, error: &str) -> Failure {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Failure {
            at,
            since: at,
            count: 1,
            outcome: "error",
            reason,
            own: false,
            fields: String::new(),
            error: error.to_owned(),
            error_type: None,
            detail: None,
            request_id: Some(seconds.to_string()),
            aws_request_id: None,
            trace_id: None,
        }
    }

    fn wrong(seconds: u64, field: &str, error: &str) -> Failure {
        Failure { own: true, fields: field.to_owned(), ..failure(seconds, "INVALID_REQUEST", error) }
    }

    fn told<'a>(failures: impl IntoIterator<Item = &'a Failure>) -> Vec<(&'static str, u64, String)> {
        let told = |failure: &Failure| (failure.reason, failure.count, failure.error.clone());
        failures.into_iter().map(told).collect()
    }

    #[test]
    fn what_opened_a_breaker_is_kept_however_many_calls_it_refuses() {
        let mut kept = Failures::default();
        for round in 0..10 {
            kept.keep(failure(round * 100, "LAMBDA_FAILED", "it broke off"), round);
            kept.keep(failure(round * 100 + 1, "TIMEOUT", "the time was up"), round);
            for call in 2..100 {
                kept.keep(failure(round * 100 + call, "BREAKER_OPEN", "it is left alone"), round);
            }
        }
        let ids: Vec<_> = kept.iter().map(|kept| (kept.reason, kept.count, kept.request_id.as_deref())).collect();
        let expected = [("BREAKER_OPEN", 980, "999"), ("TIMEOUT", 10, "901"), ("LAMBDA_FAILED", 10, "900")];
        assert_eq!(ids, expected.map(|(reason, count, id)| (reason, count, Some(id))), "the latest first");
        let since: Vec<_> = kept.iter().map(|kept| kept.since).collect();
        assert_eq!(since[1], SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    }

    #[test]
    fn what_callers_do_wrong_hides_nothing() {
        let (mut kept, mut other) = (Failures::default(), Failures::default());
        for number in 0..2 {
            kept.keep(failure(number, "LAMBDA_FAILED", "it broke off"), 0);
        }
        for column in 0..30 {
            kept.keep(wrong(10 + column, "json", &format!("json: is not JSON at column {column}")), 0);
        }
        let expected =
            [("INVALID_REQUEST", 30, "json: is not JSON at column 29"), ("LAMBDA_FAILED", 2, "it broke off")];
        assert_eq!(told(kept.iter()), expected.map(|(reason, count, error)| (reason, count, error.to_owned())));
        for field in 0..12 {
            let name = format!("field {field}");
            kept.keep(wrong(50 + field, &name, &format!("{name}: is missing")), 0);
            other.keep(Failure { own: true, ..failure(70 + field, "POLICY_NOT_FOUND", &field.to_string()) }, 0);
        }
        assert_eq!(kept.iter().filter(|failure| failure.own).count(), MOST_OWN);
        assert_eq!(other.iter().count(), MOST_OWN);
        for policies in [[&kept, &other], [&other, &kept]] {
            let mut all = Vec::new();
            policies.into_iter().for_each(|failures| failures.add_to("a", &mut all));
            let told = told(all.iter().map(|(_, failure)| failure));
            assert_eq!((told.len(), told[0].2.as_str(), told[4].0), (MOST_OWN + 1, "11", "LAMBDA_FAILED"), "{told:?}");
        }
    }

    #[test]
    fn what_has_passed_is_counted_anew() {
        let mut kept = Failures::default();
        for (seconds, well, since, count) in [
            (0, 0, 0, 1),
            (60, 40, 0, 2),
            // Nobody called, or nothing went well: it may have lasted all the time.
            (360, 40, 0, 3),
            (660, 200, 660, 1),
            (661, 200, 660, 2),
        ] {
            kept.keep(failure(seconds, "LAMBDA_FAILED", "it broke off"), well);
            let last = kept.iter().next().map(|last| (last.since, last.count));
            assert_eq!(last, Some((SystemTime::UNIX_EPOCH + Duration::from_secs(since), count)), "{seconds}");
        }
    }

    #[test]
    fn of_all_policies_the_latest_failures_are_told() {
        let [mut one, mut other] = [Failures::default(), Failures::default()];
        for number in 0..6 {
            one.keep(failure(number * 2, "TIMEOUT", &number.to_string()), 0);
            other.keep(failure(number * 2 + 1, "TIMEOUT", &number.to_string()), 0);
        }
        let mut all = Vec::new();
        one.add_to("one", &mut all);
        other.add_to("other", &mut all);
        let told: Vec<_> = all.iter().map(|(policy, failure)| (policy.as_str(), failure.error.as_str())).collect();
        let expected = ["5", "4", "3", "2"].map(|error| [("other", error), ("one", error)]);
        assert_eq!(told, expected.concat());
    }

    #[test]
    fn the_latest_failures_are_kept_and_few() {
        let mut kept = Failures::default();
        for number in 0..20 {
            kept.keep(failure(number, "TIMEOUT", &number.to_string()), 0);
        }
        let kept: Vec<_> = kept.iter().map(|failure| failure.error.as_str()).collect();
        assert_eq!(kept, ["19", "18", "17", "16", "15", "14", "13", "12"]);
    }
}
